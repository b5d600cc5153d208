//! One page of a tree: a run of entries in key order, each key written as what it shares with the one before
//! and the rest. Nothing is decoded ahead: a position walks over the bytes and checks what it touches.

use super::bytes::{Fields, put_varint, varint_len};

/// Longest key of any tree.
pub(crate) const KEY_BYTES_MAX: usize = 48;
/// Pages are filled up to here; only a single larger entry makes a larger page.
pub(crate) const PAGE_BYTES_TARGET: usize = 4096;
/// Most entries of a page, since runs of keys take next to no bytes and are walked one by one.
pub(crate) const PAGE_KEYS_MAX: u16 = 1024;
/// Every so many entries a key is written whole, and its place noted at the end of the page, so that a search need
/// not pass all entries before it. Pages without payloads have none: their entries may be runs.
pub(crate) const RESTART_EVERY: u16 = 16;
/// Tree, level, count of entries.
pub(crate) const HEADER_BYTES: usize = 4;
/// An interior entry's payload: offset, length and hash of the child.
pub(crate) const CHILD_BYTES: usize = 44;

/// What went wrong in a page; the caller adds the file and the byte.
pub(crate) type Fault = &'static str;

/// Address, length and BLAKE3 of a page, or of any other checked byte string of the table of contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRef {
    pub offset: u64,
    pub len: u32,
    pub hash: [u8; 32],
}

impl std::hash::Hash for PageRef {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // The offset alone tells pages apart; equality compares everything.
        state.write_u64(self.offset);
    }
}

impl PageRef {
    pub fn encode(&self) -> [u8; CHILD_BYTES] {
        let mut out = [0; CHILD_BYTES];
        out[..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..12].copy_from_slice(&self.len.to_le_bytes());
        out[12..].copy_from_slice(&self.hash);
        out
    }

    pub fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { offset: fields.u64()?, len: fields.u32()?, hash: fields.array()? })
    }
}

/// A key, by value.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    len: u8,
    bytes: [u8; KEY_BYTES_MAX],
}

impl Key {
    pub const EMPTY: Key = Key { len: 0, bytes: [0; KEY_BYTES_MAX] };

    /// `bytes` must not be longer than [`KEY_BYTES_MAX`]; the rest would be cut.
    pub fn new(bytes: &[u8]) -> Self {
        debug_assert!(bytes.len() <= KEY_BYTES_MAX);
        let mut key = Self::EMPTY;
        let len = bytes.len().min(KEY_BYTES_MAX);
        key.bytes[..len].copy_from_slice(&bytes[..len]);
        key.len = len as u8;
        key
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The key that is one more, as a big-endian number.
    fn increment(&mut self) -> Result<(), Fault> {
        for byte in self.bytes[..usize::from(self.len)].iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return Ok(());
            }
        }
        Err("a run of keys goes on past the last key")
    }

    fn extend(&mut self, shared: usize, suffix: &[u8]) -> Result<(), Fault> {
        let len = shared + suffix.len();
        if shared > usize::from(self.len) || len > KEY_BYTES_MAX {
            return Err(LONG);
        }
        if suffix <= &self.as_slice()[shared..] {
            return Err("keys are not in order");
        }
        self.bytes[shared..len].copy_from_slice(suffix);
        self.len = len as u8;
        Ok(())
    }
}

/// How the values of a tree's leaves are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueLen {
    Fixed(u8),
    Varint,
}

/// What is fixed about a tree: its number, its name in messages, and its values.
#[derive(Debug)]
pub(crate) struct TreeSpec {
    pub number: u8,
    pub name: &'static str,
    pub value: ValueLen,
}

const SHORT: Fault = "an entry reaches past the end of its page";
const LONG: Fault = "a key is longer than any key can be";

/// The front of an entry.
enum Front {
    /// How many bytes the key shares with the one before, and how many of its own follow.
    Key(usize, usize),
    /// This many keys follow, each one more than the one before.
    Run(u64),
}

/// What may follow a head that says 15: then the key is no longer than any can be.
const SUFFIX_MORE_MAX: u8 = KEY_BYTES_MAX as u8 - 15;

