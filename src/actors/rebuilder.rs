//! Role: turns change sets into published, durable generations.
//!
//! Owns: what is to be built next. Receives: [`RebuilderMessage`]. Sends: to itself alone; its builds, publications and
//! commits run on the workshop's threads. On restart: kept: the workshop with the builder and its lock, what is staged but
//! not published; rebuilt: nothing; lost: change sets that were waiting, which the watcher's rescan finds by their results.
//! Bounds: one build at a time, changes meanwhile gather in one set; one commit at a time, of the newest generation.

mod residents;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use self::residents::AtHand;
use super::Shared;
use crate::build::{Built, Keeper, NoProgress, Task, Workshop};
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::event::{BuildFailure, Event, Published, ReloadTimings};
use crate::ids::Generation;
use crate::messages::work::caught;
use crate::messages::{ChangeSet, Publication, RebuilderMessage, Rollback, Staged, StagedTimes};
use crate::residency::Live;

/// How soon after its start a rebuilder looks once more for what an earlier one's build has staged.
const LOOK_AFTER_START: Duration = Duration::from_millis(50);
/// How soon a file that somebody was writing is looked at again, at first and at most.
const AGAIN_MIN: Duration = Duration::from_millis(1);
const AGAIN_MAX: Duration = Duration::from_secs(1);
/// How long it must have been quiet before the store compacts itself.
const IDLE: Duration = Duration::from_secs(10);
/// The lane of the build pool that builds use, and the less urgent one of commits.
const BUILD_LANE: u8 = 0;
const COMMIT_LANE: u8 = 1;

/// The actor.
pub struct Rebuilder;

/// What it is given.
pub struct Args {
    /// What outlives every actor.
    pub shared: Arc<Shared>,
    /// The builder and its threads.
    pub workshop: Arc<Workshop>,
}

/// What is to be built next.
pub struct State {
    shared: Arc<Shared>,
    workshop: Arc<Workshop>,
    /// Changes that came while a build ran.
    next: Option<Next>,
    building: bool,
    /// Generations published so far: tells whether it has been quiet. Builds that found nothing do not count, since a tree
    /// that is polled has one every few seconds.
    published: u64,
    /// The newest published generation that is not durable yet.
    to_commit: Option<Bundle>,
    committing: bool,
    /// Files that somebody was writing when they were to be read: they are looked at again.
    unfinished: BTreeSet<PathBuf>,
    /// How long after the next build that meets one.
    again_after: Duration,
}

#[derive(Default)]
struct Next {
    task: Task,
    /// Compact the store before looking.
    compact: bool,
    first: Option<Instant>,
    settled: Option<Instant>,
    why: Option<String>,
    /// Go back to this generation instead.
    rollback: Option<Arc<Live>>,
}

impl Actor for Rebuilder {
    type Msg = RebuilderMessage;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        // A build that an earlier rebuilder began may have staged a generation meanwhile, or may while this one is not
        // known yet to who would tell it.
        drop(myself.send_message(RebuilderMessage::Built));
        myself.send_after(LOOK_AFTER_START, || RebuilderMessage::Built);
        let Args { shared, workshop } = args;
        Ok(State {
            shared,
            workshop,
            next: None,
            building: false,
            published: 0,
            to_commit: None,
            committing: false,
            unfinished: BTreeSet::new(),
            again_after: AGAIN_MIN,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RebuilderMessage::Changed(set) => state.changed(set),
            RebuilderMessage::Rescan { why } => state.rescan(why),
            RebuilderMessage::Built => state.built(&myself),
            RebuilderMessage::LookAgain => state.look_at_unfinished(),
            RebuilderMessage::Committed { generation, commit_us, result } => {
                state.committed(generation, commit_us, result, &myself);
            }
            RebuilderMessage::Idle { published } => state.idle(published),
            // It is taken up below, when no build runs.
            RebuilderMessage::Rollback => {}
        }
        state.start_build();
        state.start_commit(&myself);
        Ok(())
    }
}

impl State {
    fn changed(&mut self, set: ChangeSet) {
        let next = self.next.get_or_insert_default();
        next.first = Some(next.first.map_or(set.first, |first| first.min(set.first)));
        next.settled = Some(set.settled);
        next.task.paths.extend(set.paths);
    }

    fn look_at_unfinished(&mut self) {
        let (paths, now) = (std::mem::take(&mut self.unfinished), self.shared.clock.now());
        self.changed(ChangeSet { paths, first: now, settled: now });
    }

    fn rescan(&mut self, why: Option<String>) {
        let next = self.next.get_or_insert_default();
        next.task.everything = true;
        next.why = next.why.take().or(why);
    }

