//! The texts of two papers, both of blocks of one size.
//!
//! ARC (Megiddo, Modha, FAST 2003): `start count ignored number`, a request for `count` blocks of 512 bytes from
//! `start` on; each block is a request here. LIRS (Jiang, Zhang, SIGMETRICS 2002): the number of a block of 4,096 bytes
//! a line; lines with `*` part phases and are passed over.

use std::io::BufRead;

use super::super::trace::Gathering;
use super::lines;
use crate::error::Result;

const ARC_BLOCK_BYTES: u64 = 512;
const LIRS_BLOCK_BYTES: u64 = 4096;
/// Blocks that one line may ask for: half a gigabyte.
const RUN_MAX: u64 = 1 << 20;

/// Reads ARC's.
pub(super) fn read_arc(source: &mut dyn BufRead, into: &mut Gathering) -> Result<()> {
    lines::each(source, into, |into, line, _| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let (Some(start), Some(count), 4) = (number(0), number(1), words.len()) else {
            return Err("expected four numbers, 'start count ignored number'".into());
        };
        if count == 0 {
            return Err("it asks for no blocks; expected a count of at least 1".into());
        }
        if count > RUN_MAX || start.checked_add(count).is_none() {
            return Err(format!("{count} blocks from {start} on are more than the {RUN_MAX} of one request"));
        }
        (start..start + count).try_for_each(|block| into.request(block, ARC_BLOCK_BYTES))
    })
}

/// Reads LIRS's.
pub(super) fn read_lirs(source: &mut dyn BufRead, into: &mut Gathering) -> Result<()> {
    lines::each(source, into, |into, line, _| {
        if line == "*" {
            return Ok(());
        }
        let block = line.parse().map_err(|_| "expected the number of a block, or '*'".to_owned())?;
        into.request(block, LIRS_BLOCK_BYTES)
    })
}
