//! Reading source files: whole, stable, and no more of them in memory than allowed.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use super::arena::{Arena, Kept};
use super::extract::{self, Reference};
use super::scan::SourceFile;
use super::stats::Stamp;
use crate::event::BuildFailure;
use crate::ids::ContentHash;
use crate::platform::clock::Clock;
use crate::platform::fs::{Below, FileStat, FileSystem};

/// The cause when a file is not read because somebody is writing it.
pub(super) const BEING_WRITTEN: &str = "it is being written; it is read again when it is closed";
/// The cause when a file was there when it was looked at and is not when it is read: that is a change still to come.
const GONE: &str = "it was removed before it was read; it is looked at again";
/// Files that were last written longer ago than this are not asked whether they are being written.
const RECENT: Duration = Duration::from_secs(10);

/// How often it is looked whether somebody is about to close a file: for less than a millisecond in all.
const CLOSING_LOOKS: usize = 64;

/// Whether somebody is at work on the file that was not read, so that nothing can be said of it yet.
pub(super) fn is_unfinished(failure: &BuildFailure) -> bool {
    failure.cause == BEING_WRITTEN || failure.cause == GONE
}

/// How often a file is read that changes while it is read.
const TRIES_MAX: usize = 5;
/// Files of more bytes than this are never in memory whole.
pub(super) const WHOLE_BYTES_MAX: u64 = 64 << 20;
/// How much of such a file is read at once.
const PART_BYTES: usize = 4 << 20;

/// From this many files on it pays to open the top folder for them.
const MANY_FILES: usize = 16;

/// A source file that was read.
#[derive(Debug)]
pub(super) struct Source<'b> {
    pub file: SourceFile,
    pub hash: ContentHash,
    /// Its bytes, when they are few enough to be kept.
    pub bytes: Option<Kept<'b>>,
    pub references: Vec<Reference>,
    /// Whether its stat tells later whether it changed.
    pub trusted: bool,
}

/// Hash, bytes if they are kept, references.
type Read<'b> = (ContentHash, Option<Kept<'b>>, Vec<Reference>);

/// The top folder of a tree of which `count` files are read, open if that pays.
pub(super) fn open_folder<'a>(fs: &'a dyn FileSystem, root: &Path, count: usize) -> Option<Box<dyn Below + 'a>> {
    // Without it everything works, slower.
    if count >= MANY_FILES { fs.below(root).ok() } else { None }
}

/// Reads source files for one build.
pub(super) struct Reader<'a> {
    pub fs: &'a dyn FileSystem,
    pub clock: &'a dyn Clock,
    pub root: &'a Path,
    /// The same folder, open; only where many files are read.
    pub below: Option<&'a dyn Below>,
    /// Whether a file that somebody is writing is refused: whoever watches reads it when it is closed.
    pub wary: bool,
    /// Bytes that may still be kept in memory.
    pub keep: AtomicU64,
}

