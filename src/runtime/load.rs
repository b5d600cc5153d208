//! One load: a hit that is ready at once, or a ticket of the ledger.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::{DEFAULT_PRIORITY, Decode, LoadAs};
use crate::actors::Shared;
use crate::config::AssetNode;
use crate::error::{Error, Result};
use crate::ids::{AssetId, AssetPath, Origin, Priority};
use crate::policy::schedule::Hints;
use crate::residency::{Answer, Ask, Asset, Joined, Key, Live, Ticket, Want};
use crate::telemetry::{Level, Noted};

/// A load that is being configured.
#[must_use = "nothing is loaded until `send`"]
pub struct Request {
    shared: Arc<Shared>,
    path: String,
    /// The generation it is to be of; the current one when `None`.
    live: Option<Arc<Live>>,
    /// `None` where it is not named.
    priority: Option<Priority>,
    origin: Origin,
    deadline: Option<Duration>,
    node: AssetNode,
    hints: Option<Hints>,
}

impl Request {
    pub(super) fn new(shared: &Arc<Shared>, path: &str, live: Option<Arc<Live>>) -> Self {
        let (deadline, node) = (shared.config.deadline, shared.config.asset_node);
        let (shared, path) = (Arc::clone(shared), path.to_owned());
        Self { shared, path, live, priority: None, origin: Origin::User, deadline, node, hints: None }
    }

    /// How urgent it is. Where it is not named an asset that has a place goes by its distance from the nearest viewer
    /// (`schedule.distances`), and changes its lane as that moves; any other is medium.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Who asks, for the counters. Default the user.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// How long it may take; [`Error::Deadline`] answers it then. Default the configuration's.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Which NUMA node's memory it is put in, on a machine with several. Default the configuration's. What is resident
    /// or under way already stays where it is.
    pub fn node(mut self, node: AssetNode) -> Self {
        self.node = node;
        self
    }

    /// What is known about how urgent it is among those of its priority: the distance, whether it is in view, how coarse
    /// the level of detail is, how large it is expected to be; by the weights of [`crate::config::ScheduleConfig`]. Its real
    /// size counts where none is named. Of several who wait for the same asset the first one's hints count.
    ///
    /// ```
    /// use flyloft::policy::schedule::Hints;
    /// # fn example(runtime: &flyloft::Runtime) {
    /// let near = Hints { distance_m: Some(3.0), view: Some(0.9), ..Hints::default() };
    /// let wall = runtime.request("textures/wall.png").hints(near).send();
    /// # drop(wall);
    /// # }
    /// ```
    pub fn hints(mut self, hints: Hints) -> Self {
        self.hints = Some(hints);
        self
    }

    /// Starts the load.
    pub fn send(self) -> Load {
        self.send_for(Want::Resident)
    }

    /// Starts the load, and decodes what it loads.
    pub fn send_as<T: Decode>(self) -> LoadAs<T> {
        let shared = Arc::clone(&self.shared);
        LoadAs::after(shared, self.send())
    }

    /// Starts the load of the asset as it is stored: see [`super::Snapshot::load_stored`].
    pub fn send_stored(self) -> Load {
        self.send_for(Want::Stored)
    }

    fn send_for(self, want: Want) -> Load {
        let id = AssetId::of_path(&self.path);
        let resident = if want == Want::Stored { id.stored() } else { id };
        let table = &self.shared.table;
        let hit = match &self.live {
            Some(live) => table.get_at(resident, live.generation()),
            None => table.get(resident),
        };
        if let Some(asset) = hit {
            self.shared.hit(id, want == Want::Stored, &asset, (self.priority.unwrap_or(DEFAULT_PRIORITY), self.origin));
            return Load::ready(self.path, None, Ok(asset));
        }
        self.shared.metrics.misses.one();
        let live = self.live.unwrap_or_else(|| self.shared.generations.current());
        let started = self.shared.clock.now();
        let key = Key { generation: live.generation(), id, want };
        let by_distance = self.priority.is_none();
        let priority = self.priority.or_else(|| self.shared.lane_of(id)).unwrap_or(DEFAULT_PRIORITY);
        let joined = AssetPath::new(&self.path).and_then(|path| {
            let ask = ask(&self.shared, path, priority, self.origin, self.deadline, started);
            let ask =
                Ask { place: self.shared.place_for(self.node), by_distance, hints: self.hints.map(Box::new), ..ask };
            self.shared.ledger.join(&live, key, ask)
        });
        let level = match &joined {
            Ok((_, Joined::First)) => Level::Loaded,
            Ok((_, Joined::Merged)) => Level::Joined,
            Err(_) => Level::Failed,
        };
        let (origin, stored) = (self.origin, want == Want::Stored);
        let started = Some(Started { shared: self.shared, at: started, id, stored, level, priority, origin });
        match joined {
            Ok((ticket, _)) => Load { started, state: State::Waiting(ticket) },
            Err(error) => Load::ready(self.path, started, Err(error)),
        }
    }

