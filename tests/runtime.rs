//! Loading: what a program that embeds the runtime relies on.

mod common;

use std::io::SeekFrom;
use std::sync::Arc;
use std::time::Duration;

use common::{Tree, check, content, name, within};
use flyloft::config::{Engine, Integrity, RuntimeConfig};
use flyloft::storage::ReadAt;
use flyloft::{AssetId, AssetKind, Error, Priority, Runtime, limits};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_asset_of_a_directory_and_of_its_bundle_is_loaded_by_either_engine() {
    let tree = Tree::with_files(300);
    let bundle = tree.packed();
    for engine in [Engine::Auto, Engine::Positioned] {
        let packed = Runtime::builder().bundle(&bundle).engine(engine).integrity(Integrity::Content);
        for builder in [packed, tree.builder().engine(engine)] {
            let runtime = within(builder.start()).await.unwrap();
            for index in 0..300 {
                check(&runtime, index, 0).await;
            }
            assert_eq!(runtime.status().assets, 300);
            within(runtime.shutdown(Duration::from_secs(5))).await;
        }
    }
}

#[tokio::test]
async fn a_handle_knows_its_path_kind_hash_and_generation_and_becomes_bytes_without_a_copy() {
    let tree = Tree::new();
    tree.write("img/wall.png", b"not really a picture");
    let runtime = within(tree.builder().start()).await.unwrap();
    let asset = within(runtime.load("img/wall.png")).await.unwrap();
    assert_eq!(asset.path().as_str(), "img/wall.png");
    assert_eq!(asset.kind(), AssetKind::Texture);
    assert_eq!(asset.hash(), flyloft::ContentHash::of(b"not really a picture"));
    assert_eq!(asset.generation(), runtime.snapshot().generation());
    let at = asset.as_ptr();
    assert_eq!(asset.into_bytes().as_ptr(), at);
}

#[tokio::test]
async fn a_miss_becomes_a_hit_by_path_and_by_id() {
    let tree = Tree::with_files(3);
    let runtime = within(tree.builder().start()).await.unwrap();
    assert!(runtime.get(name(1)).is_none());
    check(&runtime, 1, 0).await;
    assert_eq!(&*runtime.get(name(1)).unwrap(), content(1, 0));
    assert_eq!(&*runtime.get_id(AssetId::of_path(&name(1))).unwrap(), content(1, 0));
    let stats = runtime.stats();
    assert_eq!((stats.metrics.hits, stats.metrics.misses), (2, 1), "{stats:?}");
}

#[tokio::test]
async fn what_does_not_exist_is_an_error_that_names_it() {
    let tree = Tree::with_files(3);
    let runtime = within(tree.builder().start()).await.unwrap();
    let error = within(runtime.load("no/such.png")).await.unwrap_err();
    assert!(common::is_not_found(&error) && error.to_string().contains("no/such.png"), "{error}");
    assert!(common::is_not_found(&within(runtime.open("no/such.png")).await.err().unwrap()));
}

#[tokio::test]
async fn identical_content_is_in_memory_once() {
    let tree = Tree::new();
    tree.write("a.bin", &[7; 100_000]);
    tree.write("b.bin", &[7; 100_000]);
    let runtime = within(tree.builder().start()).await.unwrap();
    let (a, b) = (runtime.load("a.bin"), runtime.load("b.bin"));
    let (a, b) = (within(a).await.unwrap(), within(b).await.unwrap());
    assert_eq!(a.as_ptr(), b.as_ptr());
    assert_eq!((a.path().as_str(), b.path().as_str()), ("a.bin", "b.bin"));
    assert_eq!(runtime.stats().budget.charged, 100_000);
}

