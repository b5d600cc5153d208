//! What a real folder tells the watcher.

use std::sync::mpsc;

use super::*;
use crate::platform::watch::Everything;

/// A folder with a root in it that is being watched.
struct Scene {
    folder: tempfile::TempDir,
    root: PathBuf,
    told: mpsc::Receiver<RawEvent>,
    _guard: Box<dyn WatchGuard>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("above/root");
        fs::create_dir_all(&root).unwrap();
        let (guard, told) = watch(&root);
        Self { folder, root, told, _guard: guard }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Takes events until one satisfies `is_it`; returns all of them.
    fn until(&self, is_it: impl Fn(&RawEvent) -> bool) -> Vec<RawEvent> {
        let mut events = Vec::new();
        loop {
            let event = self.told.recv_timeout(Duration::from_secs(20));
            let event = event.unwrap_or_else(|_| panic!("it was not told; what was: {events:#?}"));
            let found = is_it(&event);
            events.push(event);
            if found {
                return events;
            }
        }
    }

    fn until_kind(&self, name: &str, kind: &RawKind) -> Vec<RawEvent> {
        let path = self.path(name);
        self.until(|event| event.path == path && event.kind == *kind)
    }
}

fn watch(root: &Path) -> (Box<dyn WatchGuard>, mpsc::Receiver<RawEvent>) {
    watch_within(root, &[], Arc::new(Everything))
}

fn watch_within(
    root: &Path,
    beside: &[PathBuf],
    scope: Arc<dyn Scope>,
) -> (Box<dyn WatchGuard>, mpsc::Receiver<RawEvent>) {
    watch_by(OsWatch { root_check: Duration::from_millis(50), ..OsWatch::default() }, root, beside, scope)
}

fn watch_by(
    watch: OsWatch,
    root: &Path,
    beside: &[PathBuf],
    scope: Arc<dyn Scope>,
) -> (Box<dyn WatchGuard>, mpsc::Receiver<RawEvent>) {
    let (tell, told) = mpsc::channel();
    let sink: EventSink = Box::new(move |events| events.into_iter().for_each(|event| drop(tell.send(event))));
    (watch.watch(root, beside, scope, sink).unwrap(), told)
}

#[test]
fn a_written_file_is_created_and_finished() {
    let scene = Scene::new();
    fs::write(scene.path("a"), b"1").unwrap();
    let events = scene.until_kind("a", &RawKind::Finished);
    assert!(events.iter().any(|event| event.kind == RawKind::Created && event.is_dir == Some(false)), "{events:?}");
    assert!(events.iter().all(|event| event.path == scene.path("a")), "{events:?}");
    fs::remove_file(scene.path("a")).unwrap();
    scene.until_kind("a", &RawKind::Removed);
}

#[test]
fn a_rename_below_the_root_is_one_move() {
    let scene = Scene::new();
    fs::write(scene.path("a"), b"1").unwrap();
    scene.until_kind("a", &RawKind::Finished);
    fs::rename(scene.path("a"), scene.path("b")).unwrap();
    let moved = RawKind::Moved { from: scene.path("a") };
    let events = scene.until_kind("b", &moved);
    assert_eq!(events.last().unwrap().is_dir, Some(false));
    let ends = events.iter().filter(|event| matches!(event.kind, RawKind::MovedFrom | RawKind::MovedTo));
    assert_eq!(ends.count(), 0, "told as one: {events:?}");
}

#[test]
fn moves_over_the_roots_edge_are_told_from_inside() {
    let scene = Scene::new();
    let outside = scene.folder.path().join("above/outside");
    fs::write(&outside, b"1").unwrap();
    fs::rename(&outside, scene.path("in")).unwrap();
    scene.until_kind("in", &RawKind::MovedTo);
    fs::rename(scene.path("in"), &outside).unwrap();
    let events = scene.until_kind("in", &RawKind::MovedFrom);
    assert!(events.iter().all(|event| event.path.starts_with(&scene.root)), "siblings are not told: {events:?}");
}

