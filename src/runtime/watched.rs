//! A value that follows its asset: the newest good one, replaced when readers see the new bytes.
//!
//! What a publication changes is decoded before it, as a version that is good from the new generation on: the store of
//! the generation's number shows it, together with the bytes. A version that is not ready in time, since it takes longer
//! than a publication waits, is shown as soon as it is.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::typed::{self, Decode, Typed};
use super::{DEFAULT_PRIORITY, Request, Snapshot};
use crate::actors::Shared;
use crate::error::{Error, Result};
use crate::event::{DecodeFailure, Event};
use crate::ids::{AssetPath, Generation};
use crate::residency::followers::{Became, Busy, Follower};

/// The decoded form of an asset, whatever generation readers see: always the newest good one. Cheap to clone.
///
/// - A reload replaces the value in the same step in which readers see the new bytes, if it is decoded by then; a
///   publication waits for that as long as `watched_wait` says.
/// - Bytes that cannot be decoded leave the last good value where it is: [`Watched::error`] says why, and
///   [`Event::DecodeFailed`] tells it. So does an asset that is gone. The next good bytes heal it.
/// - Each value is the newest good one of its own asset. For several that belong together, load them through one
///   [`Snapshot`].
///
/// ```
/// # async fn example(runtime: &flyloft::Runtime) -> flyloft::Result<()> {
/// let mut site = runtime.watched::<serde_json::Value>("site.json").await?;
/// println!("{}", site.load()["title"]);
/// site.changed().await?;
/// println!("now {}", site.load()["title"]);
/// # Ok(())
/// # }
/// ```
pub struct Watched<T: Decode> {
    slot: Arc<Slot<T>>,
    seen: watch::Receiver<u64>,
}

/// A value as it was when it was looked at. It keeps the value in memory, and should not be held for long: a
/// [`Typed`] is for that.
pub struct Newest<T: Decode>(Found<T>);

enum Found<T: Decode> {
    Now(arc_swap::Guard<Arc<Version<T>>>),
    /// One that the next publication replaces.
    Still(Arc<Version<T>>),
}

struct Version<T: Decode> {
    /// The first generation that it is shown in.
    birth: Generation,
    value: Typed<T>,
    /// What is shown until then.
    previous: ArcSwapOption<Version<T>>,
}

struct Slot<T: Decode> {
    shared: Arc<Shared>,
    path: AssetPath,
    newest: ArcSwap<Version<T>>,
    trouble: ArcSwapOption<(Generation, Error)>,
    /// A change was told that is still to be loaded, once readers see it.
    behind: AtomicBool,
    ended: AtomicBool,
    /// Held by whoever changes `newest` and `trouble`.
    changing: Mutex<()>,
    /// How often what readers see was replaced.
    shown: watch::Sender<u64>,
}

impl<T: Decode> Watched<T> {
    pub(super) async fn new(shared: Arc<Shared>, path: AssetPath) -> Result<Self> {
        let live = shared.generations.current();
        let birth = live.generation();
        let value = Request::new(&shared, path.as_str(), Some(live)).priority(DEFAULT_PRIORITY).send_as::<T>().await?;
        let first = Version { birth, value, previous: ArcSwapOption::empty() };
        let (shown, seen) = watch::channel(0);
        let slot = Arc::new(Slot {
            newest: ArcSwap::from_pointee(first),
            trouble: ArcSwapOption::empty(),
            behind: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            changing: Mutex::new(()),
            path,
            shown,
            shared,
        });
        // Set first: should a publication have been prepared without it, it looks when that is published.
        slot.behind.store(true, Ordering::SeqCst);
        let follower: Arc<dyn Follower> = Arc::clone(&slot) as _;
        let prepared = slot.shared.followers.follow(slot.path.id(), &follower);
        let now = slot.shared.generations.number();
        if prepared.is_none_or(|prepared| prepared <= now) {
            // What is to come is told. What came while it was loaded is looked at now.
            slot.behind.store(false, Ordering::SeqCst);
            if now > birth {
                slot.refresh().await;
            }
        }
        Ok(Self { slot, seen })
    }

    /// The newest good value: no lock, no allocation, no waiting.
    #[inline]
    pub fn load(&self) -> Newest<T> {
        let number = self.slot.shared.generations.number();
        let newest = self.slot.newest.load();
        if newest.birth <= number {
            return Newest(Found::Now(newest));
        }
        let mut previous = newest.previous.load_full();
        while let Some(version) = previous {
            if version.birth <= number {
                return Newest(Found::Still(version));
            }
            previous = version.previous.load_full();
        }
        // It was published meanwhile.
        Newest(Found::Now(newest))
    }

    /// The asset that it follows.
    pub fn path(&self) -> &AssetPath {
        &self.slot.path
    }

