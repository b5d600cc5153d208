//! Where pages come from: out of a mapping, or read one by one where mapping is off. A page is hashed when it is
//! first used and then remembered, by address, length and hash, so that generations share what they know.
//!
//! A mapped page may differ the next time it is looked at, since another process may write to the file; so
//! remembering a page saves the hash and nothing else: whoever decodes it checks bounds every time.

use std::collections::HashMap;
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::page::{Fault, PageRef};
use crate::error::{Error, Result};
use crate::ids::Hashing;
use crate::limits;
use crate::storage::{Advice, Mapped, ReadAt};

const SHARDS: usize = 16;
/// Pages kept when mapping is off, over all shards: 16 MiB of full pages.
const KEPT_PAGES_MAX: usize = 4096;
/// Dictionaries kept; beyond it they are read again.
const KEPT_DICTIONARIES_MAX: usize = 64;

/// Which mapped pages were checked, as marks in a table without locks. A mark that is overwritten by another costs a
/// second hash of its page, nothing else. A mark is a part of the hash that the parent names and of the address: who
/// could make two of them alike writes the parent, and might as well name the true hash.
///
/// The table comes into being in parts, where it is used: opening a large bundle costs no more than a small one.
struct Checked {
    parts: Box<[OnceLock<Box<[AtomicU64; PART_MARKS]>>]>,
    marks: usize,
}

/// Most marks in the table: half a MiB.
const MARKS_MAX: u64 = 1 << 16;
/// Least.
const MARKS_MIN: u64 = 1 << 12;
/// Marks of a part: 4 KiB.
const PART_MARKS: usize = 512;
/// Places that a mark may stand in.
const WAYS: usize = 4;

impl Checked {
    fn new(room: u64) -> Self {
        let marks = room.clamp(MARKS_MIN, MARKS_MAX).next_power_of_two() as usize;
        Self { parts: std::iter::repeat_with(OnceLock::new).take(marks / PART_MARKS).collect(), marks }
    }

    /// The first place of a mark, and the mark; never 0.
    fn mark(&self, at: &PageRef) -> (usize, u64) {
        let [a, b, c, d, e, f, g, h, rest @ ..] = at.hash;
        let place = usize::from(u16::from_le_bytes([rest[0], rest[1]])) & (self.marks - WAYS);
        (place, (u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ at.offset.rotate_left(32) ^ u64::from(at.len)) | 1)
    }

    fn has(&self, at: &PageRef) -> bool {
        let (place, mark) = self.mark(at);
        let Some(part) = self.parts[place / PART_MARKS].get() else { return false };
        let place = place % PART_MARKS;
        part[place..place + WAYS].iter().any(|known| known.load(Ordering::Relaxed) == mark)
    }

    fn add(&self, at: &PageRef) {
        let (place, mark) = self.mark(at);
        let part = self.parts[place / PART_MARKS].get_or_init(|| Box::new([const { AtomicU64::new(0) }; PART_MARKS]));
        // The ways of a place lie within a part, since both are powers of two.
        let ways = &part[place % PART_MARKS..][..WAYS];
        let free = ways.iter().find(|known| known.load(Ordering::Relaxed) == 0);
        let victim = &ways[usize::from(at.hash[31]) % WAYS];
        free.unwrap_or(victim).store(mark, Ordering::Relaxed);
    }
}

/// Where pages were used for the first time, by windows of the file, so that the rest of a window is fetched when it is
/// worth it. The system is told to fetch nothing by itself around a page that is touched: what stands there is mostly
/// something else, and a cold look-up would wait for all of it. But who uses a second page of a window will want more.
///
/// Windows that are [`WINDOWS`] apart share their marks, which costs a fetch too many or too few.
#[derive(Default)]
struct Touched(OnceLock<Box<[AtomicU64; WINDOWS / 32]>>);

/// Bytes of a window.
const WINDOW_BYTES: u64 = 512 << 10;
/// Windows with marks of their own: 8 GiB of file.
const WINDOWS: usize = 1 << 14;

