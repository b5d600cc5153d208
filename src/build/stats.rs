//! What files looked like when they were read last, so that an unchanged tree is not read again.
//!
//! A stat can only be trusted when it is older than the smallest step of the clock that made it: a file that was
//! written twice within one step looks the same both times. Such a file is read again the next time. The cache is
//! never needed: without it, or when it cannot be read, everything is read again.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::ids::{AssetPath, ContentHash};
use crate::platform::fs::FileStat;

/// The step of file times on file systems that keep fractions of a second: those of Linux move with its timer, at
/// least 100 times a second.
const STEP: Duration = Duration::from_millis(20);
/// The step where times are whole seconds: FAT has two-second steps.
const STEP_WHOLE: Duration = Duration::from_secs(2);

/// What tells two versions of a file apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Length in bytes.
    pub len: u64,
    mtime_ns: i128,
    ctime_ns: i128,
    inode: u64,
    device: u64,
}

impl Stamp {
    /// The stamp of a file.
    pub fn of(stat: &FileStat) -> Self {
        Self { len: stat.len, mtime_ns: stat.mtime_ns, ctime_ns: stat.ctime_ns, inode: stat.inode, device: stat.device }
    }

    /// The device and the number of the file there, whatever its name; `None` where the operating system has none.
    pub fn file(&self) -> Option<(u64, u64)> {
        (self.inode != 0).then_some((self.device, self.inode))
    }

    /// Whether a file that is read from `now` on cannot change without its stamp changing.
    pub fn is_trusted(&self, now: SystemTime) -> bool {
        let newest = self.mtime_ns.max(self.ctime_ns);
        let whole = self.mtime_ns % 1_000_000_000 == 0 && self.ctime_ns % 1_000_000_000 == 0;
        let step = if whole { STEP_WHOLE } else { STEP };
        let now_ns = match now.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => since.as_nanos() as i128,
            Err(before) => -(before.duration().as_nanos() as i128),
        };
        newest + step.as_nanos() as i128 <= now_ns
    }
}

/// What is remembered of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// What it looked like.
    pub stamp: Stamp,
    /// The hash of its bytes.
    pub source: ContentHash,
    /// What it may refer to: other files that it has a reference to only while they exist.
    pub weak: Vec<AssetPath>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    /// How references are found. When that changes every file is looked at again.
    extractors: u32,
    files: Vec<(AssetPath, Remembered)>,
}

const VERSION: u32 = 1;
const EXTRACTORS: u32 = 1;

/// Writes down `files`, in path order.
pub fn to_bytes(files: Vec<(AssetPath, Remembered)>) -> Option<Vec<u8>> {
    postcard::to_stdvec(&Stored { version: VERSION, extractors: EXTRACTORS, files }).ok()
}

/// Reads what [`to_bytes`] wrote; nothing when it is damaged or of another version.
pub fn from_bytes(bytes: &[u8]) -> Vec<(AssetPath, Remembered)> {
    match postcard::from_bytes::<Stored>(bytes) {
        Ok(stored) if stored.version == VERSION && stored.extractors == EXTRACTORS => stored.files,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(mtime_ns: i128) -> Stamp {
        Stamp { len: 3, mtime_ns, ctime_ns: mtime_ns, inode: 7, device: 1 }
    }

    #[test]
    fn a_stat_no_older_than_the_step_of_the_clock_is_not_trusted() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(100_000);
        let check = |age_ms: i128, trusted: bool| {
            assert_eq!(stamp(100_000_000_000 - age_ms * 1_000_000).is_trusted(now), trusted, "{age_ms} ms old");
        };
        check(-5, false);
        check(1, false);
        check(19, false);
        check(21, true);
        // Whole seconds: the file system may have no fractions.
        check(1_000, false);
        check(2_000, true);
    }

    #[test]
    fn what_is_remembered_survives_and_damage_forgets_it() {
        let path = AssetPath::new("a/b").unwrap();
        let weak = vec![AssetPath::new("c").unwrap()];
        let files = vec![(path, Remembered { stamp: stamp(5), source: ContentHash::of(b"x"), weak })];
        let bytes = to_bytes(files.clone()).unwrap();
        assert_eq!(from_bytes(&bytes), files);
        assert!(from_bytes(&bytes[..bytes.len() - 1]).is_empty());
        assert!(from_bytes(b"").is_empty());
    }
}