#[test]
fn whoever_scans_an_announced_folder_misses_nothing() {
    let scene = Scene::new();
    let mut expected: std::collections::BTreeSet<PathBuf> = std::collections::BTreeSet::new();
    let writer = {
        let root = scene.root.clone();
        for number in 0..40 {
            expected.insert(root.join(format!("d{number}/e/f/g/file")));
        }
        let expected = expected.clone();
        std::thread::spawn(move || {
            for path in &expected {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, b"1").unwrap();
            }
        })
    };
    fn scan(folder: &Path, found: &mut std::collections::BTreeSet<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => scan(&entry.path(), found),
                false => found.extend([entry.path()]),
            }
        }
    }
    let mut found = std::collections::BTreeSet::new();
    while found != expected {
        let event = scene.told.recv_timeout(Duration::from_secs(20)).expect("every file is found or told");
        if event.is_dir == Some(true) {
            scan(&event.path, &mut found);
        } else {
            found.insert(event.path);
        }
    }
    writer.join().unwrap();
}

#[test]
fn a_folder_that_is_moved_in_is_watched() {
    let scene = Scene::new();
    let outside = scene.folder.path().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::rename(&outside, scene.path("in")).unwrap();
    let events = scene.until_kind("in", &RawKind::MovedTo);
    assert_eq!(events.last().unwrap().is_dir, Some(true));
    fs::write(scene.path("in/deep/a"), b"1").unwrap();
    scene.until_kind("in/deep/a", &RawKind::Finished);
}

#[test]
#[cfg(unix)]
fn links_to_folders_are_not_followed() {
    let scene = Scene::new();
    let outside = scene.folder.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, scene.path("link")).unwrap();
    scene.until_kind("link", &RawKind::Created);
    fs::write(outside.join("a"), b"1").unwrap();
    fs::write(scene.path("b"), b"1").unwrap();
    let events = scene.until_kind("b", &RawKind::Finished);
    assert!(events.iter().all(|event| event.path == scene.path("b") || event.path == scene.path("link")), "{events:?}");
}

#[test]
#[cfg(unix)]
fn a_root_that_is_a_link_is_reported_under_its_own_name_and_followed_when_it_turns() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two, root) = (folder.path().join("one"), folder.path().join("two"), folder.path().join("root"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&two).unwrap();
    std::os::unix::fs::symlink(&one, &root).unwrap();
    let (guard, told) = watch(&root);
    let scene = Scene { folder, root: root.clone(), told, _guard: guard };
    fs::write(one.join("a"), b"1").unwrap();
    scene.until_kind("a", &RawKind::Finished);
    let turned = scene.folder.path().join("turned");
    std::os::unix::fs::symlink(&two, &turned).unwrap();
    fs::rename(&turned, &root).unwrap();
    scene.until(|event| matches!(event.kind, RawKind::Overflow(_)));
    fs::write(two.join("b"), b"1").unwrap();
    scene.until_kind("b", &RawKind::Finished);
}

#[test]
fn a_root_that_is_moved_away_and_made_again_is_watched_again() {
    let scene = Scene::new();
    let away = scene.folder.path().join("above/away");
    fs::rename(&scene.root, &away).unwrap();
    scene.until(|event| event.kind == RawKind::RootGone && event.path == scene.root);
    fs::create_dir(&scene.root).unwrap();
    scene.until(|event| matches!(event.kind, RawKind::Overflow(_)));
    fs::write(away.join("old"), b"1").unwrap();
    fs::write(scene.path("new"), b"1").unwrap();
    let events = scene.until_kind("new", &RawKind::Finished);
    assert!(events.iter().all(|event| event.path == scene.path("new")), "{events:?}");
}

#[test]
fn a_root_whose_ancestors_are_moved_away_and_made_again_is_watched_again() {
    let scene = Scene::new();
    let above = scene.folder.path().join("above");
    fs::rename(&above, scene.folder.path().join("away")).unwrap();
    scene.until(|event| event.kind == RawKind::RootGone);
    fs::create_dir_all(&scene.root).unwrap();
    scene.until(|event| matches!(event.kind, RawKind::Overflow(_)));
    fs::write(scene.path("new"), b"1").unwrap();
    scene.until_kind("new", &RawKind::Finished);
    // And once more, now by its parent alone.
    fs::remove_dir_all(&scene.root).unwrap();
    scene.until(|event| event.kind == RawKind::RootGone);
    fs::create_dir(&scene.root).unwrap();
    scene.until(|event| matches!(event.kind, RawKind::Overflow(_)));
    fs::write(scene.path("again"), b"1").unwrap();
    scene.until_kind("again", &RawKind::Finished);
}

