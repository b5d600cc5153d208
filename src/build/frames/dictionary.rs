//! Training a dictionary for the small files of a group, when it pays.
//!
//! Everything is bounded and a function of the contents alone: which files are sampled, in which order, how large the
//! dictionary becomes, and whether it pays on frames that were set aside.

use super::{Bytes, decoded};
use crate::build::plan::{Item, Plan};
use crate::bundle::{EncodeHint, Encoder};
use crate::config::Layout;
use crate::error::Result;

/// Groups with fewer shared frames are not worth a dictionary.
const FRAMES_MIN: usize = 32;
/// Files sampled at most. Whole files, since the ends of files are as alike as their starts.
const SAMPLES_MAX: usize = 300;
/// Bytes sampled at most.
const SAMPLE_BYTES_MAX: usize = 3 << 20;
/// Largest dictionary. On the 48,625 pages of the Rust documentation, 112 KiB from 300 pages saved 18 %, and
/// neither more samples nor a larger dictionary saved more.
const DICTIONARY_BYTES_MAX: usize = 112 << 10;
/// A dictionary has at most this part of the bytes that it is for.
const DICTIONARY_PART: u64 = 64;
/// Training is tried when a few untrained files save at least this part of their own size.
const WORTH_TRAINING_PART: usize = 2;
/// Frames set aside to see whether it pays.
const TRIAL_FRAMES: usize = 6;

/// The shared frames of each group.
pub(super) fn shared_frames(plan: &Plan) -> Vec<Vec<usize>> {
    let mut shared = vec![Vec::new(); plan.group_count as usize];
    for (number, frame) in plan.frames.iter().enumerate().filter(|(_, frame)| frame.shared) {
        shared[frame.group as usize].push(number);
    }
    shared
}

/// Whether a group has enough shared frames for a dictionary.
pub(super) fn is_enough(shared: &[usize]) -> bool {
    shared.len() >= FRAMES_MIN
}

/// A dictionary for a group that has enough `shared` frames, or `None` when it does not pay.
pub(super) fn train(
    shared: &[usize],
    items: &[Item],
    plan: &Plan,
    bytes: &dyn Bytes,
    layout: Layout,
) -> Result<Option<Vec<u8>>> {
    let trial: Vec<usize> =
        (0..TRIAL_FRAMES).map(|at| shared[(2 * at + 1) * shared.len() / (2 * TRIAL_FRAMES)]).collect();
    let total: u64 = shared.iter().map(|&frame| plan.frames[frame].bytes()).sum();
    let size = (total / DICTIONARY_PART).min(DICTIONARY_BYTES_MAX as u64) as usize;
    // Pieces that are whole files, but for those in the frames set aside.
    let whole: Vec<u32> = shared
        .iter()
        .filter(|frame| !trial.contains(frame))
        .flat_map(|&frame| &plan.frames[frame].pieces)
        .filter(|piece| piece.range == (0..items[piece.item as usize].len))
        .map(|piece| piece.item)
        .collect();
    let whole_bytes: u64 = whole.iter().map(|&item| items[item as usize].len).sum();
    let mut group = Group { trial, shared: shared.len(), encoder: Encoder::new(layout), items, plan, bytes };
    // Training is slow where files have nothing in common. Whether they have shows with a few files as they are.
    let some = (whole.len() as u64 * size as u64 / whole_bytes.max(1)).max(1) as usize;
    let (few, _) = group.sample(&whole, some, size)?;
    if few.is_empty() || group.saved(&few)? < few.len() / WORTH_TRAINING_PART {
        return Ok(None);
    }
    let most = (whole.len() as u64 * SAMPLE_BYTES_MAX as u64 / whole_bytes.max(1)) as usize;
    let (samples, sizes) = group.sample(&whole, SAMPLES_MAX.min(most), SAMPLE_BYTES_MAX)?;
    // Too few or too uniform samples are refused; then there is no dictionary.
    let Ok(dictionary) = zstd::dict::from_continuous(&samples, &sizes, size) else { return Ok(None) };
    let pays = group.saved(&dictionary)? > dictionary.len() + dictionary.len() / 4;
    Ok(pays.then_some(dictionary))
}

/// A group of frames that a dictionary may be for.
struct Group<'a> {
    /// The frames set aside.
    trial: Vec<usize>,
    /// How many frames share it.
    shared: usize,
    encoder: Encoder,
    items: &'a [Item],
    plan: &'a Plan,
    bytes: &'a dyn Bytes,
}

impl Group<'_> {
    /// `count` of the `whole` files, evenly spread, as far as they fit into `most` bytes; and how long each is.
    fn sample(&self, whole: &[u32], count: usize, most: usize) -> Result<(Vec<u8>, Vec<usize>)> {
        let mut samples = Vec::with_capacity(most);
        let mut sizes = Vec::with_capacity(count);
        for at in 0..count.min(whole.len()) {
            let item = whole[at * whole.len() / count] as usize;
            let len = self.items[item].len as usize;
            if samples.len() + len > most {
                continue;
            }
            match self.bytes.borrow(item) {
                Some(content) => samples.extend_from_slice(content),
                None => self.bytes.read(item, 0..self.items[item].len, &mut samples)?,
            }
            sizes.push(len);
        }
        Ok((samples, sizes))
    }

    /// Bytes that a dictionary saves in all frames, going by those set aside.
    fn saved(&mut self, dictionary: &[u8]) -> Result<usize> {
        self.encoder.add_dictionary(1, dictionary)?;
        let (mut plain, mut with) = (0, 0);
        let mut scratch = Vec::new();
        for &frame in &self.trial {
            let decoded = decoded(&self.plan.frames[frame], self.bytes, &mut scratch)?;
            plain += self.encoder.encode(decoded, EncodeHint::default()).stored.len();
            with += self.encoder.encode(decoded, EncodeHint { dictionary: 1, compressed: false }).stored.len();
        }
        Ok(plain.saturating_sub(with) * self.shared / self.trial.len())
    }
}
