//! A storage in memory that remembers what was written and when it was flushed, so that a test can cut it anywhere;
//! and short cuts to make assets.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::codec::{Decoder, EncodeHint, EncodedFrame, Encoder, check_stored};
use super::{AssetPut, Bundle, BundleWriter, ContentPut, Params};
use crate::config::Layout;
use crate::error::Result;
use crate::ids::{AssetPath, ContentHash};
use crate::storage::{Mapped, ReadAt, WriteAt};

/// Something that happened to a storage.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write(u64, Vec<u8>),
    Sync,
}

#[derive(Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    steps: Vec<Step>,
    capacity: Option<u64>,
    sync_fails: bool,
}

impl Memory {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn with(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { bytes, ..State::default() }) })
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.state.lock().bytes.clone()
    }

    pub fn steps(&self) -> Vec<Step> {
        self.state.lock().steps.clone()
    }

    /// From here on the storage is full at this many bytes.
    pub fn fill_at(&self, capacity: Option<u64>) {
        self.state.lock().capacity = capacity;
    }

    pub fn fail_syncs(&self, fails: bool) {
        self.state.lock().sync_fails = fails;
    }
}

struct Copied(Vec<u8>);

impl Mapped for Copied {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl ReadAt for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().bytes.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock();
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let bytes = start.checked_add(into.len()).and_then(|end| state.bytes.get(start..end));
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn map(&self, len: u64) -> io::Result<Option<Box<dyn Mapped>>> {
        let state = self.state.lock();
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(state.bytes.len());
        Ok(Some(Box::new(Copied(state.bytes[..len].to_vec()))))
    }

    fn name(&self) -> String {
        "memory.loft".into()
    }
}

impl WriteAt for Memory {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let end = offset as usize + bytes.len();
        if state.capacity.is_some_and(|capacity| end as u64 > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.bytes.len() < end {
            state.bytes.resize(end, 0);
        }
        state.bytes[offset as usize..end].copy_from_slice(bytes);
        state.steps.push(Step::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.sync_fails {
            return Err(io::Error::other("the disk is gone"));
        }
        state.steps.push(Step::Sync);
        Ok(())
    }
}

pub(crate) fn path(text: &str) -> AssetPath {
    AssetPath::new(text).unwrap()
}

pub(crate) fn writer(layout: Layout) -> (Arc<Memory>, BundleWriter) {
    let memory = Memory::new();
    let writer = BundleWriter::create(memory.clone(), Params::new(layout)).unwrap();
    (memory, writer)
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Puts a content as frames of `frame` bytes each.
pub(crate) fn content(writer: &mut BundleWriter, bytes: &[u8], frame: usize) -> ContentPut {
    try_content(writer, bytes, frame).unwrap()
}

pub(crate) fn try_content(writer: &mut BundleWriter, bytes: &[u8], frame: usize) -> Result<ContentPut> {
    let mut encoder = Encoder::new(writer.layout());
    let mut pieces = Vec::new();
    for part in bytes.chunks(frame) {
        let encoded = encoder.encode(part, EncodeHint::default());
        pieces.push((writer.put_frame(&encoded)?, 0, part.len() as u32));
    }
    Ok(ContentPut::New { hash: ContentHash::of(bytes), len: bytes.len() as u64, pieces })
}

pub(crate) fn asset(text: &str, content: ContentPut, dependencies: &[&str]) -> AssetPut {
    let path = path(text);
    AssetPut {
        kind: path.kind(),
        path,
        executable: false,
        content,
        dependencies: dependencies.iter().map(|text| AssetPath::new(text).unwrap()).collect(),
        build: None,
    }
}

/// Puts an asset of a single stored or compressed frame.
pub(crate) fn small(writer: &mut BundleWriter, text: &str, bytes: &[u8], dependencies: &[&str]) -> AssetPut {
    let content = content(writer, bytes, 64 << 10);
    asset(text, content, dependencies)
}

/// The bytes of a range of a content, as a runtime would load them: read, checked, decoded.
pub(crate) fn load(bundle: &Bundle, hash: &ContentHash, range: std::ops::Range<u64>) -> Result<Option<Vec<u8>>> {
    let Some(placement) = bundle.placement(hash, range)? else { return Ok(None) };
    let mut decoder = Decoder::new();
    let mut bytes = Vec::new();
    let file = &bundle.info().file;
    for piece in &placement.pieces {
        let mut stored = vec![0; piece.frame.stored_len as usize];
        bundle
            .storage()
            .read_exact_at(piece.frame.offset, &mut stored)
            .map_err(|source| crate::Error::io("read a frame", file, source))?;
        check_stored(&piece.frame, &stored, file)?;
        let dictionary = match piece.frame.dictionary {
            0 => None,
            number => Some(bundle.dictionary(number)?),
        };
        let mut decoded = vec![0; piece.frame.decoded_len as usize];
        decoder.decode(&piece.frame, dictionary.as_ref(), &stored, &mut decoded, file)?;
        bytes.extend_from_slice(&decoded[piece.from as usize..(piece.from + piece.len) as usize]);
    }
    Ok(Some(bytes))
}

/// A frame that stores these bytes.
pub(crate) fn stored(bytes: &[u8]) -> EncodedFrame {
    EncodedFrame::store(bytes)
}
