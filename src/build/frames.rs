//! From contents to frames in a bundle: cutting, planning, dictionaries, encoding by several threads, and writing in
//! an order that does not depend on them.

mod dictionary;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;

use super::parallel::{self, lock};
use super::plan::{self, Item, Plan, PlannedFrame};
use super::{Progress, split};
use crate::bundle::{BundleWriter, EncodeHint, EncodedFrame, Encoder};
use crate::config::Layout;
use crate::error::{Error, Result};
use crate::ids::{AssetKind, AssetPath};

type Compressor = zstd::bulk::Compressor<'static>;

/// Encoded frames that may wait to be written, per thread.
const AHEAD_PER_THREAD: usize = 32;

/// Frames encoded at most while dictionaries are trained.
const EARLY_MAX: usize = 1024;

/// Frames that were encoded before their turn, by number.
type Early = Mutex<HashMap<usize, EncodedFrame>>;

/// The bytes of contents that are to be laid out.
pub(super) trait Bytes: Sync {
    /// All bytes of a content, if they are in memory.
    fn borrow(&self, number: usize) -> Option<&[u8]>;

    /// Appends a part of a content to `into`.
    fn read(&self, number: usize, range: Range<u64>, into: &mut Vec<u8>) -> Result<()>;
}

/// Where a content came to lie: frame number, first byte within it, bytes.
pub(super) type Pieces = Vec<(u32, u32, u32)>;

/// Encoders that are kept from one build to the next, since their contexts are large and dictionaries slow to prepare.
pub(super) struct Encoders {
    layout: Layout,
    idle: Mutex<Vec<(Encoder, Vec<u16>)>>,
}

impl Encoders {
    pub fn new(layout: Layout) -> Self {
        Self { layout, idle: Mutex::default() }
    }

    fn take(&self) -> (Encoder, Vec<u16>) {
        lock(&self.idle).pop().unwrap_or_else(|| (Encoder::new(self.layout), Vec::new()))
    }
}

/// An encoder on loan.
struct Loan<'a> {
    encoders: &'a Encoders,
    encoder: Option<(Encoder, Vec<u16>)>,
    scratch: Vec<u8>,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        lock(&self.encoders.idle).extend(self.encoder.take());
    }
}

/// Dictionaries by the extension of the files that they are for, lower-case.
#[derive(Debug, Default)]
pub(super) struct Dictionaries {
    pub by_extension: HashMap<String, u16>,
    /// Their bytes, by number.
    pub bytes: HashMap<u16, Vec<u8>>,
}

impl Dictionaries {
    fn of(&self, path: &AssetPath) -> u16 {
        let found = |extension| self.by_extension.get(extension).copied().unwrap_or(0);
        match path.extension() {
            Some(extension) if extension.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                found(extension.to_ascii_lowercase().as_str())
            }
            extension => found(extension.unwrap_or("")),
        }
    }
}

/// What lays contents out.
pub(super) struct Layer<'a> {
    pub writer: &'a mut BundleWriter,
    pub encoders: &'a Encoders,
    pub dictionaries: &'a mut Dictionaries,
    pub threads: usize,
    /// Whether dictionaries may be trained: only when most of a tree is laid out anew.
    pub train: bool,
    pub progress: &'a dyn Progress,
}

