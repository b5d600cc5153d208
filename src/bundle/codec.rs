//! Frames: choosing a codec by trial when packing, decoding and checking when loading.
//!
//! Encoders and decoders hold the codecs' contexts and are kept per thread; neither allocates per frame beyond the
//! bytes it hands out.

use std::sync::Arc;

use zstd::zstd_safe::{CParameter, DictAttachPref, Strategy};

use super::values::{Codec, FrameRef};
use crate::config::Layout;
use crate::error::{Error, Result};
use crate::limits;

/// Frames of at least this many bytes are sampled before they are compressed whole.
const SAMPLED_BYTES_MIN: usize = 16 << 10;
/// Bytes compressed as a sample.
const SAMPLE_BYTES: usize = 4 << 10;
/// Decoders keep this many dictionaries prepared.
const PREPARED_MAX: usize = 8;

/// A frame ready to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedFrame {
    /// How it is stored.
    pub codec: Codec,
    /// The dictionary that decodes it; 0 for none.
    pub dictionary: u16,
    /// Bytes before encoding.
    pub decoded_len: u32,
    /// The stored bytes.
    pub stored: Vec<u8>,
    /// BLAKE3 of the stored bytes.
    pub stored_hash: [u8; 32],
}

impl EncodedFrame {
    /// A frame that stores `decoded` as it is.
    pub fn store(decoded: &[u8]) -> Self {
        Self::new(Codec::Store, 0, decoded.len(), decoded.to_vec())
    }

    fn new(codec: Codec, dictionary: u16, decoded_len: usize, stored: Vec<u8>) -> Self {
        let stored_hash = *blake3::hash(&stored).as_bytes();
        Self { codec, dictionary, decoded_len: decoded_len as u32, stored, stored_hash }
    }
}

/// What is known about a frame before it is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeHint {
    /// A dictionary that was added to the encoder; 0, the default, for none.
    pub dictionary: u16,
    /// The content is of a kind that is compressed already (images, audio): unless a sample of it shrinks, it is
    /// stored. Default `false`: only bytes that look random are treated so.
    pub compressed: bool,
}

/// Encodes frames; one per thread.
pub struct Encoder {
    layout: Layout,
    plain: Option<zstd::bulk::Compressor<'static>>,
    dictionaries: Vec<(u16, zstd::bulk::Compressor<'static>)>,
    scratch: Vec<u8>,
    block: Vec<u8>,
}

impl Encoder {
    /// An encoder for bundles of this layout.
    pub fn new(layout: Layout) -> Self {
        let scratch = Vec::with_capacity(zstd::zstd_safe::compress_bound(layout.frame_bytes_max()));
        let plain = zstd::bulk::Compressor::new(level(layout)).ok();
        Self { layout, plain, dictionaries: Vec::new(), scratch, block: Vec::new() }
    }

    /// Prepares a dictionary, under the number that [`super::BundleWriter::put_dictionary`] gave it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when zstd refuses it.
    pub fn add_dictionary(&mut self, number: u16, dictionary: &[u8]) -> Result<()> {
        let refuse =
            |error: std::io::Error| Error::Unsupported { what: format!("dictionary {number}"), why: error.to_string() };
        let mut compressor = zstd::bulk::Compressor::with_dictionary(level(self.layout), dictionary).map_err(refuse)?;
        compressor.set_parameter(CParameter::DictIdFlag(false)).map_err(refuse)?;
        if self.layout == Layout::Access {
            // Levels 1 and 2 index a dictionary too coarsely. With these, frames of HTML are an eighth smaller at
            // the same speed, and a twentieth larger than with level 3 in half its time. A frame looks into the
            // prepared dictionary instead of beginning with a copy of its index, which is quicker for 64 KiB.
            for parameter in [
                CParameter::HashLog(15),
                CParameter::MinMatch(7),
                CParameter::Strategy(Strategy::ZSTD_fast),
                CParameter::ForceAttachDict(DictAttachPref::ForceAttach),
            ] {
                compressor.set_parameter(parameter).map_err(refuse)?;
            }
        }
        self.dictionaries.retain(|(known, _)| *known != number);
        self.dictionaries.push((number, compressor));
        Ok(())
    }

