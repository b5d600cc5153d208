//! Assets as values: decoded once, charged, kept beside the bytes, replaced at reload.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use common::{Tree, within};
use flyloft::actors::Faults;
use flyloft::{AssetPath, Decode, DecodeContext, DecodeError, Error, Json, Runtime};

/// A gate that decoders of a test wait at.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    moved: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.moved.wait(open).unwrap();
        }
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.moved.notify_all();
    }
}

/// Decoded text that counts how often it was decoded and dropped, by itself: each test has its own type.
macro_rules! counted {
    ($name:ident, $extra:expr) => {
        struct $name {
            text: String,
        }
        impl $name {
            fn decoded() -> &'static AtomicUsize {
                static DECODED: AtomicUsize = AtomicUsize::new(0);
                &DECODED
            }
            #[allow(dead_code)]
            fn dropped() -> &'static AtomicUsize {
                static DROPPED: AtomicUsize = AtomicUsize::new(0);
                &DROPPED
            }
            #[allow(dead_code)]
            fn gate() -> &'static Gate {
                static GATE: std::sync::OnceLock<Gate> = std::sync::OnceLock::new();
                GATE.get_or_init(Gate::default)
            }
        }
        impl Decode for $name {
            fn decode(bytes: &[u8], context: &DecodeContext<'_>) -> Result<Self, DecodeError> {
                Self::decoded().fetch_add(1, Ordering::SeqCst);
                let during: fn() = $extra;
                during();
                let text = String::decode(bytes, context)?;
                if text.contains("panic") {
                    panic!("{text}");
                }
                Ok(Self { text })
            }
            fn weight_bytes(&self) -> usize {
                size_of::<Self>() + self.text.capacity()
            }
        }
        impl Drop for $name {
            fn drop(&mut self) {
                Self::dropped().fetch_add(1, Ordering::SeqCst);
            }
        }
    };
}

async fn serve(tree: &Tree) -> Runtime {
    within(tree.builder().start()).await.unwrap()
}