impl Layer<'_> {
    /// Writes the contents, given in layout order as path and length. Calls `planned` when it is known which frames
    /// there will be. Returns where each content lies.
    ///
    /// # Errors
    /// Those of reading the contents and of writing. [`Error::DiskFull`] says how many bytes were still to be written.
    pub fn lay_out(
        &mut self,
        contents: &[(AssetPath, u64)],
        bytes: &dyn Bytes,
        planned: impl FnOnce(),
    ) -> Result<Vec<Pieces>> {
        let layout = self.writer.layout();
        let frame_bytes_max = layout.frame_bytes_max();
        let cuts = parallel::map(
            self.threads,
            contents,
            || (Vec::new(), None),
            |state, number, (_, len)| cuts(bytes, number, *len, frame_bytes_max, state),
        );
        let mut items = Vec::with_capacity(contents.len());
        for ((path, len), cuts) in contents.iter().zip(cuts) {
            items.push(Item { path: path.clone(), len: *len, cuts: cuts? });
        }
        let plan = plan::plan(&items, frame_bytes_max as u64);
        planned();
        let early =
            if self.train && layout == Layout::Access { self.train(&items, &plan, bytes)? } else { Early::default() };
        self.encode(&items, &plan, bytes, early)
    }

    /// Trains dictionaries. Answers frames that other threads encoded meanwhile, of groups that get none.
    fn train(&mut self, items: &[Item], plan: &Plan, bytes: &dyn Bytes) -> Result<Early> {
        let mut trainable = vec![true; plan.group_count as usize];
        for (item, group) in items.iter().zip(&plan.groups) {
            if is_compressed(&item.path) {
                trainable[*group as usize] = false;
            }
        }
        let shared = dictionary::shared_frames(plan);
        let groups: Vec<(u32, Vec<usize>)> = (0..plan.group_count)
            .zip(shared)
            .filter(|(group, shared)| trainable[*group as usize] && dictionary::is_enough(shared))
            .collect();
        if groups.is_empty() {
            return Ok(Early::default());
        }
        let plain: Vec<usize> = (0..plan.frames.len())
            .filter(|&frame| groups.iter().all(|(group, _)| *group != plan.frames[frame].group))
            .collect();
        let encoders = self.encoders;
        let (trained, early) = parallel::beside(
            self.threads,
            plain.len().min(EARLY_MAX),
            || Loan::new(encoders),
            |loan, at| loan.encode(&plan.frames[plain[at]], items, bytes, &Dictionaries::default()),
            || {
                parallel::map_each(self.threads, &groups, |(_, shared)| {
                    dictionary::train(shared, items, plan, bytes, encoders.layout)
                })
            },
        );
        for ((group, _), trained) in groups.iter().zip(trained) {
            let Some(dictionary) = trained? else { continue };
            let number = self.writer.put_dictionary(dictionary.clone())?;
            self.dictionaries.bytes.insert(number, dictionary);
            for (item, of) in items.iter().zip(&plan.groups) {
                if of == group {
                    let extension = item.path.extension().unwrap_or("").to_ascii_lowercase();
                    self.dictionaries.by_extension.entry(extension).or_insert(number);
                }
            }
        }
        early.into_iter().map(|(at, frame)| Ok((plain[at], frame?))).collect::<Result<_>>().map(Mutex::new)
    }

    fn encode(&mut self, items: &[Item], plan: &Plan, bytes: &dyn Bytes, early: Early) -> Result<Vec<Pieces>> {
        let mut pieces: Vec<Pieces> = vec![Vec::new(); items.len()];
        let total: u64 = plan.frames.iter().map(PlannedFrame::bytes).sum();
        let mut done = 0;
        let mut full: Option<Error> = None;
        let mut missing_bytes = 0;
        let (encoders, dictionaries, writer) = (self.encoders, &*self.dictionaries, &mut *self.writer);
        parallel::ordered(
            self.threads,
            plan.frames.len(),
            AHEAD_PER_THREAD * self.threads,
            || Loan::new(encoders),
            |loan, number| {
                // A statement of its own: in the head of a `match` the lock would be held while the frame is encoded.
                let encoded = lock(&early).remove(&number);
                encoded.map_or_else(|| loan.encode(&plan.frames[number], items, bytes, dictionaries), Ok)
            },
            |number, frame| {
                let (frame, planned) = (frame?, &plan.frames[number]);
                done += planned.bytes();
                self.progress.step(done, total, "pack");
                if full.is_some() {
                    missing_bytes += frame.stored.len() as u64;
                    return Ok(());
                }
                let put = match writer.put_frame(&frame) {
                    Ok(put) => put,
                    Err(error @ Error::DiskFull { .. }) => {
                        // The rest is encoded all the same: whoever makes room must know how much.
                        missing_bytes = frame.stored.len() as u64;
                        full = Some(error);
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                };
                let mut from = 0;
                for piece in &planned.pieces {
                    let len = (piece.range.end - piece.range.start) as u32;
                    pieces[piece.item as usize].push((put, from, len));
                    from += len;
                }
                Ok(())
            },
        )?;
        match full {
            Some(Error::DiskFull { path, needed_bytes, standing }) => {
                Err(Error::DiskFull { path, needed_bytes: needed_bytes + missing_bytes, standing })
            }
            Some(error) => Err(error),
            None => {
                sort_pieces(&mut pieces, plan);
                Ok(pieces)
            }
        }
    }
}

/// The end of a content may be in a frame that is written before those of its start: then its pieces are out of order.
fn sort_pieces(pieces: &mut [Pieces], plan: &Plan) {
    let mut starts: Vec<Vec<u64>> = vec![Vec::new(); pieces.len()];
    for piece in plan.frames.iter().flat_map(|frame| &frame.pieces) {
        starts[piece.item as usize].push(piece.range.start);
    }
    for (pieces, starts) in pieces.iter_mut().zip(starts) {
        if !starts.is_sorted() {
            let mut both: Vec<_> = starts.into_iter().zip(pieces.drain(..)).collect();
            both.sort_by_key(|(start, _)| *start);
            pieces.extend(both.into_iter().map(|(_, piece)| piece));
        }
    }
}