#[tokio::test]
async fn an_empty_asset_is_loaded_and_opened() {
    let tree = Tree::new();
    tree.write("empty.txt", b"");
    tree.write("other.txt", b"x");
    let runtime = within(tree.builder().start()).await.unwrap();
    assert!(within(runtime.load("empty.txt")).await.unwrap().is_empty());
    let mut text = Vec::new();
    within(runtime.open("empty.txt")).await.unwrap().read_to_end(&mut text).await.unwrap();
    assert!(text.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_charged_never_exceeds_the_budget_while_everything_is_loaded_again_and_again() {
    let tree = Tree::with_files(1_500);
    let budget_bytes = limits::BUDGET_BYTES_MIN;
    let config = RuntimeConfig { budget_bytes, ..RuntimeConfig::default() };
    let runtime = within(tree.builder().config(config).store(tree.store()).start()).await.unwrap();
    for round in 0..2 {
        // Each in a task of its own: an answer that nobody has taken yet is held, and what is held is pinned.
        let load = |index: usize| {
            let runtime = runtime.clone();
            tokio::spawn(async move { check(&runtime, (index * 31 + round) % 1_500, 0).await })
        };
        for task in (0..1_500).map(load).collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }
    let stats = runtime.stats();
    assert!(stats.budget.peak <= budget_bytes, "{stats:?}");
    assert!(stats.metrics.evictions > 0, "{stats:?}");
    // Room is made for those who are queued as well, not with a turn of the evictor for each.
    assert!(stats.metrics.memory_waits * 3 < stats.metrics.evictions, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_is_held_to_its_own_budget() {
    let tree = Tree::new();
    for index in 0..40 {
        tree.write(&format!("{index}.png"), &content(index * 2 + 1, 0));
        tree.write(&format!("{index}.ogg"), &content(index * 2 + 1, 1));
    }
    let mut config = RuntimeConfig { budget_bytes: 16 << 20, ..RuntimeConfig::default() };
    config.kind_budget_bytes.insert(AssetKind::Texture, 100_000);
    let runtime = within(tree.builder().config(config).store(tree.store()).start()).await.unwrap();
    for index in 0..40 {
        within(runtime.load(format!("{index}.png"))).await.unwrap();
        within(runtime.load(format!("{index}.ogg"))).await.unwrap();
        let stats = runtime.stats();
        assert!(stats.budget.by_kind.get(&AssetKind::Texture).copied().unwrap_or(0) <= 100_000, "{stats:?}");
    }
    let audio: usize = (0..40).filter(|index| runtime.get(format!("{index}.ogg")).is_some()).count();
    assert_eq!(audio, 40, "a full kind evicts only its own");
}

#[tokio::test]
async fn an_asset_as_large_as_the_budget_less_the_reserve_is_admissible_and_one_byte_more_is_not() {
    let config = RuntimeConfig { budget_bytes: 16 << 20, ..RuntimeConfig::default() };
    let most = config.resident_bytes_max() as usize;
    let tree = Tree::new();
    tree.write("fits.bin", &vec![1; most]);
    tree.write("too_large.bin", &vec![2; most + 1]);
    let runtime = within(tree.builder().config(config).store(tree.store()).start()).await.unwrap();
    assert_eq!(within(runtime.load("fits.bin")).await.unwrap().len(), most);
    match within(runtime.load("too_large.bin")).await {
        Err(Error::TooLarge { what, needed_bytes, limit_bytes }) => {
            assert_eq!((what.as_str(), needed_bytes, limit_bytes), ("too_large.bin", most as u64 + 1, most as u64));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_load_that_waits_for_pinned_memory_ends_with_an_error_that_names_what_is_pinned() {
    let memory_wait = Duration::from_millis(30);
    let config = RuntimeConfig { budget_bytes: limits::BUDGET_BYTES_MIN, memory_wait, ..RuntimeConfig::default() };
    let most = config.resident_bytes_max() as usize;
    let tree = Tree::new();
    tree.write("held.bin", &vec![1; most - 1000]);
    tree.write("wanted.bin", &vec![2; 2000]);
    let runtime = within(tree.builder().config(config).store(tree.store()).start()).await.unwrap();
    let held = within(runtime.load("held.bin")).await.unwrap();
    match within(runtime.load("wanted.bin")).await {
        Err(Error::Pinned { what, needed_bytes, pinned, .. }) => {
            assert_eq!((what.as_str(), needed_bytes), ("wanted.bin", 2000));
            assert_eq!(pinned[0].0.as_str(), "held.bin");
        }
        other => panic!("{other:?}"),
    }
    let waiting = runtime.load("wanted.bin");
    drop(held);
    assert_eq!(within(waiting).await.unwrap().len(), 2000);
}

#[tokio::test]
async fn load_many_of_more_than_the_budget_fails_at_once_and_says_by_how_much() {
    let config = RuntimeConfig { budget_bytes: limits::BUDGET_BYTES_MIN, ..RuntimeConfig::default() };
    let tree = Tree::new();
    let paths: Vec<String> = (0..5).map(|index| format!("{index}.bin")).collect();
    for (index, path) in paths.iter().enumerate() {
        tree.write(path, &vec![index as u8; 1 << 20]);
    }
    let limit = config.resident_bytes_max();
    let runtime = within(tree.builder().config(config).store(tree.store()).start()).await.unwrap();
    match within(runtime.load_many(&paths).all()).await {
        Err(Error::TooLarge { needed_bytes, limit_bytes, .. }) => {
            assert_eq!((needed_bytes, limit_bytes), (5 << 20, limit));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(runtime.stats().metrics.reads, 0, "nothing was read");
    assert_eq!(within(runtime.load_many(&paths[..3]).all()).await.unwrap().len(), 3);
}

#[tokio::test]
async fn many_loads_are_answered_together_or_as_they_come_or_by_the_first() {
    let tree = Tree::with_files(50);
    let runtime = within(tree.builder().start()).await.unwrap();
    let names: Vec<String> = (0..50).map(name).collect();
    let all = within(runtime.load_many(&names).all()).await.unwrap();
    for (index, asset) in all.iter().enumerate() {
        assert_eq!(&**asset, content(index, 0));
    }
    let mut completions = runtime.load_many(&names).completions();
    let mut seen = [false; 50];
    while let Some((index, result)) = within(completions.next()).await {
        assert_eq!(&*result.unwrap(), content(index, 0));
        assert!(!std::mem::replace(&mut seen[index], true), "{index} twice");
    }
    assert!(seen.iter().all(|seen| *seen));
    let any = within(runtime.load_many(["missing", &names[7]]).any()).await.unwrap();
    assert_eq!(any.path().as_str(), names[7]);
    assert!(within(runtime.load_many(["missing", "gone"]).any()).await.is_err());
    assert!(within(runtime.load_many(["missing", &names[7]]).all()).await.is_err());
}

#[tokio::test]
async fn a_request_loads_its_dependencies_with_it() {
    let tree = Tree::new();
    tree.write("page.html", b"<link rel=stylesheet href=css/site.css><img src=logo.png>");
    tree.write("css/site.css", b"body { background: url(../back.png) }");
    tree.write("logo.png", b"logo");
    tree.write("back.png", b"back");
    let runtime = within(tree.builder().start()).await.unwrap();
    let request = runtime.request("page.html").priority(Priority::Critical);
    let assets = within(request.send_with_dependencies()).await.unwrap();
    let mut paths: Vec<&str> = assets.iter().map(|asset| asset.path().as_str()).collect();
    assert_eq!(paths[0], "page.html");
    paths.sort_unstable();
    assert_eq!(paths, ["back.png", "css/site.css", "logo.png", "page.html"]);
}

#[tokio::test]
async fn after_a_load_its_dependencies_become_resident_by_themselves() {
    let tree = Tree::new();
    tree.write("page.html", b"<link rel=stylesheet href=site.css>");
    tree.write("site.css", b"body { color: red }");
    let runtime = within(tree.builder().start()).await.unwrap();
    within(runtime.load("page.html")).await.unwrap();
    within(async {
        while runtime.get("site.css").is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let stats = runtime.stats();
    assert_eq!(stats.metrics.prefetches, 1, "{stats:?}");
}

#[tokio::test]
async fn a_dropped_load_leaves_the_queue() {
    let tree = Tree::with_files(100);
    let runtime = within(tree.builder().start()).await.unwrap();
    for index in 0..100 {
        drop(runtime.load(name(index)));
    }
    within(async {
        while runtime.stats().ledger.open > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    check(&runtime, 42, 0).await;
}

#[tokio::test]
async fn a_deadline_that_passes_is_an_error_that_names_the_asset() {
    let config = RuntimeConfig { budget_bytes: limits::BUDGET_BYTES_MIN, ..RuntimeConfig::default() };
    let most = config.resident_bytes_max() as usize;
    let tree = Tree::new();
    tree.write("held.bin", &vec![1; most]);
    tree.write("wanted.bin", b"x");
    let runtime = within(tree.builder().config(config).store(tree.store()).start()).await.unwrap();
    let _held = within(runtime.load("held.bin")).await.unwrap();
    let load = runtime.request("wanted.bin").deadline(Duration::from_millis(20)).send();
    match within(load).await {
        Err(Error::Deadline { what, .. }) => assert_eq!(what, "wanted.bin"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asset_of_twice_the_budget_is_streamed_in_bounded_memory() {
    let budget_bytes = limits::BUDGET_BYTES_MIN;
    let tree = Tree::new();
    let large: Vec<u8> = (0..2 * budget_bytes as usize).map(|at| (at / 977) as u8 ^ (at % 251) as u8).collect();
    tree.write("large.bin", &large);
    let config = RuntimeConfig { budget_bytes, ..RuntimeConfig::default() };
    let runtime = within(tree.builder().config(config).store(tree.store()).start()).await.unwrap();
    let mut reader = within(runtime.open("large.bin")).await.unwrap();
    assert_eq!(reader.len(), large.len() as u64);
    let mut whole = Vec::new();
    within(reader.read_to_end(&mut whole)).await.unwrap();
    assert!(whole == large, "the stream differs");
    for (from, len) in [(0, 10), (65_530, 20), (5_000_000, 3_000_000), (large.len() - 5, 5)] {
        within(reader.seek(SeekFrom::Start(from as u64))).await.unwrap();
        let mut part = vec![0; len];
        within(reader.read_exact(&mut part)).await.unwrap();
        assert!(part == large[from..from + len], "{from} {len}");
        let mut chunks = reader.chunks(from as u64..(from + len) as u64);
        let mut joined = Vec::new();
        while let Some(chunk) = within(chunks.next()).await {
            joined.extend_from_slice(&chunk.unwrap());
        }
        assert!(joined == large[from..from + len], "{from} {len}");
    }
    let stats = runtime.stats();
    assert!(stats.budget.peak <= budget_bytes, "{stats:?}");
    assert_eq!(within(reader.seek(SeekFrom::End(0))).await.unwrap(), large.len() as u64);
    assert_eq!(within(reader.read(&mut [0; 4])).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_reads_only_the_frames_that_it_touches() {
    let tree = Tree::new();
    let large: Vec<u8> = common::content(1, 0).into_iter().cycle().take(8 << 20).collect();
    tree.write("large.ogg", &large);
    let bundle = tree.packed();
    let runtime = within(Runtime::builder().bundle(bundle).start()).await.unwrap();
    let reader = within(runtime.open("large.ogg")).await.unwrap();
    let chunk = within(reader.chunks(4_000_000..4_000_100).next()).await.unwrap().unwrap();
    assert_eq!(&*chunk, &large[4_000_000..4_000_100]);
    let stats = runtime.stats();
    assert!(stats.metrics.decoded_bytes <= 2 * limits::FRAME_ACCESS_BYTES_MAX as u64, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bytes_are_an_error_and_never_data() {
    let tree = Tree::with_files(60);
    let bundle = tree.packed();
    let mut bytes = std::fs::read(&bundle).unwrap();
    let frames: Vec<_> = {
        let storage = flyloft::platform::fs::FileSystem::open(&flyloft::platform::fs::OsFileSystem, &bundle).unwrap();
        let bundle = flyloft::bundle::Bundle::open(storage, true).unwrap();
        bundle.frames().map(|frame| frame.unwrap()).collect()
    };
    for frame in &frames {
        bytes[frame.offset as usize + frame.stored_len as usize / 2] ^= 1;
    }
    std::fs::write(&bundle, bytes).unwrap();
    let runtime = within(Runtime::builder().bundle(&bundle).start()).await.unwrap();
    for index in (0..60).filter(|index| !content(*index, 0).is_empty()) {
        let error = within(runtime.load(name(index))).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    assert!(runtime.stats().metrics.corrupt > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_answers_everything_and_what_is_held_stays() {
    let tree = Tree::with_files(200);
    let runtime = within(tree.builder().start()).await.unwrap();
    let held = within(runtime.load(name(5))).await.unwrap();
    let loads: Vec<_> = (0..200).map(|index| runtime.load(name(index))).collect();
    let stopping = runtime.clone();
    let report = within(stopping.shutdown(Duration::from_secs(30))).await;
    assert!(report.in_time && report.abandoned == 0, "{report:?}");
    for (index, load) in loads.into_iter().enumerate() {
        assert_eq!(&*within(load).await.unwrap(), content(index, 0));
    }
    assert_eq!(&*held, content(5, 0));
    assert!(matches!(within(runtime.load("never/asked.before")).await, Err(Error::ShutDown)));
    let again = within(runtime.shutdown(Duration::from_secs(1))).await;
    assert!(again.in_time);
}

#[test]
fn a_program_without_an_async_runtime_starts_and_loads() {
    let tree = Tree::with_files(5);
    let runtime = tree.builder().start_blocking().unwrap();
    let load = runtime.load(name(2));
    let asset = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(load).unwrap();
    assert_eq!(&*asset, content(2, 0));
    drop(runtime);
    assert_eq!(&*asset, content(2, 0));
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_by_field() {
    let tree = Tree::with_files(1);
    let refused = |config: RuntimeConfig| {
        let builder = tree.builder().config(config);
        async move { builder.start().await.err().expect("it is refused").to_string() }
    };
    let error = refused(RuntimeConfig { budget_bytes: 1, ..RuntimeConfig::default() }).await;
    assert!(error.starts_with("budget_bytes"), "{error}");
    let error = Runtime::builder().start().await.err().unwrap().to_string();
    assert!(error.starts_with("source"), "{error}");
    let watched = Runtime::builder().bundle(tree.packed()).watch(true).start().await.err().unwrap().to_string();
    assert!(watched.starts_with("watch"), "{watched}");
    let missing = Runtime::builder().directory("/no/such/folder").start().await.err().unwrap().to_string();
    assert!(missing.contains("/no/such/folder"), "{missing}");
}

/// A storage that is not a file: reads go through the portable threads under every engine.
struct Slow(Vec<u8>);

impl ReadAt for Slow {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
        let from = offset as usize;
        let bytes = self.0.get(from..from + into.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(bytes);
        Ok(())
    }
    fn name(&self) -> String {
        "a buffer".into()
    }
}

#[test]
fn a_bundle_is_read_from_anything_that_has_bytes_at_positions() {
    let tree = Tree::with_files(10);
    let bytes = std::fs::read(tree.packed()).unwrap();
    let bundle = flyloft::bundle::Bundle::open(Arc::new(Slow(bytes)), true).unwrap();
    assert_eq!(bundle.assets().count(), 10);
}