/// Turns of other tasks until `ready`; fails rather than hang.
async fn until(ready: impl Fn() -> bool) {
    within(async {
        while !ready() {
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_decoded_once_for_each_content_and_found_without_a_load() {
    counted!(Text, || ());
    let tree = Tree::new();
    tree.write("a.txt", b"the same");
    tree.write("b.txt", b"the same");
    tree.write("c.txt", b"another");
    let runtime = serve(&tree).await;
    assert!(runtime.get_as::<Text>("a.txt").is_none());
    let first = within(runtime.load_as::<Text>("a.txt")).await.unwrap();
    assert_eq!((first.text.as_str(), first.path().as_str()), ("the same", "a.txt"));
    let hit = runtime.get_as::<Text>("a.txt").unwrap();
    let other_name = within(runtime.snapshot().load_as::<Text>("b.txt")).await.unwrap();
    assert!(hit.is_same(&first) && other_name.is_same(&first));
    assert_eq!(other_name.path().as_str(), "b.txt");
    assert_eq!(Text::decoded().load(Ordering::SeqCst), 1);
    assert_eq!(within(runtime.load_as::<Text>("c.txt")).await.unwrap().text, "another");
    assert_eq!(Text::decoded().load(Ordering::SeqCst), 2);
    // Another type of the same bytes is another value.
    assert_eq!(**within(runtime.load_as::<String>("a.txt")).await.unwrap(), *"the same");
    assert!(runtime.get_as::<Json<u32>>("a.txt").is_none());
    assert!(matches!(within(runtime.load_as::<Text>("no.txt")).await, Err(Error::NotFound { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_ask_at_once_share_one_decoding_also_when_the_first_goes_away() {
    counted!(Slow, || Slow::gate().pass());
    let tree = Tree::new();
    tree.write("a.txt", b"slow");
    let runtime = serve(&tree).await;
    drop(within(runtime.load("a.txt")).await.unwrap());
    let first = tokio::spawn(runtime.load_as::<Slow>("a.txt"));
    until(|| Slow::gate().waiting.load(Ordering::SeqCst) == 1).await;
    let others: Vec<_> = (0..50).map(|_| tokio::spawn(runtime.load_as::<Slow>("a.txt"))).collect();
    until(|| runtime.stats().values.making == 1).await;
    first.abort();
    // The actors may die meanwhile: no value is theirs.
    for actor in ["cache_manager", "decompressor", "evictor", "io_dispatcher"] {
        runtime.kill(actor).unwrap();
    }
    Slow::gate().open();
    for other in others {
        assert_eq!(within(other).await.unwrap().unwrap().text, "slow");
    }
    assert_eq!(Slow::decoded().load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decoding_that_nobody_waits_for_any_more_ends_and_can_be_asked_for_again() {
    counted!(Left, || Left::gate().pass());
    let tree = Tree::new();
    tree.write("a.txt", b"left");
    let runtime = serve(&tree).await;
    let asked = tokio::spawn(runtime.load_as::<Left>("a.txt"));
    until(|| Left::gate().waiting.load(Ordering::SeqCst) == 1).await;
    asked.abort();
    until(|| runtime.stats().values.making == 0).await;
    Left::gate().open();
    assert_eq!(within(runtime.load_as::<Left>("a.txt")).await.unwrap().text, "left");
    assert_eq!(runtime.stats().values.making, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decoder_that_fails_or_panics_is_an_error_of_that_asset_alone_and_is_quarantined_in_the_end() {
    counted!(Text, || ());
    let tree = Tree::new();
    tree.write("good.txt", b"good");
    tree.write("bad.txt", &[0xff, 0xfe]);
    tree.write("worse.txt", b"panic here");
    let runtime = serve(&tree).await;
    let error = within(runtime.load_as::<Text>("bad.txt")).await.err().unwrap();
    let Error::Decode { path, type_name, cause } = error else { panic!("{error}") };
    assert_eq!(path.as_str(), "bad.txt");
    assert!(type_name.ends_with("Text") && cause.contains("utf-8"), "{type_name}: {cause}");
    for attempt in 0..flyloft::limits::ATTEMPTS_MAX {
        let error = within(runtime.load_as::<Text>("worse.txt")).await.err().unwrap();
        assert!(matches!(&error, Error::Decode { cause, .. } if cause.contains("panic here")), "{attempt}: {error}");
    }
    let before = Text::decoded().load(Ordering::SeqCst);
    let error = within(runtime.load_as::<Text>("worse.txt")).await.err().unwrap();
    assert!(matches!(error, Error::Quarantined { attempts: flyloft::limits::ATTEMPTS_MAX, .. }), "{error}");
    assert_eq!(Text::decoded().load(Ordering::SeqCst), before);
    assert_eq!(runtime.stats().values.quarantined, 1);
    // The bytes are as good as ever, and so is everything else.
    assert_eq!(&*within(runtime.load("worse.txt")).await.unwrap(), b"panic here");
    assert_eq!(within(runtime.load_as::<Text>("good.txt")).await.unwrap().text, "good");
    assert!(runtime.status().actors.iter().all(|actor| actor.restarts == 0));
}

/// Invariant 7: the budget holds with values, too, and a charge ends when the value is freed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_charged_make_room_for_each_other_and_what_is_held_stays() {
    /// Takes 2 MiB whatever it is made of.
    struct Large(Vec<u8>);
    impl Decode for Large {
        fn decode(bytes: &[u8], _context: &DecodeContext<'_>) -> Result<Self, DecodeError> {
            Ok(Self(vec![bytes[0]; 2 << 20]))
        }
        fn weight_bytes(&self) -> usize {
            size_of::<Self>() + self.0.capacity()
        }
    }
    let tree = Tree::new();
    for index in 0..40u8 {
        tree.write(&format!("{index}.bin"), &[index; 100]);
    }
    // Room for seven values beside the reserve of 4 MiB.
    let runtime = within(tree.builder().budget_bytes(19 << 20).start()).await.unwrap();
    let held = within(runtime.load_as::<Large>("0.bin")).await.unwrap();
    assert!(runtime.stats().budget.charged >= 2 << 20);
    assert_eq!(held.weight_bytes(), size_of::<Large>() as u64 + (2 << 20));
    for index in 1..40u8 {
        let value = within(runtime.load_as::<Large>(format!("{index}.bin"))).await.unwrap();
        assert_eq!(value.0[0], index);
        let budget = runtime.stats().budget;
        assert!(budget.charged + budget.charged_io <= budget.total && budget.peak <= budget.total, "{budget:?}");
    }
    assert_eq!(held.0[0], 0);
    assert!(
        within(runtime.load_as::<Large>("0.bin")).await.unwrap().is_same(&held),
        "a value in use is not made again"
    );
    // What is pinned as bytes lets go of its value all the same.
    let mut pinned = Vec::new();
    for index in 0..40u8 {
        pinned.push(within(runtime.load(format!("{index}.bin"))).await.unwrap());
        drop(within(runtime.load_as::<Large>(format!("{index}.bin"))).await.unwrap());
    }
    drop((held, pinned));
    // More than there can ever be is refused at once, with the bytes that it takes.
    struct Huge;
    impl Decode for Huge {
        fn decode(_bytes: &[u8], _context: &DecodeContext<'_>) -> Result<Self, DecodeError> {
            Ok(Self)
        }
        fn weight_bytes(&self) -> usize {
            1 << 30
        }
    }
    let error = within(runtime.load_as::<Huge>("1.bin")).await.err().unwrap();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_that_never_comes_is_an_error_that_names_what_is_pinned() {
    struct Wide;
    impl Decode for Wide {
        fn decode(_bytes: &[u8], _context: &DecodeContext<'_>) -> Result<Self, DecodeError> {
            Ok(Self)
        }
        fn weight_bytes(&self) -> usize {
            6 << 20
        }
    }
    let tree = Tree::new();
    tree.write("pinned.bin", &vec![1; 3 << 20]);
    tree.write("a.bin", b"a");
    let config = flyloft::RuntimeConfig {
        budget_bytes: 12 << 20,
        memory_wait: std::time::Duration::from_millis(50),
        ..Default::default()
    };
    let runtime = within(tree.builder().config(config).store(tree.store()).start()).await.unwrap();
    let pinned = within(runtime.load("pinned.bin")).await.unwrap();
    let error = within(runtime.load_as::<Wide>("a.bin")).await.err().unwrap();
    assert!(error.to_string().contains("pinned.bin"), "{error}");
    assert!(matches!(error, Error::Pinned { .. }), "{error}");
    drop(pinned);
    within(runtime.load_as::<Wide>("a.bin")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_answers_who_waits_for_a_value() {
    counted!(Stuck, || Stuck::gate().pass());
    let tree = Tree::new();
    tree.write("a.txt", b"stuck");
    let runtime = serve(&tree).await;
    let asked = tokio::spawn(runtime.load_as::<Stuck>("a.txt"));
    until(|| Stuck::gate().waiting.load(Ordering::SeqCst) == 1).await;
    let stopping = runtime.clone();
    let stopping = tokio::spawn(async move { stopping.shutdown(std::time::Duration::from_secs(5)).await });
    until(|| matches!(runtime.status().health, flyloft::runtime::Health::Stopping)).await;
    Stuck::gate().open();
    drop(within(stopping).await.unwrap());
    // It was made in time, or it was not: either way it is answered.
    match within(asked).await.unwrap() {
        Ok(value) => assert_eq!(value.text, "stuck"),
        Err(error) => assert!(matches!(error, Error::ShutDown), "{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_drill_reaches_the_decoders_of_values() {
    struct Drill;
    impl Faults for Drill {
        fn reached(&self, stage: &'static str, path: &AssetPath) {
            assert!(stage != "typed" || path.as_str() != "a.txt", "on purpose");
        }
    }
    let tree = Tree::new();
    tree.write("a.txt", b"a");
    tree.write("b.txt", b"b");
    let runtime = within(tree.builder().faults(Arc::new(Drill)).start()).await.unwrap();
    let error = within(runtime.load_as::<String>("a.txt")).await.err().unwrap();
    assert!(error.to_string().contains("on purpose"), "{error}");
    assert_eq!(**within(runtime.load_as::<String>("b.txt")).await.unwrap(), *"b");
}

/// Values of many types and sizes under a budget that holds a few, while actors die, files change and askers go away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_is_right_and_within_the_budget_whatever_dies() {
    const FILES: usize = 60;
    const ASKERS: usize = 8;
    const EACH: usize = 150;
    /// The text many times over, so that values weigh more than bytes.
    struct Wide<const TIMES: usize>(Vec<u8>);
    impl<const TIMES: usize> Decode for Wide<TIMES> {
        fn decode(bytes: &[u8], _context: &DecodeContext<'_>) -> Result<Self, DecodeError> {
            Ok(Self(bytes.repeat(TIMES)))
        }
        fn weight_bytes(&self) -> usize {
            size_of::<Self>() + self.0.capacity()
        }
    }
    async fn check<const TIMES: usize>(snapshot: &flyloft::Snapshot, path: &str) {
        let value = within(snapshot.load_as::<Wide<TIMES>>(path)).await.unwrap();
        let bytes = within(snapshot.load(path)).await.unwrap();
        assert_eq!(value.hash(), bytes.hash(), "one snapshot, two editions");
        assert_eq!(value.0, bytes.repeat(TIMES));
    }
    let tree = Tree::new();
    let text = |index: usize, edition: usize| format!("{index} edition {edition}\n").repeat(1_000 + index * 20);
    for index in 0..FILES {
        tree.write(&format!("{index}.txt"), text(index, 0).as_bytes());
    }
    let runtime = within(tree.builder().watch(true).budget_bytes(12 << 20).start()).await.unwrap();
    let mut events = runtime.events();
    let mut askers = Vec::new();
    for asker in 0..ASKERS {
        let runtime = runtime.clone();
        askers.push(tokio::spawn(async move {
            for round in 0..EACH {
                let path = format!("{}.txt", (round * 7 + asker * 13) % FILES);
                let snapshot = runtime.snapshot();
                match round % 4 {
                    0 => check::<1>(&snapshot, &path).await,
                    1 => check::<8>(&snapshot, &path).await,
                    2 => check::<20>(&snapshot, &path).await,
                    // Asked for, and left.
                    _ => polled_once(runtime.load_as::<Wide<20>>(&path)).await,
                }
                let budget = runtime.stats().budget;
                assert!(budget.peak <= budget.total, "{budget:?}");
            }
        }));
    }
    let actors = ["evictor", "cache_manager", "decompressor", "io_dispatcher", "rebuilder", "io_worker[0]"];
    for round in 0..24 {
        // What is restarting already cannot be killed, and need not be.
        drop(runtime.kill(actors[round % actors.len()]));
        tree.replace(&format!("{}.txt", round % FILES), text(round % FILES, round + 1).as_bytes());
        // Something moves before the next one dies.
        drop(within(events.recv()).await);
    }
    for asker in askers {
        within(asker).await.unwrap();
    }
    // What was left is given up, and nothing is made for nobody.
    until(|| runtime.stats().values.making == 0).await;
    assert_eq!(runtime.stats().values.quarantined, 0);
}

/// Polls once, and leaves.
async fn polled_once<F: Future + Unpin>(mut future: F) {
    std::future::poll_fn(|context| {
        drop(std::pin::Pin::new(&mut future).poll(context));
        std::task::Poll::Ready(())
    })
    .await
}