    /// Loads the asset and everything it depends on, directly or not, in one generation. The asset comes first.
    ///
    /// # Errors
    /// The first error of any of them; [`Error::TooLarge`] at once when together they are more than the budget.
    pub async fn send_with_dependencies(self) -> Result<Vec<Asset>> {
        let live = self.live.clone().unwrap_or_else(|| self.shared.generations.current());
        let snapshot = super::Snapshot::new(Arc::clone(&self.shared), live);
        let paths = snapshot.closure(&self.path).await?;
        let priority = self.priority.unwrap_or(DEFAULT_PRIORITY);
        let many = super::LoadMany::new(snapshot, paths).priority(priority).origin(self.origin).node(self.node);
        match self.deadline {
            Some(deadline) => many.deadline(deadline).all().await,
            None => many.all().await,
        }
    }
}

/// What a request tells the ledger. The span is the request's own: every stage works inside it.
pub(super) fn ask(
    shared: &Shared,
    path: AssetPath,
    priority: Priority,
    origin: Origin,
    deadline: Option<Duration>,
    now: Instant,
) -> Ask {
    let request = shared.metrics.requests.next();
    let span = tracing::info_span!("load", request, %path, priority = priority.name());
    let (deadline, place) = (deadline.map(|deadline| now + deadline), shared.place_for(shared.config.asset_node));
    Ask { priority, by_distance: false, origin, deadline, now, span, path: Some(path), place, hints: None }
}

/// A load under way. Dropping it cancels it, unless someone else waits for the same.
///
/// It is small, since a program may hold a million of them: what is ready stands apart, and the path of one that waits
/// is its request's.
#[must_use = "a dropped load is cancelled"]
pub struct Load {
    /// Of a load that was not a hit, until it is answered.
    started: Option<Started>,
    state: State,
}

/// What is told of a load that was not a hit, once it is answered.
struct Started {
    shared: Arc<Shared>,
    at: Instant,
    id: AssetId,
    stored: bool,
    /// How it is answered, unless it fails.
    level: Level,
    priority: Priority,
    origin: Origin,
}

impl Started {
    /// `lane` is the one that it waited in last, if it waited.
    fn answered(self, answer: &Result<Asset>, lane: Option<Priority>) {
        let shared = &self.shared;
        let took = shared.clock.now().saturating_duration_since(self.at);
        shared.metrics.load_latency.record(took);
        if let Some(lane) = lane {
            shared.metrics.priorities.of(lane).load_latency.record(took);
        }
        if shared.accesses.is_on() {
            let (level, weight) = match answer {
                Ok(asset) => (self.level, asset.len() as u64),
                Err(_) => (Level::Failed, 0),
            };
            let latency_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
            let Started { id, stored, priority, origin, .. } = self;
            let ticks = shared.clock.ticks();
            shared.note(Noted { id, stored, ticks, weight, level, priority, origin, latency_us });
        }
    }
}

enum State {
    Ready(Box<Ready>),
    Waiting(Ticket),
}

struct Ready {
    path: String,
    /// Taken by the first poll.
    answer: Option<Result<Asset>>,
}

const _: () = assert!(size_of::<Load>() <= 64, "a million loads may be open at once");

impl Load {
    fn ready(path: String, started: Option<Started>, answer: Result<Asset>) -> Load {
        Load { started, state: State::Ready(Box::new(Ready { path, answer: Some(answer) })) }
    }

    /// The path that is loaded.
    pub fn path(&self) -> &str {
        match &self.state {
            State::Ready(ready) => &ready.path,
            State::Waiting(ticket) => ticket.path().map_or("", AssetPath::as_str),
        }
    }
}

impl Future for Load {
    type Output = Result<Asset>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Asset>> {
        let mut priority = None;
        let answer = match &mut self.state {
            State::Ready(ready) => ready.answer.take().unwrap_or(Err(Error::ShutDown)),
            State::Waiting(ticket) => {
                let answer = ready!(Pin::new(&mut *ticket).poll(context));
                priority = Some(ticket.priority());
                match answer {
                    Ok(Answer::Asset(asset)) => Ok(asset),
                    Ok(_) => Err(Error::Failed { cause: "a load was answered with something else".into() }),
                    Err(error) => Err(error),
                }
            }
        };
        if let Some(started) = self.started.take() {
            if let (Some(holders), Ok(asset)) = (&started.shared.holders, &answer) {
                holders.took(asset, &started.shared.table, started.shared.clock.now());
            }
            started.answered(&answer, priority);
        }
        Poll::Ready(answer)
    }
}
