//! What transforms made before, by what they made it from: a folder that may be shared by branches and machines.
//!
//! What a transform looks at besides its source is known only once it has run. So there are two levels: under the first
//! key (path, source, transforms with versions and parameters) stand the sets of inputs that runs looked at, each with what
//! came of it; the one whose every input is now as it was then is the answer. Together they are the build key of an
//! output. Contents lie beside, under their hashes.
//!
//! Nothing here is needed: what is missing, damaged or cannot be written is as if it had never been cached. Files come to
//! be in one step under their names, so that any number of processes may read and write. Contents are checked against
//! their hashes when they are read; what stands under a key is taken at its word, so that whoever may write into the
//! folder is trusted as whoever may write into the tree is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::transform::{Labelled, Output};
use crate::bundle::{BuildInput, BuildStep};
use crate::ids::{AssetKind, AssetPath, ContentHash};
use crate::platform::clock::Clock;
use crate::platform::fs::{FileKind, FileSystem};
use crate::platform::random::{Random, SystemRandom};

/// How a file of runs begins; the version of how it goes on is part of it.
const MAGIC: &[u8; 8] = b"loftact1";
/// Sets of inputs that are kept under one key: of more the oldest is dropped.
const RUNS_MAX: usize = 16;
/// Largest file of runs that is read or written.
const RUNS_BYTES_MAX: u64 = 4 << 20;
/// Most bytes that one run may make to be kept.
const MADE_BYTES_MAX: u64 = 256 << 20;
/// What is used is written anew once it is older than this, so that what is used stays.
const YOUNG: Duration = Duration::from_secs(24 * 60 * 60);
/// A temporary file that is older than this was left behind.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// Where to keep what transforms made, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionCacheOptions {
    /// The folder; made when something is kept. Other processes and machines may use it at the same time.
    pub folder: PathBuf,
    /// Bytes kept at most, about: what was not used for longest goes first. Default 1 GiB.
    pub bytes_max: u64,
}

impl ActionCacheOptions {
    /// Bytes kept where nobody says how many.
    pub const BYTES_DEFAULT: u64 = 1 << 30;

    /// A cache of the default size in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), bytes_max: Self::BYTES_DEFAULT }
    }
}

/// A run of transforms: what they looked at, and what came of it.
#[derive(Serialize, Deserialize)]
struct Run {
    inputs: Vec<BuildInput>,
    made: Part,
    labelled: Vec<(String, Option<AssetKind>, Part)>,
}

/// One output.
#[derive(Serialize, Deserialize)]
struct Part {
    hash: ContentHash,
    len: u64,
    dependencies: Vec<AssetPath>,
}

/// The open cache. Shared by the threads of a build.
pub(super) struct ActionCache {
    fs: Arc<dyn FileSystem>,
    clock: Arc<dyn Clock>,
    folder: PathBuf,
    bytes_max: u64,
    random: SystemRandom,
    /// Written since old files were removed last.
    written: AtomicU64,
    /// One thread looks for old files at a time.
    trimming: Mutex<()>,
}

/// The first key of an action.
pub(super) fn key(path: &AssetPath, source: &ContentHash, steps: &[BuildStep]) -> ContentHash {
    let mut hasher = blake3::Hasher::new_derive_key("flyloft action cache, format 1");
    let mut text = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    };
    text(path.as_str());
    for step in steps {
        text(&step.transform);
    }
    for step in steps {
        hasher.update(&step.version.to_le_bytes()).update(&step.parameters);
    }
    hasher.update(&source.0);
    ContentHash(*hasher.finalize().as_bytes())
}

impl ActionCache {
    pub fn new(fs: Arc<dyn FileSystem>, clock: Arc<dyn Clock>, options: &ActionCacheOptions) -> Self {
        Self {
            fs,
            clock,
            folder: options.folder.clone(),
            bytes_max: options.bytes_max,
            random: SystemRandom::new(),
            written: AtomicU64::new(0),
            trimming: Mutex::new(()),
        }
    }

