//! Publishing a generation: whoever staged it does so, on its own thread, since every thread that would have to wake up
//! for it is time that readers wait.

use std::sync::Arc;

use super::{ResidentNote, Shared, eviction};
use crate::bundle::Bundle;
use crate::event::Event;
use crate::ids::{AssetId, Generation, Origin, Priority};
use crate::messages::{EvictorMessage, PredictorMessage, Publication};
use crate::policy::eviction::Admitted;
use crate::residency::{Ask, Asset, Key, Live, Want};

/// Notes after which the evictor takes them in, though it has nothing to evict.
const RESIDENTS_MAX: usize = 4096;

impl Shared {
    /// Makes it what readers see, in one step, and notes when. With `only_after` nothing happens unless that is what
    /// readers see before; nor does it when they see this generation, or a newer one, already.
    ///
    /// Publishing a generation twice is once, from whichever threads.
    pub fn publish(&self, publication: &Publication, only_after: Option<Generation>) {
        let Publication { bundle, changes, shown } = publication;
        let old = self.table.current();
        if bundle.generation() <= old || only_after.is_some_and(|only| only != old) {
            return;
        }
        let (tick, rates) = (self.table.tick(), self.metrics.costs.rates());
        let resident = |asset: &Asset| Admitted {
            id: asset.id(),
            weight: asset.content().weight_bytes(),
            kind: asset.kind(),
            tick,
            cost_us: eviction::cost_of_bytes_us(&rates, asset.content().weight_bytes()),
            priority: Priority::Medium,
            speculative: false,
        };
        let mut residents: Vec<ResidentNote> =
            changes.iter().map(|(id, asset)| (*id, asset.as_ref().map(resident))).collect();
        // A stored form that is resident is of the old content.
        let forms = changes.iter().filter_map(|(id, _)| self.table.candidate(id.stored()));
        residents.extend(forms.map(|form| (form.id, None)));
        let same_places = self.generations.current().bundle().has_places_of(bundle);
        let live = self.generations.prepare(bundle.clone());
        if !self.table.publish(&live, changes) {
            self.generations.discard(&live);
            return;
        }
        // Set once, since it is published once.
        let _ = shown.set((self.clock.now(), old));
        self.follow_locks(&live, changes.iter().map(|(id, _)| *id));
        self.table.retire(self.generations.oldest_live());
        self.table.let_go_of_ended(self.generations.oldest_wanted());
        self.followers.published(live.generation());
        self.metrics.reloads.one();
        if !same_places {
            self.take_places(bundle);
        }
        self.note_residents(residents);
        self.addresses.predictor.hint(PredictorMessage::Published(live));
    }

    /// The places that a generation says are those that viewers move through. They are hints: what cannot be read is told
    /// and does without.
    pub fn take_places(&self, bundle: &Bundle) {
        let places = bundle.places().unwrap_or_else(|error| {
            let what = format!("the places of assets are not known: {error}");
            tracing::warn!("{what}");
            self.events.send(Event::Warning { what });
            Vec::new()
        });
        self.surroundings.set_of_bundle(places);
    }

    /// What is locked is kept as it is now; what of it is not resident yet is loaded.
    fn follow_locks(&self, live: &Arc<Live>, changed: impl Iterator<Item = AssetId>) {
        for id in changed.filter(|id| self.locks.refresh(*id, &self.table)) {
            let key = Key { generation: live.generation(), id, want: Want::Resident };
            let ask = Ask { priority: Priority::High, origin: Origin::System, ..Ask::new(self.clock.now()) };
            // One that is gone is not found, and a ledger that is closed loads nothing any more.
            drop(self.ledger.join_unattended(live, key, ask));
        }
    }

    /// Leaves word for the evictor, and wakes it only when much has come together.
    pub fn note_residents(&self, mut residents: Vec<ResidentNote>) {
        let mut noted = self.residents.lock();
        if noted.is_empty() {
            *noted = residents
        } else {
            noted.append(&mut residents)
        }
        let many = noted.len() >= RESIDENTS_MAX;
        if many && self.roster.is_parked("evictor") {
            // Nobody takes it in. An evictor that comes back looks at the table.
            noted.clear();
        }
        drop(noted);
        if many {
            self.addresses.evictor.hint(EvictorMessage::Residents);
        }
    }
}
