//! Why an asset is as it is: what the table of contents says of it, whether it is resident, waited for, evicted or
//! quarantined, when it changed last, and why it does not build. For people and tools; it costs what a few look-ups do.

mod facts;

use serde::{Deserialize, Serialize};

pub use self::facts::{AssetFacts, BuildFacts, StepFacts, Users};

use super::{Runtime, Snapshot};
use crate::actors::Shared;
use crate::build::{Because, Why};
use crate::bundle::Bundle;
use crate::error::Result;
use crate::event::BuildFailure;
use crate::ids::{AssetId, AssetKind, AssetPath, ContentHash, Generation, Priority};
use crate::residency::{Key, Want};

/// Why an asset is as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The asset's path.
    pub path: AssetPath,
    /// The generation that is explained.
    pub generation: Generation,
    /// What that generation has at the path; `None` when it has nothing there.
    pub asset: Option<AssetFacts>,
    /// What depends on it, whether it exists or not.
    pub used_by: Users,
    /// Where its bytes are; `None` when a bundle was asked that nobody serves.
    pub residency: Option<Residency>,
    /// Why it was built the last time while the runtime ran; for a labelled part, why its source was.
    pub built: Option<Why>,
    /// Why it would be built if the tree were built now: known where a store was compared with its tree.
    pub pending: Vec<Because>,
    /// When it changed last, as far back as the runtime remembers.
    pub last_change: Option<LastChange>,
    /// Why it does not build, while it does not: what is served is its last good version.
    pub failure: Option<BuildFailure>,
}

/// Where an asset's bytes are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Residency {
    /// In memory.
    Resident {
        /// The bytes it is charged.
        weight_bytes: u64,
        /// Whether somebody holds it, so that it cannot be evicted.
        pinned: bool,
        /// Whether it is there as it is stored, not decoded.
        as_stored: bool,
        /// How many resident assets were used after it: those are evicted later.
        used_later: u64,
        /// How many assets are resident.
        of: u64,
    },
    /// Asked for and not answered yet.
    Queued {
        /// The lane.
        priority: Priority,
        /// How long it has been asked for.
        waiting_ms: u64,
        /// Requests that wait for it.
        waiters: u32,
        /// Attempts that failed.
        failed_attempts: u32,
        /// Where it is on its way: "inbox", "in work", "with another name of the same content", or the stage that has it
        /// in hand.
        step: String,
    },
    /// It broke a stage too often, and is not tried again before it changes.
    Quarantined {
        /// Attempts made.
        attempts: u32,
        /// The last cause.
        cause: String,
    },
    /// It was resident and made room.
    Evicted {
        /// How long ago.
        ago_ms: u64,
        /// How many bytes were wanted then.
        wanted_bytes: u64,
        /// The kind whose budget was full; `None` when it was the whole one.
        kind: Option<AssetKind>,
    },
    /// Not in memory: nobody asked for it, or too long ago to be remembered, or there was no room for its new version.
    NotLoaded,
    /// There is no such asset.
    Absent,
}

/// A change of an asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastChange {
    /// The generation that brought it.
    pub generation: Generation,
    /// The content before; `None` when it was new.
    pub old: Option<ContentHash>,
    /// The content since; `None` when it went.
    pub new: Option<ContentHash>,
}

impl Explanation {
    /// What a bundle alone says. Reading it may wait for the disk.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when a page on the way is.
    pub fn of_bundle(bundle: &Bundle, path: &AssetPath) -> Result<Explanation> {
        Ok(Explanation {
            path: path.clone(),
            generation: bundle.generation(),
            asset: AssetFacts::of(bundle, path)?,
            used_by: Users::of(bundle, path)?,
            residency: None,
            built: None,
            pending: Vec::new(),
            last_change: None,
            failure: None,
        })
    }
}