    /// What was made under this key when everything that was looked at was as it is now, and what that was.
    pub fn find(&self, key: &ContentHash, holds: impl Fn(&BuildInput) -> bool) -> Option<(Output, Vec<BuildInput>)> {
        let at = self.place(key, "runs");
        let stat = self.fs.stat(&at, true).ok()?;
        let runs = self.runs(&at)?;
        let run = runs.into_iter().find(|run| run.inputs.iter().all(&holds))?;
        let output = self.output(&run)?;
        if self.age(stat.mtime_ns) > YOUNG {
            // Whether that succeeds does not matter now.
            let _ = self.keep(key, &run.inputs, &output);
        }
        Some((output, run.inputs))
    }

    fn output(&self, run: &Run) -> Option<Output> {
        let mut output = Output { bytes: self.content(&run.made)?, ..Output::default() };
        output.dependencies.clone_from(&run.made.dependencies);
        for (label, kind, part) in &run.labelled {
            let (label, bytes) = (label.clone(), self.content(part)?);
            output.labelled.push(Labelled { label, kind: *kind, bytes, dependencies: part.dependencies.clone() });
        }
        Some(output)
    }

    fn content(&self, part: &Part) -> Option<Vec<u8>> {
        let at = self.place(&part.hash, "made");
        // Of another length it is not what it should be, and not worth its memory.
        let stat = self.fs.stat(&at, true).ok().filter(|stat| stat.len == part.len && part.len <= MADE_BYTES_MAX)?;
        let bytes = self.fs.read(&at).ok()?;
        if ContentHash::of(&bytes) != part.hash {
            tracing::warn!(file = %at.display(), "damaged in the action cache; it is made anew");
            let _ = self.fs.remove_file(&at);
            return None;
        }
        if self.age(stat.mtime_ns) > YOUNG {
            let _ = self.write(&at, &bytes);
        }
        Some(bytes)
    }

