//! How each child is started, where its address is published, and where it is withdrawn. The one place that names
//! concrete actors.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use ractor::{Actor, ActorCell, ActorProcessingErr};
use tokio::runtime::Handle;

use super::supervisor::{self, Supervisor};
use super::tree::{Child, ChildSpec};
use crate::actors::cache_manager::{self, CacheManager};
use crate::actors::decompressor::{self, Decompressor};
use crate::actors::evictor::{self, Evictor};
use crate::actors::file_watcher::{self, FileWatcher};
use crate::actors::io_dispatcher::{self, IoDispatcher};
use crate::actors::io_worker::{self, IoWorker};
use crate::actors::predictor::{self, Predictor};
use crate::actors::rebuilder::{self, Rebuilder};
use crate::actors::{Addresses, Shared};
use crate::messages::Address;

type Started = Result<ActorCell, ActorProcessingErr>;

/// Whether this runtime has the child at all: hot reload needs a tree that is watched.
pub fn wanted(child: Child, shared: &Shared) -> bool {
    match child {
        Child::Reload | Child::Rebuilder | Child::FileWatcher => shared.workshop.is_some() && shared.config.watch,
        _ => true,
    }
}

/// Starts a child and publishes its address.
pub fn start<'a>(
    spec: &'static ChildSpec,
    node: usize,
    shared: &'a Arc<Shared>,
    parent: ActorCell,
) -> Pin<Box<dyn Future<Output = Started> + Send + 'a>> {
    // Boxed, since a supervisor starts supervisors.
    Box::pin(async move {
        let Addresses { dispatcher, decompressor, cache_manager, evictor, predictor, rebuilder, file_watcher, .. } =
            &shared.addresses;
        let own = || Arc::clone(shared);
        // The read path shares the first I/O worker's thread: a load that goes from stage to stage wakes no other.
        let io = || shared.drivers[0].handle();
        let workshop = || shared.workshop.clone().ok_or("no source directory");
        if let Some(inner) = spec.supervises {
            let (actor, _) =
                Actor::spawn_linked(None, Supervisor(inner), supervisor::Args { shared: own() }, parent).await?;
            return Ok(actor.get_cell());
        }
        match spec.child {
            Child::IoWorker => {
                let args = io_worker::Args { shared: own(), node };
                spawn_on(shared.drivers[node].handle(), IoWorker, args, &shared.addresses.io_workers[node], parent)
                    .await
            }
            Child::IoDispatcher => {
                spawn_on(io(), IoDispatcher, io_dispatcher::Args { shared: own() }, dispatcher, parent).await
            }
            Child::Decompressor => {
                spawn_on(io(), Decompressor, decompressor::Args { shared: own() }, decompressor, parent).await
            }
            Child::CacheManager => {
                spawn_on(io(), CacheManager, cache_manager::Args { shared: own() }, cache_manager, parent).await
            }
            Child::Evictor => spawn(Evictor, evictor::Args { shared: own() }, evictor, parent).await,
            Child::Predictor => spawn(Predictor, predictor::Args { shared: own() }, predictor, parent).await,
            Child::Rebuilder => {
                let args = rebuilder::Args { shared: own(), workshop: workshop()? };
                spawn(Rebuilder, args, rebuilder, parent).await
            }
            Child::FileWatcher => {
                let args = file_watcher::Args { shared: own(), workshop: workshop()? };
                spawn(FileWatcher, args, file_watcher, parent).await
            }
            Child::Storage | Child::Serving | Child::Reload => Err("a supervisor without a declaration".into()),
        }
    })
}

/// Withdraws the address of a child that ended.
pub fn withdraw(child: Child, node: usize, shared: &Shared) {
    let addresses = &shared.addresses;
    match child {
        Child::IoWorker => addresses.io_workers[node].withdraw(),
        Child::IoDispatcher => addresses.dispatcher.withdraw(),
        Child::Decompressor => addresses.decompressor.withdraw(),
        Child::CacheManager => addresses.cache_manager.withdraw(),
        Child::Evictor => addresses.evictor.withdraw(),
        Child::Predictor => addresses.predictor.withdraw(),
        Child::Rebuilder => addresses.rebuilder.withdraw(),
        Child::FileWatcher => addresses.file_watcher.withdraw(),
        Child::Storage | Child::Serving | Child::Reload => {}
    }
}

async fn spawn<A: Actor>(actor: A, args: A::Arguments, address: &Address<A::Msg>, parent: ActorCell) -> Started {
    let (actor, _) = Actor::spawn_linked(None, actor, args, parent).await?;
    address.publish(actor.clone());
    Ok(actor.get_cell())
}

/// Starts an actor on a driver's own thread, which is pinned and outlives it.
async fn spawn_on<A: Actor>(
    handle: Handle,
    actor: A,
    args: A::Arguments,
    address: &Address<A::Msg>,
    parent: ActorCell,
) -> Started {
    let spawned = handle.spawn(Actor::spawn_linked(None, actor, args, parent)).await;
    let (actor, _) = spawned.map_err(|error| format!("the driver's thread is gone: {error}"))??;
    address.publish(actor.clone());
    Ok(actor.get_cell())
}
