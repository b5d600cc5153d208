//! Requests, leases, merges and ends of the ledger.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use super::*;
use crate::limits::ATTEMPTS_MAX;
use crate::residency::testing::{Counted, World, bytes, name, poll};

mod model;
mod stress;

fn lease(world: &World) -> Lease {
    let mut leases = world.ledger.take_ready(1);
    leases.pop().expect("something is in the inbox")
}

fn give(world: &World, lease: Lease, path: &str, content: &[u8]) -> bool {
    let asset = world.asset(path, lease.key().generation, content);
    lease.answer(Ok(Answer::Asset(asset)))
}

fn failed() -> Result<Answer> {
    Err(Error::Unsupported { what: "this".into(), why: "it is a test".into() })
}

/// Nothing is left in any map, and every request was counted to one end.
fn settled(world: &World) {
    let ledger = &world.ledger;
    let stats = ledger.stats();
    assert_eq!(stats.open, 0, "{stats:?}");
    let ended = stats.answered + stats.failed + stats.cancelled + stats.expired + stats.quarantined + stats.closed;
    assert_eq!(stats.joined, ended, "{stats:?}");
    assert!(stats.open_by_priority.values().all(|open| *open == 0), "{stats:?}");
    assert_eq!((ledger.entries.len(), ledger.contents.len(), ledger.next_deadline()), (0, 0, None));
}

#[test]
fn requests_for_the_same_share_one_lease_and_one_answer() {
    let world = World::new();
    let (mut first, mut second) = (world.join("a"), world.join("a"));
    let leases = world.ledger.take_ready(9);
    assert_eq!((leases.len(), world.ledger.open()), (1, 2));
    let wakers: [Arc<Counted>; 2] = Default::default();
    assert!(poll(&mut first, &Waker::from(Arc::clone(&wakers[0]))).is_pending());
    assert!(poll(&mut second, &Waker::from(Arc::clone(&wakers[1]))).is_pending());
    for lease in leases {
        assert!(give(&world, lease, "a", b"x"));
    }
    assert!(wakers.iter().all(|waker| waker.0.load(Ordering::SeqCst) == 1));
    for ticket in [&mut first, &mut second] {
        for _ in 0..2 {
            let Poll::Ready(answer) = poll(ticket, Waker::noop()) else { panic!("it is answered") };
            assert_eq!(bytes(answer), b"x");
        }
    }
    assert_eq!((world.ledger.stats().answered, world.ledger.stats().merged), (2, 1));
    settled(&world);
}

