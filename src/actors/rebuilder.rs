//! Role: turns change sets into published, durable generations.
//!
//! Owns: what is to be built next. Receives: [`RebuilderMessage`]. Sends: `Publish` to the cache manager; its builds and
//! commits run on the workshop's threads. On restart: kept: the workshop with the builder and its lock, what is staged but
//! not published; rebuilt: nothing; lost: change sets that were waiting, which the watcher's rescan finds by their results.
//! Bounds: one build at a time, changes meanwhile gather in one set; one commit at a time, of the newest generation.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use super::Shared;
use crate::build::{Built, ContentReader, Task, Workshop};
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::event::{BuildFailure, ChangedAsset, Event, Published, ReloadTimings};
use crate::ids::{AssetId, Generation};
use crate::messages::work::caught;
use crate::messages::{CacheManagerMessage, ChangeSet, Publication, RebuilderMessage, Rollback, Staged};
use crate::residency::followers::Became;
use crate::residency::{Asset, Content, Live, Name};

/// How long the cache manager may take to publish before it is asked again.
const PUBLISH_WAIT: Duration = Duration::from_millis(500);
/// How soon after a refusal it is asked again.
const PUBLISH_AGAIN: Duration = Duration::from_millis(10);
/// How soon after its start a rebuilder looks once more for what an earlier one's build has staged.
const LOOK_AFTER_START: Duration = Duration::from_millis(50);
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
    /// Builds begun so far: tells whether it has been quiet.
    builds: u64,
    /// The newest published generation that is not durable yet.
    to_commit: Option<Bundle>,
    committing: bool,
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
        Ok(State { shared, workshop, next: None, building: false, builds: 0, to_commit: None, committing: false })
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
            RebuilderMessage::Built => state.built(&myself).await,
            RebuilderMessage::Committed { generation, result } => state.committed(generation, result, &myself),
            RebuilderMessage::Idle { builds } => state.idle(builds),
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
        self.builds += 1;
        next.task.everything |= self.shared.incomplete.swap(false, Ordering::AcqRel);
        let now = self.shared.clock.now();
        let (first, settled) = (next.first.unwrap_or(now), next.settled.unwrap_or(now));
        let (shared, workshop) = (Arc::clone(&self.shared), Arc::clone(&self.workshop));
        let span = tracing::info_span!("reload", everything = next.task.everything, paths = next.task.paths.len());
        self.workshop.pool().submit(
            BUILD_LANE,
            Box::new(move || {
                let turn = shared.building.lock();
                let entered = span.enter();
                let built = build(&shared, &workshop, &next);
                let preparing = shared.clock.now();
                let changes = built.as_ref().map(|built| prepare(&shared, built)).unwrap_or_default();
                drop(entered);
                let staged = Staged { built, changes, first, settled, preparing, rescanned: next.why, reply, span };
                shared.staged.lock().push_back(staged);
                drop(turn);
                // Whoever is the rebuilder now. One that starts looks for what is staged.
                shared.addresses.rebuilder.hint(RebuilderMessage::Built);
            }),
        );
    }

    /// Publishes what is staged, oldest first.
    async fn built(&mut self, myself: &ActorRef<RebuilderMessage>) {
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
            let Some(bundle) = built.bundle.clone() else {
                let current = self.shared.table.current();
                self.report(&staged, built, current);
                staged.reply.take().map(|reply| reply.send(Ok(current)));
                continue;
            };
            let old = self.shared.table.current();
            if !self.publish(&bundle, &staged).await {
                self.shared.staged.lock().push_front(staged);
                myself.send_after(PUBLISH_AGAIN, || RebuilderMessage::Built);
                return;
            }
            self.report(&staged, built, old);
            // Whoever asked may have gone.
            staged.reply.take().map(|reply| reply.send(Ok(bundle.generation())));
            self.to_commit = Some(bundle);
        }
    }

    /// Asks the cache manager to make it what readers see. Returns whether they do.
    async fn publish(&self, bundle: &Bundle, staged: &Staged) -> bool {
        let Some(cache_manager) = self.shared.addresses.cache_manager.actor() else { return false };
        let publication = Box::new(Publication { bundle: bundle.clone(), changes: staged.changes.clone() });
        let ask = |reply| CacheManagerMessage::Publish(publication, reply);
        let answer = cache_manager.call(ask, Some(PUBLISH_WAIT)).await;
        // However the call ended, what counts is what readers see.
        drop(answer);
        self.shared.table.current() >= bundle.generation()
    }

    /// Tells subscribers and status pages what came of a build.
    fn report(&self, staged: &Staged, built: &Built, old: Generation) {
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
        let Some(bundle) = &built.bundle else { return };
        let end = self.shared.clock.now();
        let us = |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros() as u64;
        let timings = ReloadTimings {
            settle_us: us(staged.first, staged.settled),
            build_us: built.build_us,
            stage_us: built.stage_us,
            publish_us: us(staged.preparing, end),
        };
        self.shared.metrics.reload_latency.record(end.saturating_duration_since(staged.first));
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
        self.shared.incomplete.store(!matches!(error, Error::NotRetained { .. }), Ordering::Release);
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
                let result = caught(|| workshop.commit(&bundle)).unwrap_or_else(|cause| Err(Error::Failed { cause }));
                let generation = bundle.generation();
                if result.is_ok()
                    && let Err(error) = shared.prepare_tables(&bundle)
                {
                    tracing::warn!(%generation, %error, "the tables of contents are not prepared");
                }
                // A rebuilder that died meanwhile commits with its next generation, or at shutdown.
                drop(myself.send_message(RebuilderMessage::Committed { generation, result }));
            }),
        );
    }

    /// A store compacts itself when dead bytes exceed live ones, and never while it is busy.
    fn idle(&mut self, builds: u64) {
        let retained = self.shared.config.retain_generations > 0;
        if builds == self.builds && !self.building && self.next.is_none() && self.workshop.wants_compaction(retained) {
            self.next = Some(Next { compact: true, ..Next::default() });
        }
    }

    fn committed(&mut self, generation: Generation, result: Result<()>, myself: &ActorRef<RebuilderMessage>) {
        self.committing = false;
        let builds = self.builds;
        myself.send_after(IDLE, move || RebuilderMessage::Idle { builds });
        match result {
            Ok(()) => tracing::debug!(%generation, "durable"),
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
fn build(shared: &Shared, workshop: &Workshop, next: &Next) -> Result<Built> {
    let work = || match &next.rollback {
        Some(to) => workshop.rollback(shared.generations.current().bundle(), to.bundle()),
        None if next.compact => workshop.compact(),
        None => workshop.build_quietly(&next.task),
    };
    caught(work).unwrap_or_else(|cause| {
        let path = workshop.root().display().to_string();
        Err(Error::build(path, "build", cause))
    })
}

/// New versions of what is resident, the hottest first, as far as the budget allows without waiting.
fn prepare(shared: &Shared, built: &Built) -> Vec<(AssetId, Option<Asset>)> {
    let Some(bundle) = &built.bundle else { return Vec::new() };
    let mut changes: Vec<(AssetId, Option<Asset>)> = built.changed.iter().map(|changed| (changed.id, None)).collect();
    let mut hot: Vec<(u32, usize)> = Vec::new();
    for (index, changed) in built.changed.iter().enumerate() {
        if let Some(candidate) = shared.table.candidate(changed.id) {
            hot.push((candidate.last_used, index));
        } else if shared.followers.follows(changed.id) {
            hot.push((0, index));
        }
    }
    hot.sort_unstable_by(|one, other| other.cmp(one));
    let mut reader = ContentReader::new(bundle);
    for (_, index) in hot {
        match version(shared, bundle, &built.changed[index], &mut reader) {
            Ok(asset) => changes[index].1 = asset,
            // It is loaded when somebody asks, and fails there with its own error.
            Err(error) => {
                tracing::warn!(path = %built.changed[index].path, %error, "not resident in the new generation")
            }
        }
    }
    let became = built.changed.iter().zip(&changes).map(|(changed, (id, asset))| {
        let became = match (changed.new, asset) {
            (None, _) => Became::Gone,
            (Some(_), Some(asset)) => Became::Resident(asset.clone()),
            (Some(_), None) => Became::Elsewhere,
        };
        (*id, became)
    });
    shared.followers.prepare(bundle.generation(), became, shared.config.watched_wait);
    changes
}

/// The new version of one asset, or `None` when it is gone or the budget has no room for it now.
fn version(
    shared: &Shared,
    bundle: &Bundle,
    changed: &ChangedAsset,
    reader: &mut ContentReader,
) -> Result<Option<Asset>> {
    let Some(record) = changed.new.map(|_| bundle.asset(changed.id)).transpose()?.flatten() else { return Ok(None) };
    let generation = bundle.generation();
    if let Some(content) = shared.table.content(&record.content) {
        return Ok(Some(Asset::new(Name::from(&record), generation, content)));
    }
    let Ok(charge) = shared.budget.try_charge(record.kind, record.len) else { return Ok(None) };
    // Where the old version is, since somebody may have wanted it there.
    let charge = charge.at(shared.table.peek(changed.id).map_or(0, |old| old.content().place()));
    let Ok(target) = Content::build(record.len as usize, charge) else { return Ok(None) };
    let mut to = 0;
    reader.content(&record.content, 0..record.len, &mut |part| {
        target.fill(to, part.len(), |into| {
            into.copy_from_slice(part);
            Ok(())
        })?;
        to += part.len();
        Ok(())
    })?;
    Ok(target.finish(record.content).map(|content| Asset::new(Name::from(&record), generation, content)))
}
