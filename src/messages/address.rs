//! How one actor knows another: by message type and address, never by a reference that may be dead.
//!
//! A supervisor publishes the live reference here each time it starts the actor, and withdraws it when the actor
//! ends. Whoever holds the address always speaks to the newest one, or gets the message back whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use ractor::{ActorRef, Message, MessagingErr};

/// The address of an actor that takes messages of type `M`. Cheap to clone.
pub struct Address<M: Message> {
    inner: Arc<Inner<M>>,
}

struct Inner<M: Message> {
    live: ArcSwapOption<ActorRef<M>>,
    refused: AtomicU64,
}

impl<M: Message> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<M: Message> Default for Address<M> {
    fn default() -> Self {
        Self { inner: Arc::new(Inner { live: ArcSwapOption::empty(), refused: AtomicU64::new(0) }) }
    }
}

impl<M: Message> Address<M> {
    /// Sends `message` without waiting.
    ///
    /// # Errors
    /// The message itself, whole, when the actor is down. Dropping it gives back whatever work it carries.
    pub fn cast(&self, message: M) -> Result<(), M> {
        let Some(actor) = self.inner.live.load_full() else {
            self.inner.refused.fetch_add(1, Ordering::Relaxed);
            return Err(message);
        };
        match actor.send_message(message) {
            Ok(()) => Ok(()),
            Err(MessagingErr::SendErr(message)) => {
                self.inner.refused.fetch_add(1, Ordering::Relaxed);
                // It is dead, though its supervisor may be dead too and not have withdrawn it. Only this one is
                // withdrawn: a newer one that was published meanwhile stays.
                self.inner.live.compare_and_swap(&actor, None);
                Err(message)
            }
            // The two other refusals cannot come back from a send by type; the message is gone with them, and
            // what it carried has been given back by its drop.
            Err(MessagingErr::ChannelClosed | MessagingErr::InvalidActorType) => Ok(()),
        }
    }

    /// Sends a hint: something that may be lost, such as a wake-up that a restart repeats anyway.
    pub fn hint(&self, message: M) {
        // A refused hint is repeated by the receiver's own start.
        drop(self.cast(message));
    }

    /// The actor that answers here now, to call it with a deadline.
    pub fn actor(&self) -> Option<ActorRef<M>> {
        self.inner.live.load_full().map(|actor| (*actor).clone())
    }

    /// Whether the actor is up now. It may end the moment after: a cast tells for certain.
    pub fn is_up(&self) -> bool {
        self.inner.live.load().is_some()
    }

    /// Casts that came back since the runtime started.
    pub fn refused(&self) -> u64 {
        self.inner.refused.load(Ordering::Relaxed)
    }

    /// Makes `actor` the one that answers here. For supervisors.
    pub(crate) fn publish(&self, actor: ActorRef<M>) {
        self.inner.live.store(Some(Arc::new(actor)));
    }

    /// Withdraws whoever answers here. For supervisors.
    pub(crate) fn withdraw(&self) {
        self.inner.live.store(None);
    }
}
