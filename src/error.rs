//! The one error type. Each variant says what failed, where, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::event::PressureLevel;
use crate::ids::{AssetPath, Generation};

/// What can go wrong. Cheap to clone, since one failure may answer many waiters.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {what}: {source}", path.display())]
    Io {
        /// The operation, as a verb phrase: "open", "read 4096 bytes at 8192".
        what: String,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// A path that cannot name an asset.
    #[error("'{path}' is not an asset path: {why}")]
    InvalidPath {
        /// The text as given, cut to 200 characters.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No such asset in this generation.
    #[error("'{what}' is not in generation {generation}")]
    NotFound {
        /// The path, or the id where only that is known.
        what: String,
        /// Where it was looked for.
        generation: Generation,
    },
    /// A generation that is not kept, or cannot be gone back to any more.
    #[error("generation {generation} is not to be had: {why}")]
    NotRetained {
        /// Which.
        generation: Generation,
        /// Why not, and which are kept.
        why: String,
    },
    /// Bytes that do not match what the table of contents says, or a structure that contradicts itself.
    #[error("{file}: corrupt: {what}; run `flyloft verify` to see what is damaged, then pack it again")]
    Corrupt {
        /// The bundle.
        file: String,
        /// What did not match, and at which byte.
        what: String,
    },
    /// The file is not a bundle at all.
    #[error("{file}: not a bundle: {why}")]
    NotABundle {
        /// The file.
        file: String,
        /// What gave it away.
        why: String,
    },
    /// A bundle written by a newer version.
    #[error("{file}: needs a newer flyloft: {what}")]
    TooNew {
        /// The bundle.
        file: String,
        /// The version or feature that is not known here.
        what: String,
    },
    /// Another writer holds the bundle.
    #[error("{}: another process is writing it; wait for it or stop it", path.display())]
    Locked {
        /// The bundle.
        path: PathBuf,
    },
    /// An asset that can never fit.
    #[error(
        "'{what}' needs {needed_bytes} bytes, but at most {limit_bytes} can be resident; raise the budget or read it with open()"
    )]
    TooLarge {
        /// The asset, or the set of assets asked for together.
        what: String,
        /// Bytes needed.
        needed_bytes: u64,
        /// Bytes that the budget admits.
        limit_bytes: u64,
    },
    /// Memory did not come free in time, since it is pinned.
    #[error(
        "'{what}' waited {waited:?} for {needed_bytes} bytes of a budget of {budget_bytes}; pinned: {}",
        List(pinned)
    )]
    Pinned {
        /// The asset.
        what: String,
        /// Bytes needed.
        needed_bytes: u64,
        /// The budget that is full.
        budget_bytes: u64,
        /// How long it waited.
        waited: Duration,
        /// The largest pinned assets and their bytes.
        pinned: Vec<(AssetPath, u64)>,
    },
    /// Memory is so short that what is least urgent is refused where it does not fit.
    #[error(
        "'{what}' needs {needed_bytes} bytes and memory pressure is {level} ({used_bytes} of {budget_bytes} bytes are \
         charged): low priority is refused; ask again later, at a higher priority, or raise the budget"
    )]
    Pressure {
        /// The asset.
        what: String,
        /// How short it is.
        level: PressureLevel,
        /// Bytes needed.
        needed_bytes: u64,
        /// Bytes that are charged.
        used_bytes: u64,
        /// Bytes that may be.
        budget_bytes: u64,
    },
    /// The caller's deadline passed.
    #[error("'{what}' was not loaded within {after:?}")]
    Deadline {
        /// The asset.
        what: String,
        /// The time allowed.
        after: Duration,
    },
    /// An asset that broke a stage too often.
    #[error("'{what}' is quarantined after {attempts} failed attempts: {cause}; it is tried again when it changes")]
    Quarantined {
        /// The asset.
        what: String,
        /// Attempts made.
        attempts: u32,
        /// The last cause.
        cause: String,
    },
    /// A source file that does not build.
    #[error("{path}{}: {transform}: {cause}", Place(*line, *column))]
    Build {
        /// The source file, as an asset path or as the operating system names it.
        path: String,
        /// The line, where known.
        line: Option<u32>,
        /// The column in that line, where known, in characters from 1.
        column: Option<u32>,
        /// The step that failed: "scan", "read", a transform's name.
        transform: String,
        /// Why.
        cause: String,
    },
    /// Bytes that cannot be decoded as what they are asked for.
    #[error("{path}: cannot be decoded as {type_name}: {cause}")]
    Decode {
        /// The asset.
        path: AssetPath,
        /// The type that was asked for.
        type_name: &'static str,
        /// Why: what the decoder returned, or its panic.
        cause: String,
    },
    /// A file that is no trace of accesses, or a damaged one.
    #[error("{file}: not a trace that can be used: {why}")]
    Trace {
        /// The file.
        file: String,
        /// What is wrong with it, and where.
        why: String,
    },
    /// A configuration value that cannot be used.
    #[error("{field}: {why}")]
    Config {
        /// The field's name.
        field: String,
        /// What is wrong and what is expected.
        why: String,
    },
    /// Too many open requests.
    #[error("{limit} requests are open already; wait for some to finish")]
    QueueFull {
        /// The bound.
        limit: usize,
    },
    /// The disk is full. The old generation stands.
    #[error("{}: no space left; {needed_bytes} more bytes are needed; generation {} still stands", path.display(), Standing(*standing))]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
        /// Bytes needed.
        needed_bytes: u64,
        /// The generation that readers still have, if there is one.
        standing: Option<Generation>,
    },
    /// The runtime gave up restarting a part; `Runtime::restart` brings it back.
    #[error("the runtime has failed: {cause}; Runtime::restart brings it back")]
    Failed {
        /// The last cause.
        cause: String,
    },
    /// The runtime is shut down.
    #[error("the runtime is shut down")]
    ShutDown,
    /// What was asked for is not possible with this source or on this machine.
    #[error("{what}: not supported: {why}")]
    Unsupported {
        /// What was asked.
        what: String,
        /// Why not.
        why: String,
    },
}

