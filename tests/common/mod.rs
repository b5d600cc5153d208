//! Trees, runtimes and waits that several suites share.
#![allow(dead_code)] // Each suite uses its own part.

#[cfg(feature = "serve")]
pub mod http;

use std::path::{Path, PathBuf};
use std::time::Duration;

use flyloft::platform::fs::{FileSystem, OsFileSystem};
use flyloft::{Error, Runtime, RuntimeBuilder};
use tempfile::TempDir;

/// How long anything may take before a test calls it hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that no codec makes smaller, different for each seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A source tree in a temporary folder, with a store beside it.
pub struct Tree {
    folder: TempDir,
}

impl Tree {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("tree")).unwrap();
        Self { folder }
    }

    /// `count` files of different sizes and contents, half of them compressible.
    pub fn with_files(count: usize) -> Self {
        let tree = Self::new();
        for index in 0..count {
            tree.write(&name(index), &content(index, 0));
        }
        tree
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub fn outside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, path: &str, bytes: &[u8]) {
        let file = self.root().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    /// Writes beside the file and renames over it, as careful programs save.
    pub fn replace(&self, path: &str, bytes: &[u8]) {
        let file = self.root().join(path);
        let beside = self.outside("replacing.tmp");
        std::fs::write(&beside, bytes).unwrap();
        // As the library does: elsewhere than on Linux a file in use needs more than one way.
        OsFileSystem.rename(&beside, &file).unwrap();
    }

    pub fn remove(&self, path: &str) {
        std::fs::remove_file(self.root().join(path)).unwrap();
    }

    pub fn builder(&self) -> RuntimeBuilder {
        Runtime::builder().directory(self.root()).store(self.store())
    }

    /// Packs the tree into a bundle file and returns its path.
    pub fn packed(&self) -> PathBuf {
        let out = self.outside("packed.loft");
        pack(&self.root(), &out);
        out
    }
}

pub fn pack(root: &Path, out: &Path) {
    use flyloft::build::{BuildOptions, NoProgress, pack};
    use flyloft::platform::clock::SystemClock;
    use std::sync::Arc;
    let fs = Arc::new(OsFileSystem);
    pack(fs, Arc::new(SystemClock), root, out, BuildOptions::default(), &NoProgress).unwrap();
}

pub fn name(index: usize) -> String {
    format!("folder{:02}/file{index:05}.{}", index % 20, if index.is_multiple_of(2) { "txt" } else { "bin" })
}

/// The bytes of file `index` in its `version`-th edition, 0 to about 40 KiB.
pub fn content(index: usize, version: usize) -> Vec<u8> {
    let mut state =
        (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (version as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let len = (next() % 40_000) as usize;
    if index.is_multiple_of(2) {
        let line = format!("file {index} edition {version} {:x}\n", next());
        line.into_bytes().into_iter().cycle().take(len).collect()
    } else {
        (0..len).map(|_| (next() >> 32) as u8).collect()
    }
}

/// Waits for `future`, and fails the test rather than hang.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it hangs")
}

/// Loads and compares.
pub async fn check(runtime: &Runtime, index: usize, version: usize) {
    let asset = within(runtime.load(name(index))).await.unwrap();
    assert_eq!(&*asset, content(index, version), "{}", name(index));
}

pub fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. })
}