    fn start_build(&mut self) {
        if self.building {
            return;
        }
        // A wish that nobody waits for is none.
        let wish = {
            let mut wishes = self.shared.rollbacks.lock();
            std::iter::from_fn(|| wishes.pop_front()).find(|wish| !wish.reply.is_closed())
        };
        let (wish, reply) = match wish {
            Some(Rollback { to, reply }) => (Some(Next { rollback: Some(to), ..Next::default() }), Some(reply)),
            None => (self.next.take(), None),
        };
        let Some(mut next) = wish else { return };
        self.building = true;
        if next.rollback.is_none() {
            next.task.everything |= self.shared.incomplete.swap(false, Ordering::AcqRel);
        }
        let now = self.shared.clock.now();
        let (first, settled) = (next.first.unwrap_or(now), next.settled.unwrap_or(now));
        let (shared, workshop) = (Arc::clone(&self.shared), Arc::clone(&self.workshop));
        let span = tracing::info_span!("reload", everything = next.task.everything, paths = next.task.paths.len());
        self.workshop.pool().submit(
            BUILD_LANE,
            Box::new(move || {
                let turn = shared.building.lock();
                let entered = span.enter();
                let began = shared.clock.now();
                let at_hand = Arc::new(AtHand::new(&shared));
                let built = build(&shared, &workshop, &next, &at_hand);
                let staged_at = shared.clock.now();
                let changes = built.as_ref().map(|built| at_hand.versions(built)).unwrap_or_default();
                let resident_at = shared.clock.now();
                drop(entered);
                let times = StagedTimes { first, settled, began, staged: staged_at, resident: resident_at };
                let base = built.as_ref().ok().and_then(|built| built.base);
                let bundle = built.as_ref().ok().and_then(|built| built.bundle.clone());
                let publication =
                    bundle.map(|bundle| Arc::new(Publication { bundle, changes, shown: OnceLock::new() }));
                let staged =
                    Staged { built, publication: publication.clone(), times, rescanned: next.why, reply, span };
                shared.staged.lock().push_back(staged);
                // At once, unless something is still to be published before it: the rebuilder sees to it that all of it
                // is, however this ends.
                if let (Some(publication), Some(base)) = (publication, base) {
                    shared.publish(&publication, Some(base));
                }
                drop(turn);
                // Whoever is the rebuilder now. One that starts looks for what is staged.
                shared.addresses.rebuilder.hint(RebuilderMessage::Built);
            }),
        );
    }

    /// Publishes what is staged, oldest first.
    fn built(&mut self, myself: &ActorRef<RebuilderMessage>) {
        while let Some(mut staged) = { self.shared.staged.lock().pop_front() } {
            self.building = false;
            let built = match &staged.built {
                Ok(built) => built,
                Err(error) => {
                    match staged.reply.take() {
                        Some(reply) => self.refused(reply, error),
                        None => self.failed(error),
                    }
                    continue;
                }
            };
            if let Some(publication) = &staged.publication {
                // Who staged it has mostly published it.
                self.shared.publish(publication, None);
                self.published += 1;
                self.to_commit = Some(publication.bundle.clone());
            }
            self.report(&staged, built);
            let seen = self.shared.table.current();
            self.look_again(&built.unfinished, myself);
            // Whoever asked may have gone.
            staged.reply.take().map(|reply| reply.send(Ok(seen)));
        }
    }

    /// Tells subscribers and status pages what came of a build.
    fn report(&self, staged: &Staged, built: &Built) {
        if let Some(why) = &staged.rescanned {
            self.shared.events.send(Event::Rescanned { why: why.clone() });
        }
        for what in &built.warnings {
            tracing::warn!(parent: &staged.span, "{what}");
            self.shared.events.send(Event::Warning { what: what.clone() });
        }
        let now: std::collections::BTreeMap<String, BuildFailure> =
            built.failures.iter().map(|failure| (failure.path.clone(), failure.clone())).collect();
        let before = std::mem::replace(&mut *self.shared.failures.lock(), now.clone());
        for (path, failure) in now {
            if before.get(&path) != Some(&failure) {
                tracing::warn!(parent: &staged.span, path, cause = %failure.cause, "does not build; its last good version stays");
                self.shared.events.send(Event::BuildFailed(failure));
            }
        }
        for path in &built.healed {
            self.shared.events.send(Event::Healed { path: path.clone() });
        }
        let Some(Publication { bundle, shown, .. }) = staged.publication.as_deref() else { return };
        let times = &staged.times;
        // Not set only where something newer was published before it.
        let (end, old) = shown.get().copied().unwrap_or_else(|| (self.shared.clock.now(), bundle.generation()));
        let us = |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros() as u64;
        let timings = ReloadTimings {
            settle_us: us(times.first, times.settled),
            queue_us: us(times.settled, times.began),
            publish_us: us(times.staged, end),
            resident_us: us(times.staged, times.resident),
            swap_us: us(times.resident, end),
            ..built.timings
        };
        self.shared.metrics.reload_latency.record(end.saturating_duration_since(times.first));
        let generation = bundle.generation();
        tracing::info!(parent: &staged.span, %generation, changed = built.changed.len(), ?timings, "published");
        self.shared.history.published(generation, &built.changed);
        let event = Published { old, generation, changed: built.changed.clone(), timings };
        self.shared.reloads.tell(&event);
        self.shared.events.send(Event::Published(event));
    }