#[test]
fn after_the_guard_is_dropped_nothing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (guard, told) = watch(folder.path());
    drop(guard);
    fs::write(folder.path().join("a"), b"1").unwrap();
    // The sink itself is gone, and its end of the channel with it.
    assert_eq!(told.iter().count(), 0);
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refuse =
        |path: &Path| OsWatch::default().watch(path, &[], Arc::new(Everything), Box::new(|_| ())).unwrap_err().kind();
    assert_eq!(refuse(&folder.path().join("missing")), io::ErrorKind::NotFound);
    fs::write(folder.path().join("file"), b"1").unwrap();
    assert_eq!(refuse(&folder.path().join("file")), io::ErrorKind::NotADirectory);
}

#[test]
fn lost_events_and_errors_are_an_overflow() {
    let scene = Scene::new();
    let watching = Watching {
        watcher: None,
        refused: None,
        tell: sync_channel(1).0,
        root: scene.root.clone(),
        beside: Vec::new(),
        scope: Arc::new(Everything),
        place: None,
        gone_said: false,
        blind: Blindness::default(),
        watches_max: usize::MAX,
        watched: HashSet::new(),
        sink: Box::new(|_| ()),
        shared: Arc::default(),
    };
    let check = |event, says: &str| {
        let mut out = Vec::new();
        assert!(watching.translate(event, &mut out));
        assert!(matches!(&out[0].kind, RawKind::Overflow(why) if why.contains(says)), "{out:?}");
    };
    check(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)), "queue");
    check(Err(notify::Error::new(ErrorKind::MaxFilesWatch)), "max_user_watches");
}

/// Wants everything but what has a part of this name.
struct Without(Mutex<&'static str>);

impl Scope for Without {
    fn wants(&self, inside: &Path, _is_dir: bool) -> bool {
        let name = *self.0.lock().unwrap();
        inside.iter().all(|part| part != name)
    }
}

/// Watches that this process has, by what the kernel says of its descriptors.
fn inodes_watched() -> String {
    let descriptors = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    descriptors.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect()
}

fn is_watched(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    inodes_watched().contains(&format!(" ino:{:x} ", fs::metadata(folder).unwrap().ino()))
}

#[test]
fn what_is_not_wanted_is_neither_watched_nor_told_until_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("off/deep")).unwrap();
    fs::create_dir_all(root.join("on/deep")).unwrap();
    let scope = Arc::new(Without(Mutex::new("off")));
    let (guard, told) = watch_within(&root, &[], Arc::clone(&scope) as Arc<dyn Scope>);
    let scene = Scene { folder, root, told, _guard: guard };
    assert!(is_watched(&scene.path("on/deep")) && !is_watched(&scene.path("off")));
    fs::write(scene.path("off/deep/a"), b"1").unwrap();
    // A rename from what is not wanted is told like one from outside, and the other way round.
    fs::rename(scene.path("off/deep/a"), scene.path("on/b")).unwrap();
    let events = scene.until_kind("on/b", &RawKind::MovedTo);
    assert_eq!(events.len(), 1, "{events:?}");
    fs::rename(scene.path("on/b"), scene.path("off")).unwrap_err();
    fs::rename(scene.path("on/b"), scene.path("off/b")).unwrap();
    scene.until_kind("on/b", &RawKind::MovedFrom);
    *scope.0.lock().unwrap() = "on";
    scene._guard.rescope();
    scene.until(|event| event.path == scene.root && event.kind == RawKind::Attributes);
    assert!(
        is_watched(&scene.path("off/deep")) && !is_watched(&scene.path("on")) && !is_watched(&scene.path("on/deep"))
    );
    fs::write(scene.path("on/deep/c"), b"1").unwrap();
    fs::write(scene.path("off/deep/d"), b"1").unwrap();
    let events = scene.until_kind("off/deep/d", &RawKind::Finished);
    assert!(events.iter().all(|event| event.path.starts_with(scene.path("off"))), "{events:?}");
}