#[inline]
fn front(fields: &mut Fields<'_>) -> Result<Front, Fault> {
    let head = fields.u8().ok_or(SHORT)?;
    match (head >> 4, head & 15, fields.0) {
        // Nearly all.
        (high @ ..15, low @ 1..15, _) => Ok(Front::Key(usize::from(high), usize::from(low))),
        // Hashes share little, and are longer than the head can say.
        (high @ ..15, 15, [more @ ..=SUFFIX_MORE_MAX, rest @ ..]) => {
            fields.0 = rest;
            Ok(Front::Key(usize::from(high), usize::from(*more) + 15))
        }
        (high, low, _) => long_front(u64::from(high), u64::from(low), fields),
    }
}

#[cold]
fn long_front(mut high: u64, mut low: u64, fields: &mut Fields<'_>) -> Result<Front, Fault> {
    if high == 15 {
        high = high.saturating_add(fields.varint().ok_or(SHORT)?);
    }
    if low == 0 {
        return Ok(Front::Run(high.saturating_add(1)));
    }
    if low == 15 {
        low = low.saturating_add(fields.varint().ok_or(SHORT)?);
    }
    if high > KEY_BYTES_MAX as u64 || low > KEY_BYTES_MAX as u64 {
        return Err(LONG);
    }
    Ok(Front::Key(high as usize, low as usize))
}

#[inline]
fn payload<'p>(fields: &mut Fields<'p>, value: ValueLen) -> Result<&'p [u8], Fault> {
    match value {
        ValueLen::Fixed(len) => fields.take(usize::from(len)),
        ValueLen::Varint => fields.string(),
    }
    .ok_or(SHORT)
}

fn value_of(spec: &TreeSpec, level: u8) -> ValueLen {
    if level == 0 { spec.value } else { ValueLen::Fixed(CHILD_BYTES as u8) }
}

fn header(page: &[u8], spec: &TreeSpec) -> Result<(u8, u16), Fault> {
    let mut fields = Fields(page);
    let (Some(tree), Some(level), Some(count)) = (fields.u8(), fields.u8(), fields.u16()) else {
        return Err("a page is shorter than its header");
    };
    if tree != spec.number {
        return Err("a page belongs to another tree");
    }
    if count == 0 {
        return Err("a page is empty");
    }
    Ok((level, count))
}

/// Where the entries of a page end and the places of its restarts begin.
fn entries_end(page: &[u8], count: u16, value: ValueLen) -> Result<usize, Fault> {
    let end = page.len().checked_sub(2 * usize::from(restarts(count, value))).ok_or(SHORT)?;
    if end < HEADER_BYTES { Err(SHORT) } else { Ok(end) }
}

/// Restarts after the first entry, which is one by itself.
fn restarts(count: u16, value: ValueLen) -> u16 {
    if value == ValueLen::Fixed(0) { 0 } else { count.saturating_sub(1) / RESTART_EVERY }
}

/// The last restart whose key is at most `key`: the place of its entry and that entry's index. The first entry where
/// all are greater.
fn restart_before(page: &[u8], end: usize, count: u16, value: ValueLen, key: &[u8]) -> Result<(usize, u16), Fault> {
    let (mut low, mut high) = (0, restarts(count, value));
    let mut at = HEADER_BYTES;
    while low < high {
        let middle = (low + high).div_ceil(2);
        let noted = page.get(end + 2 * usize::from(middle) - 2..).and_then(|noted| noted.first_chunk());
        let place = usize::from(u16::from_le_bytes(*noted.ok_or(SHORT)?));
        let mut fields = Fields(page.get(place..end).ok_or(SHORT)?);
        let Front::Key(0, suffix) = front(&mut fields)? else {
            return Err("a key that a search starts at is not whole");
        };
        if fields.take(suffix).ok_or(SHORT)? <= key {
            (low, at) = (middle, place);
        } else {
            high = middle - 1;
        }
    }
    Ok((at, low * RESTART_EVERY))
}

/// A position before an entry of a page. Holds no borrow, so that a cursor can own its pages.
#[derive(Clone)]
pub(crate) struct Position {
    at: usize,
    /// Where the entries end.
    end: usize,
    left: u16,
    pub level: u8,
    first: bool,
    value: ValueLen,
    /// Keys of a run that are still to come.
    run: u16,
    /// The key of the entry that was passed last.
    pub key: Key,
}