    /// Why the newest bytes are not what [`Watched::load`] gives: they cannot be decoded, or the asset is gone. `None`
    /// when they are.
    pub fn error(&self) -> Option<Error> {
        self.slot.trouble.load().as_ref().map(|trouble| trouble.1.clone())
    }

    /// Waits until there is another good value than when this was called last, or than at first. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// [`Error::ShutDown`] when nothing will change any more.
    pub async fn changed(&mut self) -> Result<()> {
        // The sender is in the slot, so it cannot be gone.
        drop(self.seen.changed().await);
        if self.slot.ended.load(Ordering::SeqCst) { Err(Error::ShutDown) } else { Ok(()) }
    }
}

impl<T: Decode> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self { slot: Arc::clone(&self.slot), seen: self.seen.clone() }
    }
}

impl<T: Decode + fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("newest", self.load().typed()).field("error", &self.error()).finish()
    }
}

impl<T: Decode> Newest<T> {
    /// The handle, which knows its hash and generation, and may be held as long as one likes.
    pub fn typed(&self) -> &Typed<T> {
        match &self.0 {
            Found::Now(version) => &version.value,
            Found::Still(version) => &version.value,
        }
    }
}

impl<T: Decode> Deref for Newest<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.typed()
    }
}

impl<T: Decode> Slot<T> {
    /// Shows `value` from generation `birth` on.
    fn put(&self, birth: Generation, value: Typed<T>) {
        let changing = self.changing.lock();
        let newest = self.newest.load_full();
        if birth <= newest.birth {
            return;
        }
        let previous = ArcSwapOption::new(Some(newest));
        self.newest.store(Arc::new(Version { birth, value, previous }));
        if self.trouble.load().as_ref().is_some_and(|trouble| trouble.0 <= birth) {
            self.trouble.store(None);
        }
        let replaced = self.settle(self.shared.generations.number());
        drop(changing);
        drop(replaced);
    }

    /// Lets go of what no reader of `number` sees any more, and tells who waits. To be called while `changing` is held;
    /// what it gives is to be dropped after that.
    fn settle(&self, number: Generation) -> Option<Arc<Version<T>>> {
        let newest = self.newest.load();
        if newest.birth > number {
            return None;
        }
        let previous = newest.previous.swap(None)?;
        if previous.value.hash() != newest.value.hash() {
            self.shown.send_modify(|shown| *shown += 1);
        }
        Some(previous)
    }

    /// The last good value stays, and why.
    fn fail(&self, generation: Generation, error: Error) {
        if matches!(error, Error::ShutDown) {
            return;
        }
        let changing = self.changing.lock();
        if self.newest.load().birth >= generation
            || self.trouble.load().as_ref().is_some_and(|trouble| trouble.0 > generation)
        {
            return;
        }
        self.trouble.store(Some(Arc::new((generation, error.clone()))));
        drop(changing);
        let (path, type_name) = (self.path.clone(), std::any::type_name::<T>().to_owned());
        tracing::warn!(%path, type_name, %generation, %error, "the last good value stays");
        let failure = DecodeFailure { path, type_name, generation, cause: error.to_string() };
        self.shared.events.send(Event::DecodeFailed(failure));
    }

    /// Takes up what readers see now.
    async fn refresh(&self) {
        let live = self.shared.generations.current();
        let generation = live.generation();
        let request = Snapshot::new(Arc::clone(&self.shared), live).request(self.path.as_str());
        match request.send_as::<T>().await {
            Ok(value) => self.put(generation, value),
            Err(error) => self.fail(generation, error),
        }
    }
}

impl<T: Decode> Follower for Slot<T> {
    fn change(self: Arc<Self>, generation: Generation, became: Became, busy: Busy) {
        match became {
            Became::Gone => {
                let what = self.path.to_string();
                self.fail(generation, Error::NotFound { what, generation });
            }
            Became::Elsewhere => self.behind.store(true, Ordering::SeqCst),
            Became::Resident(asset) => {
                let handle = self.shared.handle.clone();
                handle.spawn(async move {
                    match typed::of_asset(&self.shared, &asset).await {
                        Ok(value) => self.put(generation, value),
                        Err(error) => self.fail(generation, error),
                    }
                    drop(busy);
                });
            }
        }
    }

    fn published(self: Arc<Self>, generation: Generation) {
        let changing = self.changing.lock();
        let replaced = self.settle(generation);
        drop(changing);
        drop(replaced);
        if self.behind.swap(false, Ordering::SeqCst) {
            let handle = self.shared.handle.clone();
            handle.spawn(async move { self.refresh().await });
        }
    }

    fn ended(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.shown.send_modify(|shown| *shown += 1);
    }
}
