//! Who follows an asset from generation to generation, to have what it is made of ready when readers see it.
//!
//! A publication that is being prepared tells followers what changes and waits for them a little; when readers see it
//! they are told again. Who begins to follow while a publication is prepared is told when that is published.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use super::asset::Asset;
use crate::ids::{AssetId, Generation, Hashing};

/// Held by a follower while it deals with a change.
pub type Busy = Sender<()>;

/// What becomes of an asset that is followed.
pub enum Became {
    /// It has new bytes, which are in memory.
    Resident(Asset),
    /// It has new bytes, which are not.
    Elsewhere,
    /// It is gone.
    Gone,
}

/// One who follows an asset. Called from the build's threads and from actors: it must be quick, and do what takes time
/// elsewhere.
pub trait Follower: Send + Sync {
    /// The asset is another in `generation`, which nobody sees yet. `busy` is to be dropped when that is dealt with.
    fn change(self: Arc<Self>, generation: Generation, became: Became, busy: Busy);
    /// Readers see `generation`.
    fn published(self: Arc<Self>, generation: Generation);
    /// Nothing will change any more.
    fn ended(&self);
}

type Weakly = Weak<dyn Follower>;

#[derive(Default)]
struct State {
    following: HashMap<AssetId, Vec<Weakly>, Hashing>,
    /// The newest generation that followers were told of.
    prepared: Option<Generation>,
    /// Who is to be told when which generation is published.
    told: Vec<(Generation, Weakly)>,
    ended: bool,
}

/// Everyone who follows an asset.
#[derive(Default)]
pub struct Followers(Mutex<State>);

impl Followers {
    /// Follows `id` until the follower is dropped. Gives the newest generation that was prepared, if one was: the
    /// follower is told of what comes after it, and, when that is not published yet, of its publication.
    pub fn follow(&self, id: AssetId, follower: &Arc<dyn Follower>) -> Option<Generation> {
        let mut state = self.0.lock();
        let state = &mut *state;
        if state.ended {
            follower.ended();
        }
        let following = state.following.entry(id).or_default();
        following.retain(|other| other.strong_count() > 0);
        following.push(Arc::downgrade(follower));
        state.told.extend(state.prepared.map(|prepared| (prepared, Arc::downgrade(follower))));
        state.prepared
    }

    /// Whether anyone follows `id`.
    pub fn follows(&self, id: AssetId) -> bool {
        let state = self.0.lock();
        state.following.get(&id).is_some_and(|all| all.iter().any(|follower| follower.strong_count() > 0))
    }

    /// Tells followers what `generation` changes, and waits until they dealt with it, at most `wait`. Blocks.
    pub fn prepare(&self, generation: Generation, changes: impl Iterator<Item = (AssetId, Became)>, wait: Duration) {
        let (busy, done) = crossbeam_channel::bounded(0);
        let mut told: Vec<(Arc<dyn Follower>, Became)> = Vec::new();
        {
            let mut state = self.0.lock();
            let state = &mut *state;
            state.prepared = state.prepared.max(Some(generation));
            if state.following.is_empty() {
                return;
            }
            for (id, became) in changes {
                let Some(following) = state.following.get_mut(&id) else { continue };
                following.retain(|follower| follower.strong_count() > 0);
                let followers: Vec<Arc<dyn Follower>> = following.iter().filter_map(Weak::upgrade).collect();
                if followers.is_empty() {
                    state.following.remove(&id);
                }
                for follower in followers {
                    state.told.push((generation, Arc::downgrade(&follower)));
                    let became = match &became {
                        Became::Resident(asset) => Became::Resident(asset.clone()),
                        Became::Elsewhere => Became::Elsewhere,
                        Became::Gone => Became::Gone,
                    };
                    told.push((follower, became));
                }
            }
        }
        for (follower, became) in told {
            follower.change(generation, became, busy.clone());
        }
        drop(busy);
        // Nothing is ever sent: it ends when the last of them is done, or with the time.
        let _ = done.recv_timeout(wait);
    }

    /// Tells followers that readers see `generation`.
    pub fn published(&self, generation: Generation) {
        let mut told = Vec::new();
        self.0.lock().told.retain(|(changed, follower)| {
            let waits = *changed > generation;
            if !waits {
                told.extend(follower.upgrade());
            }
            waits
        });
        told.into_iter().for_each(|follower| follower.published(generation));
    }

    /// Tells all of them, and those still to come, that nothing will change any more.
    pub fn end(&self) {
        let mut all = Vec::new();
        let mut state = self.0.lock();
        state.ended = true;
        for (_, following) in state.following.drain() {
            all.extend(following.iter().filter_map(Weak::upgrade));
        }
        drop(state);
        all.into_iter().for_each(|follower| follower.ended());
    }
}
