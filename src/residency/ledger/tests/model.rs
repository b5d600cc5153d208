//! The ledger beside a plain model of it, one step after another.

use proptest::prelude::*;

use super::*;

const PATHS: [&str; 3] = ["a", "b", "c"];
/// `a` and `b` have the same content.
const CONTENTS: [&[u8]; 3] = [b"same", b"same", b"own"];

#[derive(Clone, Debug)]
enum Step {
    Join { path: usize, deadline: Option<u64> },
    Cancel(usize),
    Take,
    Merge(usize),
    Answer(usize, bool),
    Drop(usize),
    Fail(usize),
    Advance(u64),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0usize..8;
    prop_oneof![
        8 => (0usize..3, proptest::option::of(1u64..20)).prop_map(|(path, deadline)| Step::Join { path, deadline }),
        4 => index.clone().prop_map(Step::Cancel),
        6 => Just(Step::Take),
        6 => index.clone().prop_map(Step::Merge),
        6 => (index.clone(), any::<bool>()).prop_map(|(index, ok)| Step::Answer(index, ok)),
        2 => index.clone().prop_map(Step::Drop),
        2 => index.prop_map(Step::Fail),
        2 => (1u64..8).prop_map(Step::Advance),
        1 => Just(Step::Reset),
    ]
}

/// A ticket and what is known of it.
struct Waiting {
    ticket: Ticket,
    path: usize,
    deadline: Option<Instant>,
}

proptest! {
    #[test]
    fn every_request_ends_in_one_answer_and_it_is_its_own(steps in proptest::collection::vec(step(), 1..120)) {
        let world = World::new();
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut leases: Vec<(Lease, usize)> = Vec::new();
        let path_of = |lease: &Lease| PATHS.iter().position(|path| AssetId::of_path(path) == lease.key().id).unwrap();
        let (mut cancelled, mut joined) = (0, 0);
        for step in steps {
            match step {
                Step::Join { path, deadline } => {
                    let deadline = deadline.map(|ms| world.now() + Duration::from_millis(ms));
                    let ask = Ask { deadline, ..world.ask() };
                    // Quarantine refuses; that is an end, too, and nothing is owed.
                    if let Ok((ticket, how)) = world.ledger.join(&world.live(), world.key(PATHS[path]), ask) {
                        let open = |other: &Waiting| other.path == path && other.ticket.try_answer().is_none();
                        // It merges when someone waits for the same; or for the same content, behind this one.
                        let alike = |other: &Waiting| {
                            CONTENTS[other.path] == CONTENTS[path] && other.ticket.try_answer().is_none()
                        };
                        let may_share = waiting.iter().any(alike);
                        let shared = waiting.iter().any(open)
                            || leases.iter().any(|(lease, other)| *other == path && lease.is_wanted());
                        let fits = if shared { how == Joined::Merged } else { how == Joined::First || may_share };
                        prop_assert!(fits);
                        waiting.push(Waiting { ticket, path, deadline });
                        joined += 1;
                    }
                }
                Step::Cancel(index) if !waiting.is_empty() => {
                    let gone = waiting.swap_remove(index % waiting.len());
                    cancelled += u64::from(gone.ticket.try_answer().is_none());
                }
                Step::Take => {
                    let taken = world.ledger.take_ready(2);
                    leases.extend(taken.into_iter().map(|lease| { let path = path_of(&lease); (lease, path) }));
                }
                Step::Merge(index) if !leases.is_empty() => {
                    let (lease, path) = leases.swap_remove(index % leases.len());
                    let content = ContentHash::of(CONTENTS[path]);
                    if let Merge::Lead(lease) = world.ledger.merge(lease, content, name(PATHS[path])) {
                        leases.push((lease, path));
                    }
                }
                Step::Answer(index, ok) if !leases.is_empty() => {
                    let (lease, path) = leases.swap_remove(index % leases.len());
                    let wanted = lease.is_wanted();
                    let asset = world.asset(PATHS[path], lease.key().generation, CONTENTS[path]);
                    let answer = if ok { Ok(Answer::Asset(world.table.admit(asset, None))) } else { failed() };
                    prop_assert_eq!(lease.answer(answer), wanted);
                }
                Step::Drop(index) if !leases.is_empty() => drop(leases.swap_remove(index % leases.len())),
                Step::Fail(index) if !leases.is_empty() => {
                    leases.swap_remove(index % leases.len()).0.fail_item("it panicked");
                }
                Step::Advance(ms) => {
                    world.clock.advance(Duration::from_millis(ms));
                    world.ledger.expire(world.now());
                }
                Step::Reset => {
                    world.ledger.close(Error::ShutDown);
                    world.ledger.reopen();
                    prop_assert!(waiting.iter().all(|waiting| waiting.ticket.try_answer().is_some()));
                }
                _ => {}
            }
            for other in &waiting {
                match other.ticket.try_answer() {
                    Some(Ok(Answer::Asset(asset))) => {
                        prop_assert_eq!(asset.path().as_str(), PATHS[other.path]);
                        prop_assert_eq!(&*asset, CONTENTS[other.path]);
                    }
                    Some(Ok(_)) => prop_assert!(false, "nobody asked for that"),
                    Some(Err(Error::Deadline { .. })) => prop_assert!(other.deadline.is_some_and(|d| d <= world.now())),
                    Some(Err(_)) => {}
                    None => prop_assert!(other.deadline.is_none_or(|deadline| deadline > world.now())),
                }
            }
            let open = waiting.iter().filter(|waiting| waiting.ticket.try_answer().is_none()).count();
            prop_assert_eq!(world.ledger.open(), open);
        }
        // Whatever is still open can be worked off: nothing was lost.
        drop(leases);
        loop {
            let taken = world.ledger.take_ready(9);
            if taken.is_empty() {
                break;
            }
            for lease in taken {
                lease.answer(failed());
            }
        }
        prop_assert!(waiting.iter().all(|waiting| waiting.ticket.try_answer().is_some()));
        drop(waiting);
        prop_assert_eq!((world.ledger.stats().joined, world.ledger.stats().cancelled), (joined, cancelled));
        settled(&world);
    }
}