impl Touched {
    /// Notes that a page at `offset` is used. The window, when that is the second time.
    fn note(&self, offset: u64) -> Option<Range<u64>> {
        let window = offset / WINDOW_BYTES;
        let (place, shift) = (window as usize % WINDOWS, window % 32 * 2);
        let word = &self.0.get_or_init(|| Box::new([const { AtomicU64::new(0) }; WINDOWS / 32]))[place / 32];
        let (once, twice) = (1 << shift, 2 << shift);
        let before = word.load(Ordering::Relaxed);
        if before & twice != 0 {
            return None;
        }
        let mark = if before & once == 0 { once } else { twice };
        let before = word.fetch_or(mark, Ordering::Relaxed);
        let start = window * WINDOW_BYTES;
        (mark == twice && before & twice == 0).then(|| start..start.saturating_add(WINDOW_BYTES))
    }
}

/// Bytes that were read, by where they stand.
type Kept = HashMap<PageRef, Arc<[u8]>, Hashing>;

/// What all generations of one storage share.
pub(crate) struct Pages {
    pub storage: Arc<dyn ReadAt>,
    pub file: String,
    pub mapping: bool,
    checked: Checked,
    touched: Touched,
    /// The mapping that was made last.
    newest: Mutex<Option<Weak<dyn Mapped>>>,
    kept: [Mutex<Kept>; SHARDS],
    pub dictionaries: Mutex<Kept>,
}

impl Pages {
    pub fn new(storage: Arc<dyn ReadAt>, mapping: bool) -> Self {
        let file = storage.name();
        // Pages are about 4 KiB; a writer's file will grow.
        let room = if mapping { storage.len().unwrap_or(0) / 2048 } else { 0 };
        Self {
            storage,
            file,
            mapping,
            checked: Checked::new(room),
            touched: Touched::default(),
            newest: Mutex::default(),
            kept: Default::default(),
            dictionaries: Mutex::default(),
        }
    }

    pub fn corrupt(&self, what: impl std::fmt::Display) -> Error {
        Error::corrupt(&self.file, what.to_string())
    }

    /// The bytes at `range`, read into memory. The caller has checked `len` against a limit.
    pub fn read(&self, offset: u64, len: usize, what: &str) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.storage.read_exact_at(offset, &mut bytes).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                self.corrupt(format_args!("{what} at byte {offset} reaches past the end of the file"))
            }
            _ => Error::io(format!("read {len} bytes at {offset}"), &self.file, source),
        })?;
        Ok(bytes)
    }

    /// A checked byte string that is not a page and is not remembered.
    pub fn read_checked(&self, at: &PageRef, what: &str) -> Result<Vec<u8>> {
        let bytes = self.read(at.offset, at.len as usize, what)?;
        if *blake3::hash(&bytes).as_bytes() != at.hash {
            return Err(self.corrupt(format_args!("{what} at byte {} does not match its hash", at.offset)));
        }
        Ok(bytes)
    }

    /// A mapping of the first `end` bytes: the newest one there is, as long as it reaches so far.
    fn map(&self, end: u64) -> Result<Option<Arc<dyn Mapped>>> {
        let mut newest = self.newest.lock();
        if let Some(map) = newest.as_ref().and_then(Weak::upgrade).filter(|map| map.grow(end)) {
            return Ok(Some(map));
        }
        let map = self.storage.map(end).map_err(|source| Error::io(format!("map {end} bytes"), &self.file, source))?;
        let Some(map) = map.map(Arc::<dyn Mapped>::from) else { return Ok(None) };
        // A refusal costs what it would have saved.
        drop(map.advise(0..map.bytes().len(), Advice::Scattered));
        *newest = Some(Arc::downgrade(&map));
        Ok(Some(map))
    }

    pub fn keep_dictionary(&self, at: PageRef, bytes: &Arc<[u8]>) {
        let mut kept = self.dictionaries.lock();
        if kept.len() >= KEPT_DICTIONARIES_MAX {
            kept.clear();
        }
        kept.insert(at, Arc::clone(bytes));
    }
}

