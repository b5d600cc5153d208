//! One piece of work per content: entries whose bytes are the same wait for the first of them.
//!
//! An entry that leads a content never follows another, since its content stays the same as long as it is open. So
//! there are two levels and no chains, and the leader's lock may be held while a follower's is taken.

use std::sync::Arc;

use dashmap::Entry as Place;

use super::entry::{Entry, Lead, Phase};
use super::{Lease, Ledger};
use crate::ids::ContentHash;
use crate::residency::asset::Name;

/// What became of a lease when its content was known.
#[derive(Debug)]
pub enum Merge {
    /// Go on: nobody else works on this content.
    Lead(Lease),
    /// Nothing is left to do: another entry does the work and this one is answered with it, or this one has ended.
    Follows,
}

impl Ledger {
    /// Says which content the entry of `lease` is about, and under which name its asset goes. If another entry works
    /// on that content already, this one follows it: it is answered with it, the asset under its own name and for its
    /// own generation, and resident too. It goes on when the other is cancelled by all who waited for that.
    ///
    /// Content that is quarantined under this id is answered so here.
    pub fn merge(&self, mut lease: Lease, content: ContentHash, name: Name) -> Merge {
        if let Some(error) = self.strikes.refusal_of(&lease.key(), &content, || lease.what()) {
            lease.answer(Err(error));
            return Merge::Follows;
        }
        let mut name = Box::new(name);
        loop {
            match self.lead_or_follow(&lease, content, name) {
                Attempt::Lead => return Merge::Lead(lease),
                Attempt::Follow(leader) => {
                    lease.spend();
                    let (priority, by_distance) = (lease.priority(), lease.is_by_distance());
                    drop(lease);
                    self.raise(&leader, priority, by_distance);
                    return Merge::Follows;
                }
                Attempt::Stale => return Merge::Follows,
                Attempt::Again(back) => name = back,
            }
        }
    }

    fn lead_or_follow(&self, lease: &Lease, content: ContentHash, name: Box<Name>) -> Attempt {
        let own = lease.entry();
        match self.contents.entry((content, own.key.want)) {
            Place::Vacant(place) => {
                let mut state = own.state.lock();
                if !state.is_leased(lease.epoch()) {
                    return Attempt::Stale;
                }
                state.lead = Some(Box::new(Lead { content, followers: Vec::new(), following: 0 }));
                drop(state);
                drop(place.insert(Arc::clone(own)));
                Attempt::Lead
            }
            Place::Occupied(place) => {
                let leader = Arc::clone(place.get());
                if Arc::ptr_eq(&leader, own) {
                    return Attempt::Lead;
                }
                let mut leading = leader.state.lock();
                // An open entry in this map leads; were it not so, it would have to make room as an ended one does.
                let Some(lead) = leading.lead.as_mut() else {
                    // It ended, and is about to be taken out; do that for it.
                    drop(leading);
                    let ended = place.remove();
                    drop(ended);
                    return Attempt::Again(name);
                };
                let mut state = own.state.lock();
                if !state.is_leased(lease.epoch()) {
                    return Attempt::Stale;
                }
                // What had it in hand is done with it.
                state.in_hand = None;
                state.phase = Phase::Follows(Arc::clone(&leader), name);
                lead.followers.push(Arc::clone(own));
                lead.following += 1;
                drop(state);
                drop(leading);
                drop(place);
                self.counts.followed();
                Attempt::Follow(leader)
            }
        }
    }
}

enum Attempt {
    Lead,
    Follow(Arc<Entry>),
    Stale,
    Again(Box<Name>),
}