#[test]
fn a_dropped_lease_is_queued_again_and_counts_only_when_in_hand() {
    let world = World::new();
    let ticket = world.join("a");
    drop(lease(&world));
    assert_eq!(lease(&world).attempt(), 1, "nobody had begun");
    let in_hand = lease(&world);
    in_hand.begin("decoding").done();
    drop(in_hand);
    let in_hand = lease(&world);
    assert_eq!(in_hand.attempt(), 1, "the stage was done with it");
    let _killed = in_hand.begin("decoding");
    drop(in_hand);
    let again = lease(&world);
    assert_eq!(again.attempt(), 2);
    let unwinding = catch_unwind(AssertUnwindSafe(move || {
        let _lease = again;
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(unwinding.is_err());
    let last = lease(&world);
    assert_eq!(last.attempt(), 3);
    assert!(give(&world, last, "a", b"x"));
    assert_eq!(bytes(ticket.try_answer().unwrap()), b"x");
    assert_eq!(world.ledger.stats().given_back, 5);
    drop(ticket);
    settled(&world);
}

#[test]
fn what_breaks_a_stage_again_and_again_is_quarantined_until_it_changes() {
    let world = World::new();
    let content = ContentHash::of(b"poison");
    let ticket = world.join("a");
    for attempt in 1..=ATTEMPTS_MAX {
        let lease = lease(&world);
        assert_eq!(lease.attempt(), attempt);
        let Merge::Lead(lease) = world.ledger.merge(lease, content, name("a")) else { panic!("nobody else works") };
        lease.fail_item("it panicked");
    }
    let Some(Err(Error::Quarantined { attempts, cause, .. })) = ticket.try_answer() else { panic!("quarantined") };
    assert_eq!((attempts, cause.as_str()), (ATTEMPTS_MAX, "it panicked"));
    let refused = world.ledger.join(&world.live(), world.key("a"), world.ask());
    assert!(matches!(refused, Err(Error::Quarantined { .. })), "in the same generation it is the same content");
    drop(world.join("b"));

    // Another generation with the same content: known when the content is.
    world.publish(&[("b", None)]);
    let ticket = world.join("a");
    assert!(matches!(world.ledger.merge(lease(&world), content, name("a")), Merge::Follows));
    assert!(matches!(ticket.try_answer(), Some(Err(Error::Quarantined { .. }))));

    // An edit heals it.
    world.publish(&[("a", None)]);
    let ticket = world.join("a");
    let Merge::Lead(lease) = world.ledger.merge(lease(&world), ContentHash::of(b"fine"), name("a")) else {
        panic!("it changed")
    };
    assert_eq!(lease.attempt(), 1);
    give(&world, lease, "a", b"fine");
    assert_eq!(bytes(ticket.try_answer().unwrap()), b"fine");
    assert_eq!(world.ledger.stats().in_quarantine, 0);
    settled(&world);
}

#[test]
fn attempts_are_remembered_when_those_who_ask_come_and_go() {
    let world = World::new();
    for attempt in 1..=ATTEMPTS_MAX {
        let ticket = world.join("a");
        let lease = lease(&world);
        assert_eq!(lease.attempt(), attempt);
        lease.fail_item("it panicked");
        drop(ticket);
    }
    assert!(world.ledger.join(&world.live(), world.key("a"), world.ask()).is_err());
    world.ledger.forgive();
    drop(world.join("a"));
    settled(&world);
}

#[test]
fn a_dropped_ticket_cancels_and_a_queued_request_leaves_the_queue() {
    let world = World::new();
    let (first, second) = (world.join("a"), world.join("a"));
    drop(first);
    assert_eq!(world.ledger.open(), 1);
    drop(second);
    assert!(world.ledger.take_ready(9).is_empty());
    let ticket = world.join("a");
    let lease = lease(&world);
    drop(ticket);
    assert!(!lease.is_wanted());
    assert_eq!(world.ledger.changes(), [Change::Cancelled { key: lease.key() }]);
    let ticket = world.join("a");
    assert!(!give(&world, lease, "a", b"stale"), "a stale lease answers nobody, not even who came later");
    assert!(ticket.try_answer().is_none());
    drop(ticket);
    for index in 0..5000 {
        drop(world.join(&format!("{index}")));
    }
    assert!(world.ledger.inbox.len() < 3000, "the queue does not keep what nobody waits for");
    settled(&world);
}

#[test]
fn an_unattended_request_is_worked_on_until_its_deadline() {
    let world = World::new();
    let ask = Ask { deadline: Some(world.now() + Duration::from_secs(1)), ..world.ask() };
    world.ledger.join_unattended(&world.live(), world.key("a"), ask.clone()).unwrap();
    assert!(give(&world, lease(&world), "a", b"x"));
    world.ledger.join_unattended(&world.live(), world.key("a"), ask).unwrap();
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.ledger.expire(world.now()), 1);
    settled(&world);
}

#[test]
fn a_deadline_answers_its_own_request_alone() {
    let world = World::new();
    let ask = |ms| Ask { deadline: Some(world.now() + Duration::from_millis(ms)), ..world.ask() };
    let join = |ms| world.ledger.join(&world.live(), world.key("a"), ask(ms)).unwrap().0;
    let (mut soon, later, never) = (join(10), join(20), world.join("a"));
    assert_eq!(world.ledger.next_deadline(), Some(world.now() + Duration::from_millis(10)));
    let woken = Arc::new(Counted::default());
    assert!(poll(&mut soon, &Waker::from(Arc::clone(&woken))).is_pending());
    assert_eq!(world.ledger.expire(world.now()), 0);
    world.clock.advance(Duration::from_millis(10));
    assert_eq!(world.ledger.expire(world.now()), 1);
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    let Some(Err(Error::Deadline { after, .. })) = soon.try_answer() else { panic!("too late") };
    assert_eq!(after, Duration::from_millis(10));
    give(&world, lease(&world), "a", b"x");
    assert_eq!(world.ledger.next_deadline(), None, "an answered request has no deadline");
    assert!(matches!(soon.try_answer(), Some(Err(Error::Deadline { .. }))));
    assert!(later.try_answer().unwrap().is_ok() && never.try_answer().unwrap().is_ok());
    settled(&world);
}

#[test]
fn entries_of_one_content_are_answered_together_each_under_its_own_name() {
    let world = World::new();
    let content = ContentHash::of(b"same");
    let (first, second) = (world.join("a"), world.join("b"));
    let snapshot = world.live();
    world.publish(&[("c", None)]);
    let third = world.join("c");
    let mut leases = world.ledger.take_ready(3).into_iter();
    let Merge::Lead(lead) = world.ledger.merge(leases.next().unwrap(), content, name("a")) else { panic!("first") };
    for (lease, path) in leases.zip(["b", "c"]) {
        assert!(matches!(world.ledger.merge(lease, content, name(path)), Merge::Follows));
    }
    // Given back and taken again, it leads on.
    drop(lead);
    let Merge::Lead(lead) = world.ledger.merge(lease(&world), content, name("a")) else { panic!("it leads") };
    give(&world, lead, "a", b"same");
    for (ticket, path, generation) in [(first, "a", 1), (second, "b", 1), (third, "c", 2)] {
        let Some(Ok(Answer::Asset(asset))) = ticket.try_answer() else { panic!("answered") };
        assert_eq!((asset.path().as_str(), asset.generation().0, &*asset), (path, generation, &b"same"[..]));
        let resident = world.table.get_at(AssetId::of_path(path), Generation(generation));
        assert!(path == "a" || resident.is_some(), "what follows is resident before it is answered");
    }
    drop(snapshot);
    assert_eq!(world.budget.snapshot().charged, 4, "charged once");
    settled(&world);
}

#[test]
fn a_follower_outlives_the_cancellation_of_its_leader() {
    let world = World::new();
    let content = ContentHash::of(b"x");
    let (leads, follows) = (world.join("a"), world.join("b"));
    let mut leases = world.ledger.take_ready(2).into_iter();
    let Merge::Lead(lease) = world.ledger.merge(leases.next().unwrap(), content, name("a")) else { panic!("first") };
    assert!(matches!(world.ledger.merge(leases.next().unwrap(), content, name("b")), Merge::Follows));
    drop(leads);
    assert!(lease.is_wanted());
    // The leader's failures are not the end of its follower either.
    lease.fail_item("it panicked");
    give(&world, self::lease(&world), "a", b"x");
    assert_eq!(bytes(follows.try_answer().unwrap()), b"x");

    // When the follower lets go as well, the work ends.
    let (leads, follows) = (world.join("a"), world.join("b"));
    let mut leases = world.ledger.take_ready(2).into_iter();
    let Merge::Lead(lease) = world.ledger.merge(leases.next().unwrap(), content, name("a")) else { panic!("first") };
    assert!(matches!(world.ledger.merge(leases.next().unwrap(), content, name("b")), Merge::Follows));
    drop((leads, follows));
    assert!(!lease.is_wanted());
    settled(&world);
}

#[test]
fn an_error_of_the_leader_names_each_asset() {
    let world = World::new();
    let content = ContentHash::of(b"x");
    let ask = |path: &str| Ask { path: Some(AssetPath::new(path).unwrap()), ..world.ask() };
    let tickets = ["a", "b"].map(|path| world.ledger.join(&world.live(), world.key(path), ask(path)).unwrap().0);
    let mut leases = world.ledger.take_ready(2).into_iter();
    let Merge::Lead(lead) = world.ledger.merge(leases.next().unwrap(), content, name("a")) else { panic!("first") };
    let _ = world.ledger.merge(leases.next().unwrap(), content, name("b"));
    lead.answer(Err(Error::TooLarge { what: "a".into(), needed_bytes: 2, limit_bytes: 1 }));
    for (ticket, path) in tickets.iter().zip(["a", "b"]) {
        assert!(ticket.try_answer().unwrap().unwrap_err().to_string().starts_with(&format!("'{path}'")));
    }
    settled(&world);
}

#[test]
fn a_joiner_that_is_more_urgent_raises_the_work() {
    let world = World::new();
    let join = |path, priority| world.ledger.join(&world.live(), world.key(path), Ask { priority, ..world.ask() });
    let tickets = [join("low", Priority::Low), join("medium", Priority::Medium), join("low", Priority::Critical)];
    let leases = world.ledger.take_ready(9);
    assert_eq!(leases.len(), 2);
    assert_eq!((leases[0].key(), leases[0].priority()), (world.key("low"), Priority::Critical));
    let raised = join("medium", Priority::High);
    let again = join("medium", Priority::Low);
    assert_eq!(world.ledger.changes(), [Change::Raised { key: world.key("medium"), priority: Priority::High }]);
    assert_eq!(leases[1].priority(), Priority::High);
    drop((tickets, raised, again, leases));
    settled(&world);
}

#[test]
fn a_closed_ledger_answers_everyone_and_opens_again() {
    let world = World::new();
    let content = ContentHash::of(b"x");
    let tickets = ["a", "b", "c"].map(|path| world.join(path));
    let mut leases = world.ledger.take_ready(2).into_iter();
    let Merge::Lead(lease) = world.ledger.merge(leases.next().unwrap(), content, name("a")) else { panic!("first") };
    let _ = world.ledger.merge(leases.next().unwrap(), content, name("b"));
    assert_eq!(world.ledger.close(Error::ShutDown), 3);
    assert!(tickets.iter().all(|ticket| matches!(ticket.try_answer(), Some(Err(Error::ShutDown)))));
    let refused = world.ledger.join(&world.live(), world.key("a"), world.ask());
    assert!(matches!(refused, Err(Error::ShutDown)));
    settled(&world);
    world.ledger.reopen();
    let ticket = world.join("a");
    drop(lease);
    assert!(ticket.try_answer().is_none(), "a stale lease given back changes nothing");
    assert_eq!(world.ledger.take_ready(9).len(), 1);
    drop(ticket);
    settled(&world);
}

#[test]
fn a_ledger_that_stops_taking_lets_what_is_open_end() {
    let world = World::new();
    let ticket = world.join("a");
    assert_eq!(world.ledger.stop_taking(Error::ShutDown), 1);
    assert!(world.ledger.join(&world.live(), world.key("a"), world.ask()).is_err());
    give(&world, lease(&world), "a", b"x");
    assert!(ticket.try_answer().unwrap().is_ok());
    settled(&world);
}

#[test]
fn requests_beyond_the_limit_are_refused_and_not_owed() {
    let world = World::with_room_for(2);
    let held = [world.join("a"), world.join("a")];
    let refused = world.ledger.join(&world.live(), world.key("b"), world.ask());
    assert!(matches!(refused, Err(Error::QueueFull { limit: 2 })));
    drop(held);
    drop(world.join("b"));
    assert_eq!(world.ledger.stats().refused, 1);
    settled(&world);
}

#[test]
fn the_dispatcher_is_called_once_until_it_has_emptied_the_inbox() {
    let world = World::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let early = world.join("early");
    world.ledger.on_ready(Box::new(move || _ = seen.fetch_add(1, Ordering::SeqCst)));
    assert_eq!(calls.load(Ordering::SeqCst), 1, "something was there before it");
    let tickets = ["a", "b", "c"].map(|path| world.join(path));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let some = world.ledger.take_ready(2);
    let more = world.join("d");
    assert_eq!(calls.load(Ordering::SeqCst), 1, "it knows that there is more");
    let rest = world.ledger.take_ready(9);
    assert_eq!(rest.len(), 3);
    drop(some);
    assert_eq!(calls.load(Ordering::SeqCst), 2, "leases given back call as well");
    drop((early, tickets, more, rest));
    assert!(world.ledger.take_ready(9).is_empty());
    settled(&world);
}

#[test]
fn no_lane_starves() {
    let world = World::new();
    let join = |path: &str, priority| {
        let ask = Ask { priority, ..world.ask() };
        world.ledger.join_unattended(&world.live(), world.key(path), ask).unwrap();
    };
    join("patient", Priority::Low);
    for index in 0..200 {
        join(&format!("{index}"), Priority::Critical);
    }
    let first = world.ledger.take_ready(64);
    assert!(first.iter().any(|lease| lease.priority() == Priority::Low));
}

/// A waker that uses the ledger, and is dropped with the last ticket of another entry.
struct Reentrant {
    world: Arc<World>,
    _held: Ticket,
}

impl Wake for Reentrant {
    fn wake(self: Arc<Self>) {
        drop(self.world.join("a"));
        assert!(self.world.ledger.stats().answered > 0);
    }
}

#[test]
fn wakers_run_and_are_dropped_outside_every_lock() {
    let world = Arc::new(World::new());
    let mut ticket = world.join("a");
    let waker = || Waker::from(Arc::new(Reentrant { world: Arc::clone(&world), _held: world.join("b") }));
    assert!(poll(&mut ticket, &waker()).is_pending());
    assert!(poll(&mut ticket, &waker()).is_pending(), "replacing one drops the other");
    let lease = world.ledger.take_ready(1).pop().unwrap();
    assert!(give(&world, lease, "a", b"x"));
    assert!(ticket.try_answer().unwrap().is_ok());
    drop(ticket);
    settled(&world);
}

#[test]
fn a_million_requests_are_open_at_once() {
    const COUNT: u64 = 1_000_000;
    let world = World::with_room_for(COUNT as usize);
    let live = world.live();
    let key = |id| Key { generation: Generation(1), id: AssetId(id), want: Want::Resident };
    let tickets: Vec<Ticket> = (0..COUNT).map(|id| world.ledger.join(&live, key(id), world.ask()).unwrap().0).collect();
    assert_eq!(world.ledger.open() as u64, COUNT);
    let mut answered = 0;
    loop {
        let leases = world.ledger.take_ready(4096);
        if leases.is_empty() {
            break;
        }
        answered += leases.into_iter().map(|lease| u64::from(lease.answer(failed()))).sum::<u64>();
    }
    assert_eq!(answered, COUNT);
    assert!(tickets.iter().all(|ticket| ticket.try_answer().is_some()));
    settled(&world);
}

#[test]
fn an_open_request_takes_little_memory() {
    // What is allocated is counted in tests/hit_path.rs; this says where it goes.
    assert!(size_of::<Entry>() <= 336, "{}", size_of::<Entry>());
    assert!(size_of::<Waiter>() <= 64, "{}", size_of::<Waiter>());
    assert!(size_of::<Lease>() <= 40, "{}", size_of::<Lease>());
    assert!(size_of::<Ticket>() <= 24, "{}", size_of::<Ticket>());
}
