//! What stands in a tree: files, folders, links, and everything about them that cannot be packed.
//!
//! Folders are listed and files looked at by several threads; the result is in path order whatever they did. Nothing
//! is read here. Links are resolved one after the other in path order, so that the result does not depend on threads.

mod exclude;
mod links;
mod twins;

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::config::{IGNORE_FILE_NAME, Ignoring, Nearest, Patterns};
use super::parallel::lock;
use crate::error::{Error, Result};
use crate::event::BuildFailure;
use crate::ids::AssetPath;
use crate::limits;
use crate::platform::fs::{FileKind, FileStat, FileSystem};

pub(super) use self::exclude::Exclude;
pub use self::links::Link;
use self::links::Through;
pub(super) use self::twins::Twins;

/// A file of the tree.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Its path as an asset.
    pub path: AssetPath,
    /// Where its bytes are when not at its own path: what a link in the tree points to.
    pub at: Option<Arc<Path>>,
    /// What the operating system says about it.
    pub stat: FileStat,
}

/// What was found in a tree or in a part of it. Everything is in path order.
#[derive(Debug, Default)]
pub struct Scan {
    /// Files to pack.
    pub files: Vec<SourceFile>,
    /// Folders, empty ones too, without the top.
    pub folders: Vec<AssetPath>,
    /// Links that were followed.
    pub links: Vec<Link>,
    /// What cannot be packed and must not be left out silently.
    pub problems: Vec<BuildFailure>,
    /// What is left out on purpose: links that are not followed, sockets.
    pub warnings: Vec<String>,
    /// The ignore files, by the folders that they stand in.
    pub(super) ignore_files: Vec<(String, Arc<Patterns>)>,
}

impl Scan {
    pub(super) fn problem(&mut self, path: impl Into<String>, cause: impl Into<String>) {
        self.problems.push(problem(path, cause));
    }

    fn append(&mut self, mut other: Self) {
        self.files.append(&mut other.files);
        self.folders.append(&mut other.folders);
        self.links.append(&mut other.links);
        self.problems.append(&mut other.problems);
        self.warnings.append(&mut other.warnings);
        self.ignore_files.append(&mut other.ignore_files);
    }

    fn sort(&mut self) {
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.folders.sort();
        self.links.sort_by(|a, b| a.path.cmp(&b.path));
        self.problems.sort_by(|a, b| a.path.cmp(&b.path));
        self.warnings.sort();
    }
}

/// The place in the tree of a path relative to its top: its parts separated by `/`, whatever separates them here. `None`
/// when it is no text.
pub(super) fn place_of(relative: &Path) -> Option<Cow<'_, str>> {
    let text = relative.to_str()?;
    Some(if cfg!(windows) { text.replace('\\', "/").into() } else { text.into() })
}

/// A failure of the step "scan".
pub(super) fn problem(path: impl Into<String>, cause: impl Into<String>) -> BuildFailure {
    BuildFailure::new(path, "scan", cause)
}

/// Looks at a tree.
pub struct Scanner<'a> {
    /// The file system.
    pub fs: &'a dyn FileSystem,
    /// The top folder as the user named it.
    pub root: &'a Path,
    /// The top folder without links and dots: what lies below it is in the tree.
    pub real_root: &'a Path,
    /// What to ignore. A scan of the whole tree finds the ignore files by itself.
    pub ignoring: &'a Ignoring,
    /// How many threads look at once.
    pub threads: usize,
}

/// A folder that is still to be listed.
struct Listing {
    /// Its place in the tree; empty for the top.
    path: String,
    /// Where it is.
    at: PathBuf,
    /// The links that led there, if it is not at its own place.
    through: Option<Arc<Through>>,
    /// The ignore files that count in the folder that it stands in.
    nearest: Nearest,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Listing>,
    /// Listings that a thread works on: they may add others.
    working: usize,
}

