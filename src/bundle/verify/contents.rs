//! Frames and contents: every stored byte read, checked and decoded, every content hashed, by all cores.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::{Finding, Reporter, Verified};
use crate::bundle::codec::{Decoder, check_stored};
use crate::bundle::placement::decode_extent;
use crate::bundle::reader::Inner;
use crate::bundle::records::{AssetRow, ContentName, ContentRow, Extent, FrameRow, PREFIX_BYTES, key};
use crate::bundle::tree;
use crate::bundle::values::FrameRef;
use crate::error::{Error, Result};
use crate::ids::ContentHash;

/// Decoded frames that are kept, since neighbouring contents share them.
const KEPT_FRAMES: usize = 4;
/// Contents that a thread takes at once: neighbours, so that few frames are read by two.
const RUN_CONTENTS: usize = 512;
/// Threads at most.
const THREADS_MAX: usize = 64;

/// A walk over the entries of a tree that steps over damage: leaves that can't be read were reported before, so the
/// walk ends there for good.
pub(super) fn each<R>(
    inner: &Inner,
    spec: &'static tree::TreeSpec,
    read: impl Fn(&[u8], &[u8]) -> Option<R>,
    reporter: &mut Reporter<'_>,
    mut take: impl FnMut(R, &mut Reporter<'_>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let Some(mut cursor) = reporter.take(inner.tree(spec).cursor())? else { return Ok(()) };
    loop {
        let next = cursor.next_as(|key, value| read(key.as_slice(), value));
        match reporter.take(next)? {
            Some(Some(item)) => {
                if take(item, reporter)?.is_break() {
                    return Ok(());
                }
            }
            _ => return Ok(()),
        }
    }
}

/// What reading a frame brought.
enum Decoded {
    Bytes(Vec<u8>),
    Bad(String),
}

struct Frames<'b> {
    inner: &'b Inner,
    decoder: Decoder,
    kept: Vec<(u32, Vec<u8>)>,
    bad: HashMap<u32, String>,
    /// How many extents use each frame that was met.
    users: BTreeMap<u32, u32>,
}

pub(super) fn check(inner: &Inner, reporter: &mut Reporter<'_>) -> Result<()> {
    // In the order of their frames, so that a frame that several share is read once.
    let mut order = Vec::new();
    let first_frame = |key: &[u8], value: &[u8]| {
        let row = ContentRow::decode(value)?;
        let first = row.extents.as_ref().and_then(|extents| extents.first().map(|extent| (extent.frame, extent.from)));
        Some((first.unwrap_or_default(), ContentHash(key.try_into().ok()?)))
    };
    each(inner, &tree::CONTENTS, first_frame, reporter, |item, _| {
        order.push(item);
        Ok(ControlFlow::Continue(()))
    })?;
    order.sort_unstable();
    let hashes: Vec<ContentHash> = order.into_iter().map(|(_, hash)| hash).collect();
    let (users, bad) = check_runs(inner, &hashes, reporter)?;
    Frames { users, ..Frames::new(inner) }.rest(reporter)?;
    name_assets(inner, &bad, reporter)
}

/// What checking a run of contents brought.
#[derive(Default)]
struct Run {
    findings: Vec<Finding>,
    verified: Verified,
    users: BTreeMap<u32, u32>,
    /// Contents that can't be had whole, and why.
    bad: Vec<(ContentHash, String)>,
}

/// Users of each frame, and bad contents.
type Checked = (BTreeMap<u32, u32>, HashMap<ContentHash, String>);