impl Position {
    /// Checks the header and stands before the first entry.
    pub fn start(page: &[u8], spec: &TreeSpec) -> Result<Self, Fault> {
        let (level, left) = header(page, spec)?;
        let value = value_of(spec, level);
        let end = entries_end(page, left, value)?;
        Ok(Self { at: HEADER_BYTES, end, left, level, first: true, value, run: 0, key: Key::EMPTY })
    }

    /// How many entries are still to come.
    pub fn left(&self) -> usize {
        usize::from(self.left)
    }

    /// As [`Position::start`], but may stand further ahead, as long as no entry from `key` on is passed.
    pub fn near(page: &[u8], spec: &TreeSpec, key: &[u8]) -> Result<Self, Fault> {
        let mut position = Self::start(page, spec)?;
        let (at, index) = restart_before(page, position.end, position.left, position.value, key)?;
        position.at = at;
        position.left -= index;
        Ok(position)
    }

    /// Passes the next entry: its key is `self.key` then, its payload the answer. `None` at the end of the page.
    pub fn next<'p>(&mut self, page: &'p [u8]) -> Result<Option<&'p [u8]>, Fault> {
        if self.left == 0 {
            return if self.at == self.end { Ok(None) } else { Err("bytes follow the last entry of a page") };
        }
        if self.run > 0 {
            self.run -= 1;
            self.left -= 1;
            self.key.increment()?;
            return Ok(Some(&[]));
        }
        let mut fields = Fields(page.get(self.at..self.end).ok_or(SHORT)?);
        let (shared, suffix) = match front(&mut fields)? {
            Front::Key(shared, suffix) => (shared, suffix),
            Front::Run(count) => {
                if self.first || self.value != ValueLen::Fixed(0) || count > u64::from(self.left) {
                    return Err("a run of keys stands where there can be none");
                }
                self.at = self.end - fields.0.len();
                self.run = count as u16;
                return self.next(page);
            }
        };
        let suffix = fields.take(suffix).ok_or(SHORT)?;
        if self.first {
            if shared != 0 {
                return Err("the first key of a page is not whole");
            }
            self.key = Key::new(suffix);
            self.first = false;
        } else {
            self.key.extend(shared, suffix)?;
        }
        let payload = payload(&mut fields, self.value)?;
        self.at = self.end - fields.0.len();
        self.left -= 1;
        Ok(Some(payload))
    }
}

/// The payload of the last entry whose key is at most `key`, and whether it is that key; in an interior page the
/// first entry where all keys are greater. `None` when a leaf has no such entry.
///
/// This is what lookups spend their time in, so no key is put together: an entry that shares more bytes with the one
/// before than that one shares with `key` is on the same side of it, and is passed by its lengths alone. It trusts
/// the order of the keys; a page that lies about it gives wrong answers of its own making, nothing worse.
pub(crate) fn search<'p>(
    page: &'p [u8],
    spec: &TreeSpec,
    level: u8,
    key: &[u8],
) -> Result<Option<(&'p [u8], bool)>, Fault> {
    let (found, count) = header(page, spec)?;
    if found != level {
        return Err("it stands at another level than its parent says");
    }
    let value = value_of(spec, level);
    let end = entries_end(page, count, value)?;
    let (start, first) = restart_before(page, end, count, value, key)?;
    let mut fields = Fields(page.get(start..end).ok_or(SHORT)?);
    let mut matched = 0;
    let mut floor = None;
    for index in first..count.min(first.saturating_add(RESTART_EVERY)) {
        let Front::Key(shared, suffix) = front(&mut fields)? else {
            return Err("a run of keys stands where there can be none");
        };
        let suffix = fields.take(suffix).ok_or(SHORT)?;
        let payload = payload(&mut fields, value)?;
        // Past the restart; the entry there is compared whole.
        if shared > matched && index > first {
            floor = Some((payload, false));
            continue;
        }
        if shared == matched {
            let rest = key.get(matched..).unwrap_or(&[]);
            let same = shared_len(suffix, rest);
            match (suffix.get(same), rest.get(same)) {
                (None, None) => return Ok(Some((payload, true))),
                (Some(ours), Some(theirs)) if ours > theirs => {}
                (Some(_), None) => {}
                _ => {
                    matched += same;
                    floor = Some((payload, false));
                    continue;
                }
            }
        }
        // This key is greater, and so are all that follow.
        if index == 0 && level > 0 {
            floor = Some((payload, false));
        }
        break;
    }
    Ok(floor)
}

