//! Reads a trace piece by piece. A trace is from anywhere: nothing is believed that a bound or a checksum does not hold.

use std::io::{self, Read};

use super::format::{self, Coding, TraceEnd, TracedAsset, checksum, take, unzigzag};
use super::{Access, Level};
use crate::error::{Error, Result};
use crate::ids::{AssetId, AssetKind, AssetPath, Origin, Priority};

/// The table of assets may take so many bytes for each byte of the file, and so many in any case: what compresses better is
/// made to fill memory.
const TABLE_TIMES: u64 = 256;
const TABLE_BYTES_FREE: u64 = 64 << 20;
/// What an asset of the table takes beside its path, about.
const ASSET_BYTES: u64 = 96;

/// The accesses of a trace, in the order of their times. An error ends them.
///
/// ```no_run
/// use flyloft::telemetry::accesses::TraceReader;
/// let file = std::io::BufReader::new(std::fs::File::open("day.flytrace")?);
/// let mut trace = TraceReader::new(file, "day.flytrace")?;
/// while let Some(access) = trace.next() {
///     let access = access?;
///     println!("{} {} {:?}", access.at_us, access.weight, access.level);
/// }
/// println!("{} assets", trace.assets().len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TraceReader<R> {
    inner: R,
    name: String,
    wall_us: u64,
    /// Bytes read of whole blocks.
    at: u64,
    assets: Vec<TracedAsset>,
    table_bytes: u64,
    /// The block that is being given out, in reverse.
    block: Vec<Access>,
    last_us: u64,
    given: u64,
    end: Option<TraceEnd>,
    failed: bool,
}