    /// Encodes a frame of 1 byte to [`Layout::frame_bytes_max`]: with the codec that gains enough to be worth
    /// decoding, or stored. Never fails: what a codec refuses is stored.
    pub fn encode(&mut self, decoded: &[u8], hint: EncodeHint) -> EncodedFrame {
        let store = || EncodedFrame::store(decoded);
        if self.looks_compressed(decoded, hint) {
            return store();
        }
        let prepared = self.dictionaries.iter_mut().find(|(number, _)| *number == hint.dictionary);
        let (dictionary, compressor) = match prepared {
            Some((number, compressor)) => (*number, Some(compressor)),
            None => (0, self.plain.as_mut()),
        };
        let Some(compressor) = compressor else { return store() };
        self.scratch.clear();
        self.scratch.reserve(zstd::zstd_safe::compress_bound(decoded.len()));
        let Ok(len) = compressor.compress_to_buffer(decoded, &mut self.scratch) else { return store() };
        if len > most(self.layout, decoded.len()) {
            return store();
        }
        // Where zstd gains little, what it gains is mostly repeats, which LZ4 finds too and decodes faster.
        if self.layout == Layout::Access
            && len > decoded.len() / 4 * 3
            && let Some(block) = self.lz4(decoded, len + len / 32)
        {
            return block;
        }
        EncodedFrame::new(Codec::Zstd, dictionary, decoded.len(), self.scratch[..len].to_vec())
    }

    /// Encoded with LZ4, if that takes no more than `most` bytes.
    fn lz4(&mut self, decoded: &[u8], most: usize) -> Option<EncodedFrame> {
        self.block.resize(lz4_flex::block::get_maximum_output_size(decoded.len()), 0);
        let len = lz4_flex::block::compress_into(decoded, &mut self.block).ok().filter(|len| *len <= most)?;
        Some(EncodedFrame::new(Codec::Lz4, 0, decoded.len(), self.block[..len].to_vec()))
    }