impl Reader<'_> {
    pub fn place(&self, file: &SourceFile) -> PathBuf {
        file.at.as_deref().map_or_else(|| self.root.join(file.path.as_str()), Path::to_owned)
    }

    fn read_into(&self, file: &SourceFile, into: &mut [u8]) -> io::Result<(usize, FileStat)> {
        match (&file.at, self.below) {
            (None, Some(below)) => below.read_into(file.path.as_str(), into),
            _ => self.fs.read_into(&self.place(file), into),
        }
    }

    /// Reads a file that was just looked at. Its bytes are kept, in `arena`, unless its hash is `known`.
    ///
    /// # Errors
    /// The failure of the step "read".
    pub fn source<'b>(
        &self,
        file: &SourceFile,
        known: Option<ContentHash>,
        arena: &mut Arena<'b>,
    ) -> Result<Source<'b>, BuildFailure> {
        let read_from = self.clock.wall();
        let mut file = file.clone();
        let read =
            if file.stat.len > WHOLE_BYTES_MAX { self.large(&mut file) } else { self.small(&mut file, known, arena) };
        match read {
            Ok((hash, bytes, references)) => {
                let trusted = Stamp::of(&file.stat).is_trusted(read_from);
                Ok(Source { file, hash, bytes, references, trusted })
            }
            Err(error) if self.wary && error.kind() == io::ErrorKind::NotFound => {
                Err(BuildFailure::new(file.path.as_str(), "read", GONE))
            }
            Err(error) => Err(BuildFailure::new(file.path.as_str(), "read", error.to_string())),
        }
    }

    fn small<'b>(
        &self,
        file: &mut SourceFile,
        known: Option<ContentHash>,
        arena: &mut Arena<'b>,
    ) -> io::Result<Read<'b>> {
        for _ in 0..TRIES_MAX {
            // One byte more than it has, to see that it has no more.
            let Some(room) = arena.room(file.stat.len as usize + 1) else { break };
            if self.wary {
                self.refuse_while_written(&self.place(file), &file.stat)?;
            }
            let (len, after) = self.read_into(file, room)?;
            let same = Stamp::of(&file.stat) == Stamp::of(&after) && len as u64 == after.len;
            file.stat = after;
            if !same {
                if after.len > WHOLE_BYTES_MAX {
                    return self.large(file);
                }
                continue;
            }
            let bytes = &room[..len];
            let hash = ContentHash::of(bytes);
            let references = extract::references(&file.path, bytes);
            let keep = known != Some(hash) && self.may_keep(len as u64);
            let kept = if keep { arena.keep(len).map(Kept::Shared) } else { None };
            return Ok((hash, kept, references));
        }
        let bytes = self.stable(&self.place(file), &mut file.stat)?;
        let hash = ContentHash::of(&bytes);
        let references = extract::references(&file.path, &bytes);
        let keep = known != Some(hash) && self.may_keep(bytes.len() as u64);
        Ok((hash, keep.then_some(Kept::Own(bytes)), references))
    }

    fn large<'b>(&self, file: &mut SourceFile) -> io::Result<Read<'b>> {
        let (hash, start) = self.hash_large(&self.place(file), &mut file.stat)?;
        let references = extract::references(&file.path, &start);
        Ok((hash, None, references))
    }

    fn may_keep(&self, bytes: u64) -> bool {
        self.keep.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    /// The bytes of a file that did not change while it was read; `stat` is what it looked like before, and becomes
    /// what it looks like now.
    pub fn stable(&self, at: &Path, stat: &mut FileStat) -> io::Result<Vec<u8>> {
        for _ in 0..TRIES_MAX {
            self.refuse_while_written(at, stat)?;
            let bytes = self.fs.read(at)?;
            let after = self.fs.stat(at, true)?;
            let same = Stamp::of(stat) == Stamp::of(&after) && bytes.len() as u64 == after.len;
            *stat = after;
            if same {
                return Ok(bytes);
            }
        }
        Err(io::Error::other(format!("it changed each of the {TRIES_MAX} times it was read")))
    }

    /// A writer that comes after this look changes what the file looks like; one that is there now may be between
    /// emptying it and writing it.
    fn refuse_while_written(&self, at: &Path, stat: &FileStat) -> io::Result<()> {
        let now = self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i128;
        let recent = now - stat.mtime_ns < RECENT.as_nanos() as i128;
        if !self.wary || !recent {
            return Ok(());
        }
        for _ in 0..CLOSING_LOOKS {
            if !self.fs.is_being_written(at)? {
                return Ok(());
            }
            // What tells of its end comes a moment before it is closed.
            std::thread::yield_now();
        }
        Err(io::Error::other(BEING_WRITTEN))
    }

    /// The hash of a large file and its first bytes.
    fn hash_large(&self, at: &Path, stat: &mut FileStat) -> io::Result<(ContentHash, Vec<u8>)> {
        for _ in 0..TRIES_MAX {
            self.refuse_while_written(at, stat)?;
            let opened = self.fs.open(at)?;
            let len = opened.len()?;
            let mut hasher = blake3::Hasher::new();
            let mut start = Vec::new();
            let mut part = vec![0; PART_BYTES];
            let mut offset = 0;
            while offset < len {
                let part = &mut part[..PART_BYTES.min((len - offset) as usize)];
                opened.read_exact_at(offset, part)?;
                hasher.update(part);
                if offset == 0 {
                    start = part.to_vec();
                }
                offset += part.len() as u64;
            }
            let after = self.fs.stat(at, true)?;
            let same = Stamp::of(stat) == Stamp::of(&after) && len == after.len;
            *stat = after;
            if same {
                return Ok((ContentHash(*hasher.finalize().as_bytes()), start));
            }
        }
        Err(io::Error::other(format!("it changed each of the {TRIES_MAX} times it was read")))
    }

    /// Reads a part of a file again.
    pub fn range(&self, file: &SourceFile, range: Range<u64>, into: &mut Vec<u8>) -> io::Result<()> {
        let start = into.len();
        into.resize(start + (range.end - range.start) as usize, 0);
        let into = &mut into[start..];
        match (&file.at, self.below) {
            (None, Some(below)) => below.read_exact_at(file.path.as_str(), range.start, into),
            _ => self.fs.open(&self.place(file))?.read_exact_at(range.start, into),
        }
    }

    /// Reads a whole file again. Answers whether it shows by how the file looks that it is what it was; if not,
    /// [`Self::is_same`] finds out.
    pub fn whole(&self, source: &Source<'_>, into: &mut Vec<u8>) -> io::Result<bool> {
        let (start, len) = (into.len(), source.file.stat.len as usize);
        into.resize(start + len, 0);
        let (read, now) = self.read_into(&source.file, &mut into[start..])?;
        if read < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(looks_same(source, &now))
    }

    /// Whether a file that was read again is still what it was the first time: by how it looks where that tells, by
    /// its hash otherwise.
    ///
    /// # Errors
    /// The failure of the step "read".
    pub fn is_same(&self, source: &Source<'_>) -> Result<bool, BuildFailure> {
        let now = self.fs.stat(&self.place(&source.file), true);
        Ok(now.is_ok_and(|now| looks_same(source, &now))
            || self.source(&source.file, Some(source.hash), &mut Arena::default())?.hash == source.hash)
    }
}

fn looks_same(source: &Source<'_>, now: &FileStat) -> bool {
    source.trusted && Stamp::of(now) == Stamp::of(&source.file.stat)
}