    /// Keeps what a run made. Failing to is no failure of anything.
    pub fn store(&self, key: &ContentHash, inputs: &[BuildInput], output: &Output) {
        match self.keep(key, inputs, output) {
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(folder = %self.folder.display(), %error, "not kept in the action cache");
            }
        }
        // A session that builds much does not wait for its end.
        if self.written.load(Ordering::Relaxed) > self.bytes_max / 4 {
            self.trim();
        }
    }

    fn keep(&self, key: &ContentHash, inputs: &[BuildInput], output: &Output) -> io::Result<()> {
        let labelled = output.labelled.iter().map(|labelled| labelled.bytes.len() as u64);
        let bytes = output.bytes.len() as u64 + labelled.sum::<u64>();
        if bytes > MADE_BYTES_MAX.min(self.bytes_max / 4) {
            return Ok(());
        }
        let made = self.put(&output.bytes, &output.dependencies)?;
        let labelled = output.labelled.iter().map(|labelled| {
            Ok((labelled.label.clone(), labelled.kind, self.put(&labelled.bytes, &labelled.dependencies)?))
        });
        let run = Run { inputs: inputs.to_vec(), made, labelled: labelled.collect::<io::Result<_>>()? };
        let at = self.place(key, "runs");
        // Another process may do the same now: then one of the two runs is not kept.
        let mut runs = self.runs(&at).unwrap_or_default();
        runs.retain(|other| other.inputs != run.inputs);
        runs.insert(0, run);
        runs.truncate(RUNS_MAX);
        let payload = postcard::to_stdvec(&runs).map_err(io::Error::other)?;
        let file = [MAGIC.as_slice(), blake3::hash(&payload).as_bytes(), &payload].concat();
        if file.len() as u64 > RUNS_BYTES_MAX {
            return Ok(());
        }
        self.write(&at, &file)
    }

    fn put(&self, bytes: &[u8], dependencies: &[AssetPath]) -> io::Result<Part> {
        let hash = ContentHash::of(bytes);
        let at = self.place(&hash, "made");
        let len = bytes.len() as u64;
        let there = self.fs.stat(&at, true);
        if !there.is_ok_and(|stat| stat.len == len && self.age(stat.mtime_ns) <= YOUNG) {
            self.write(&at, bytes)?;
        }
        Ok(Part { hash, len, dependencies: dependencies.to_vec() })
    }

    fn runs(&self, at: &Path) -> Option<Vec<Run>> {
        let stat = self.fs.stat(at, true).ok()?;
        let file = if stat.len <= RUNS_BYTES_MAX { self.fs.read(at).ok()? } else { return None };
        let (hash, payload) = file.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
        if blake3::hash(payload) != *hash {
            return None;
        }
        postcard::from_bytes(payload).ok()
    }

    fn place(&self, hash: &ContentHash, what: &str) -> PathBuf {
        let name = hash.to_string();
        self.folder.join(&name[..2]).join(format!("{}.{what}", &name[2..]))
    }

    /// Under its name it is there whole or not at all; not durable, since it can be made again.
    fn write(&self, at: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = at.parent().unwrap_or(&self.folder);
        let temporary = folder.join(format!("{:016x}.tmp", self.random.next_u64()));
        let write = || self.fs.write_new(&temporary, bytes, false);
        match write() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.fs.create_dir_all(folder)?;
                write()
            }
            written => written,
        }
        .and_then(|()| self.fs.rename(&temporary, at))
        .inspect_err(|_| drop(self.fs.remove_file(&temporary)))?;
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn age(&self, mtime_ns: i128) -> Duration {
        let now = self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i128;
        Duration::from_nanos(u64::try_from(now - mtime_ns).unwrap_or(0))
    }

    /// Removes the oldest files while there are more bytes than may be kept. Other processes lose nothing by it but time.
    pub fn trim(&self) {
        let Some(_trimming) = self.trimming.try_lock() else { return };
        self.written.store(0, Ordering::Relaxed);
        let mut files: Vec<(i128, u64, PathBuf)> = Vec::new();
        let Ok(folders) = self.fs.read_dir(&self.folder) else { return };
        for folder in folders.into_iter().filter(|entry| entry.kind == FileKind::Dir) {
            let at = self.folder.join(&folder.name);
            let mut each = |entry: crate::platform::fs::DirEntry, look: crate::platform::fs::Look<'_>| {
                let place = at.join(&entry.name);
                let is_ours = place.extension().is_some_and(|end| end == "runs" || end == "made" || end == "tmp");
                if let Ok(stat) = look()
                    && is_ours
                    && stat.kind == FileKind::File
                {
                    files.push((stat.mtime_ns, stat.len, place));
                }
            };
            let _ = self.fs.each_entry(&at, &mut each);
        }
        let mut bytes: u64 = files.iter().map(|(_, len, _)| len).sum();
        files.sort_unstable();
        // Once it is full a little more goes, so that it is not full again at once.
        let wanted = if bytes > self.bytes_max { self.bytes_max / 10 * 9 } else { self.bytes_max };
        for (mtime_ns, len, place) in files {
            let abandoned = place.extension().is_some_and(|end| end == "tmp") && self.age(mtime_ns) > ABANDONED;
            if (bytes > wanted || abandoned) && self.fs.remove_file(&place).is_ok() {
                bytes = bytes.saturating_sub(len);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::clock::SystemClock;
    use crate::platform::fs::OsFileSystem;

    fn cache(folder: &Path, bytes_max: u64) -> ActionCache {
        let options = ActionCacheOptions { folder: folder.to_owned(), bytes_max };
        ActionCache::new(Arc::new(OsFileSystem), Arc::new(SystemClock), &options)
    }

    fn path(text: &str) -> AssetPath {
        AssetPath::new(text).unwrap()
    }

    fn read(name: &str, bytes: &[u8]) -> BuildInput {
        BuildInput::Read { path: path(name), hash: Some(ContentHash::of(bytes)) }
    }

    fn output(text: &str) -> Output {
        let label = Labelled {
            label: "m/0".into(),
            kind: Some(AssetKind::Mesh),
            bytes: text.repeat(2).into_bytes(),
            dependencies: vec![path("a")],
        };
        Output { bytes: text.into(), labelled: vec![label], dependencies: vec![path("b")] }
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let below = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> = below(folder.to_owned()).flat_map(below).collect();
        files.sort();
        files
    }

    #[test]
    fn of_several_runs_the_one_whose_inputs_hold_is_the_answer() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(&folder.path().join("actions"), 1 << 20);
        let key = ContentHash::of(b"key");
        assert!(cache.find(&key, |_| true).is_none());
        let (one, two) = (read("in", b"1"), read("in", b"2"));
        cache.store(&key, std::slice::from_ref(&one), &output("one"));
        cache.store(&key, std::slice::from_ref(&two), &output("two"));
        let find = |now: &BuildInput| cache.find(&key, |input| input == now);
        assert_eq!(find(&one), Some((output("one"), vec![one.clone()])));
        assert_eq!(find(&two), Some((output("two"), vec![two.clone()])));
        assert_eq!(find(&read("in", b"3")), None);
        assert!(cache.find(&ContentHash::of(b"other"), |_| true).is_none());
        for number in 0..RUNS_MAX {
            cache.store(&key, &[read("in", &[number as u8; 9])], &output("more"));
        }
        assert_eq!((find(&one), find(&read("in", &[3; 9])).is_some()), (None, true));
        assert!(files(&folder.path().join("actions")).iter().all(|file| file.extension().unwrap() != "tmp"));
    }

    #[test]
    fn what_is_damaged_is_not_there_and_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 1 << 20);
        let key = ContentHash::of(b"key");
        cache.store(&key, &[], &output("text"));
        for file in files(folder.path()) {
            let whole = std::fs::read(&file).unwrap();
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                std::fs::write(&file, &bytes).unwrap();
                assert!(cache.find(&key, |_| true).is_none(), "{} {at}", file.display());
                std::fs::write(&file, &whole[..at]).unwrap();
                assert!(cache.find(&key, |_| true).is_none());
            }
            // Made again it is there again.
            cache.store(&key, &[], &output("text"));
            assert_eq!(cache.find(&key, |_| true).unwrap().0, output("text"));
        }
    }

    #[test]
    fn many_may_read_write_and_trim_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<ContentHash> = (0..4_u8).map(|number| ContentHash::of(&[number])).collect();
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let (keys, folder) = (&keys, folder.path());
                scope.spawn(move || {
                    // Each with a cache of its own, as other processes have.
                    let cache = cache(folder, 40_000);
                    for round in 0..100 {
                        let key = (thread + round) % keys.len();
                        let text = format!("{key}").repeat(1000);
                        match cache.find(&keys[key], |_| true) {
                            Some((found, _)) => assert_eq!(found, output(&text)),
                            None => cache.store(&keys[key], &[], &output(&text)),
                        }
                        if round % 10 == 0 {
                            cache.trim();
                        }
                    }
                });
            }
        });
        assert!(files(folder.path()).iter().all(|file| file.extension().unwrap() != "tmp"));
    }

    #[test]
    fn the_oldest_goes_when_there_is_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 100_000);
        let large = |number: u8| Output { bytes: vec![number; 20_000], ..Output::default() };
        for number in 0..12 {
            cache.store(&ContentHash::of(&[number]), &[], &large(number));
            // Files of one moment have no order: each is made an hour older than the next.
            let old = SystemClock.wall() - Duration::from_secs(3600 * u64::from(20 - number));
            for file in files(folder.path()) {
                let file = std::fs::File::options().write(true).open(file).unwrap();
                if SystemClock.wall().duration_since(file.metadata().unwrap().modified().unwrap()).unwrap().as_secs()
                    < 60
                {
                    file.set_modified(old).unwrap();
                }
            }
        }
        cache.trim();
        let kept: Vec<u8> =
            (0..12).filter(|number| cache.find(&ContentHash::of(&[*number]), |_| true).is_some()).collect();
        assert_eq!(kept, [8, 9, 10, 11]);
        let bytes: u64 = files(folder.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(bytes <= 100_000, "{bytes}");
        // Too large for it is not kept.
        cache.store(&ContentHash::of(b"huge"), &[], &Output { bytes: vec![1; 30_000], ..Output::default() });
        assert!(cache.find(&ContentHash::of(b"huge"), |_| true).is_none());
    }

    #[test]
    fn a_key_tells_everything_apart_that_it_is_made_of() {
        let step = |name: &str, version| BuildStep { transform: name.into(), version, parameters: [version as u8; 32] };
        let source = ContentHash::of(b"source");
        let keys = [
            key(&path("a"), &source, &[step("x", 1)]),
            key(&path("b"), &source, &[step("x", 1)]),
            key(&path("a"), &ContentHash::of(b"other"), &[step("x", 1)]),
            key(&path("a"), &source, &[step("y", 1)]),
            key(&path("a"), &source, &[step("x", 2)]),
            key(&path("a"), &source, &[step("x", 1), step("y", 1)]),
            key(&path("a"), &source, &[step("y", 1), step("x", 1)]),
        ];
        let distinct: std::collections::HashSet<ContentHash> = keys.into_iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }
}