/// Bytes that an entry takes as number `index` of a page, after `previous`.
pub(crate) fn entry_bytes(index: usize, previous: &[u8], key: &[u8], payload: usize, value: ValueLen) -> usize {
    if value == ValueLen::Fixed(0) && follows(previous, key) {
        return 0;
    }
    if is_restart(index, value) {
        let place = if index == 0 { 0 } else { 2 };
        return place + entry_bytes(1, &[], key, payload, value);
    }
    let shared = shared_len(previous, key);
    let nibble = |len: usize| if len < 15 { 0 } else { varint_len((len - 15) as u64) };
    let suffix = key.len() - shared;
    let frame = if value == ValueLen::Varint { varint_len(payload as u64) } else { 0 };
    1 + nibble(shared) + nibble(suffix) + suffix + frame + payload
}

#[inline]
fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn is_restart(index: usize, value: ValueLen) -> bool {
    value != ValueLen::Fixed(0) && index.is_multiple_of(usize::from(RESTART_EVERY))
}

/// Whether `key` is `previous` and one more.
fn follows(previous: &[u8], key: &[u8]) -> bool {
    let (Some((old, front)), Some((new, begin))) = (previous.split_last(), key.split_last()) else { return false };
    match new {
        // It carries, or is not one more.
        0 => {
            let mut next = Key::new(previous);
            previous.len() == key.len() && next.increment().is_ok() && next.as_slice() == key
        }
        new => *new - 1 == *old && front == begin,
    }
}

/// A page being written. Keys must come in order.
pub(crate) struct PageBuilder {
    bytes: Vec<u8>,
    count: u16,
    /// Keys of a run that is not written yet.
    run: u16,
    /// Places of whole keys after the first.
    restarts: Vec<u16>,
    value: ValueLen,
    first: Key,
    last: Key,
}

