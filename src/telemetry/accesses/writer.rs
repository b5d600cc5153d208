//! Writes a trace as it comes, in bounded memory.

use std::collections::HashMap;
use std::io::{self, Write};

use super::format::{self, BLOCK_BYTES_MAX, Block, TraceEnd, TracedAsset, checksum, put, zigzag};
use super::{Access, Level};
use crate::ids::{AssetId, Hashing};
use crate::limits;

/// A block is written when it has this many bytes.
const BLOCK_BYTES: usize = 128 << 10;
/// How hard blocks are compressed: it is done while a program serves.
const COMPRESSION: i32 = 1;
/// Most bytes of an entry: numbers of ten bytes each, or a path beside its asset.
const ENTRY_BYTES_MAX: usize = limits::PATH_BYTES_MAX + 64;

const _: () = assert!(BLOCK_BYTES + ENTRY_BYTES_MAX <= BLOCK_BYTES_MAX);

/// A trace that is being written. What was given is in the file after [`TraceWriter::flush`]; a trace without
/// [`TraceWriter::finish`] reads as one that was cut off.
pub struct TraceWriter<W> {
    inner: W,
    compressor: zstd::bulk::Compressor<'static>,
    /// The number of each asset, and the bytes that the table says it has.
    numbers: HashMap<(AssetId, bool), (u32, u64), Hashing>,
    assets: Pending,
    accesses: Pending,
    /// The time and the asset of the last access.
    last: (u64, u32),
    written: u64,
    missed: u64,
}

/// A block that is being filled.
#[derive(Default)]
struct Pending {
    body: Vec<u8>,
    entries: usize,
}

impl<W: Write> TraceWriter<W> {
    /// Begins a trace at `wall_us`: microseconds since 1970.
    ///
    /// # Errors
    /// Those of writing.
    pub fn new(mut inner: W, wall_us: u64) -> io::Result<TraceWriter<W>> {
        let mut header = Vec::with_capacity(format::FILE_HEADER_BYTES);
        header.extend_from_slice(format::MAGIC);
        header.extend_from_slice(&format::VERSION.to_le_bytes());
        header.extend_from_slice(&[0; 6]);
        header.extend_from_slice(&wall_us.to_le_bytes());
        let sum = checksum(&header, &[]);
        header.extend_from_slice(&sum);
        inner.write_all(&header)?;
        Ok(TraceWriter {
            inner,
            compressor: zstd::bulk::Compressor::new(COMPRESSION)?,
            numbers: HashMap::default(),
            assets: Pending::default(),
            accesses: Pending::default(),
            last: (0, 0),
            written: 0,
            missed: 0,
        })
    }

    /// Writes an access. `describe` is asked once for each asset. One that is earlier than the last counts as at the same
    /// time: times never go back in a trace.
    ///
    /// # Errors
    /// Those of writing.
    pub fn access(&mut self, access: &Access, describe: impl FnOnce() -> TracedAsset) -> io::Result<()> {
        let key = (access.id, access.stored);
        let (number, bytes) = match self.numbers.get(&key) {
            Some(known) => *known,
            None if self.numbers.len() >= format::ASSETS_MAX => {
                self.missed += 1;
                return Ok(());
            }
            None => {
                let asset = describe();
                let number = self.numbers.len() as u32;
                self.numbers.insert(key, (number, asset.bytes));
                self.asset(access, &asset)?;
                (number, asset.bytes)
            }
        };
        let at_us = access.at_us.max(self.last.0);
        let into = &mut self.accesses.body;
        if self.accesses.entries == 0 {
            put(into, at_us);
            self.last = (at_us, 0);
        }
        let other_weight = access.weight != bytes;
        let head = access.level as u8 | (access.priority as u8) << 3 | (access.origin as u8) << 5;
        into.push(head | u8::from(other_weight) << 7);
        put(into, at_us - self.last.0);
        put(into, zigzag(i64::from(number) - i64::from(self.last.1)));
        if other_weight {
            put(into, access.weight);
        }
        if access.level != Level::Hit {
            put(into, u64::from(access.latency_us));
        }
        self.last = (at_us, number);
        self.accesses.entries += 1;
        self.written += 1;
        if self.accesses.is_full() { self.flush() } else { Ok(()) }
    }

    fn asset(&mut self, access: &Access, asset: &TracedAsset) -> io::Result<()> {
        if self.assets.is_full() {
            self.write_assets()?;
        }
        let into = &mut self.assets.body;
        into.extend_from_slice(&access.id.0.to_le_bytes());
        let coding = asset.coding.map_or(0, |coding| coding as u8);
        into.push(asset.kind as u8 | u8::from(access.stored) << 3 | coding << 4);
        put(into, asset.bytes);
        let path = asset.path.as_ref().map_or("", |path| path.as_str());
        put(into, path.len() as u64);
        into.extend_from_slice(path.as_bytes());
        self.assets.entries += 1;
        Ok(())
    }

    /// Writes what is not written yet.
    ///
    /// # Errors
    /// Those of writing.
    pub fn flush(&mut self) -> io::Result<()> {
        // Those that the accesses are of come first.
        self.write_assets()?;
        write(&mut self.inner, &mut self.compressor, Block::Accesses, &mut self.accesses)?;
        self.inner.flush()
    }

    fn write_assets(&mut self) -> io::Result<()> {
        write(&mut self.inner, &mut self.compressor, Block::Assets, &mut self.assets)
    }

    /// Accesses that were written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Ends the trace, which missed so many accesses before they came to it.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self, missed: u64) -> io::Result<(W, TraceEnd)> {
        self.flush()?;
        let missed = self.missed + missed;
        let mut end = Pending { body: Vec::new(), entries: 1 };
        put(&mut end.body, self.written);
        put(&mut end.body, missed);
        write(&mut self.inner, &mut self.compressor, Block::End, &mut end)?;
        self.inner.flush()?;
        Ok((self.inner, TraceEnd::Whole { accesses: self.written, missed }))
    }
}

impl Pending {
    fn is_full(&self) -> bool {
        self.body.len() >= BLOCK_BYTES || self.entries >= format::ENTRIES_MAX
    }
}

/// Writes a block, unless it is empty, and empties it.
fn write(
    into: &mut impl Write,
    compressor: &mut zstd::bulk::Compressor<'_>,
    block: Block,
    pending: &mut Pending,
) -> io::Result<()> {
    if pending.entries == 0 {
        return Ok(());
    }
    let stored = compressor.compress(&pending.body)?;
    let mut header = Vec::with_capacity(format::BLOCK_HEADER_BYTES);
    header.extend_from_slice(&[block as u8, 0, 0, 0]);
    // All of them are bounded far below 2^32.
    for number in [pending.entries, stored.len(), pending.body.len()] {
        header.extend_from_slice(&(number as u32).to_le_bytes());
    }
    let sum = checksum(&header, &stored);
    header.extend_from_slice(&sum);
    into.write_all(&header)?;
    into.write_all(&stored)?;
    pending.body.clear();
    pending.entries = 0;
    Ok(())
}
