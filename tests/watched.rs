//! Values that follow reloads, and callbacks that are told of them.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use common::{Tree, within};
use flyloft::build::transform::{Context, Input, Labelled, NoParameters, Output, Transform};
use flyloft::config::{EvictionConfig, EvictionPolicy};
use flyloft::event::Published;
use flyloft::telemetry::Subscription;
use flyloft::{ContentHash, Decode, DecodeContext, DecodeError, Error, Event, Json, Runtime, RuntimeConfig};

async fn serve(tree: &Tree) -> (Runtime, Subscription) {
    let runtime = within(tree.builder().watch(true).start()).await.unwrap();
    let events = runtime.events();
    (runtime, events)
}

async fn wait_for<T>(events: &mut Subscription, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    within(async {
        loop {
            let event = events.recv().await.expect("the runtime lives");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    })
    .await
}

async fn next_published(events: &mut Subscription) -> Published {
    wait_for(events, |event| match event {
        Event::Published(published) => Some(published),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_value_is_the_newest_good_one_and_a_failure_keeps_the_last() {
    let tree = Tree::new();
    tree.write("size.json", b"1");
    let (runtime, mut events) = serve(&tree).await;
    let mut size = within(runtime.watched::<Json<u32>>("size.json")).await.unwrap();
    assert_eq!((**size.load(), size.path().as_str(), size.error().is_none()), (1, "size.json", true));
    let held = size.load().typed().clone();
    tree.replace("size.json", b"2");
    within(size.changed()).await.unwrap();
    assert_eq!((**size.load(), **held), (2, 1), "a handle in hand is not replaced");

    tree.replace("size.json", b"two");
    let failure = wait_for(&mut events, |event| match event {
        Event::DecodeFailed(failure) => Some(failure),
        _ => None,
    })
    .await;
    assert_eq!(failure.path.as_str(), "size.json");
    assert!(failure.type_name.contains("Json") && failure.cause.contains("line 1"), "{failure:?}");
    assert!(matches!(size.error(), Some(Error::Decode { .. })), "{:?}", size.error());
    assert_eq!(**size.load(), 2);

    tree.replace("size.json", b"3");
    within(size.changed()).await.unwrap();
    assert_eq!((**size.load(), size.error().is_none()), (3, true));

    tree.remove("size.json");
    next_published(&mut events).await;
    within(async {
        while size.error().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(matches!(size.error(), Some(Error::NotFound { .. })));
    assert_eq!(**size.load(), 3);
    tree.write("size.json", b"4");
    within(size.changed()).await.unwrap();
    assert_eq!((**size.load(), size.error().is_none()), (4, true));
    assert!(within(runtime.watched::<Json<u32>>("no.json")).await.is_err());
}

/// Whoever sees a value's new bytes sees the value, if it was decoded in time: it is replaced by the same store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_replaced_in_the_generation_that_has_its_bytes() {
    let tree = Tree::new();
    tree.write("edition.json", b"0");
    let config = RuntimeConfig { watched_wait: std::time::Duration::from_secs(10), watch: true, ..Default::default() };
    let runtime = within(tree.builder().config(config).store(tree.store()).start()).await.unwrap();
    let edition = within(runtime.watched::<Json<u32>>("edition.json")).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (runtime, edition, done) = (runtime.clone(), edition.clone(), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut seen = 0;
            while !done.load(Ordering::Relaxed) {
                // Bytes first: the value can only be of the same generation or a later one.
                let bytes = runtime.get("edition.json").map(|bytes| bytes.hash());
                let value = edition.load();
                let before = ContentHash::of(value.to_string().as_bytes());
                assert_eq!(before, value.typed().hash());
                if let Some(bytes) = bytes {
                    let older = (0..**value).any(|older| ContentHash::of(older.to_string().as_bytes()) == bytes);
                    assert!(older || bytes == value.typed().hash(), "bytes without their value");
                }
                assert!(**value >= seen, "a value went back");
                seen = **value;
            }
            seen
        })
    };
    let mut follower = edition.clone();
    for next in 1..=40u32 {
        tree.replace("edition.json", next.to_string().as_bytes());
        while **edition.load() != next {
            within(follower.changed()).await.unwrap();
        }
    }
    done.store(true, Ordering::Relaxed);
    reader.join().unwrap();
}

/// The same through the death of every actor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_value_follows_though_actors_die() {
    let tree = Tree::new();
    tree.write("n.json", b"0");
    let (runtime, _events) = serve(&tree).await;
    let n = within(runtime.watched::<Json<u32>>("n.json")).await.unwrap();
    let actors = ["rebuilder", "cache_manager", "file_watcher", "evictor", "decompressor", "io_dispatcher"];
    for (next, actor) in (1..).zip(actors) {
        // What is restarting already cannot be killed, and need not be.
        drop(runtime.kill(actor));
        tree.replace("n.json", next.to_string().as_bytes());
        let mut seen = n.clone();
        let follow = async {
            while **seen.load() != next {
                seen.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(common::PATIENCE, follow).await.is_err() {
            let (bytes, error, status) = (within(runtime.load("n.json")).await, n.error(), runtime.status());
            panic!("{next} after the death of {actor}: {n:?}, {error:?}, {bytes:?}, {status:#?}");
        }
    }
}

/// Cuts a file into its lines, each an asset of its own.
struct Lines;

impl Transform for Lines {
    type Parameters = NoParameters;
    fn name(&self) -> &str {
        "lines"
    }
    fn version(&self) -> u32 {
        1
    }
    fn run(&self, input: Input<'_>, _: &NoParameters, _: &mut dyn Context) -> flyloft::Result<Output> {
        let line = |(number, bytes): (usize, &[u8])| Labelled {
            label: format!("line/{number}"),
            kind: None,
            bytes: bytes.to_vec(),
            dependencies: Vec::new(),
        };
        let labelled = input.bytes.split(|byte| *byte == b'\n').enumerate().map(line).collect();
        Ok(Output { labelled, ..input.bytes.to_vec().into() })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_labelled_asset_is_followed_by_itself() {
    let tree = Tree::new();
    tree.write("flyloft.toml", b"[[transform]]\nglob = '*.lines'\nname = 'lines'\n");
    tree.write("a.lines", b"1\n10");
    let runtime = within(tree.builder().watch(true).transform(Lines).start()).await.unwrap();
    let first = within(runtime.watched::<Json<u32>>("a.lines#line/0")).await.unwrap();
    let mut second = within(runtime.watched::<Json<u32>>("a.lines#line/1")).await.unwrap();
    let held = first.load().typed().clone();
    tree.replace("a.lines", b"1\n20");
    within(second.changed()).await.unwrap();
    assert_eq!((**first.load(), **second.load()), (1, 20));
    assert!(first.load().typed().is_same(&held), "its bytes are what they were");
    tree.replace("a.lines", b"1\nx");
    within(async {
        while second.error().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!((**first.load(), **second.load(), first.error().is_none()), (1, 20, true));
}

/// A build that outlives the rebuilder that began it: what the next one builds is on top of it, and is published after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_whose_rebuilder_died_is_published_and_before_what_builds_on_it() {
    type Gate = (std::sync::Mutex<(usize, bool)>, std::sync::Condvar);
    static GATE: OnceLock<Gate> = OnceLock::new();
    struct Slow(Vec<u8>);
    impl Decode for Slow {
        fn decode(bytes: &[u8], _context: &DecodeContext<'_>) -> Result<Self, DecodeError> {
            if bytes == b"slow" {
                let (state, moved) = GATE.get_or_init(Default::default);
                let mut state = state.lock().unwrap();
                state.0 += 1;
                while !state.1 {
                    state = moved.wait(state).unwrap();
                }
            }
            Ok(Self(bytes.to_vec()))
        }
    }
    let tree = Tree::new();
    tree.write("a.txt", b"quick");
    tree.write("b.txt", b"one");
    let config = RuntimeConfig {
        watched_wait: std::time::Duration::from_secs(10),
        watch: true,
        build_threads: 2,
        decode_threads: 2,
        ..Default::default()
    };
    let runtime = within(tree.builder().config(config).store(tree.store()).start()).await.unwrap();
    let value = within(runtime.watched::<Slow>("a.txt")).await.unwrap();
    assert_eq!(&*within(runtime.load("b.txt")).await.unwrap(), b"one");
    let mut events = runtime.events();
    let (state, moved) = GATE.get_or_init(Default::default);
    tree.replace("a.txt", b"slow");
    within(async {
        while state.lock().unwrap().0 == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Its publication is being prepared. The next rebuilder comes up, and has something to build.
    runtime.kill("rebuilder").unwrap();
    wait_for(&mut events, |event| match event {
        Event::ActorRestarted { actor, .. } if actor == "rebuilder" => Some(()),
        _ => None,
    })
    .await;
    tree.replace("b.txt", b"two");
    state.lock().unwrap().1 = true;
    moved.notify_all();
    let mut changed: Vec<String> = Vec::new();
    while !changed.iter().any(|path| path == "b.txt") {
        changed.extend(next_published(&mut events).await.changed.iter().map(|change| change.path.to_string()));
    }
    assert_eq!(changed, ["a.txt", "b.txt"]);
    let snapshot = runtime.snapshot();
    assert_eq!(&*within(snapshot.load("a.txt")).await.unwrap(), b"slow");
    assert_eq!(&*within(snapshot.load("b.txt")).await.unwrap(), b"two");
    assert_eq!(value.load().0, b"slow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_takes_longer_than_a_publication_waits_comes_after_it() {
    static GATE: OnceLock<(std::sync::Mutex<bool>, std::sync::Condvar)> = OnceLock::new();
    struct Slow(Vec<u8>);
    impl Decode for Slow {
        fn decode(bytes: &[u8], _context: &DecodeContext<'_>) -> Result<Self, DecodeError> {
            if bytes == b"slow" {
                let (open, moved) = GATE.get_or_init(Default::default);
                let mut open = open.lock().unwrap();
                while !*open {
                    open = moved.wait(open).unwrap();
                }
            }
            Ok(Self(bytes.to_vec()))
        }
    }
    let tree = Tree::new();
    tree.write("a.txt", b"quick");
    let (runtime, mut events) = serve(&tree).await;
    let mut value = within(runtime.watched::<Slow>("a.txt")).await.unwrap();
    tree.replace("a.txt", b"slow");
    next_published(&mut events).await;
    assert_eq!(&*within(runtime.load("a.txt")).await.unwrap(), b"slow");
    assert_eq!(value.load().0, b"quick");
    let (open, moved) = GATE.get_or_init(Default::default);
    *open.lock().unwrap() = true;
    moved.notify_all();
    within(value.changed()).await.unwrap();
    assert_eq!(value.load().0, b"slow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_value_is_replaced_though_its_bytes_were_evicted() {
    let tree = Tree::new();
    tree.write("a.txt", b"one");
    for index in 0..8u8 {
        tree.write(&format!("{index}.bin"), &vec![index; 1 << 20]);
    }
    // The default keeps what is so small.
    let eviction = EvictionConfig { policy: EvictionPolicy::Lru, ..EvictionConfig::default() };
    let builder = tree.builder().watch(true).budget_bytes(8 << 20).eviction(eviction);
    let runtime = within(builder.start()).await.unwrap();
    let mut value = within(runtime.watched::<String>("a.txt")).await.unwrap();
    for index in 0..8u8 {
        drop(within(runtime.load(format!("{index}.bin"))).await.unwrap());
    }
    assert!(runtime.get("a.txt").is_none(), "it was evicted");
    assert_eq!(**value.load(), *"one");
    tree.replace("a.txt", b"two");
    within(value.changed()).await.unwrap();
    assert_eq!(**value.load(), *"two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_the_waiting_for_a_change() {
    let tree = Tree::new();
    tree.write("a.txt", b"one");
    let (runtime, _events) = serve(&tree).await;
    let mut value = within(runtime.watched::<String>("a.txt")).await.unwrap();
    let waiting = tokio::spawn(async move { (value.changed().await, value.load().len()) });
    within(runtime.shutdown(std::time::Duration::from_secs(5))).await;
    let (changed, len) = within(waiting).await.unwrap();
    assert!(matches!(changed, Err(Error::ShutDown)));
    assert_eq!(len, 3, "what it has it has");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_is_told_of_every_reload_on_a_thread_of_its_own_until_it_is_dropped() {
    let tree = Tree::new();
    tree.write("a.txt", b"0");
    let (runtime, mut events) = serve(&tree).await;
    let told: Arc<Mutex<Vec<Published>>> = Arc::default();
    let (tell, mut done) = tokio::sync::mpsc::channel(64);
    let seen = Arc::clone(&told);
    let callback = runtime
        .on_reload(move |published| {
            assert_eq!(std::thread::current().name(), Some("flyloft-reload"));
            seen.lock().unwrap().push(published.clone());
            tell.blocking_send(()).unwrap();
            panic!("it is caught");
        })
        .unwrap();
    let mut published = Vec::new();
    for edit in 1..=3 {
        tree.replace("a.txt", edit.to_string().as_bytes());
        published.push(next_published(&mut events).await);
        within(done.recv()).await.unwrap();
    }
    assert_eq!(*told.lock().unwrap(), published);
    let change = &published[1].changed[0];
    assert_eq!(
        (change.path.as_str(), change.old, change.new),
        ("a.txt", Some(ContentHash::of(b"1")), Some(ContentHash::of(b"2")))
    );
    drop(callback);
    tree.replace("a.txt", b"4");
    next_published(&mut events).await;
    // Its end of the channel goes with the thread.
    assert!(within(done.recv()).await.is_none());
    assert_eq!(told.lock().unwrap().len(), 3);
}

/// Invariant 1, for values too.
#[tokio::test]
async fn looking_at_a_value_allocates_nothing() {
    let tree = Tree::new();
    tree.write("a.txt", b"one");
    let (runtime, _events) = serve(&tree).await;
    let value = within(runtime.watched::<String>("a.txt")).await.unwrap();
    // The first look of a thread makes its record, once in its life.
    assert_eq!(value.load().len() + runtime.get_as::<String>("a.txt").unwrap().len(), 6);
    let counted = allocation_counter::measure(|| {
        for _ in 0..1_000 {
            assert_eq!(value.load().len(), 3);
            assert_eq!(runtime.get_as::<String>("a.txt").unwrap().len(), 3);
        }
    });
    assert_eq!(counted.count_total, 0);
}
