//! Many loads at once: all, any, or each as it comes.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_core::Stream;
use parking_lot::Mutex;

use super::{DEFAULT_PRIORITY, Load, Snapshot};
use crate::config::AssetNode;
use crate::error::{Error, Result};
use crate::ids::{Origin, Priority};
use crate::residency::Asset;

/// Loads of one generation that are being configured.
#[must_use = "nothing is loaded until one of `all`, `any`, `completions`"]
pub struct LoadMany {
    snapshot: Snapshot,
    paths: Vec<String>,
    priority: Priority,
    origin: Origin,
    deadline: Option<Duration>,
    node: AssetNode,
}

impl LoadMany {
    pub(super) fn new(snapshot: Snapshot, paths: Vec<String>) -> Self {
        let node = snapshot.shared.config.asset_node;
        Self { snapshot, paths, priority: DEFAULT_PRIORITY, origin: Origin::User, deadline: None, node }
    }

    /// How urgent they are. Default medium.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Who asks, for the counters. Default the user.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// How long each may take. Default the configuration's.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Which NUMA node's memory they are put in, as [`super::Request::node`]. Default the configuration's.
    pub fn node(mut self, node: AssetNode) -> Self {
        self.node = node;
        self
    }

    /// All of them, in the order in which they were asked for. The first error ends it, and cancels the rest.
    ///
    /// # Errors
    /// [`Error::TooLarge`] at once, before anything is read, when together they cannot be resident; otherwise the
    /// first error of any of them.
    pub async fn all(self) -> Result<Vec<Asset>> {
        self.check_fits().await?;
        let count = self.paths.len();
        let mut completions = self.completions();
        let mut assets: Vec<Option<Asset>> = vec![None; count];
        while let Some((index, result)) = completions.next().await {
            assets[index] = Some(result?);
        }
        Ok(assets.into_iter().flatten().collect())
    }

    /// The first that is loaded; the rest is cancelled.
    ///
    /// # Errors
    /// The last error when none can be loaded; [`Error::Config`] when none was asked for.
    pub async fn any(self) -> Result<Asset> {
        let mut completions = self.completions();
        let mut last = Error::config("paths", "none was given");
        while let Some((_, result)) = completions.next().await {
            match result {
                Ok(asset) => return Ok(asset),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Each as it comes, with its place in the order in which they were asked for.
    pub fn completions(self) -> Completions {
        let loads = self.paths.iter().map(|path| {
            let request = self.snapshot.request(path).priority(self.priority).origin(self.origin).node(self.node);
            match self.deadline {
                Some(deadline) => request.deadline(deadline).send(),
                None => request.send(),
            }
        });
        let loads: Vec<Option<Load>> = loads.map(Some).collect();
        let ready = Arc::new(Ready { queue: Mutex::new((0..loads.len()).collect()), outer: Mutex::new(None) });
        let left = loads.len();
        let wakers = (0..left).map(|index| Waker::from(Arc::new(One { index, ready: Arc::clone(&ready) }))).collect();
        Completions { loads, left, ready, wakers }
    }

    /// Refuses at once what could never be resident together.
    async fn check_fits(&self) -> Result<()> {
        let mut lookups = Vec::with_capacity(self.paths.len());
        let mut bytes = 0u64;
        let mut seen = std::collections::HashSet::new();
        let mut count = |hash, len: u64| {
            if seen.insert(hash) {
                bytes = bytes.saturating_add(len);
            }
        };
        for path in &self.paths {
            match self.snapshot.get(path) {
                Some(asset) => count(asset.hash(), asset.len() as u64),
                None => lookups.push(Box::pin(self.snapshot.located(path, self.priority, self.origin))),
            }
        }
        // All of them are asked before the first is waited for.
        let mut found = vec![None; lookups.len()];
        poll_fn(|context| {
            let mut pending = false;
            for (lookup, found) in lookups.iter_mut().zip(&mut found) {
                if found.is_none() {
                    match lookup.as_mut().poll(context) {
                        Poll::Ready(located) => *found = Some(located),
                        Poll::Pending => pending = true,
                    }
                }
            }
            if pending { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        for located in found.into_iter().flatten() {
            let located = located?;
            count(located.record.content, located.record.len);
        }
        let limit_bytes = self.snapshot.shared.budget.used().1;
        if bytes > limit_bytes {
            let what = format!("{} assets together", self.paths.len());
            return Err(Error::TooLarge { what, needed_bytes: bytes, limit_bytes });
        }
        Ok(())
    }
}

/// Which loads have something to say, and whom to wake for it.
struct Ready {
    queue: Mutex<VecDeque<usize>>,
    outer: Mutex<Option<Waker>>,
}

/// The waker of one load: a wake-up costs the polling of that one, not of all.
struct One {
    index: usize,
    ready: Arc<Ready>,
}

impl Wake for One {
    fn wake(self: Arc<Self>) {
        self.ready.queue.lock().push_back(self.index);
        let outer = self.ready.outer.lock().take();
        if let Some(waker) = outer {
            waker.wake();
        }
    }
}

/// A stream of loads in the order of their completion. Dropping it cancels what is still under way.
pub struct Completions {
    loads: Vec<Option<Load>>,
    left: usize,
    ready: Arc<Ready>,
    wakers: Vec<Waker>,
}

impl Completions {
    /// The next that is done, or `None` after the last.
    pub async fn next(&mut self) -> Option<(usize, Result<Asset>)> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// How many are still under way.
    pub fn left(&self) -> usize {
        self.left
    }
}

impl Stream for Completions {
    type Item = (usize, Result<Asset>);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.left == 0 {
                return Poll::Ready(None);
            }
            // The waker is in place before the queue is looked at: what comes between wakes.
            *this.ready.outer.lock() = Some(context.waker().clone());
            let Some(index) = this.ready.queue.lock().pop_front() else { return Poll::Pending };
            let Some(load) = &mut this.loads[index] else { continue };
            let mut inner = Context::from_waker(&this.wakers[index]);
            if let Poll::Ready(result) = Pin::new(load).poll(&mut inner) {
                this.loads[index] = None;
                this.left -= 1;
                return Poll::Ready(Some((index, result)));
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
