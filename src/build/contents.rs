//! Reading contents back out of a bundle, frame by frame, each checked: for validation, unpacking and compaction.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::bundle::{Bundle, Decoder, FrameRef, check_stored};
use crate::error::{Error, Result};
use crate::ids::ContentHash;

/// Decoded frames that are kept: neighbouring small contents share one.
const KEPT_MAX: usize = 8;
/// How much of a large content is looked up at once.
const LOOKUP_BYTES: u64 = 64 << 20;

/// Reads contents of one generation; one per thread.
pub struct ContentReader {
    bundle: Bundle,
    file: String,
    decoder: Decoder,
    dictionaries: HashMap<u16, Arc<[u8]>>,
    kept: VecDeque<(u32, Arc<Vec<u8>>)>,
    stored: Vec<u8>,
}

impl ContentReader {
    /// Reads from the generation that `bundle` is.
    pub fn new(bundle: &Bundle) -> Self {
        Self {
            bundle: bundle.clone(),
            file: bundle.info().file.clone(),
            decoder: Decoder::new(),
            dictionaries: HashMap::new(),
            kept: VecDeque::new(),
            stored: Vec::new(),
        }
    }

    /// The same reader for another generation of the same bundle: dictionaries, which are slow to prepare, are kept.
    pub fn moved_to(mut self, bundle: &Bundle) -> Self {
        self.bundle = bundle.clone();
        self.kept.clear();
        self
    }

    /// The decoded bytes of a frame.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when its stored bytes do not match their hash, and what the storage says.
    pub fn frame(&mut self, frame: &FrameRef) -> Result<Arc<Vec<u8>>> {
        if let Some((_, decoded)) = self.kept.iter().find(|(number, _)| *number == frame.number) {
            return Ok(Arc::clone(decoded));
        }
        self.stored.resize(frame.stored_len as usize, 0);
        self.bundle.storage().read_exact_at(frame.offset, &mut self.stored).map_err(|error| {
            Error::io(format!("read {} bytes at {}", frame.stored_len, frame.offset), &self.file, error)
        })?;
        check_stored(frame, &self.stored, &self.file)?;
        if frame.dictionary != 0 && !self.dictionaries.contains_key(&frame.dictionary) {
            self.dictionaries.insert(frame.dictionary, self.bundle.dictionary(frame.dictionary)?);
        }
        let mut decoded = vec![0; frame.decoded_len as usize];
        let dictionary = self.dictionaries.get(&frame.dictionary);
        self.decoder.decode(frame, dictionary, &self.stored, &mut decoded, &self.file)?;
        let decoded = Arc::new(decoded);
        if self.kept.len() >= KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((frame.number, Arc::clone(&decoded)));
        Ok(decoded)
    }

    /// Hands a range of a content to `sink`, part by part.
    ///
    /// # Errors
    /// Those of [`ContentReader::frame`], and what `sink` says.
    pub fn content(
        &mut self,
        hash: &ContentHash,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + LOOKUP_BYTES);
            let placement = self
                .bundle
                .placement(hash, at..end)?
                .ok_or_else(|| Error::corrupt(&self.file, format!("content {hash} is not in the bundle")))?;
            let mut got = 0;
            for piece in &placement.pieces {
                let decoded = self.frame(&piece.frame)?;
                let part = decoded
                    .get(piece.from as usize..piece.from as usize + piece.len as usize)
                    .ok_or_else(|| Error::corrupt(&self.file, format!("content {hash} is longer than its frames")))?;
                sink(part)?;
                got += part.len() as u64;
            }
            if got != end - at {
                return Err(Error::corrupt(&self.file, format!("content {hash} is shorter than it says")));
            }
            at = end;
        }
        Ok(())
    }

    /// All of a content of `len` bytes, checked against its hash while it is handed to `sink`.
    ///
    /// # Errors
    /// Those of [`ContentReader::content`], and [`Error::Corrupt`] when the whole does not match its hash.
    pub fn checked(&mut self, hash: &ContentHash, len: u64, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut hasher = blake3::Hasher::new();
        self.content(hash, 0..len, &mut |part| {
            hasher.update(part);
            sink(part)
        })?;
        if *hasher.finalize().as_bytes() == hash.0 {
            return Ok(());
        }
        Err(Error::corrupt(&self.file, format!("content {hash} does not match its hash")))
    }
}