impl Scanner<'_> {
    /// The whole tree.
    ///
    /// # Errors
    /// [`Error::Io`] when the top folder cannot be listed.
    pub fn tree(&self) -> Result<Scan> {
        // Listed once more by the walk; here for the error alone.
        self.fs.read_dir(self.root).map_err(|error| Error::io("list", self.root, error))?;
        let mut scan = Scan::default();
        let top = Listing { path: String::new(), at: self.root.to_owned(), through: None, nearest: Nearest::default() };
        let links = self.walk(vec![top], &mut scan);
        self.follow(links, &mut scan);
        scan.sort();
        Ok(scan)
    }

    /// What stands at one place of the tree, and below it. Nothing when there is nothing.
    ///
    /// A place that is reached through a link is answered for the whole link, which must not be followed unseen.
    /// Returns the place that was looked at.
    pub fn place(&self, path: &AssetPath) -> (AssetPath, Scan) {
        let mut scan = Scan::default();
        let mut path = path.clone();
        let mut stat = Err(io::ErrorKind::NotFound.into());
        for (end, _) in path.clone().as_str().match_indices('/').chain([(path.as_str().len(), "")]) {
            let part = &path.as_str()[..end];
            stat = self.fs.stat(&self.root.join(part), false);
            match &stat {
                Ok(found) if found.kind == FileKind::Dir => {}
                Ok(found) if found.kind == FileKind::Symlink => {
                    path = AssetPath::new(part).unwrap_or(path);
                    break;
                }
                _ if end == path.as_str().len() => {}
                // Something above is no folder any more: nothing is below it.
                _ => {
                    stat = Err(io::ErrorKind::NotFound.into());
                    break;
                }
            }
        }
        let at = self.root.join(path.as_str());
        match stat {
            Ok(stat) if self.ignoring.ignores(path.as_str(), stat.kind == FileKind::Dir) => {}
            Ok(stat) => {
                let (mut links, mut below) = (Vec::new(), Vec::new());
                let nearest = self.ignoring.nearest_to(path.folder());
                let listing = Listing { path: path.as_str().to_owned(), at, through: None, nearest };
                match stat.kind {
                    FileKind::Symlink => links.push(listing),
                    FileKind::Dir => self.folder(listing, &mut scan, &mut below),
                    FileKind::File | FileKind::Other => file(listing, stat, &mut scan),
                }
                if !below.is_empty() {
                    links.append(&mut self.walk(below, &mut scan));
                }
                self.follow(links, &mut scan);
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => scan.problem(path.as_str(), cause_of("look at it", &error)),
        }
        scan.sort();
        (path, scan)
    }

    /// Adds everything in and below the `tops`. Returns the links found.
    fn walk(&self, tops: Vec<Listing>, scan: &mut Scan) -> Vec<Listing> {
        let queue = Mutex::new(Queue { waiting: tops, working: 0 });
        let more = Condvar::new();
        let found: Mutex<(Scan, Vec<Listing>)> = Mutex::default();
        let body = || {
            let mut mine = Scan::default();
            let mut links = Vec::new();
            let mut below = Vec::new();
            loop {
                let mut guard = lock(&queue);
                let listing = loop {
                    if let Some(listing) = guard.waiting.pop() {
                        guard.working += 1;
                        break Some(listing);
                    }
                    if guard.working == 0 {
                        break None;
                    }
                    guard = more.wait(guard).unwrap_or_else(PoisonError::into_inner);
                };
                drop(guard);
                let Some(listing) = listing else { break };
                self.list(&listing, &mut mine, &mut links, &mut below);
                let mut guard = lock(&queue);
                guard.working -= 1;
                guard.waiting.append(&mut below);
                drop(guard);
                more.notify_all();
            }
            // Sorted here by each thread: merging the parts is quick.
            mine.sort();
            let mut guard = lock(&found);
            guard.0.append(mine);
            guard.1.append(&mut links);
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads {
                scope.spawn(body);
            }
            body();
        });
        let (below, links) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        scan.append(below);
        links
    }

    /// Adds what one folder holds; links and folders below it go to `links` and `below`.
    fn list(&self, listing: &Listing, scan: &mut Scan, links: &mut Vec<Listing>, below: &mut Vec<Listing>) {
        let nearest = self.nearest_in(listing, scan);
        let listed = self.fs.each_entry(&listing.at, &mut |entry, look| {
            let at = listing.at.join(&entry.name);
            let Some(name) = entry.name.to_str() else {
                let path = join(&listing.path, &entry.name.to_string_lossy());
                if !self.ignoring.ignores_within(&path, false, &nearest) {
                    scan.problem(one_line(&at), "its name is not UTF-8; rename it or ignore it");
                }
                return;
            };
            let path = join(&listing.path, name);
            if self.ignoring.ignores_within(&path, entry.kind == FileKind::Dir, &nearest) {
                return;
            }
            let found = Listing { path, at, through: listing.through.clone(), nearest: nearest.clone() };
            match entry.kind {
                FileKind::Dir => self.folder(found, scan, below),
                FileKind::Symlink => links.push(found),
                FileKind::File | FileKind::Other => match look() {
                    Ok(stat) => file(found, stat, scan),
                    Err(error) if is_gone(&error) => {}
                    Err(error) => scan.problem(found.path, cause_of("look at it", &error)),
                },
            }
        });
        match listed {
            Ok(()) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => {
                let name = if listing.path.is_empty() { self.root.display().to_string() } else { listing.path.clone() };
                scan.problem(name, cause_of("list it", &error));
            }
        }
    }

    /// The ignore files that count in a folder, with its own if it has one.
    fn nearest_in(&self, listing: &Listing, scan: &mut Scan) -> Nearest {
        let at = listing.at.join(IGNORE_FILE_NAME);
        let bytes = match self.fs.stat(&at, true) {
            Ok(stat) if stat.kind == FileKind::File && stat.len > limits::IGNORE_FILE_BYTES_MAX => {
                let why = format!("it has {} bytes; at most {} are read", stat.len, limits::IGNORE_FILE_BYTES_MAX);
                Err(io::Error::other(why))
            }
            Ok(stat) if stat.kind == FileKind::File => self.fs.read(&at),
            // A folder of that name says nothing.
            Ok(_) => return listing.nearest.clone(),
            Err(error) => Err(error),
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                if !is_gone(&error) {
                    scan.problem(join(&listing.path, IGNORE_FILE_NAME), cause_of("read it", &error));
                }
                return listing.nearest.clone();
            }
        };
        let (patterns, wrong) = Patterns::parse(&String::from_utf8_lossy(&bytes));
        for (line, cause) in wrong {
            let cause = format!("{cause}; mend the pattern or take it out");
            let failure = BuildFailure { line: Some(line), ..problem(join(&listing.path, IGNORE_FILE_NAME), cause) };
            scan.problems.push(failure);
        }
        let patterns = Arc::new(patterns);
        scan.ignore_files.push((listing.path.clone(), Arc::clone(&patterns)));
        listing.nearest.with(&listing.path, patterns)
    }

    fn folder(&self, found: Listing, scan: &mut Scan, below: &mut Vec<Listing>) {
        match AssetPath::new(&found.path) {
            Ok(path) => {
                scan.folders.push(path);
                below.push(found);
            }
            Err(error) => scan.problem(one_line(&found.at), error.to_string()),
        }
    }
}

/// Adds a file, or says why not.
fn file(found: Listing, stat: FileStat, scan: &mut Scan) {
    if stat.kind != FileKind::File {
        scan.warnings.push(format!("{}: neither a file nor a folder; it is not packed", found.path));
        return;
    }
    if stat.len > limits::ASSET_BYTES_MAX {
        return scan.problem(found.path, format!("it has {} bytes; the most is {}", stat.len, limits::ASSET_BYTES_MAX));
    }
    match AssetPath::new(&found.path) {
        Ok(path) => {
            let at = found.through.is_some().then(|| found.at.into());
            scan.files.push(SourceFile { path, at, stat });
        }
        Err(error) => scan.problem(one_line(&found.at), error.to_string()),
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { [folder, "/", name].concat() }
}

/// What was listed a moment ago may be gone now: then it is not in the tree.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn cause_of(what: &str, error: &io::Error) -> String {
    format!("cannot {what}: {error}")
}

/// A path for a message of one line.
pub(super) fn one_line(path: &Path) -> String {
    path.display().to_string().replace(|c: char| c.is_control(), "\u{fffd}")
}