    /// A rollback that is not possible changes nothing; what a failed write left behind is found by the next build.
    fn refused(&self, reply: oneshot::Sender<Result<Generation>>, error: &Error) {
        tracing::warn!(%error, "no rollback");
        if !matches!(error, Error::NotRetained { .. }) {
            self.shared.incomplete.store(true, Ordering::Release);
        }
        // Whoever asked may have gone.
        drop(reply.send(Err(error.clone())));
    }

    fn failed(&mut self, error: &Error) {
        tracing::error!(%error, "the tree could not be built; the old generation stays");
        let path = self.workshop.root().display().to_string();
        let failure = BuildFailure::new(path.clone(), "build", error.to_string());
        self.shared.failures.lock().insert(path, failure.clone());
        self.shared.events.send(Event::BuildFailed(failure));
        // What the failed build did not get to is found by the next, whatever that is about.
        self.shared.incomplete.store(true, Ordering::Release);
    }

    fn start_commit(&mut self, myself: &ActorRef<RebuilderMessage>) {
        if self.committing {
            return;
        }
        let Some(bundle) = self.to_commit.take() else { return };
        self.committing = true;
        let (shared, workshop, myself) = (Arc::clone(&self.shared), Arc::clone(&self.workshop), myself.clone());
        self.workshop.pool().submit(
            COMMIT_LANE,
            Box::new(move || {
                let began = shared.clock.now();
                let result = caught(|| workshop.commit(&bundle)).unwrap_or_else(|cause| Err(Error::Failed { cause }));
                let commit_us = shared.clock.now().saturating_duration_since(began).as_micros() as u64;
                let generation = bundle.generation();
                if result.is_ok()
                    && let Err(error) = shared.prepare_tables(&bundle)
                {
                    tracing::warn!(%generation, %error, "the tables of contents are not prepared");
                }
                // A rebuilder that died meanwhile commits with its next generation, or at shutdown.
                drop(myself.send_message(RebuilderMessage::Committed { generation, commit_us, result }));
            }),
        );
    }

    /// A file that somebody had open to write it is looked at again, soon and then ever less often: what tells of its end
    /// comes a moment before it is closed.
    fn look_again(&mut self, unfinished: &BTreeSet<PathBuf>, myself: &ActorRef<RebuilderMessage>) {
        if unfinished.is_empty() {
            self.again_after = AGAIN_MIN;
            return;
        }
        let waiting = !self.unfinished.is_empty();
        self.unfinished.extend(unfinished.iter().cloned());
        if !waiting {
            myself.send_after(self.again_after, || RebuilderMessage::LookAgain);
            self.again_after = (self.again_after * 2).min(AGAIN_MAX);
        }
    }

    /// A store compacts itself when dead bytes exceed live ones, and never while it is busy.
    fn idle(&mut self, published: u64) {
        let retained = self.shared.config.retain_generations > 0;
        if published == self.published
            && !self.building
            && self.next.is_none()
            && self.workshop.wants_compaction(retained)
        {
            self.next = Some(Next { compact: true, ..Next::default() });
        }
    }

    fn committed(
        &mut self,
        generation: Generation,
        commit_us: u64,
        result: Result<()>,
        myself: &ActorRef<RebuilderMessage>,
    ) {
        self.committing = false;
        let published = self.published;
        myself.send_after(IDLE, move || RebuilderMessage::Idle { published });
        match result {
            Ok(()) => {
                tracing::debug!(%generation, commit_us, "durable");
                self.shared.events.send(Event::Committed { generation, commit_us });
            }
            Err(error) => {
                tracing::error!(%generation, %error, "readers see it, but it is not durable yet");
                self.shared
                    .events
                    .send(Event::Warning { what: format!("generation {generation} is not durable: {error}") });
            }
        }
    }
}

/// Builds, and turns a panic of the builder into an error. The workshop opens the builder again for the next task.
fn build(shared: &Shared, workshop: &Workshop, next: &Next, at_hand: &Arc<AtHand>) -> Result<Built> {
    let keeper = Arc::clone(at_hand) as Arc<dyn Keeper>;
    let work = || match &next.rollback {
        Some(to) => workshop.rollback(shared.generations.current().bundle(), to.bundle()),
        None if next.compact => workshop.compact(),
        None => workshop.build_shown(&next.task, &NoProgress, Some(keeper)),
    };
    caught(work).unwrap_or_else(|cause| {
        let path = workshop.root().display().to_string();
        Err(Error::build(path, "build", cause))
    })
}