/// One generation's sight of the storage: what all share, and a mapping that is long enough for its pages.
#[derive(Clone)]
pub(crate) struct View {
    pub pages: Arc<Pages>,
    map: Option<Arc<dyn Mapped>>,
    /// No page of this generation reaches past this byte.
    pub end: u64,
}

/// A page's bytes.
#[derive(Clone)]
pub(crate) enum Page<'v> {
    Mapped(&'v [u8]),
    Read(Arc<[u8]>),
}

impl Deref for Page<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Read(bytes) => bytes,
        }
    }
}

impl View {
    /// Maps the first `end` bytes where that is wanted and possible.
    pub fn new(pages: Arc<Pages>, end: u64) -> Result<Self> {
        let map = if pages.mapping { pages.map(end)? } else { None };
        Ok(Self { pages, map, end })
    }

    /// The bytes of a page. They match its hash, or did when it was first used.
    pub fn page(&self, at: &PageRef) -> Result<Page<'_>> {
        let len = at.len as usize;
        let fits = at.offset.checked_add(u64::from(at.len)).is_some_and(|end| end <= self.end);
        if len > limits::PAGE_BYTES_MAX || !fits || at.offset < super::HEAD_BYTES {
            return Err(self.fault(at, "its address is outside of the bundle"));
        }
        let shard = usize::from(at.hash[0]) % SHARDS;
        let mapped = self.map.as_ref().and_then(|map| {
            let start = usize::try_from(at.offset).ok()?;
            map.bytes().get(start..start.checked_add(len)?)
        });
        if let Some(bytes) = mapped {
            if !self.pages.checked.has(at) {
                self.check(at, bytes)?;
                self.pages.checked.add(at);
                if let Some(window) = self.pages.touched.note(at.offset) {
                    self.will_need(window);
                }
            }
            return Ok(Page::Mapped(bytes));
        }
        if let Some(bytes) = self.pages.kept[shard].lock().get(at) {
            return Ok(Page::Read(Arc::clone(bytes)));
        }
        let bytes: Arc<[u8]> = self.pages.read(at.offset, len, "a page")?.into();
        self.check(at, &bytes)?;
        let mut kept = self.pages.kept[shard].lock();
        if kept.len() >= KEPT_PAGES_MAX / SHARDS {
            kept.clear();
        }
        kept.insert(*at, Arc::clone(&bytes));
        Ok(Page::Read(bytes))
    }

    /// The mapping, if there is one.
    pub fn map(&self) -> Option<&Arc<dyn Mapped>> {
        self.map.as_ref()
    }

    /// Has the system fetch what is mapped of `range` while something else is done.
    pub fn will_need(&self, range: Range<u64>) {
        let Some(map) = &self.map else { return };
        if let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end)) {
            // A refusal costs the faults that it would have saved.
            drop(map.advise(start..end, Advice::WillNeed));
        }
    }

    fn check(&self, at: &PageRef, bytes: &[u8]) -> Result<()> {
        if *blake3::hash(bytes).as_bytes() == at.hash {
            Ok(())
        } else {
            Err(self.fault(at, "it does not match its hash"))
        }
    }

    pub fn fault(&self, at: &PageRef, fault: Fault) -> Error {
        self.pages.corrupt(format_args!("page at byte {}: {fault}", at.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_fetched_when_a_second_page_of_it_is_used_and_never_again() {
        let touched = Touched::default();
        let far = 7 * WINDOW_BYTES + 100;
        assert_eq!(touched.note(far), None, "one page of it may be all that is wanted");
        assert_eq!(touched.note(100), None, "another window");
        assert_eq!(touched.note(8 * WINDOW_BYTES - 1), Some(7 * WINDOW_BYTES..8 * WINDOW_BYTES));
        assert_eq!(touched.note(far), None);
        assert_eq!(touched.note(WINDOW_BYTES - 1), Some(0..WINDOW_BYTES));
        assert_eq!(touched.note(u64::MAX), None, "anywhere in a file");
    }
}