    /// A cheap guess that saves compressing what was compressed before: the bytes are spread like random ones, or,
    /// where that is likely by its kind, a sample does not shrink.
    fn looks_compressed(&mut self, decoded: &[u8], hint: EncodeHint) -> bool {
        if decoded.len() < SAMPLED_BYTES_MIN {
            return false;
        }
        if !hint.compressed || self.layout == Layout::Dense {
            return is_spread(decoded);
        }
        let middle = decoded.len() / 2 - SAMPLE_BYTES / 2;
        let sample = &decoded[middle..middle + SAMPLE_BYTES];
        let Some(compressor) = self.plain.as_mut() else { return true };
        self.scratch.clear();
        let len = compressor.compress_to_buffer(sample, &mut self.scratch).unwrap_or(usize::MAX);
        len > most(self.layout, SAMPLE_BYTES)
    }
}

/// zstd's level. On 554 MB of HTML in frames of 64 KiB with a dictionary, level 1 takes 0.86 s of one core and gives
/// 50.1 MB, level 2 0.92 s and 43.7 MB, level 3 1.23 s and 40.9 MB; in frames of 1 MiB level 3 takes 0.72 s.
fn level(layout: Layout) -> i32 {
    match layout {
        Layout::Access => 2,
        Layout::Dense => 3,
    }
}

/// The most stored bytes that are worth a decoder's time: for `access` a sixteenth must be gained, for `dense`
/// a 256th.
fn most(layout: Layout, decoded_len: usize) -> usize {
    match layout {
        Layout::Access => decoded_len - decoded_len.div_ceil(16),
        Layout::Dense => decoded_len - decoded_len.div_ceil(256),
    }
}

/// Whether byte values are spread as evenly as in random bytes, by four runs of a kilobyte. The sum of squared
/// counts of n random bytes is about n * n / 256 + n.
fn is_spread(bytes: &[u8]) -> bool {
    const RUN: usize = 1024;
    const RUNS: usize = 4;
    let mut counts = [0u32; 256];
    let step = (bytes.len() - RUN) / (RUNS - 1);
    for run in 0..RUNS {
        for byte in &bytes[run * step..run * step + RUN] {
            counts[usize::from(*byte)] += 1;
        }
    }
    let n = (RUN * RUNS) as u64;
    let squares: u64 = counts.iter().map(|count| u64::from(*count) * u64::from(*count)).sum();
    squares < n * n / 256 + n + n / 2
}

/// Decodes frames; one per thread.
pub struct Decoder {
    plain: Option<zstd::bulk::Decompressor<'static>>,
    prepared: Vec<(Arc<[u8]>, zstd::bulk::Decompressor<'static>)>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder; its contexts come with the first frame that needs them.
    pub fn new() -> Self {
        Self { plain: None, prepared: Vec::new() }
    }

    /// Decodes `stored`, whose hash the caller has checked (see [`check_stored`]), into `into`, which must be
    /// exactly as long as the frame's decoded bytes. `file` names the bundle in errors.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the bytes are not what the frame's record says; `into` holds anything then.
    pub fn decode(
        &mut self,
        frame: &FrameRef,
        dictionary: Option<&Arc<[u8]>>,
        stored: &[u8],
        into: &mut [u8],
        file: &str,
    ) -> Result<()> {
        let corrupt =
            |why: &str| Error::corrupt(file, format!("frame {} at byte {}: {why}", frame.number, frame.offset));
        if stored.len() != frame.stored_len as usize || into.len() != frame.decoded_len as usize {
            return Err(corrupt("it has another length than its record says"));
        }
        let len = match (frame.codec, dictionary) {
            (Codec::Store, _) => {
                if stored.len() != into.len() {
                    return Err(corrupt("it has another length than its record says"));
                }
                into.copy_from_slice(stored);
                Some(into.len())
            }
            (Codec::Lz4, _) => lz4_flex::block::decompress_into(stored, into).ok(),
            (Codec::Zstd, None) if frame.dictionary != 0 => return Err(corrupt("its dictionary was not given")),
            (Codec::Zstd, dictionary) => {
                let context = match dictionary.filter(|_| frame.dictionary != 0) {
                    None => self.plain()?,
                    Some(dictionary) => self.prepared(dictionary)?,
                };
                context.decompress_to_buffer(stored, into).ok()
            }
        };
        match len {
            Some(len) if len == into.len() => Ok(()),
            Some(_) => Err(corrupt("it decodes to another length than its record says")),
            None => Err(corrupt("it does not decode")),
        }
    }

    fn plain(&mut self) -> Result<&mut zstd::bulk::Decompressor<'static>> {
        match &mut self.plain {
            Some(context) => Ok(context),
            none => Ok(none.insert(zstd::bulk::Decompressor::new().map_err(no_context)?)),
        }
    }

    fn prepared(&mut self, dictionary: &Arc<[u8]>) -> Result<&mut zstd::bulk::Decompressor<'static>> {
        let index = match self.prepared.iter().position(|(known, _)| Arc::ptr_eq(known, dictionary)) {
            Some(index) => index,
            None => {
                if self.prepared.len() >= PREPARED_MAX {
                    self.prepared.remove(0);
                }
                let context = zstd::bulk::Decompressor::with_dictionary(dictionary).map_err(no_context)?;
                self.prepared.push((Arc::clone(dictionary), context));
                self.prepared.len() - 1
            }
        };
        Ok(&mut self.prepared[index].1)
    }
}

fn no_context(error: std::io::Error) -> Error {
    Error::Unsupported { what: "a zstd decoder".into(), why: error.to_string() }
}

/// Checks a frame's stored bytes against the hash in the table of contents.
///
/// # Errors
/// [`Error::Corrupt`] with the frame's number and address.
pub fn check_stored(frame: &FrameRef, stored: &[u8], file: &str) -> Result<()> {
    if stored.len() == frame.stored_len as usize && *blake3::hash(stored).as_bytes() == frame.stored_hash {
        return Ok(());
    }
    let what = format!("frame {} at byte {} does not match its hash", frame.number, frame.offset);
    Err(Error::corrupt(file, what))
}

