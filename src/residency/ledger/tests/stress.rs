//! Real threads: some ask and let go, some work and die. At the end everyone was answered.

use std::sync::Condvar;
use std::sync::atomic::AtomicBool;
use std::task::Context;

use super::*;
use crate::platform::clock::{Clock, SystemClock};

/// Blocks on a ticket, on any thread.
struct Parker(std::thread::Thread);

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait(mut ticket: Ticket) -> Result<Answer> {
    let waker = Waker::from(Arc::new(Parker(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match std::pin::Pin::new(&mut ticket).poll(&mut context) {
            Poll::Ready(answer) => return answer,
            // Far longer than it ever takes: a lost wake-up ends the test instead of hanging it.
            Poll::Pending => {
                let before = SystemClock.now();
                std::thread::park_timeout(Duration::from_secs(60));
                assert!(SystemClock.now() - before < Duration::from_secs(60), "nobody woke {ticket:?}");
            }
        }
    }
}

/// What the dispatcher's mailbox would be: a flag that on_ready raises.
#[derive(Default)]
struct Bell {
    rung: std::sync::Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.heard.notify_all();
    }

    fn listen(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.heard.wait(rung).unwrap();
        }
        *rung = false;
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What of 12 assets: four contents, three names each.
fn content(asset: u64) -> [u8; 1] {
    [(asset % 4) as u8]
}

fn work(world: &World, lease: Lease, random: &mut Random, paths: &[String]) {
    let asset = (0..12).find(|asset| AssetId::of_path(&paths[*asset as usize]) == lease.key().id).unwrap();
    let (path, bytes) = (&paths[asset as usize], content(asset));
    match random.below(12) {
        0 => return drop(lease),
        1 => {
            let died = catch_unwind(AssertUnwindSafe(move || {
                let _lease = lease;
                std::panic::resume_unwind(Box::new(()));
            }));
            assert!(died.is_err());
            return;
        }
        2 => {
            let _killed = lease.begin("decoding");
            return;
        }
        3 => return lease.fail_item("it panicked"),
        _ => {}
    }
    let Merge::Lead(lease) = world.ledger.merge(lease, ContentHash::of(&bytes), name(path)) else { return };
    match random.below(8) {
        0 => drop(lease),
        1 => drop(lease.answer(failed())),
        _ => {
            let asset = world.asset(path, lease.key().generation, &bytes);
            let asset = world.table.admit(asset, None);
            lease.answer(Ok(Answer::Asset(asset)));
        }
    }
}

#[test]
fn nothing_is_lost_while_workers_die_and_clients_come_and_go() {
    const CLIENTS: u64 = 4;
    const ROUNDS: u64 = 4000;
    let world = World::new();
    let paths: Vec<String> = (0..12).map(|asset| format!("asset/{asset}")).collect();
    let bell = Arc::new(Bell::default());
    let ringer = Arc::clone(&bell);
    world.ledger.on_ready(Box::new(move || ringer.ring()));
    let stop = AtomicBool::new(false);
    let live = world.live();
    std::thread::scope(|scope| {
        let client = |seed: u64| {
            let (world, paths, live) = (&world, &paths, &live);
            scope.spawn(move || {
                let mut random = Random(seed);
                let mut held = Vec::new();
                let mut rounds = 0;
                while rounds < ROUNDS {
                    let asset = random.below(12);
                    let key = world.key(&paths[asset as usize]);
                    let priority = Priority::ALL[random.below(4) as usize];
                    let soon = random.below(8) == 0;
                    let deadline = soon.then(|| world.now() + Duration::from_millis(1 + random.below(3)));
                    let ask = Ask { priority, deadline, ..world.ask() };
                    let ticket = match world.ledger.join(live, key, ask) {
                        Ok((ticket, _)) => ticket,
                        Err(Error::Quarantined { .. } | Error::ShutDown) => {
                            // The keeper forgives and opens again.
                            std::thread::yield_now();
                            continue;
                        }
                        Err(other) => panic!("{other}"),
                    };
                    rounds += 1;
                    match random.below(4) {
                        0 => drop(ticket),
                        1 => held.push(ticket),
                        _ => match wait(ticket) {
                            Ok(Answer::Asset(found)) => {
                                assert_eq!(found.path().as_str(), paths[asset as usize]);
                                assert_eq!(*found, content(asset));
                            }
                            Ok(other) => panic!("nobody asked for {other:?}"),
                            Err(Error::Deadline { .. }) => assert!(soon),
                            Err(_) => {}
                        },
                    }
                    if held.len() > 20 {
                        drop(held.swap_remove(random.below(20) as usize));
                    }
                }
                held.into_iter().for_each(|ticket| drop(wait(ticket)));
            })
        };
        let clients: Vec<_> = (1..=CLIENTS).map(client).collect();
        let worker = |seed: u64| {
            let (world, paths, bell, stop) = (&world, &paths, &bell, &stop);
            scope.spawn(move || {
                let mut random = Random(seed);
                loop {
                    let leases = world.ledger.take_ready(4);
                    if leases.is_empty() {
                        if stop.load(Ordering::SeqCst) {
                            // The other worker may be listening, too.
                            return bell.ring();
                        }
                        bell.listen();
                    }
                    world.ledger.changes();
                    for lease in leases {
                        work(world, lease, &mut random, paths);
                    }
                }
            })
        };
        let workers = [worker(100), worker(200)];
        let keeper = scope.spawn(|| {
            let mut turn = 0u64;
            while !stop.load(Ordering::SeqCst) {
                turn += 1;
                world.clock.advance(Duration::from_micros(100));
                world.ledger.expire(world.now());
                world.ledger.forgive();
                for path in &paths {
                    world.table.evict(AssetId::of_path(path));
                }
                if turn.is_multiple_of(50) {
                    world.ledger.close(Error::ShutDown);
                    world.ledger.reopen();
                }
            }
        });
        for client in clients {
            client.join().unwrap();
        }
        stop.store(true, Ordering::SeqCst);
        bell.ring();
        for worker in workers {
            worker.join().unwrap();
        }
        keeper.join().unwrap();
    });
    let stats = world.ledger.stats();
    assert_eq!(stats.joined, CLIENTS * ROUNDS);
    assert!(stats.answered > 0 && stats.followed > 0 && stats.cancelled > 0 && stats.given_back > 0, "{stats:?}");
    settled(&world);
    world.table.clear();
    assert_eq!(world.budget.snapshot().charged, 0);
}
