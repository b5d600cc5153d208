//! The trees of the bench, and their editions.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

const FOLDER_FILES: usize = 100;
const LEN_MIN: usize = 1 << 10;
const LEN_MAX: usize = 20 << 10;

const WORDS: [&str; 24] = [
    "loft",
    "batten",
    "border",
    "cyclorama",
    "flat",
    "fly",
    "gauze",
    "grid",
    "iron",
    "leg",
    "line",
    "pulley",
    "rail",
    "rope",
    "sandbag",
    "scene",
    "scrim",
    "set",
    "stage",
    "tab",
    "trap",
    "truss",
    "winch",
    "wing",
];

/// A folder of files, its store beside it, and a place outside of it on the same file system to rename from.
pub struct Tree {
    folder: TempDir,
    pub files: usize,
}

impl Tree {
    pub fn new(files: usize) -> Self {
        let tree = Self { folder: tempfile::tempdir().expect("a temporary folder"), files };
        fs::create_dir(tree.outside()).expect("a folder is made");
        for file in 0..files {
            let at = tree.root().join(path(file));
            if file % FOLDER_FILES == 0 {
                fs::create_dir_all(at.parent().expect("a file stands in a folder")).expect("a folder is made");
            }
            fs::write(at, text(file, 0)).expect("a file is written");
        }
        tree
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    /// Not the folder that the tree stands in: a watcher of the tree may look at that one, too.
    fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Writes a file in place or by a rename. When this returns it is finished.
    pub fn write(&self, path: &str, bytes: &[u8], in_place: bool) {
        let at = self.root().join(path);
        if in_place {
            write_whole(&at, bytes);
        } else {
            let beside = self.outside().join("beside");
            write_whole(&beside, bytes);
            fs::rename(&beside, &at).expect("a file is renamed");
        }
    }
}

fn write_whole(at: &Path, bytes: &[u8]) {
    let mut file = fs::File::create(at).expect("a file is opened");
    file.write_all(bytes).expect("a file is written");
}

/// Lets time pass, at the pace of whoever edits.
pub fn pause(time: Duration) {
    let (_never, told) = std::sync::mpsc::channel::<()>();
    // Nobody tells anything: it ends with the time.
    let _ = told.recv_timeout(time);
}

/// The path of a file of a tree.
pub fn path(file: usize) -> String {
    format!("{:04}/{:02}.txt", file / FOLDER_FILES, file % FOLDER_FILES)
}

/// One edition of a file: its first line names both.
pub fn text(file: usize, edition: usize) -> Vec<u8> {
    let mut state =
        (file as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (edition as u64).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mut next = || {
        // Xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let len = LEN_MIN + (next() as usize) % (LEN_MAX - LEN_MIN);
    let mut text = format!("file {file} edition {edition}\n").into_bytes();
    while text.len() < len {
        let picked = next();
        text.extend_from_slice(WORDS[picked as usize % WORDS.len()].as_bytes());
        text.push(if picked >> 60 == 0 { b'\n' } else { b' ' });
    }
    text
}
