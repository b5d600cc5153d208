//! Publications on their way to callbacks: a bounded queue for each, in which nothing is lost. Who falls behind is told
//! of several publications as of one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};

use crate::event::{ChangedAsset, Published};

/// Publications that wait at most; what comes then is added to the last one.
const WAITING_MAX: usize = 64;

#[derive(Default)]
struct State {
    waiting: VecDeque<Published>,
    closed: bool,
}

/// What one callback is still to be told of.
#[derive(Default)]
pub struct ReloadQueue {
    state: Mutex<State>,
    moved: Condvar,
}

impl ReloadQueue {
    fn tell(&self, published: &Published) {
        let mut state = self.state.lock();
        match state.waiting.len() {
            WAITING_MAX => {
                let last = state.waiting.back_mut().expect("there are as many as there may be");
                add(last, published);
            }
            _ => state.waiting.push_back(published.clone()),
        }
        drop(state);
        self.moved.notify_one();
    }

    /// The next one; `None` when it is closed. Blocks.
    pub fn next(&self) -> Option<Published> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(published) = state.waiting.pop_front() {
                return Some(published);
            }
            self.moved.wait(&mut state);
        }
    }

    /// Nothing is told any more, not even what waits.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.moved.notify_all();
    }
}

/// Makes of two publications, one after the other, one.
fn add(first: &mut Published, second: &Published) {
    let changed = std::mem::take(&mut first.changed).into_iter().map(|change| (change.path.clone(), change));
    let mut all: BTreeMap<_, ChangedAsset> = changed.collect();
    for change in &second.changed {
        let before = all.get(&change.path).map_or(change.old, |before| before.old);
        all.insert(change.path.clone(), ChangedAsset { old: before, ..change.clone() });
    }
    let old = first.old;
    *first = Published { old, changed: all.into_values().collect(), ..second.clone() };
}

/// The queues of all callbacks.
#[derive(Default)]
pub struct Reloads(Mutex<Vec<Weak<ReloadQueue>>>);

impl Reloads {
    /// A queue of its own for whoever wants to be told from now on.
    pub fn queue(&self) -> Arc<ReloadQueue> {
        let queue = Arc::<ReloadQueue>::default();
        let mut queues = self.0.lock();
        queues.retain(|other| other.strong_count() > 0);
        queues.push(Arc::downgrade(&queue));
        queue
    }

    /// Tells every queue. Waits for nobody.
    pub fn tell(&self, published: &Published) {
        self.0.lock().iter().filter_map(Weak::upgrade).for_each(|queue| queue.tell(published));
    }

    /// Closes every queue.
    pub fn close(&self) {
        self.0.lock().drain(..).filter_map(|queue| queue.upgrade()).for_each(|queue| queue.close());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ReloadTimings;
    use crate::ids::{AssetPath, ContentHash, Generation};

    fn published(old: u64, path: &str, from: u8, to: u8) -> Published {
        let path = AssetPath::new(path).unwrap();
        let hash = |byte| (byte > 0).then(|| ContentHash::of(&[byte]));
        let change = ChangedAsset { id: path.id(), path, old: hash(from), new: hash(to) };
        let timings = ReloadTimings::default();
        Published { old: Generation(old), generation: Generation(old + 1), changed: vec![change], timings }
    }

    #[test]
    fn who_falls_behind_is_told_of_several_publications_as_of_one_and_misses_nothing() {
        let reloads = Reloads::default();
        let queue = reloads.queue();
        for old in 0..WAITING_MAX as u64 {
            reloads.tell(&published(old, "a", 1, 2));
        }
        let last = WAITING_MAX as u64;
        reloads.tell(&published(last, "a", 2, 3));
        reloads.tell(&published(last + 1, "b", 0, 1));
        for old in 0..last - 1 {
            assert_eq!(queue.next().unwrap().old, Generation(old));
        }
        let all = queue.next().unwrap();
        assert_eq!((all.old, all.generation), (Generation(last - 1), Generation(last + 2)));
        let changed: Vec<_> = all.changed.iter().map(|change| (change.path.as_str(), change.old, change.new)).collect();
        let hash = |byte| Some(ContentHash::of(&[byte]));
        assert_eq!(changed, [("a", hash(1), hash(3)), ("b", None, hash(1))]);
        reloads.tell(&published(0, "c", 0, 1));
        reloads.close();
        assert!(queue.next().is_none());
    }
}