impl Error {
    /// Wraps an operating system error with what was tried and where.
    pub fn io(what: impl Into<String>, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io { what: what.into(), path: path.as_ref().to_owned(), source: Arc::new(source) }
    }

    /// A failure to build the file `path` in the step `transform`, at no place in it.
    pub fn build(path: impl Into<String>, transform: impl Into<String>, cause: impl Into<String>) -> Self {
        Self::Build { path: path.into(), line: None, column: None, transform: transform.into(), cause: cause.into() }
    }

    /// A configuration error.
    pub fn config(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Config { field: field.into(), why: why.into() }
    }

    /// A trace that cannot be used; `place` says where in it, and is empty for the whole.
    pub fn trace(file: impl Into<String>, place: impl fmt::Display, why: impl fmt::Display) -> Self {
        let place = place.to_string();
        let why = if place.is_empty() { why.to_string() } else { format!("{place}: {why}") };
        Self::Trace { file: file.into(), why }
    }

    /// A corruption error.
    pub fn corrupt(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.into(), what: what.into() }
    }

    /// Whether the call and the input were fine and the answer is simply no: missing or corrupt.
    pub fn is_no(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Corrupt { .. } | Self::Quarantined { .. })
    }
}

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

struct List<'a>(&'a [(AssetPath, u64)]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        if self.0.is_empty() {
            return f.write_str("nothing by name (loads in flight hold it)");
        }
        for (index, (path, bytes)) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{path} ({bytes} bytes)")?;
        }
        if self.0.len() > SHOWN {
            write!(f, " and {} more", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}

/// `:LINE:COLUMN` as far as they are known.
struct Place(Option<u32>, Option<u32>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(line) = self.0 else { return Ok(()) };
        write!(f, ":{line}")?;
        self.1.map_or(Ok(()), |column| write!(f, ":{column}"))
    }
}

struct Standing(Option<Generation>);

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(generation) => generation.fmt(f),
            None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_what_where_and_what_to_do() {
        let error = Error::Pinned {
            what: "a.png".into(),
            needed_bytes: 10,
            budget_bytes: 20,
            waited: Duration::from_secs(5),
            pinned: vec![(AssetPath::new("b.png").unwrap(), 15)],
        };
        let text = error.to_string();
        assert!(!text.contains('\n') && text.contains("b.png (15 bytes)") && text.contains("5s"), "{text}");
        assert_eq!(Error::build("a.json", "minify-json", "x").to_string(), "a.json: minify-json: x");
    }
}