/// Checks contents on all cores. Findings are reported in the order of the contents, whichever core makes them.
fn check_runs(inner: &Inner, hashes: &[ContentHash], reporter: &mut Reporter<'_>) -> Result<Checked> {
    let runs: Vec<&[ContentHash]> = hashes.chunks(RUN_CONTENTS).collect();
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX));
    let next = AtomicUsize::new(0);
    let body = |results: mpsc::SyncSender<(usize, Result<Run>)>| {
        let mut frames = Frames::new(inner);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(run) = runs.get(number) else { return };
            // Nobody takes it any more once an error ended the check.
            if results.send((number, frames.run(run))).is_err() {
                return;
            }
        }
    };
    let (mut users, mut bad) = (BTreeMap::new(), HashMap::new());
    let mut merge = |run: Run| {
        run.findings.into_iter().for_each(|finding| reporter.add(finding));
        reporter.verified.contents += run.verified.contents;
        reporter.verified.content_bytes += run.verified.content_bytes;
        for (frame, more) in run.users {
            *users.entry(frame).or_default() += more;
        }
        bad.extend(run.bad);
    };
    std::thread::scope(|scope| {
        let (results, taken) = mpsc::sync_channel(cores);
        for _ in 0..cores.min(runs.len()) {
            let results = results.clone();
            scope.spawn(|| body(results));
        }
        drop(results);
        let mut waiting = BTreeMap::new();
        let mut merged = 0;
        for (number, run) in taken {
            waiting.insert(number, run?);
            while let Some(run) = waiting.remove(&merged) {
                merge(run);
                merged += 1;
            }
        }
        Ok(())
    })?;
    reporter.verified.frames += users.len() as u64;
    Ok((users, bad))
}

impl<'b> Frames<'b> {
    fn new(inner: &'b Inner) -> Self {
        Self { inner, decoder: Decoder::new(), kept: Vec::new(), bad: HashMap::new(), users: BTreeMap::new() }
    }

    fn run(&mut self, hashes: &[ContentHash]) -> Result<Run> {
        let mut run = Run::default();
        let mut report = |finding| run.findings.push(finding);
        let mut reporter = Reporter { report: &mut report, seen: HashSet::new(), verified: Verified::default() };
        for hash in hashes {
            reporter.verified.contents += 1;
            if let Some(why) = self.content(hash, &mut reporter)? {
                run.bad.push((*hash, why));
            }
        }
        run.verified = reporter.verified;
        run.users = std::mem::take(&mut self.users);
        Ok(run)
    }

    /// Why a content can't be had whole, if it can't.
    fn content(&mut self, hash: &ContentHash, reporter: &mut Reporter<'_>) -> Result<Option<String>> {
        let inner = self.inner;
        let extents = match inner.content_row(hash) {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(Some("its content has no record".into())),
            Err(Error::Corrupt { what, .. }) => return Ok(Some(what)),
            Err(error) => return Err(error),
        };
        let mut hasher = blake3::Hasher::new();
        let mut bad = None;
        let mut at = 0;
        if let Some(extents) = &extents.extents {
            for extent in extents {
                at += u64::from(extent.len);
                bad = self.extent(extent, &mut hasher, reporter)?.or(bad);
            }
        } else {
            let mut cursor = inner.tree(&tree::EXTENTS).seek(&hash.0, false)?;
            while at < extents.len {
                let next = cursor.next_as(|key, value| Some((*key, decode_extent(value)?)));
                let next = match next {
                    Err(Error::Corrupt { what, .. }) => return Ok(Some(what)),
                    next => next?,
                };
                let Some((_, extent)) = next.filter(|(key, _)| key.as_slice() == key::extent(hash, at)) else {
                    return Ok(Some(format!("its extents have a gap at byte {at}")));
                };
                at += u64::from(extent.len);
                bad = self.extent(&extent, &mut hasher, reporter)?.or(bad);
            }
        }
        reporter.verified.content_bytes += at;
        if bad.is_none() && (at != extents.len || *hasher.finalize().as_bytes() != hash.0) {
            bad = Some("its bytes do not match its hash".into());
        }
        Ok(bad)
    }

    fn extent(
        &mut self,
        extent: &Extent,
        hasher: &mut blake3::Hasher,
        reporter: &mut Reporter<'_>,
    ) -> Result<Option<String>> {
        *self.users.entry(extent.frame).or_default() += 1;
        if let Some(why) = self.bad.get(&extent.frame) {
            return Ok(Some(format!("frame {}: {why}", extent.frame)));
        }
        if !self.kept.iter().any(|(number, _)| *number == extent.frame) {
            match self.frame(extent.frame, reporter)? {
                Decoded::Bytes(bytes) => {
                    if self.kept.len() >= KEPT_FRAMES {
                        self.kept.remove(0);
                    }
                    self.kept.push((extent.frame, bytes));
                }
                Decoded::Bad(why) => return Ok(Some(format!("frame {}: {why}", extent.frame))),
            }
        }
        let bytes = self.kept.iter().find(|(number, _)| *number == extent.frame).map(|(_, bytes)| bytes);
        let from = extent.from as usize;
        match bytes.and_then(|bytes| bytes.get(from..from.checked_add(extent.len as usize)?)) {
            Some(bytes) => {
                hasher.update(bytes);
                Ok(None)
            }
            None => Ok(Some(format!("it reaches past the end of frame {}", extent.frame))),
        }
    }