impl<R: Read> TraceReader<R> {
    /// Begins to read a trace; `name` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Trace`] when it is none, or of a version that is not known here.
    pub fn new(mut inner: R, name: &str) -> Result<TraceReader<R>> {
        let refuse = |why: &str| Err(Error::trace(name, "", why));
        let mut header = [0; format::FILE_HEADER_BYTES];
        let got = read_full(&mut inner, &mut header, name)?;
        let is_trace = got >= format::MAGIC.len() && header.starts_with(format::MAGIC);
        if !is_trace {
            return refuse("it does not begin as a trace does");
        }
        if got < header.len() {
            return refuse("it is cut off before its first block");
        }
        let (front, sum) = header.split_at(format::FILE_HEADER_BYTES - 8);
        if checksum(front, &[]) != sum {
            return refuse("its first 32 bytes do not match their checksum");
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != format::VERSION || header[10..16] != [0; 6] {
            return refuse(&format!("it is of version {version}, and version {} is read here", format::VERSION));
        }
        let wall_us = u64::from_le_bytes(array(&header[16..24]));
        Ok(TraceReader {
            inner,
            name: name.to_owned(),
            wall_us,
            at: header.len() as u64,
            assets: Vec::new(),
            table_bytes: 0,
            block: Vec::new(),
            last_us: 0,
            given: 0,
            end: None,
            failed: false,
        })
    }

    /// When it was begun: microseconds since 1970.
    pub fn wall_us(&self) -> u64 {
        self.wall_us
    }

    /// The assets that were named so far, each before the first access to it; all of them after the last access. An access
    /// is to the one with its `id` and `stored`.
    pub fn assets(&self) -> &[TracedAsset] {
        &self.assets
    }

    /// How it ended; `None` before the last access was given, and after an error.
    pub fn end(&self) -> Option<TraceEnd> {
        self.end
    }

    fn corrupt(&self, what: &str) -> Error {
        let why = format!("{what}, in the block at byte {}; what stands before is sound", self.at);
        Error::trace(self.name.clone(), "", why)
    }

    /// Reads blocks until one has accesses, or there is none any more.
    fn fill(&mut self) -> Result<()> {
        while self.block.is_empty() && self.end.is_none() {
            self.read_block()?;
        }
        Ok(())
    }

    fn read_block(&mut self) -> Result<()> {
        let mut header = [0; format::BLOCK_HEADER_BYTES];
        if read_full(&mut self.inner, &mut header, &self.name)? < header.len() {
            self.end = Some(TraceEnd::Cut { at: self.at });
            return Ok(());
        }
        let number = |at: usize| u32::from_le_bytes(array(&header[at..at + 4])) as usize;
        let (entries, stored_len, decoded_len) = (number(4), number(8), number(12));
        if stored_len > format::STORED_BYTES_MAX
            || decoded_len > format::BLOCK_BYTES_MAX
            || entries > format::ENTRIES_MAX
        {
            return Err(self.corrupt("a size is beyond what a block may have"));
        }
        let mut stored = vec![0; stored_len];
        if read_full(&mut self.inner, &mut stored, &self.name)? < stored_len {
            self.end = Some(TraceEnd::Cut { at: self.at });
            return Ok(());
        }
        let (front, sum) = header.split_at(format::BLOCK_HEADER_BYTES - 8);
        if checksum(front, &stored) != sum {
            return Err(self.corrupt("its bytes do not match their checksum"));
        }
        let decoded = zstd::bulk::decompress(&stored, decoded_len).ok().filter(|decoded| decoded.len() == decoded_len);
        let Some(decoded) = decoded else { return Err(self.corrupt("it cannot be decompressed")) };
        let mut body = decoded.as_slice();
        let whole = match header[..4] {
            [1, 0, 0, 0] => self.read_assets(entries, &mut body)?,
            [2, 0, 0, 0] => self.read_accesses(entries, &mut body),
            [3, 0, 0, 0] => self.read_end(&mut body),
            _ => return Err(self.corrupt("it is of a kind that is not known here")),
        };
        if whole.is_none() || !body.is_empty() {
            return Err(self.corrupt("its entries contradict themselves"));
        }
        self.at += (header.len() + stored_len) as u64;
        Ok(())
    }

    fn read_assets(&mut self, entries: usize, body: &mut &[u8]) -> Result<Option<()>> {
        if self.assets.len() + entries > format::ASSETS_MAX {
            return Err(self.corrupt("there are more assets than a trace may have"));
        }
        for _ in 0..entries {
            let Some(asset) = asset(body) else { return Ok(None) };
            self.table_bytes += ASSET_BYTES + asset.path.as_ref().map_or(0, |path| path.as_str().len() as u64);
            if self.table_bytes > TABLE_BYTES_FREE.max(self.at.saturating_mul(TABLE_TIMES)) {
                return Err(self.corrupt("its assets take far more memory than its bytes are worth"));
            }
            self.assets.push(asset);
        }
        Ok(Some(()))
    }

    fn read_accesses(&mut self, entries: usize, body: &mut &[u8]) -> Option<()> {
        let (mut at_us, mut number) = (take(body)?, 0i64);
        if at_us < self.last_us {
            return None;
        }
        // Each entry is at least three bytes: what is allocated is bounded by what is there.
        let mut block = Vec::with_capacity(entries.min(body.len() / 3 + 1));
        for _ in 0..entries {
            let (&head, rest) = body.split_first()?;
            *body = rest;
            at_us = at_us.checked_add(take(body)?)?;
            number = number.checked_add(unzigzag(take(body)?))?;
            let asset = self.assets.get(usize::try_from(number).ok()?)?;
            let weight = if head >> 7 == 1 { take(body)? } else { asset.bytes };
            let level = Level::ALL[usize::from(head & 7)];
            let latency = if level == Level::Hit { 0 } else { take(body)? };
            let origin = [Origin::User, Origin::Predictor, Origin::System];
            block.push(Access {
                id: asset.id,
                stored: asset.stored,
                at_us,
                weight,
                level,
                priority: Priority::ALL[usize::from(head >> 3 & 3)],
                origin: *origin.get(usize::from(head >> 5 & 3))?,
                latency_us: u32::try_from(latency).ok()?,
            });
        }
        self.last_us = at_us;
        block.reverse();
        self.block = block;
        Some(())
    }

    fn read_end(&mut self, body: &mut &[u8]) -> Option<()> {
        let (accesses, missed) = (take(body)?, take(body)?);
        if accesses != self.given {
            return None;
        }
        self.end = Some(TraceEnd::Whole { accesses, missed });
        Some(())
    }
}

impl<R: Read> Iterator for TraceReader<R> {
    type Item = Result<Access>;

    fn next(&mut self) -> Option<Result<Access>> {
        if self.failed {
            return None;
        }
        if self.block.is_empty()
            && let Err(error) = self.fill()
        {
            self.failed = true;
            self.end = None;
            return Some(Err(error));
        }
        let access = self.block.pop()?;
        self.given += 1;
        Some(Ok(access))
    }
}

fn asset(body: &mut &[u8]) -> Option<TracedAsset> {
    let (id, rest) = body.split_at_checked(8)?;
    let (&flags, rest) = rest.split_first()?;
    *body = rest;
    let bytes = take(body)?;
    let len = usize::try_from(take(body)?).ok()?;
    let (path, rest) = body.split_at_checked(len)?;
    *body = rest;
    let id = AssetId(u64::from_le_bytes(array(id)));
    let path = match path {
        [] => None,
        path => Some(AssetPath::new(std::str::from_utf8(path).ok()?).ok()?),
    };
    let coding = match flags >> 4 {
        0 => None,
        number => Some(*Coding::ALL.get(usize::from(number) - 1)?),
    };
    let kind = AssetKind::from_number(flags & 7)?;
    Some(TracedAsset { id, stored: flags >> 3 & 1 == 1, path, bytes, kind, coding })
}

/// The first bytes of a slice that has as many.
fn array<const N: usize>(from: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&from[..N]);
    array
}

/// Reads until `into` is full or nothing is left; gives how many bytes that were.
fn read_full(from: &mut impl Read, into: &mut [u8], name: &str) -> Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match from.read(&mut into[got..]) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", name, error)),
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests;