impl PageBuilder {
    pub fn new(spec: &TreeSpec, level: u8) -> Self {
        let mut bytes = Vec::with_capacity(PAGE_BYTES_TARGET);
        bytes.extend_from_slice(&[spec.number, level, 0, 0]);
        let value = value_of(spec, level);
        Self { bytes, count: 0, run: 0, restarts: Vec::new(), value, first: Key::EMPTY, last: Key::EMPTY }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The page's length if this entry were added.
    pub fn len_with(&self, key: &[u8], payload: usize) -> usize {
        self.len() + entry_bytes(self.count(), self.last.as_slice(), key, payload, self.value)
    }

    pub fn len(&self) -> usize {
        // A run of at most PAGE_KEYS_MAX keys takes a head and two bytes.
        self.bytes.len() + 2 * self.restarts.len() + if self.run > 0 { 3 } else { 0 }
    }

    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    pub fn is_full(&self) -> bool {
        self.count >= PAGE_KEYS_MAX
    }

    pub fn push(&mut self, key: &[u8], payload: &[u8]) {
        self.count += 1;
        if self.count > 1 && self.value == ValueLen::Fixed(0) && follows(self.last.as_slice(), key) {
            self.run += 1;
            self.last = Key::new(key);
            return;
        }
        self.end_run();
        let mut shared = shared_len(self.last.as_slice(), key);
        if is_restart(self.count() - 1, self.value) {
            shared = 0;
            if self.count > 1 {
                // A page that grows past 64 KiB is refused where it is written.
                self.restarts.push(self.bytes.len() as u16);
            }
        }
        let suffix = key.len() - shared;
        self.bytes.push(((shared.min(15) << 4) | suffix.min(15)) as u8);
        if shared >= 15 {
            put_varint(&mut self.bytes, (shared - 15) as u64);
        }
        if suffix >= 15 {
            put_varint(&mut self.bytes, (suffix - 15) as u64);
        }
        self.bytes.extend_from_slice(&key[shared..]);
        if self.value == ValueLen::Varint {
            put_varint(&mut self.bytes, payload.len() as u64);
        }
        self.bytes.extend_from_slice(payload);
        self.last = Key::new(key);
        if self.count == 1 {
            self.first = self.last;
        }
    }

    fn end_run(&mut self) {
        let Some(more) = self.run.checked_sub(1) else { return };
        self.bytes.push((more.min(15) << 4) as u8);
        if more >= 15 {
            put_varint(&mut self.bytes, u64::from(more - 15));
        }
        self.run = 0;
    }

    /// The page's bytes and first key.
    pub fn finish(&mut self) -> (&[u8], Key) {
        self.end_run();
        for place in self.restarts.drain(..) {
            self.bytes.extend_from_slice(&place.to_le_bytes());
        }
        self.bytes[2..4].copy_from_slice(&self.count.to_le_bytes());
        (&self.bytes, self.first)
    }

    /// Begins the next page.
    pub fn clear(&mut self) {
        self.bytes.truncate(HEADER_BYTES);
        (self.count, self.run) = (0, 0);
        self.last = Key::EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tree::{ASSETS, DEPENDENTS};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        #[test]
        fn a_search_finds_what_a_walk_finds(
            entries in prop::collection::btree_map(prop::collection::vec(0u8..4, 1..20), any::<u8>(), 1..90),
            wanted in prop::collection::vec(prop::collection::vec(0u8..4, 0..20), 20),
        ) {
            let entries: BTreeMap<Vec<u8>, u8> = entries;
            for level in [0, 1] {
                let mut page = PageBuilder::new(&ASSETS, level);
                for (key, value) in &entries {
                    page.push(key, &[*value; CHILD_BYTES]);
                }
                let len = page.len();
                let (page, first) = page.finish();
                prop_assert_eq!(page.len(), len);
                prop_assert_eq!(first.as_slice(), &entries.keys().next().unwrap()[..]);
                for key in wanted.iter().chain(entries.keys()) {
                    let found = search(page, &ASSETS, level, key).unwrap().map(|(payload, exact)| (payload[0], exact));
                    let floor = entries.range(..=key.clone()).next_back().map(|(at, value)| (*value, at == key));
                    let first = entries.values().next().map(|value| (*value, false)).filter(|_| level > 0);
                    prop_assert_eq!(found, floor.or(first));
                    let mut near = Position::near(page, &ASSETS, key).unwrap();
                    let mut next = None;
                    while let Some(payload) = near.next(page).unwrap() {
                        if near.key.as_slice() >= &key[..] {
                            next = Some(payload[0]);
                            break;
                        }
                    }
                    prop_assert_eq!(next, entries.range(key.clone()..).next().map(|(_, value)| *value));
                }
            }
        }

        #[test]
        fn keys_in_runs_are_walked_as_they_were_pushed(keys in prop::collection::btree_set(0u64..400, 1..300), at: u64) {
            let keys: BTreeSet<[u8; 8]> = keys.into_iter().map(|key| (key + (at >> 1)).to_be_bytes()).collect();
            let mut page = PageBuilder::new(&DEPENDENTS, 0);
            for key in &keys {
                let ahead = page.len_with(key, 0);
                page.push(key, &[]);
                prop_assert!(page.len() <= ahead + 3);
            }
            let (page, _) = page.finish();
            let mut position = Position::start(page, &DEPENDENTS).unwrap();
            let mut found = BTreeSet::new();
            while position.next(page).unwrap().is_some() {
                found.insert(<[u8; 8]>::try_from(position.key.as_slice()).unwrap());
            }
            prop_assert_eq!(found, keys);
        }
    }

    #[test]
    fn a_run_of_a_thousand_keys_takes_a_few_bytes() {
        let mut page = PageBuilder::new(&DEPENDENTS, 0);
        for key in 0..u64::from(PAGE_KEYS_MAX) {
            page.push(&key.to_be_bytes(), &[]);
        }
        assert!(page.is_full());
        assert_eq!(page.finish().0.len(), HEADER_BYTES + 9 + 3);
    }
}
