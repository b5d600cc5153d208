//! Which generation readers see, and which older ones are still held.
//!
//! The number of the current generation is one atomic, shared with the resident table: a hit and a miss go by the same
//! number, so that publishing is one store for both (invariant 3). A generation is prepared first (its [`Live`] can be
//! found by whoever reads the new number) and shown by [`super::ResidentTable::publish`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use crate::bundle::Bundle;
use crate::ids::Generation;

/// Called after a generation that is not the current one was let go by its last holder. It runs where that happened:
/// it must be quick, and may call [`Generations::oldest_live`].
pub type OnEnd = Box<dyn Fn() + Send + Sync>;

/// One generation while anyone can read it: what a snapshot, a request and a stream hold.
pub struct Live {
    bundle: Bundle,
    generation: Generation,
    census: Arc<Census>,
}

impl Live {
    /// Where its assets are.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Its number.
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.census.leave(self.generation);
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Live(generation {})", self.generation)
    }
}

/// How many [`Live`]s of which generation there are.
#[derive(Default)]
struct Census {
    living: Mutex<BTreeMap<Generation, usize>>,
    on_end: ArcSwapOption<OnEnd>,
}

impl Census {
    fn leave(&self, generation: Generation) {
        let mut living = self.living.lock();
        let Some(count) = living.get_mut(&generation) else { return };
        *count -= 1;
        if *count == 0 {
            living.remove(&generation);
            drop(living);
            if let Some(on_end) = &*self.on_end.load() {
                on_end();
            }
        }
    }
}

/// The current generation and the census of the older ones.
pub struct Generations {
    /// The number of the generation that readers see. What it is set to is in `reachable` before.
    number: AtomicU64,
    /// The current generation and those that are prepared, in the order of their numbers.
    reachable: ArcSwap<Vec<Arc<Live>>>,
    /// Held by whoever changes `reachable` and `number`.
    change: Mutex<()>,
    census: Arc<Census>,
    retained: Mutex<Retained>,
}

/// Generations that readers no longer see and that are kept all the same, the oldest first.
#[derive(Default)]
struct Retained {
    kept: VecDeque<Arc<Live>>,
    /// How many at most.
    most: usize,
}

/// What a publication made unreachable. Dropping it may call back.
pub(super) struct Unreachable {
    _before: Arc<Vec<Arc<Live>>>,
    _retired: Vec<Arc<Live>>,
}

impl Generations {
    /// Starts with `bundle` as what readers see.
    pub fn new(bundle: Bundle) -> Arc<Generations> {
        let generation = bundle.generation();
        Self::starting_with(bundle, generation)
    }

    pub(super) fn starting_with(bundle: Bundle, generation: Generation) -> Arc<Generations> {
        let census = Arc::<Census>::default();
        let live = Self::enter(&census, bundle, generation);
        Arc::new(Generations {
            number: AtomicU64::new(generation.0),
            reachable: ArcSwap::from_pointee(vec![live]),
            change: Mutex::new(()),
            census,
            retained: Mutex::default(),
        })
    }

    fn enter(census: &Arc<Census>, bundle: Bundle, generation: Generation) -> Arc<Live> {
        *census.living.lock().entry(generation).or_default() += 1;
        Arc::new(Live { bundle, generation, census: Arc::clone(census) })
    }

    /// The number of the generation that readers see. One load.
    pub fn number(&self) -> Generation {
        Generation(self.number.load(Ordering::SeqCst))
    }

    /// The generation that readers see. Takes no lock; looks again only when a publication came between.
    pub fn current(&self) -> Arc<Live> {
        loop {
            let number = self.number();
            if let Some(live) = self.reachable.load().iter().find(|live| live.generation == number) {
                return Arc::clone(live);
            }
            std::hint::spin_loop();
        }
    }

    /// Makes `bundle` a generation that can be published, or gives the one that is prepared already. Nobody sees it
    /// yet. A preparation that is not published is
    /// undone by [`Generations::discard`].
    pub fn prepare(&self, bundle: Bundle) -> Arc<Live> {
        let generation = bundle.generation();
        self.prepare_as(bundle, generation)
    }

    pub(super) fn prepare_as(&self, bundle: Bundle, generation: Generation) -> Arc<Live> {
        let _change = self.change.lock();
        let known = self.reachable.load().iter().find(|live| live.generation == generation).cloned();
        if let Some(live) = known {
            return live;
        }
        let live = Self::enter(&self.census, bundle, generation);
        let mut reachable = Vec::clone(&self.reachable.load());
        reachable.push(Arc::clone(&live));
        reachable.sort_by_key(|live| live.generation);
        self.reachable.store(Arc::new(reachable));
        live
    }

    /// Lets go of a generation that was prepared and will not be published. Does nothing to the current one.
    pub fn discard(&self, live: &Arc<Live>) {
        let change = self.change.lock();
        let number = self.number();
        let before = self.reachable.load_full();
        let kept = before.iter().filter(|other| other.generation == number || !Arc::ptr_eq(other, live));
        self.reachable.store(Arc::new(kept.cloned().collect()));
        drop(change);
        // Dropping a generation may call back, so not under the lock.
        drop(before);
    }

    /// Whether `live` was prepared and is neither discarded nor overtaken.
    pub(super) fn is_prepared(&self, live: &Arc<Live>) -> bool {
        self.reachable.load().iter().any(|other| Arc::ptr_eq(other, live))
    }