#[test]
fn names_in_a_folder_beside_are_told_and_nothing_below_it() {
    let folder = tempfile::tempdir().unwrap();
    let (root, beside) = (folder.path().join("root"), folder.path().join("beside"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(beside.join("deep")).unwrap();
    let (guard, told) = watch_within(&root, std::slice::from_ref(&beside), Arc::new(Everything));
    let scene = Scene { folder, root, told, _guard: guard };
    fs::write(beside.join("deep/a"), b"1").unwrap();
    fs::write(beside.join("lock"), b"1").unwrap();
    let events = scene.until(|event| event.kind == RawKind::Finished);
    assert!(events.iter().all(|event| event.path == beside.join("lock")), "{events:?}");
}

#[test]
fn a_folder_that_moved_out_with_its_ancestors_is_no_longer_watched() {
    let scene = Scene::new();
    fs::create_dir(scene.path("in")).unwrap();
    scene.until_kind("in", &RawKind::Created);
    let away = scene.folder.path().join("away");
    fs::rename(scene.folder.path().join("above"), &away).unwrap();
    scene.until(|event| event.kind == RawKind::RootGone);
    fs::create_dir_all(scene.path("in")).unwrap();
    scene.until(|event| matches!(event.kind, RawKind::Overflow(_)));
    assert!(is_watched(&scene.path("in")) && !is_watched(&away.join("root/in")));
}

#[test]
fn without_a_watch_for_each_folder_it_is_blind_and_says_when_it_sees_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    for number in 0..6 {
        fs::create_dir_all(root.join(format!("{number}"))).unwrap();
    }
    // The root's parent, the root, and two folders in it.
    let limited = OsWatch { root_check: Duration::from_millis(10), ..OsWatch::default() }.with_watches_max(4);
    let (guard, told) = watch_by(limited, &root, &[], Arc::new(Everything));
    let scene = Scene { folder, root, told, _guard: guard };
    let is_blind = |event: &RawEvent| matches!(&event.kind, RawKind::Blind(why) if why.contains("max_user_watches"));
    assert!(is_blind(&scene.told.recv_timeout(Duration::from_secs(20)).unwrap()), "the first thing that is told");
    // What is watched is told all the same.
    let watched = (0..6).map(|number| scene.path(&number.to_string())).filter(|path| is_watched(path));
    let watched: Vec<PathBuf> = watched.collect();
    assert_eq!(watched.len(), 2, "{watched:?}");
    fs::write(watched[0].join("a"), b"1").unwrap();
    scene.until(|event| event.path == watched[0].join("a") && event.kind == RawKind::Finished);
    for number in 0..4 {
        fs::remove_dir_all(scene.path(&number.to_string())).unwrap();
    }
    scene.until(|event| event.kind == RawKind::Sighted);
    scene.until(|event| matches!(event.kind, RawKind::Overflow(_)));
    assert!(is_watched(&scene.path("4")) && is_watched(&scene.path("5")));
}

#[test]
fn events_that_find_no_room_are_an_overflow() {
    let folder = tempfile::tempdir().unwrap();
    let (open, gate) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let gate = Mutex::new(gate);
    let sink: EventSink = Box::new(move |events| {
        // Whoever takes them is busy until the gate opens, and never again.
        let _ = gate.lock().unwrap().recv();
        drop(tell.send(events));
    });
    let _guard = OsWatch::default().watch(folder.path(), &[], Arc::new(Everything), sink).unwrap();
    let names: Vec<PathBuf> = ["a", "b"].map(|name| folder.path().join(name)).to_vec();
    // Two files in turn: the same event twice in a row is one.
    for round in 0..WAITING_MAX {
        fs::write(&names[round % 2], b"1").unwrap();
    }
    drop(open);
    let mut events = std::iter::from_fn(|| told.recv_timeout(Duration::from_secs(20)).ok()).flatten();
    assert!(events.any(|event| matches!(&event.kind, RawKind::Overflow(why) if why.contains("faster"))));
}
