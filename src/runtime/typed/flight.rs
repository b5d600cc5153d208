//! Making one value for everyone who wants it: room first, then the decoder's threads, then the rest of the charge.
//!
//! The work is a task of the runtime's own thread, so that whoever asked first may go away without the others losing it.
//! No actor takes part in it but the evictor, which makes room; when that is killed it is asked again.

use std::sync::Arc;
use std::time::Duration;

use super::{Decode, DecodeContext};
use crate::actors::Shared;
use crate::error::{Error, Result};
use crate::ids::Priority;
use crate::messages::work::caught;
use crate::residency::{Asset, Charge, Flight, Value, Wanted};

/// How soon the evictor is asked again for room that did not come.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// The value of `asset`, made if nobody has made it.
///
/// # Errors
/// [`Error::Decode`] and [`Error::Quarantined`] when the bytes are to blame; [`Error::TooLarge`] and [`Error::Pinned`]
/// when there is no room; [`Error::ShutDown`].
pub(in crate::runtime) async fn decoded<T: Decode>(shared: &Arc<Shared>, asset: &Asset) -> Result<Arc<Value<T>>> {
    let tick = shared.table.tick();
    if let Some(value) = asset.content().value::<T>(tick) {
        return Ok(value);
    }
    let waiting = match shared.values.want::<T>(asset.content(), tick) {
        Wanted::There(value) => return typed(value),
        Wanted::Made(waiting) => waiting,
        Wanted::Make(waiting, flight) => {
            shared.handle.spawn(make::<T>(Arc::clone(shared), asset.clone(), flight));
            waiting
        }
        Wanted::Refused(attempts, cause) => {
            return Err(Error::Quarantined { what: asset.path().to_string(), attempts, cause });
        }
    };
    // Whoever made it is gone only with the thread that it ran on.
    waiting.outcome().await.unwrap_or(Err(Error::ShutDown)).and_then(typed)
}

fn typed<T: Decode>(value: crate::residency::typed::AnyValue) -> Result<Arc<Value<T>>> {
    value.downcast().map_err(|_| Error::Failed { cause: "a value has another type than it is known by".into() })
}

async fn make<T: Decode>(shared: Arc<Shared>, asset: Asset, flight: Flight) {
    let made = {
        let making = value::<T>(&shared, &asset);
        tokio::pin!(making);
        loop {
            tokio::select! {
                biased;
                made = &mut making => break made,
                () = flight.unwanted() => {
                    if flight.abandon() {
                        return;
                    }
                }
            }
        }
    };
    match made {
        Ok(value) => flight.made(value, asset.content(), shared.table.tick()),
        Err(error) => {
            let counts = matches!(error, Error::Decode { .. });
            flight.failed(error, counts);
        }
    }
}

async fn value<T: Decode>(shared: &Arc<Shared>, asset: &Asset) -> Result<Arc<Value<T>>> {
    let mut charge = room(shared, asset, T::estimate_bytes(asset.len()) as u64).await?;
    let (tell, told) = tokio::sync::oneshot::channel();
    let (drill, bytes) = (Arc::clone(shared), asset.clone());
    let job = move || {
        // Nobody waits any more: what is large need not be decoded.
        if tell.is_closed() {
            return;
        }
        let context = DecodeContext { path: bytes.path(), kind: bytes.kind(), hash: bytes.hash() };
        let decoded = caught(|| {
            drill.reached("typed", bytes.path());
            T::decode(&bytes, &context).map(|value| (value.weight_bytes() as u64, value))
        });
        let decoded = match decoded {
            Ok(Ok(decoded)) => Ok(decoded),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => Err(format!("the decoder panicked: {panic}")),
        };
        // Whoever waited may have gone; the value is dropped here then.
        drop(tell.send(decoded));
    };
    shared.decoders_here().submit(Priority::Medium as u8, Box::new(job));
    let decoded = told.await.map_err(|_| Error::ShutDown)?;
    let (weight, value) = decoded.map_err(|cause| Error::Decode {
        path: asset.path().clone(),
        type_name: std::any::type_name::<T>(),
        cause,
    })?;
    match weight.checked_sub(charge.bytes()) {
        Some(more @ 1..) => charge.absorb(room(shared, asset, more).await?),
        _ => charge.shrink_to(weight),
    }
    Ok(Value::new(value, charge))
}

/// Waits until so many bytes may be charged, at most as long as a load waits for memory that is pinned.
async fn room(shared: &Arc<Shared>, asset: &Asset, bytes: u64) -> Result<Charge> {
    let what = || format!("{} (decoded)", asset.path());
    let kind = asset.kind();
    let limit_bytes = shared.budget.admissible_bytes(kind);
    if bytes > limit_bytes {
        return Err(Error::TooLarge { what: what(), needed_bytes: bytes, limit_bytes });
    }
    let deadline = shared.clock.now() + shared.config.memory_wait;
    loop {
        let released = shared.values.room();
        let shortfall = match shared.budget.charge_value_or_wait(kind, bytes) {
            Ok(charge) => return Ok(charge),
            Err(shortfall) => shortfall,
        };
        let left = deadline.saturating_duration_since(shared.clock.now());
        if left.is_zero() {
            let pinned = shared.table.largest_pinned(8);
            let (budget_bytes, waited) = (limit_bytes, shared.config.memory_wait);
            return Err(Error::Pinned { what: what(), needed_bytes: bytes, budget_bytes, waited, pinned });
        }
        shared.make_room(shortfall.missing_bytes.max(1), shortfall.kind);
        // Past it the evictor is asked again: it may have been killed with the question.
        drop(tokio::time::timeout(left.min(ASK_AGAIN), released).await);
    }
}