const _: () = assert!(SAMPLED_BYTES_MIN >= 4 * SAMPLE_BYTES && SAMPLED_BYTES_MIN <= limits::FRAME_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn frame_of(encoded: &EncodedFrame) -> FrameRef {
        FrameRef {
            number: 0,
            offset: 8192,
            stored_len: encoded.stored.len() as u32,
            decoded_len: encoded.decoded_len,
            codec: encoded.codec,
            dictionary: encoded.dictionary,
            stored_hash: encoded.stored_hash,
        }
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    #[track_caller]
    fn check(layout: Layout, decoded: &[u8], hint: EncodeHint, codec: Codec) {
        let encoded = Encoder::new(layout).encode(decoded, hint);
        assert_eq!(encoded.codec, codec);
        let frame = frame_of(&encoded);
        check_stored(&frame, &encoded.stored, "t").unwrap();
        let mut into = vec![0; decoded.len()];
        Decoder::new().decode(&frame, None, &encoded.stored, &mut into, "t").unwrap();
        assert_eq!(into, decoded);
    }

    #[test]
    fn the_codec_is_chosen_by_what_it_gains() {
        let text = "the quick brown fox jumps over the lazy dog ".repeat(1000);
        for layout in [Layout::Access, Layout::Dense] {
            check(layout, text.as_bytes(), EncodeHint::default(), Codec::Zstd);
            check(layout, &noise(40_000), EncodeHint::default(), Codec::Store);
            check(layout, &noise(40_000), EncodeHint { compressed: true, ..EncodeHint::default() }, Codec::Store);
            check(layout, b"x", EncodeHint::default(), Codec::Store);
        }
        let part_zero = |(at, byte): (usize, u8)| if at % 1000 < 200 { 0 } else { byte };
        let mixed: Vec<u8> = noise(40_000).into_iter().enumerate().map(part_zero).collect();
        check(Layout::Access, &mixed, EncodeHint::default(), Codec::Lz4);
    }

    #[test]
    fn a_dictionary_serves_many_small_frames_and_is_needed_to_decode_them() {
        let text: Vec<u8> = (0..2000u32).flat_map(|at| format!("entry {at} of the list; ").into_bytes()).collect();
        let dictionary: Arc<[u8]> = text.clone().into();
        let mut encoder = Encoder::new(Layout::Access);
        encoder.add_dictionary(3, &dictionary).unwrap();
        let encoded = encoder.encode(&text[500..1500], EncodeHint { dictionary: 3, compressed: false });
        assert_eq!((encoded.codec, encoded.dictionary), (Codec::Zstd, 3));
        let frame = frame_of(&encoded);
        let mut decoder = Decoder::new();
        let mut into = vec![0; 1000];
        for _ in 0..2 {
            decoder.decode(&frame, Some(&dictionary), &encoded.stored, &mut into, "t").unwrap();
            assert_eq!(into, text[500..1500]);
        }
        assert!(decoder.decode(&frame, None, &encoded.stored, &mut into, "t").is_err());
    }

    #[test]
    fn bytes_that_are_not_what_the_record_says_are_an_error() {
        let text = b"abcabcabcabc".repeat(100);
        let encoded = Encoder::new(Layout::Access).encode(&text, EncodeHint::default());
        let frame = frame_of(&encoded);
        let mut into = vec![0; text.len()];
        let mut decoder = Decoder::new();
        assert!(check_stored(&frame, &encoded.stored[1..], "t").is_err());
        assert!(decoder.decode(&frame, None, &encoded.stored[1..], &mut into, "t").is_err());
        assert!(decoder.decode(&frame, None, &encoded.stored, &mut into[1..], "t").is_err());
        let longer = FrameRef { decoded_len: frame.decoded_len + 1, ..frame };
        let mut into = vec![0; text.len() + 1];
        assert!(decoder.decode(&longer, None, &encoded.stored, &mut into, "t").is_err());
    }
}
