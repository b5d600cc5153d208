//! libCacheSim's oracleGeneral: packed little-endian records of a time (u32), an id (u64), a size (u32), and the number
//! of the request that asks for the same next (i64, -1 for none).
//! Source: github.com/1a1a11a/libCacheSim, libCacheSim/traceReader/customizedReader/oracle.

use std::io::BufRead;

use super::super::trace::Gathering;
use super::order::Order;
use crate::error::{Error, Result};

const RECORD_BYTES: usize = 24;

struct Record {
    time: u32,
    id: u64,
    size: u32,
    next: i64,
}

fn record(bytes: &[u8; RECORD_BYTES]) -> Record {
    // Each range is as long as its number.
    let part = |from: usize, len: usize| {
        let mut word = [0; 8];
        word[..len].copy_from_slice(&bytes[from..from + len]);
        u64::from_le_bytes(word)
    };
    Record { time: part(0, 4) as u32, id: part(4, 8), size: part(12, 4) as u32, next: part(16, 8) as i64 }
}

/// Whether a file that begins like this may be one: times that do not go back and next uses that lie ahead.
pub(super) fn looks_like(head: &[u8]) -> bool {
    let (records, _) = head.as_chunks::<RECORD_BYTES>();
    let records: Vec<Record> = records.iter().take(64).map(record).collect();
    let ahead = |(at, record): (usize, &Record)| record.next < 0 || record.next > at as i64;
    !records.is_empty()
        && records.windows(2).all(|pair| pair[0].time <= pair[1].time)
        && records.iter().enumerate().all(ahead)
}

/// Reads all of it.
pub(super) fn read(source: &mut dyn BufRead, into: &mut Gathering) -> Result<()> {
    let mut order = Order::default();
    for at in (0u64..).step_by(RECORD_BYTES) {
        let refused = |name: &str, why: String| Error::trace(name, format!("byte {at}"), why);
        let mut bytes = [0; RECORD_BYTES];
        let got =
            fill(source, &mut bytes).map_err(|error| refused(into.name(), format!("cannot be read on: {error}")))?;
        if got == 0 {
            break;
        }
        if got < RECORD_BYTES {
            let why = format!("truncated: {got} of {RECORD_BYTES} bytes of an oracleGeneral record");
            return Err(refused(into.name(), why));
        }
        let record = record(&bytes);
        order.see(f64::from(record.time), || format!("byte {at}"));
        if let Err(why) = into.request(record.id, u64::from(record.size)) {
            return Err(refused(into.name(), why));
        }
    }
    order.finish(into)
}

/// Reads until `into` is full or the source ends. Bytes read.
fn fill(source: &mut dyn BufRead, into: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        let found = source.fill_buf()?;
        let taken = found.len().min(into.len() - got);
        if taken == 0 {
            break;
        }
        into[got..got + taken].copy_from_slice(&found[..taken]);
        source.consume(taken);
        got += taken;
    }
    Ok(got)
}
