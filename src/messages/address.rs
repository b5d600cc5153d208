//! How one actor knows another: by message type and address, never by a reference that may be dead.
//!
//! A supervisor publishes the live reference here each time it starts the actor, and withdraws it when the actor
//! ends. Whoever holds the address always speaks to the newest one, or gets the message back whole.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use ractor::{ActorRef, Message, MessagingErr};

/// The address of an actor that takes messages of type `M`. Cheap to clone.
pub struct Address<M: Message> {
    live: Arc<ArcSwapOption<ActorRef<M>>>,
}

impl<M: Message> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { live: Arc::clone(&self.live) }
    }
}

impl<M: Message> Default for Address<M> {
    fn default() -> Self {
        Self { live: Arc::new(ArcSwapOption::empty()) }
    }
}

impl<M: Message> Address<M> {
    /// Sends `message` without waiting.
    ///
    /// # Errors
    /// The message itself, whole, when the actor is down. Dropping it gives back whatever work it carries.
    pub fn cast(&self, message: M) -> Result<(), M> {
        let Some(actor) = self.live.load_full() else {
            return Err(message);
        };
        match actor.send_message(message) {
            Ok(()) => Ok(()),
            Err(MessagingErr::SendErr(message)) => {
                // It is dead, though its supervisor may be dead too and not have withdrawn it. Only this one is
                // withdrawn: a newer one that was published meanwhile stays.
                self.live.compare_and_swap(&actor, None);
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
        self.live.load_full().map(|actor| (*actor).clone())
    }

    /// Whether the actor is up now. It may end the moment after: a cast tells for certain.
    pub fn is_up(&self) -> bool {
        self.live.load().is_some()
    }

    /// Makes `actor` the one that answers here. For supervisors.
    pub(crate) fn publish(&self, actor: ActorRef<M>) {
        self.live.store(Some(Arc::new(actor)));
    }

    /// Withdraws whoever answers here. For supervisors.
    pub(crate) fn withdraw(&self) {
        self.live.store(None);
    }
}
