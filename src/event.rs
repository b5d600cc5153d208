//! What happened: reloads, failures, restarts. Values only; who sends them to whom is the runtime's business.

mod pressure;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::pressure::{PressureCause, PressureLevel};
use crate::ids::{AssetId, AssetPath, ContentHash, Generation};

/// Something that happened in a runtime. Serializes as JSON with a `type` field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A new generation is what readers see now. All of a change set, in one step.
    Published(Published),
    /// A generation that readers see is durable, and with it all before it: it is what a start after a crash begins with.
    Committed {
        /// Which.
        generation: Generation,
        /// Microseconds of flushing and of writing the superblock.
        commit_us: u64,
    },
    /// A source file does not build. Its last good version stays.
    BuildFailed(BuildFailure),
    /// Bytes that cannot be decoded as what a program watches. Its last good value stays.
    DecodeFailed(DecodeFailure),
    /// A source file that failed builds again.
    Healed {
        /// The file.
        path: AssetPath,
    },
    /// Something about the tree that is not an error: a dependency on nothing, a link that is not followed.
    Warning {
        /// What, where, and what to do.
        what: String,
    },
    /// The watcher lost events and looked at the whole tree again.
    Rescanned {
        /// Why.
        why: String,
    },
    /// An actor ended abnormally and was started again.
    ActorRestarted {
        /// Which.
        actor: String,
        /// How it ended.
        cause: String,
        /// Restarts of this actor since the runtime started.
        restarts: u64,
    },
    /// A part used up its restart window and is parked; the rest goes on.
    Degraded {
        /// Which part.
        part: String,
        /// How it ended last.
        cause: String,
    },
    /// A parked part was revived.
    Revived {
        /// Which part.
        part: String,
    },
    /// Memory is shorter than it was, or less short: what that changes stands at [`PressureLevel`].
    Pressure {
        /// The level before.
        from: PressureLevel,
        /// The level now.
        to: PressureLevel,
        /// Bytes that are charged and could not be given back at once.
        used_bytes: u64,
        /// The bytes that this is measured by: what may be resident now.
        total_bytes: u64,
        /// Why.
        cause: PressureCause,
    },
    /// The budget is another one: a program, or pressure from outside, changed it.
    Budget {
        /// All of it, in bytes, before.
        from_bytes: u64,
        /// All of it, in bytes, now.
        to_bytes: u64,
        /// Why.
        cause: PressureCause,
    },
    /// A warming began to load.
    Warming {
        /// Assets that it goes through.
        assets: u64,
        /// Bytes of them.
        bytes: u64,
    },
    /// A warming ended.
    Warmed {
        /// Why.
        end: String,
        /// Assets that it loaded.
        assets: u64,
        /// Bytes of them.
        bytes: u64,
    },
    /// The runtime gave up; every open request was answered with an error.
    Failed {
        /// How it ended last.
        cause: String,
    },
    /// Subscribers only: this many events were missed, since the subscriber was slow.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// A publication.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// The generation that readers saw before.
    pub old: Generation,
    /// The generation that readers see now.
    pub generation: Generation,
    /// What differs, in path order.
    pub changed: Vec<ChangedAsset>,
    /// Where the time went.
    pub timings: ReloadTimings,
}

/// One asset that differs between two generations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangedAsset {
    /// Its path.
    pub path: AssetPath,
    /// Its id.
    pub id: AssetId,
    /// Its content before; `None` when it is new.
    pub old: Option<ContentHash>,
    /// Its content now; `None` when it is gone.
    pub new: Option<ContentHash>,
}

/// Where the time of a reload went, in microseconds, step by step. The steps follow each other: settle, queue, build,
/// stage, publish; what a longer one consists of stands after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReloadTimings {
    /// From the first event of the change set until it was settled.
    pub settle_us: u64,
    /// From then until its build began: a thread woke up, or an earlier build ended.
    pub queue_us: u64,
    /// Looking, reading and transforming.
    pub build_us: u64,
    /// Of `build_us`: finding out which files there are and which of them may differ.
    pub look_us: u64,
    /// Of `build_us`: reading, hashing and finding references, of what was built because of something else, too.
    pub read_us: u64,
    /// Of `build_us`: transforms and early cutoff.
    pub transform_us: u64,
    /// Encoding, writing and checking.
    pub stage_us: u64,
    /// Of `stage_us`: comparing with the generation before, compressing what is new.
    pub encode_us: u64,
    /// Of `stage_us`: working out the changed pages of the tables of contents, and writing them and the frames.
    pub tables_us: u64,
    /// Of `stage_us`: reading back what was written, and checking it.
    pub check_us: u64,
    /// Making what was resident resident in the new generation, and the swap.
    pub publish_us: u64,
    /// Of `publish_us`: new versions of what was resident, as far as they were not made while the bytes were at hand.
    pub resident_us: u64,
    /// Of `publish_us`: until readers saw it.
    pub swap_us: u64,
}

impl ReloadTimings {
    /// From the first event until readers saw it.
    pub fn total_us(&self) -> u64 {
        self.settle_us + self.queue_us + self.build_us + self.stage_us + self.publish_us
    }
}

/// A failure to build one source file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFailure {
    /// The file: its asset path where it has one, else as the operating system names it.
    pub path: String,
    /// The line, where known.
    pub line: Option<u32>,
    /// The column in that line, where known, in characters from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The step that failed: "scan", "read", a transform's name.
    pub transform: String,
    /// Why.
    pub cause: String,
}

/// `PATH:LINE:COLUMN: STEP: CAUSE`, as far as the place is known.
impl fmt::Display for BuildFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        for number in [self.line, self.line.and(self.column)].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        write!(f, ": {}: {}", self.transform, self.cause)
    }
}

/// A failure to decode the new bytes of an asset that a program watches as a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecodeFailure {
    /// The asset.
    pub path: AssetPath,
    /// The type it is watched as.
    pub type_name: String,
    /// The generation that has the bytes.
    pub generation: Generation,
    /// Why.
    pub cause: String,
}

impl BuildFailure {
    /// A failure of the step `transform`, at no place in the file.
    pub fn new(path: impl Into<String>, transform: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { path: path.into(), line: None, column: None, transform: transform.into(), cause: cause.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_where_as_far_as_that_is_known() {
        let failure = BuildFailure::new("a.css", "minify-css", "unclosed block");
        assert_eq!(failure.to_string(), "a.css: minify-css: unclosed block");
        let failure = BuildFailure { line: Some(3), ..failure };
        assert_eq!(failure.to_string(), "a.css:3: minify-css: unclosed block");
        let failure = BuildFailure { column: Some(7), ..failure };
        assert_eq!(failure.to_string(), "a.css:3:7: minify-css: unclosed block");
        // What was said before there were columns is still understood.
        let old = r#"{"path":"a","line":null,"transform":"read","cause":"b"}"#;
        assert_eq!(serde_json::from_str::<BuildFailure>(old).unwrap(), BuildFailure::new("a", "read", "b"));
        assert_eq!(serde_json::to_string(&BuildFailure::new("a", "read", "b")).unwrap(), old);
    }
}
