//! `/events`: what happens, as it happens.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

use super::Face;
use crate::event::Event;
use crate::runtime::{Health, Runtime};
use crate::telemetry::Subscription;

/// Most changed assets that one event lists; `changed_total` says how many there were.
const CHANGED_MAX: usize = 1000;
/// How often a stream looks whether the runtime is being shut down.
const LOOK: Duration = Duration::from_secs(1);
/// Looks without an event after which a comment keeps the connection alive.
const QUIET_LOOKS: u32 = 15;

pub(super) async fn stream(State(face): State<Arc<Face>>) -> Response {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = EventStream {
        // Subscribed before the response begins: whoever sees its headers misses nothing after.
        subscription: face.runtime.events(),
        stopped: Box::pin(stopped(face.stopping.clone())),
        runtime: face.runtime.clone(),
        look,
        // The first look, which is at once, says hello.
        quiet_looks: QUIET_LOOKS,
    };
    Sse::new(stream).into_response()
}

/// Resolves when the server stops.
async fn stopped(stopping: Option<watch::Receiver<bool>>) {
    if let Some(mut stopping) = stopping {
        // An error means that the server is gone, and with it the need to go on.
        drop(stopping.wait_for(|stopping| *stopping).await);
    } else {
        std::future::pending().await
    }
}

struct EventStream {
    subscription: Subscription,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
    runtime: Runtime,
    look: Interval,
    quiet_looks: u32,
}

impl Stream for EventStream {
    type Item = Result<sse::Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Poll::Ready(event) = Pin::new(&mut this.subscription).poll_next(context) {
            this.quiet_looks = 0;
            return Poll::Ready(event.map(|event| Ok(rendered(&event))));
        }
        if this.stopped.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        while this.look.poll_tick(context).is_ready() {
            if matches!(this.runtime.status().health, Health::Stopping | Health::Stopped) {
                return Poll::Ready(None);
            }
            if this.quiet_looks >= QUIET_LOOKS {
                this.quiet_looks = 0;
                return Poll::Ready(Some(Ok(sse::Event::default().comment("flyloft"))));
            }
            this.quiet_looks += 1;
        }
        Poll::Pending
    }
}

fn rendered(event: &Event) -> sse::Event {
    let mut value = serde_json::to_value(event).unwrap_or_default();
    if let Some(changed) = value.get_mut("changed").and_then(Value::as_array_mut) {
        let total = changed.len();
        changed.truncate(CHANGED_MAX);
        value["changed_total"] = total.into();
    }
    let name = value.get("type").and_then(Value::as_str).unwrap_or("event").to_owned();
    sse::Event::default().event(name).data(value.to_string())
}