    /// Reads, checks and decodes a frame; a bad one is reported, once.
    fn frame(&mut self, number: u32, reporter: &mut Reporter<'_>) -> Result<Decoded> {
        let result = self.inner.frame_row(number).and_then(|row| {
            let row = row.ok_or_else(|| self.inner.corrupt("it has no record"))?;
            self.decode(&row.frame)
        });
        match result {
            Ok(bytes) => Ok(Decoded::Bytes(bytes)),
            Err(Error::Corrupt { what, .. }) => {
                let offset = self.inner.frame_row(number).ok().flatten().map_or(0, |row| row.frame.offset);
                let prefix = format!("frame {number} at byte {offset}");
                let why = what.strip_prefix(&prefix).unwrap_or(&what).trim_start_matches([':', ' ']).to_owned();
                reporter.add(Finding::Frame { number, offset, why: why.clone() });
                self.bad.insert(number, why.clone());
                Ok(Decoded::Bad(why))
            }
            Err(error) => Err(error),
        }
    }

    fn decode(&mut self, frame: &FrameRef) -> Result<Vec<u8>> {
        let frame = self.inner.check_frame(*frame)?;
        let pages = &self.inner.view.pages;
        let stored = pages.read(frame.offset, frame.stored_len as usize, "a frame")?;
        check_stored(&frame, &stored, &pages.file)?;
        let dictionary = match frame.dictionary {
            0 => None,
            number => Some(self.inner.dictionary(number)?),
        };
        let mut decoded = vec![0; frame.decoded_len as usize];
        self.decoder.decode(&frame, dictionary.as_ref(), &stored, &mut decoded, &pages.file)?;
        Ok(decoded)
    }

    /// Frames that no content led to, and the number of users of all.
    fn rest(&mut self, reporter: &mut Reporter<'_>) -> Result<()> {
        let inner = self.inner;
        let read = |key: &[u8], value: &[u8]| FrameRow::decode(key::tail(key)?, value);
        let (mut live, mut padding) = (0u64, 0u64);
        each(inner, &tree::FRAMES, read, reporter, |row, reporter| {
            live += u64::from(row.frame.stored_len);
            padding += u64::from(row.padding);
            let number = row.frame.number;
            let users = self.users.get(&number).copied().unwrap_or(0);
            if users == 0 {
                reporter.verified.frames += 1;
                self.frame(number, reporter)?;
            }
            if users != row.users {
                reporter.table(format!("frame {number} has {users} users, its record says {}", row.users));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let counters = &inner.root.counters;
        if (live, padding) != (counters.live_bytes, counters.padding_bytes) {
            reporter.table(format!(
                "frames have {live} bytes and {padding} of padding, the root page says {} and {}",
                counters.live_bytes, counters.padding_bytes
            ));
        }
        Ok(())
    }
}

/// Names each asset whose content is bad.
fn name_assets(inner: &Inner, bad: &HashMap<ContentHash, String>, reporter: &mut Reporter<'_>) -> Result<()> {
    let prefixes: HashMap<&[u8], ()> = bad.keys().map(|hash| (&hash.0[..PREFIX_BYTES], ())).collect();
    let read = |_: &[u8], value: &[u8]| AssetRow::decode(value);
    each(inner, &tree::ASSETS, read, reporter, |row, reporter| {
        reporter.verified.assets += 1;
        let prefix = match &row.content {
            ContentName::Prefix(prefix) => &prefix[..],
            ContentName::Whole(hash) => &hash[..PREFIX_BYTES],
        };
        let named =
            if prefixes.contains_key(prefix) { reporter.take(inner.content_named(&row.content))? } else { None };
        if let Some((content, _)) = named
            && let Some(why) = bad.get(&content)
            && let Some(path) = reporter.take(inner.path_of(row.folder, &row.name))?
        {
            reporter.add(Finding::Asset { path, content, why: why.clone() });
        }
        Ok(ControlFlow::Continue(()))
    })
}
