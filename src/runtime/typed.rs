//! Assets as values: decoded once for each content, off the caller's threads, kept beside the bytes.

mod decode;
mod flight;

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

pub use decode::{Decode, DecodeContext, DecodeError, Json, Postcard};
pub(super) use flight::decoded;

use super::{ANY, Load};
use crate::actors::Shared;
use crate::error::{Error, Result};
use crate::ids::{AssetId, AssetPath, ContentHash, Generation};
use crate::residency::{Asset, Value};

/// A decoded asset. Derefs to the value, is cheap to clone, and keeps the value in memory while it is held, also when
/// the bytes that it was made of are evicted. A reload never changes the value behind a handle: see
/// [`super::Watched`] for one that follows.
pub struct Typed<T: Decode> {
    value: Arc<Value<T>>,
    path: AssetPath,
    hash: ContentHash,
    generation: Generation,
}

impl<T: Decode> Typed<T> {
    fn of(value: Arc<Value<T>>, asset: &Asset) -> Self {
        let (path, hash, generation) = (asset.path().clone(), asset.hash(), asset.generation());
        Self { value, path, hash, generation }
    }

    /// The asset's path.
    pub fn path(&self) -> &AssetPath {
        &self.path
    }

    /// The hash of the bytes that it was decoded from.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// The generation that the bytes were made resident for. They may be those of later generations, too.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// What the value is charged, in bytes.
    pub fn weight_bytes(&self) -> u64 {
        self.value.weight_bytes()
    }

    /// Whether both are handles to one value, as all are that were decoded from one content while it was in memory.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value)
    }
}

impl<T: Decode> Clone for Typed<T> {
    fn clone(&self) -> Self {
        let (path, hash, generation) = (self.path.clone(), self.hash, self.generation);
        Self { value: Arc::clone(&self.value), path, hash, generation }
    }
}

impl<T: Decode> Deref for Typed<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Decode> AsRef<T> for Typed<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: Decode + fmt::Debug> fmt::Debug for Typed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed")
            .field("path", &self.path.as_str())
            .field("generation", &self.generation)
            .field("value", &**self)
            .finish()
    }
}

/// A load of a decoded asset under way. Dropping it cancels it, unless someone else waits for the same.
#[must_use = "a dropped load is cancelled"]
pub struct LoadAs<T: Decode>(State<T>);

type Running<T> = Pin<Box<dyn Future<Output = Result<Typed<T>>> + Send>>;

enum State<T: Decode> {
    /// Taken by the first poll.
    Ready(Option<Typed<T>>),
    Running(Running<T>),
}

impl<T: Decode> LoadAs<T> {
    pub(super) fn ready(typed: Typed<T>) -> Self {
        Self(State::Ready(Some(typed)))
    }

    /// Decodes what `load` loads.
    pub(super) fn after(shared: Arc<Shared>, load: Load) -> Self {
        Self(State::Running(Box::pin(async move {
            let asset = load.await?;
            of_asset(&shared, &asset).await
        })))
    }
}

// Nothing in it is pinned but what its box pins.
impl<T: Decode> Unpin for LoadAs<T> {}

impl<T: Decode> Future for LoadAs<T> {
    type Output = Result<Typed<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Ready(typed) => Poll::Ready(typed.take().ok_or(Error::ShutDown)),
            State::Running(running) => running.as_mut().poll(context),
        }
    }
}

/// The decoded form of an asset in hand.
pub(super) async fn of_asset<T: Decode>(shared: &Arc<Shared>, asset: &Asset) -> Result<Typed<T>> {
    decoded::<T>(shared, asset).await.map(|value| Typed::of(value, asset))
}

/// The decoded form, if the asset is resident in `generation` and its value is there: no lock, no allocation, no
/// waiting.
#[inline]
pub(super) fn resident<T: Decode>(shared: &Shared, id: AssetId, generation: Generation) -> Option<Typed<T>> {
    let tick = shared.table.tick();
    let found = shared.table.read_at(id, generation, |asset| {
        let value = asset.content().value::<T>(tick)?;
        shared.hit(id, false, asset, ANY);
        Some(Typed::of(value, asset))
    });
    found.flatten()
}