impl<'a> Loan<'a> {
    fn new(encoders: &'a Encoders) -> Self {
        Self { encoders, encoder: Some(encoders.take()), scratch: Vec::new() }
    }

    fn encode(
        &mut self,
        frame: &PlannedFrame,
        items: &[Item],
        bytes: &dyn Bytes,
        dictionaries: &Dictionaries,
    ) -> Result<EncodedFrame> {
        let first = &items[frame.pieces[0].item as usize];
        let mut hint = EncodeHint { dictionary: dictionaries.of(&first.path), compressed: is_compressed(&first.path) };
        let (encoder, known) = self.encoder.as_mut().expect("a loan has its encoder until it is dropped");
        if hint.dictionary != 0 && !known.contains(&hint.dictionary) {
            match dictionaries.bytes.get(&hint.dictionary) {
                Some(dictionary) => {
                    encoder.add_dictionary(hint.dictionary, dictionary)?;
                    known.push(hint.dictionary);
                }
                None => hint.dictionary = 0,
            }
        }
        let decoded = decoded(frame, bytes, &mut self.scratch)?;
        Ok(encoder.encode(decoded, hint))
    }
}

/// The bytes of a frame; copied only when they are not one after the other in memory already.
fn decoded<'a>(frame: &PlannedFrame, bytes: &'a dyn Bytes, scratch: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    if let [piece] = frame.pieces.as_slice()
        && let Some(content) = bytes.borrow(piece.item as usize)
    {
        return Ok(&content[piece.range.start as usize..piece.range.end as usize]);
    }
    scratch.clear();
    for piece in &frame.pieces {
        match bytes.borrow(piece.item as usize) {
            Some(content) => {
                scratch.extend_from_slice(&content[piece.range.start as usize..piece.range.end as usize]);
            }
            None => bytes.read(piece.item as usize, piece.range.clone(), scratch)?,
        }
    }
    Ok(scratch)
}

/// Where a content is cut by its own bytes; nowhere when it is small or does not compress.
fn cuts(
    bytes: &dyn Bytes,
    number: usize,
    len: u64,
    frame_bytes_max: usize,
    state: &mut (Vec<u8>, Option<Compressor>),
) -> Result<Vec<u64>> {
    let (scratch, compressor) = state;
    if !split::is_large(len, frame_bytes_max as u64) {
        return Ok(Vec::new());
    }
    let mut after = 0;
    for start in split::samples(len) {
        let range = start..start + split::SAMPLE_BYTES as u64;
        let sample = match bytes.borrow(number) {
            Some(content) => &content[range.start as usize..range.end as usize],
            None => {
                scratch.clear();
                bytes.read(number, range, scratch)?;
                &scratch[..]
            }
        };
        if compressor.is_none() {
            *compressor = Compressor::new(1).ok();
        }
        let shrunk = compressor.as_mut().and_then(|compressor| compressor.compress(sample).ok());
        after += shrunk.map_or(sample.len(), |shrunk| shrunk.len());
    }
    if !split::is_worth(3 * split::SAMPLE_BYTES, after) {
        return Ok(Vec::new());
    }
    if let Some(content) = bytes.borrow(number) {
        return Ok(split::cuts(content, frame_bytes_max));
    }
    let mut cuts = Vec::new();
    let (mut at, mut read) = (0, 0);
    scratch.clear();
    while at < len {
        // A window slides over the content; it is filled when less than a frame is left in it.
        let used = (at + (scratch.len() as u64) - read) as usize;
        let window = scratch.len() - used;
        if window < frame_bytes_max && read < len {
            scratch.drain(..used);
            let end = len.min(read + (8 * frame_bytes_max) as u64);
            bytes.read(number, read..end, scratch)?;
            read = end;
            continue;
        }
        let end = scratch.len().min(used + frame_bytes_max);
        at += split::first_cut(&scratch[used..end], frame_bytes_max) as u64;
        cuts.push(at);
    }
    Ok(cuts)
}

/// Whether files of this name hold bytes that were compressed already.
fn is_compressed(path: &AssetPath) -> bool {
    const COMPRESSED: [&str; 24] = [
        "png", "jpg", "jpeg", "webp", "avif", "gif", "ogg", "oga", "opus", "mp3", "aac", "m4a", "flac", "mp4", "webm",
        "mkv", "gz", "xz", "zst", "bz2", "zip", "7z", "woff", "woff2",
    ];
    let kind = path.kind();
    if matches!(kind, AssetKind::Shader | AssetKind::Scene | AssetKind::Mesh) {
        return false;
    }
    path.extension().is_some_and(|extension| COMPRESSED.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}
