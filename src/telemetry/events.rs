//! A bounded broadcast of events. A slow subscriber loses the oldest and is told how many.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::broadcast::{self, Receiver, error::RecvError};

use crate::event::Event;
use crate::limits;

/// The sending side. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    sender: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::channel(limits::EVENTS_BEHIND_MAX).0 }
    }
}

impl Events {
    /// Tells every subscriber. Nobody listening is fine.
    pub fn send(&self, event: Event) {
        // The only refusal is that nobody listens.
        drop(self.sender.send(event));
    }

    /// Everything from now on.
    pub fn subscribe(&self) -> Subscription {
        Subscription { next: receive(self.sender.subscribe()) }
    }
}

type Received = (Result<Event, RecvError>, Receiver<Event>);

fn receive(mut receiver: Receiver<Event>) -> Pin<Box<dyn Future<Output = Received> + Send>> {
    Box::pin(async move { (receiver.recv().await, receiver) })
}

/// The receiving side: a stream of events, for any executor. It ends when the runtime is gone.
pub struct Subscription {
    next: Pin<Box<dyn Future<Output = Received> + Send>>,
}

impl Subscription {
    /// The next event, or `None` when the runtime is gone. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Event> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let (result, receiver) = std::task::ready!(self.next.as_mut().poll(context));
        self.next = receive(receiver);
        Poll::Ready(match result {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(Event::Lagged { missed }),
            Err(RecvError::Closed) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_subscriber_is_told_how_much_it_missed() {
        let events = Events::default();
        let mut subscription = events.subscribe();
        for index in 0..limits::EVENTS_BEHIND_MAX + 10 {
            events.send(Event::Warning { what: index.to_string() });
        }
        assert_eq!(subscription.recv().await, Some(Event::Lagged { missed: 10 }));
        assert_eq!(subscription.recv().await, Some(Event::Warning { what: "10".into() }));
        drop(events);
        let mut last = None;
        while let Some(event) = subscription.recv().await {
            last = Some(event);
        }
        assert_eq!(last, Some(Event::Warning { what: (limits::EVENTS_BEHIND_MAX + 9).to_string() }));
    }
}