    /// The one store: from here on readers see `live`, which is prepared and newer than what they see. Gives what is
    /// no longer reachable, to be dropped where a callback may run.
    pub(super) fn show(&self, live: &Arc<Live>) -> Unreachable {
        let _change = self.change.lock();
        let before = self.reachable.load_full();
        if !before.iter().any(|other| Arc::ptr_eq(other, live)) {
            // It was discarded meanwhile, by someone who did not know: it is held here, so it can be shown.
            let all = before.iter().chain([live]).cloned().collect();
            self.reachable.store(Arc::new(all));
        }
        let number = self.number();
        self.number.store(live.generation.0, Ordering::SeqCst);
        let newer = before.iter().filter(|other| other.generation > live.generation);
        self.reachable.store(Arc::new([live].into_iter().chain(newer).cloned().collect()));
        let mut retained = self.retained.lock();
        retained.kept.extend(before.iter().find(|other| other.generation == number).cloned());
        let surplus = retained.kept.len().saturating_sub(retained.most);
        let retired = retained.kept.drain(..surplus).collect();
        drop(retained);
        Unreachable { _before: before, _retired: retired }
    }

    /// Keeps so many generations besides the one that readers see, from now on: they can be had by
    /// [`Generations::at`], as if somebody held them.
    pub fn retain(&self, most: usize) {
        let mut retained = self.retained.lock();
        retained.most = most;
        let surplus = retained.kept.len().saturating_sub(most);
        let retired: Vec<Arc<Live>> = retained.kept.drain(..surplus).collect();
        drop(retained);
        drop(retired);
    }

    /// The generation with this number, if it is the one that readers see or is kept.
    pub fn at(&self, generation: Generation) -> Option<Arc<Live>> {
        let current = self.current();
        if current.generation == generation {
            return Some(current);
        }
        self.retained.lock().kept.iter().find(|live| live.generation == generation).cloned()
    }

    /// The numbers of the generations that are kept, and of the one that readers see, which is the last.
    pub fn kept(&self) -> Vec<Generation> {
        let retained = self.retained.lock();
        let current = self.number();
        let older = retained.kept.iter().map(|live| live.generation).filter(|number| *number < current);
        older.chain([current]).collect()
    }

    /// The oldest generation that anyone holds.
    pub fn oldest_live(&self) -> Generation {
        let number = self.number();
        self.census.living.lock().keys().next().copied().unwrap_or(number).min(number)
    }

    /// The oldest generation that anyone holds for another reason than that it is kept.
    pub fn oldest_wanted(&self) -> Generation {
        let retained = self.retained.lock();
        let alone: Vec<Generation> =
            retained.kept.iter().filter(|live| Arc::strong_count(live) == 1).map(|live| live.generation).collect();
        drop(retained);
        let number = self.number();
        let living = self.census.living.lock();
        living.keys().find(|generation| !alone.contains(generation)).copied().unwrap_or(number).min(number)
    }

    /// How many generations are held, the current one included.
    pub fn live_count(&self) -> usize {
        self.census.living.lock().len()
    }

    /// Sets who is told when a generation was let go by its last holder. It replaces the one before.
    pub fn on_end(&self, on_end: OnEnd) {
        self.census.on_end.store(Some(Arc::new(on_end)));
    }
}

impl fmt::Debug for Generations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Generations(current {}, oldest {})", self.number(), self.oldest_live())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::residency::testing::bundle;

    #[test]
    fn an_old_generation_lives_until_its_last_holder_lets_go() {
        let generations = Generations::starting_with(bundle(), Generation(1));
        let ends = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&ends);
        generations.on_end(Box::new(move || _ = seen.fetch_add(1, Ordering::SeqCst)));
        let (snapshot, other) = (generations.current(), generations.current());
        let next = generations.prepare_as(bundle(), Generation(2));
        assert!(Arc::ptr_eq(&next, &generations.prepare_as(bundle(), Generation(2))), "it is prepared once");
        assert_eq!(generations.current().generation(), Generation(1));
        drop(generations.show(&next));
        assert_eq!((generations.number(), generations.oldest_live()), (Generation(2), Generation(1)));
        drop(snapshot);
        assert_eq!((ends.load(Ordering::SeqCst), generations.live_count()), (0, 2));
        drop(other);
        assert_eq!((ends.load(Ordering::SeqCst), generations.oldest_live()), (1, Generation(2)));
    }

    #[test]
    fn as_many_generations_as_asked_for_are_kept_besides_the_current_one() {
        let generations = Generations::starting_with(bundle(), Generation(1));
        generations.retain(2);
        for number in 2..=5 {
            let next = generations.prepare_as(bundle(), Generation(number));
            assert!(generations.at(Generation(number)).is_none(), "nobody sees it yet");
            drop(generations.show(&next));
        }
        assert_eq!(generations.kept(), [3, 4, 5].map(Generation));
        assert_eq!((generations.oldest_live(), generations.live_count()), (Generation(3), 3));
        assert!(generations.at(Generation(2)).is_none());
        assert_eq!(generations.at(Generation(4)).unwrap().generation(), Generation(4));
        generations.retain(0);
        assert_eq!((generations.kept(), generations.live_count()), (vec![Generation(5)], 1));
    }

    #[test]
    fn a_discarded_generation_is_not_kept() {
        let generations = Generations::starting_with(bundle(), Generation(1));
        let next = generations.prepare_as(bundle(), Generation(2));
        generations.discard(&next);
        generations.discard(&generations.current());
        drop(next);
        assert_eq!((generations.live_count(), generations.current().generation()), (1, Generation(1)));
    }
}