impl Runtime {
    /// Why the asset at `path` is as it is, in the generation that is current now; also of a path that has no asset.
    ///
    /// ```
    /// # async fn example(runtime: &flyloft::Runtime) -> flyloft::Result<()> {
    /// let explained = runtime.explain("textures/wall.png").await?;
    /// println!("{:?}, used by {} assets", explained.residency, explained.used_by.count);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`crate::Error::InvalidPath`] when it is no path; [`crate::Error::Corrupt`] when the table of contents is.
    pub async fn explain(&self, path: impl AsRef<str>) -> Result<Explanation> {
        let path = AssetPath::new(path.as_ref())?;
        let snapshot = self.snapshot();
        let wanted = path.clone();
        let mut explained = snapshot.offload(move |bundle| Explanation::of_bundle(bundle, &wanted)).await?;
        let shared = self.shared();
        explained.residency = Some(residency(shared, &snapshot, &explained));
        explained.built = shared.workshop.as_ref().and_then(|workshop| {
            let source = || path.source_and_label().and_then(|(source, _)| workshop.why(&source));
            workshop.why(&path).or_else(source)
        });
        explained.last_change = shared.history.change(path.id()).map(|change| {
            let (generation, old, new) = (change.generation, change.old, change.new);
            LastChange { generation, old, new }
        });
        explained.failure = failure(shared, &path);
        Ok(explained)
    }
}

/// The failure of the file itself, or of the file that it is a labelled part of.
fn failure(shared: &Shared, path: &AssetPath) -> Option<BuildFailure> {
    let failures = shared.failures.lock();
    let source = || path.source_and_label().and_then(|(source, _)| failures.get(source.as_str()));
    failures.get(path.as_str()).or_else(source).cloned()
}

fn residency(shared: &Shared, snapshot: &Snapshot, explained: &Explanation) -> Residency {
    let Some(asset) = &explained.asset else { return Residency::Absent };
    let id = explained.path.id();
    let generation = snapshot.generation();
    let work = [(id, Want::Resident), (id, Want::Stored), (id, Want::Record)];
    let now = shared.clock.now();
    if let Some(resident) = resident(shared, id, generation) {
        return resident;
    }
    for (id, want) in work {
        let key = Key { generation, id, want };
        if let Some(open) = shared.ledger.look(&key, now) {
            let step = match (open.in_hand, open.follows, open.started) {
                (Some(stage), ..) => stage,
                (None, true, _) => "with another name of the same content",
                (None, false, true) => "in work",
                (None, false, false) => "inbox",
            };
            return Residency::Queued {
                priority: open.priority,
                waiting_ms: open.waiting.as_millis() as u64,
                waiters: open.waiters,
                failed_attempts: open.strikes,
                step: step.to_owned(),
            };
        }
        if let Some((attempts, cause)) = shared.ledger.quarantine(&key, Some(&asset.content)) {
            return Residency::Quarantined { attempts, cause };
        }
    }
    match shared.history.eviction(id).or_else(|| shared.history.eviction(id.stored())) {
        Some(eviction) => Residency::Evicted {
            ago_ms: now.saturating_duration_since(eviction.at).as_millis() as u64,
            wanted_bytes: eviction.wanted_bytes,
            kind: eviction.kind,
        },
        None => Residency::NotLoaded,
    }
}

fn resident(shared: &Shared, id: AssetId, generation: Generation) -> Option<Residency> {
    let forms = [(id, false), (id.stored(), true)];
    let is_there = |id: AssetId| shared.table.peek_at(id, generation).is_some();
    let (id, as_stored) = forms.into_iter().find(|(id, _)| is_there(*id))?;
    let found = shared.table.candidate(id)?;
    let (mut used_later, mut of) = (0, 0);
    shared.table.for_each(|other| {
        of += 1;
        used_later += u64::from(other.usage.tick() > found.usage.tick());
    });
    Some(Residency::Resident { weight_bytes: found.weight, pinned: found.pinned, as_stored, used_later, of })
}
