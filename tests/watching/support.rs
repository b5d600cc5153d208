//! A tree that is served and watched, and what is published of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use flyloft::config::{RuntimeConfig, SettleConfig};
use flyloft::event::Published;
use flyloft::telemetry::Subscription;
use flyloft::{Event, Runtime, RuntimeBuilder};

use crate::common::{PATIENCE, Tree, within};

/// Windows so wide that whoever replays what an editor does stays within them on a busy machine too.
pub fn wide() -> SettleConfig {
    let ms = Duration::from_millis;
    SettleConfig {
        quiet: ms(120),
        open_max: ms(30_000),
        fresh: ms(120),
        unfinished: ms(1_000),
        unfinished_max: ms(30_000),
        lock_max: ms(60_000),
    }
}

/// A served tree.
pub struct Watched {
    pub tree: Tree,
    pub runtime: Runtime,
    pub events: Subscription,
    /// What was told since the start.
    log: Vec<Event>,
    sentinels: usize,
}

impl Watched {
    pub async fn new(tree: Tree) -> Self {
        Self::with(tree, |_| (), |builder| builder).await
    }

    pub async fn with(
        tree: Tree,
        change: impl FnOnce(&mut RuntimeConfig),
        build: impl FnOnce(RuntimeBuilder) -> RuntimeBuilder,
    ) -> Self {
        let mut config =
            RuntimeConfig { settle: wide(), watch: true, store: Some(tree.store()), ..RuntimeConfig::default() };
        change(&mut config);
        let runtime = within(build(tree.builder().config(config)).start()).await.unwrap();
        let events = runtime.events();
        let mut watched = Self { tree, runtime, events, log: Vec::new(), sentinels: 0 };
        // The look at everything that follows the start of the watcher would see what is half done.
        watched.published_until_now().await;
        watched
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.tree.root().join(name)
    }

    /// The next event that `wanted` picks something of.
    pub async fn next<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
            let Ok(event) = event else { panic!("it was not told; what was: {:#?}", self.log) };
            let event = event.expect("the runtime lives");
            self.log.push(event.clone());
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    }

    pub async fn published(&mut self) -> Published {
        self.next(|event| match event {
            Event::Published(published) => Some(published.clone()),
            _ => None,
        })
        .await
    }

    /// Everything that is published before a file that is written now.
    pub async fn published_until_now(&mut self) -> Vec<Published> {
        self.sentinels += 1;
        let name = format!("sentinel{}.txt", self.sentinels);
        self.tree.write(&name, b"seen");
        let mut all = Vec::new();
        loop {
            let mut published = self.published().await;
            let before = published.changed.len();
            published.changed.retain(|changed| changed.path.as_str() != name);
            let last = published.changed.len() < before;
            if !published.changed.is_empty() {
                all.push(published);
            }
            if last {
                return all;
            }
        }
    }

    /// Runs `act`, and answers the one generation that comes of it.
    pub async fn once(&mut self, act: impl FnOnce(&Path)) -> Published {
        act(&self.tree.root());
        let published = self.published().await;
        let more = self.published_until_now().await;
        let told: Vec<_> = more.iter().map(changes).collect();
        assert!(more.is_empty(), "more than one generation: {:?}, then {told:?}", changes(&published));
        published
    }

    /// Runs `act`, of which nothing must come.
    pub async fn nothing(&mut self, act: impl FnOnce(&Path)) {
        act(&self.tree.root());
        let published = self.published_until_now().await;
        assert!(published.is_empty(), "{:?}", published.iter().map(changes).collect::<Vec<_>>());
    }

    pub async fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        within(self.runtime.load(path)).await.ok().map(|asset| asset.to_vec())
    }

    pub async fn assert_bytes(&self, path: &str, expected: Option<&[u8]>) {
        let found = self.bytes(path).await;
        assert_eq!(found.as_deref().map(String::from_utf8_lossy), expected.map(String::from_utf8_lossy), "{path}");
    }

    /// Waits until readers see `path` as `bytes`, or not at all.
    pub async fn until_seen(&mut self, path: &str, bytes: Option<&[u8]>) {
        let until = tokio::time::Instant::now() + PATIENCE;
        while self.bytes(path).await.as_deref() != bytes {
            if let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(20), self.events.recv()).await {
                self.log.push(event);
            }
            assert!(tokio::time::Instant::now() < until, "{path} is not what it should be; told was: {:#?}", self.log);
        }
    }

    /// A reader that looks at `path` all the time from now on.
    pub fn witness(&self, path: &str) -> Witness {
        Witness::new(self.runtime.clone(), path)
    }
}

/// The paths that a generation changed, with whether they are there now.
pub fn changes(published: &Published) -> Vec<(&str, bool)> {
    published.changed.iter().map(|changed| (changed.path.as_str(), changed.new.is_some())).collect()
}

/// Sees every version of an asset that a reader who never waits can see.
pub struct Witness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<Option<Vec<u8>>>>,
}

impl Witness {
    fn new(runtime: Runtime, path: &str) -> Self {
        let (stop, path) = (Arc::new(AtomicBool::new(false)), path.to_owned());
        let stopped = Arc::clone(&stop);
        let body = move || {
            let waiting = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut seen = BTreeSet::new();
            while !stopped.load(Ordering::Acquire) {
                seen.insert(waiting.block_on(runtime.load(path.as_str())).ok().map(|asset| asset.to_vec()));
                std::thread::yield_now();
            }
            seen
        };
        Self { stop, thread: std::thread::spawn(body) }
    }

    /// It saw nothing but these, and never nothing at all.
    pub fn saw_only(self, expected: &[&[u8]]) {
        self.stop.store(true, Ordering::Release);
        let seen = self.thread.join().unwrap();
        for version in &seen {
            let version = version.as_deref();
            assert!(
                version.is_some_and(|version| expected.contains(&version)),
                "{:?}",
                version.map(String::from_utf8_lossy)
            );
        }
    }
}

/// Writes as a program does that keeps the file open meanwhile: the file stays open until what is returned is dropped.
pub fn begin(path: &Path, bytes: &[u8]) -> fs::File {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file
}
