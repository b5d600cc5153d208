//! From the first frame to the bytes read back, and the changes between generations.

use crate::bundle::testing::{Memory, asset, content, load, noise, path, small, writer};
use crate::bundle::{BuildInput, BuildRecord, BuildStep, Bundle, BundleWriter, Changes, ContentPut, Dependency};
use crate::config::Layout;
use crate::error::Error;
use crate::ids::{AssetId, ContentHash, Generation};

fn dependency(text: &str, present: bool) -> Dependency {
    Dependency { path: path(text), present }
}

#[test]
fn what_is_put_is_read_back_from_a_new_opening() {
    for mapping in [true, false] {
        let (memory, mut writer) = writer(Layout::Access);
        let page = b"<html>page</html>".repeat(100);
        let put = vec![
            small(&mut writer, "docs/index.html", &page, &["docs/site.css", "docs/later.js"]),
            small(&mut writer, "docs/site.css", b"body {}", &[]),
            small(&mut writer, "copy/index.html", &page, &["docs/site.css"]),
            asset("empty", ContentPut::New { hash: ContentHash::of(b""), len: 0, pieces: vec![] }, &[]),
        ];
        let put_folders = vec![path("hollow/inner"), path("docs")];
        let staged = writer.stage(Changes { put, put_folders, ..Changes::default() }).unwrap();
        writer.committer().commit(&staged).unwrap();

        let bundle = Bundle::open(Memory::with(memory.bytes()), mapping).unwrap();
        assert_eq!(bundle.generation(), Generation(1));
        let info = bundle.info();
        assert_eq!((info.assets, info.contents, info.folders, info.dead_bytes), (4, 3, 4, 0), "{info:?}");
        assert_eq!(info.content_bytes, page.len() as u64 + 7);
        let paths: Vec<_> = bundle.assets().map(|asset| asset.unwrap().path.to_string()).collect();
        assert_eq!(paths, ["copy/index.html", "docs/index.html", "docs/site.css", "empty"]);
        let folders: Vec<_> = bundle.folders().map(|path| path.unwrap().to_string()).collect();
        assert_eq!(folders, ["copy", "docs", "hollow", "hollow/inner"]);
        let index = bundle.find(&path("docs/index.html")).unwrap().unwrap();
        assert_eq!(bundle.asset(index.id).unwrap().unwrap(), index);
        assert_eq!(load(&bundle, &index.content, 0..u64::MAX).unwrap().unwrap(), page);
        assert_eq!(load(&bundle, &index.content, 5..9).unwrap().unwrap(), &page[5..9]);
        assert_eq!(load(&bundle, &ContentHash::of(b""), 0..u64::MAX).unwrap().unwrap(), b"");
        assert_eq!(bundle.content(&index.content).unwrap().unwrap().references, 2);
        assert_eq!(
            bundle.dependencies(index.id).unwrap(),
            [dependency("docs/later.js", false), dependency("docs/site.css", true)]
        );
        let mut dependents = bundle.dependents(path("docs/site.css").id()).unwrap();
        dependents.sort();
        let mut expected = [index.id, path("copy/index.html").id()];
        expected.sort();
        assert_eq!(dependents, expected);
        assert_eq!(bundle.dependents(path("docs/later.js").id()).unwrap(), [index.id]);
        assert_eq!(bundle.find(&path("nothing")).unwrap(), None);
        assert_eq!(bundle.asset(AssetId(7)).unwrap(), None);
        assert_eq!(bundle.placement(&ContentHash::of(b"no"), 0..1).unwrap(), None);
    }
}

#[test]
fn an_asset_that_comes_or_goes_changes_what_others_depend_on() {
    let (_, mut writer) = writer(Layout::Access);
    let put = vec![small(&mut writer, "a", b"a", &["b"]), small(&mut writer, "c", b"c", &["b", "a"])];
    writer.stage(Changes { put, ..Changes::default() }).unwrap();
    let put = vec![small(&mut writer, "b", b"b", &["c"])];
    let second = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    assert_eq!(second.dependencies(path("a").id()).unwrap(), [dependency("b", true)]);
    assert_eq!(second.dependents(path("b").id()).unwrap().len(), 2);
    let third = writer.stage(Changes { remove: vec![path("b").id()], ..Changes::default() }).unwrap();
    assert_eq!(third.dependencies(path("c").id()).unwrap(), [dependency("a", true), dependency("b", false)]);
    assert_eq!(third.dependents(path("b").id()).unwrap().len(), 2);
    assert_eq!(third.dependents(path("c").id()).unwrap(), []);
    assert_eq!(third.content(&ContentHash::of(b"b")).unwrap(), None);
    // The older generation is as it was.
    assert!(second.find(&path("b")).unwrap().is_some());
    assert_eq!(load(&second, &ContentHash::of(b"b"), 0..9).unwrap().unwrap(), b"b");
}

#[test]
fn many_dependencies_stand_in_their_own_tree_and_come_and_go_as_few_do() {
    let (_, mut writer) = writer(Layout::Access);
    let names: Vec<String> = (0..200).map(|at| format!("part/{at:03}")).collect();
    let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut put = vec![small(&mut writer, "scene", b"scene", &wanted)];
    for name in &names[..100] {
        put.push(small(&mut writer, name, name.as_bytes(), &[]));
    }
    let check = |bundle: &Bundle, present: usize| {
        let dependencies = bundle.dependencies(path("scene").id()).unwrap();
        assert_eq!(dependencies.len(), 200);
        assert_eq!(dependencies.iter().filter(|dependency| dependency.present).count(), present);
    };
    check(&writer.stage(Changes { put, ..Changes::default() }).unwrap(), 100);
    let put = vec![small(&mut writer, &names[150], b"new", &[])];
    let remove = vec![path(&names[0]).id(), path(&names[1]).id()];
    check(&writer.stage(Changes { put, remove, ..Changes::default() }).unwrap(), 99);
    let put = vec![small(&mut writer, "scene", b"scene", &wanted[..3])];
    let bundle = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    assert_eq!(bundle.dependencies(path("scene").id()).unwrap().len(), 3);
    assert_eq!(bundle.dependents(path(&names[50]).id()).unwrap(), []);
}

#[test]
fn a_content_goes_with_its_last_asset_and_its_bytes_are_dead_exactly() {
    let (_, mut writer) = writer(Layout::Access);
    let text = noise(1, 100_000);
    let put = vec![small(&mut writer, "a", &text, &[]), small(&mut writer, "b", &text, &[])];
    let first = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    let before = first.info().clone();
    assert_eq!((before.dead_bytes, before.contents, before.frames), (0, 1, 2));
    let second = writer.stage(Changes { remove: vec![path("a").id()], ..Changes::default() }).unwrap();
    assert_eq!(second.info().live_bytes, before.live_bytes);
    let third = writer.stage(Changes { remove: vec![path("b").id()], ..Changes::default() }).unwrap();
    let info = third.info();
    assert_eq!((info.live_bytes, info.padding_bytes, info.content_bytes, info.frames), (0, 0, 0, 0));
    assert_eq!(info.dead_bytes, info.file_bytes - 8192 - info.toc_bytes);
}

#[test]
fn a_large_content_is_found_by_its_ranges() {
    let (_, mut writer) = writer(Layout::Access);
    let bytes = noise(2, 3_000_000);
    let put = vec![{
        let content = content(&mut writer, &bytes, 10_000);
        asset("large", content, &[])
    }];
    let bundle = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    let hash = ContentHash::of(&bytes);
    assert_eq!(bundle.content(&hash).unwrap().unwrap().extents, None);
    let len = bytes.len() as u64;
    for range in [0..1, 9_999..10_001, 10_000..10_000, 123_456..2_000_001, len - 1..len, 0..u64::MAX, len..len + 5] {
        let placement = bundle.placement(&hash, range.clone()).unwrap().unwrap();
        let cut = range.start.min(len)..range.end.min(len);
        assert_eq!((placement.len, placement.start, placement.piece_bytes()), (len, cut.start, cut.end - cut.start));
        let expected = &bytes[cut.start as usize..cut.end as usize];
        assert_eq!(load(&bundle, &hash, range).unwrap().unwrap(), expected);
    }
    assert_eq!(bundle.placement(&hash, 9_999..10_001).unwrap().unwrap().pieces.len(), 2);
    // The same frames in another content, and one of them alone: nothing is appended again.
    let before = writer.next_generation();
    let put = vec![{
        let content = content(&mut writer, &bytes[..2_000_000], 10_000);
        asset("part", content, &[])
    }];
    let second = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    assert_eq!(second.generation(), before);
    assert_eq!(second.info().live_bytes, bundle.info().live_bytes);
    let third = writer.stage(Changes { remove: vec![path("large").id()], ..Changes::default() }).unwrap();
    assert_eq!(third.info().live_bytes, 2_000_000);
    assert_eq!(load(&third, &ContentHash::of(&bytes[..2_000_000]), 0..u64::MAX).unwrap().unwrap(), bytes[..2_000_000]);
}

#[test]
fn how_an_asset_was_built_is_kept_and_replaced() {
    let (_, mut writer) = writer(Layout::Access);
    let record = |inputs: usize| BuildRecord {
        steps: (1..3)
            .map(|version| BuildStep { transform: "minify-json".into(), version, parameters: [7; 32] })
            .collect(),
        source: ContentHash::of(b"source"),
        inputs: (0..inputs)
            .map(|at| match (path(&format!("in/{at}")), at % 5) {
                (path, 0) => BuildInput::Read { path, hash: Some(ContentHash::of(b"i")) },
                (path, 1) => BuildInput::Read { path, hash: None },
                (path, 2) => BuildInput::Listed { folder: Some(path), names: ContentHash::of(b"n") },
                (_, 3) => BuildInput::Listed { folder: None, names: ContentHash::of(b"n") },
                (path, _) => BuildInput::Exists { path, exists: at % 2 == 0 },
            })
            .collect(),
        labels: (0..inputs).map(|at| format!("mesh/{at}")).collect(),
    };
    for inputs in [1, 500, 2] {
        let mut put = small(&mut writer, "a.json", b"{}", &[]);
        put.build = Some(record(inputs));
        let bundle = writer.stage(Changes { put: vec![put], ..Changes::default() }).unwrap();
        assert_eq!(bundle.build_record(path("a.json").id()).unwrap(), Some(record(inputs)));
    }
    let put = vec![small(&mut writer, "a.json", b"{}", &[])];
    let bundle = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    assert_eq!(bundle.build_record(path("a.json").id()).unwrap(), None);
}

#[test]
fn folders_come_with_assets_and_stay_when_they_are_put_by_name() {
    let (_, mut writer) = writer(Layout::Access);
    let folders = |bundle: &Bundle| -> Vec<String> { bundle.folders().map(|path| path.unwrap().to_string()).collect() };
    let put = vec![small(&mut writer, "a/b/c", b"c", &[]), small(&mut writer, "a/d", b"d", &[])];
    let bundle = writer.stage(Changes { put, put_folders: vec![path("e/f")], ..Changes::default() }).unwrap();
    assert_eq!(folders(&bundle), ["a", "a/b", "e", "e/f"]);
    let remove = vec![path("a/b/c").id(), path("a/d").id()];
    let bundle = writer.stage(Changes { remove, put_folders: vec![path("a")], ..Changes::default() }).unwrap();
    assert_eq!(folders(&bundle), ["a", "e", "e/f"]);
    let put = vec![small(&mut writer, "e/f/g/h", b"c", &[])];
    let remove_folders = vec![path("a"), path("e/f")];
    let bundle = writer.stage(Changes { put, remove_folders, ..Changes::default() }).unwrap();
    assert_eq!(folders(&bundle), ["e", "e/f", "e/f/g"]);
    let bundle = writer.stage(Changes { remove: vec![path("e/f/g/h").id()], ..Changes::default() }).unwrap();
    assert_eq!(folders(&bundle), [""; 0]);
    assert_eq!(bundle.info().folders, 0);
}

#[test]
fn what_changes_nothing_is_no_new_generation() {
    let (memory, mut writer) = writer(Layout::Access);
    let put = vec![small(&mut writer, "a", b"a", &["b"])];
    let first = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    writer.committer().commit(&first).unwrap();
    let bytes = memory.bytes();
    let mut again = BundleWriter::open(memory.clone()).unwrap();
    let put = vec![asset("a", ContentPut::Existing(ContentHash::of(b"a")), &["b"])];
    let second = again.stage(Changes { put, remove: vec![AssetId(9)], ..Changes::default() }).unwrap();
    assert_eq!(second.generation(), first.generation());
    again.committer().commit(&second).unwrap();
    assert_eq!(memory.bytes(), bytes);
}

#[test]
fn changes_that_cannot_be_leave_the_writer_where_it_was() {
    let (_, mut writer) = writer(Layout::Access);
    let hash = ContentHash::of(b"x");
    let frame = writer.put_frame(&crate::bundle::testing::stored(b"x")).unwrap();
    for content in [
        ContentPut::Existing(hash),
        ContentPut::New { hash, len: 2, pieces: vec![(frame, 0, 1)] },
        ContentPut::New { hash, len: 2, pieces: vec![(frame, 0, 2)] },
        ContentPut::New { hash, len: 1, pieces: vec![(frame + 1, 0, 1)] },
    ] {
        let error = writer.stage(Changes { put: vec![asset("x", content, &[])], ..Changes::default() }).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(writer.bundle().is_none());
    }
    let put = vec![asset("x", ContentPut::New { hash, len: 1, pieces: vec![(frame, 0, 1)] }, &[])];
    let bundle = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    assert_eq!((bundle.generation(), bundle.info().dead_bytes), (Generation(1), 0));
}

#[test]
fn a_dictionary_and_a_section_survive_the_next_generations() {
    let (memory, mut writer) = writer(Layout::Access);
    let number = writer.put_dictionary(b"some text that repeats".to_vec()).unwrap();
    writer.put_section(*b"LOCA", Some(b"trace".to_vec())).unwrap();
    let first = writer.stage(Changes::default()).unwrap();
    assert_eq!(&*first.dictionary(number).unwrap(), b"some text that repeats");
    let put = vec![small(&mut writer, "a", b"a", &[])];
    let second = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    writer.committer().commit(&second).unwrap();
    let bundle = Bundle::open(memory, true).unwrap();
    assert_eq!(&*bundle.dictionary(number).unwrap(), b"some text that repeats");
    assert_eq!(bundle.section(*b"LOCA").unwrap().unwrap(), b"trace");
    assert_eq!(bundle.section(*b"NONE").unwrap(), None);
    assert!(bundle.dictionary(0).is_err() && bundle.dictionary(2).is_err());
    writer.put_section(*b"LOCA", None).unwrap();
    let third = writer.stage(Changes::default()).unwrap();
    assert_eq!((third.generation(), third.section(*b"LOCA").unwrap()), (Generation(3), None));
}

#[test]
fn stored_frames_are_aligned_and_dense_pays_little_for_it() {
    for layout in [Layout::Access, Layout::Dense] {
        let (_, mut writer) = writer(layout);
        let mut put = Vec::new();
        for (at, len) in [100, 5000, 4096, 300, 60_000, 65_536].into_iter().enumerate() {
            put.push(small(&mut writer, &format!("{at}"), &noise(at as u64, len), &[]));
        }
        let bundle = writer.stage(Changes { put, ..Changes::default() }).unwrap();
        let info = bundle.info();
        let aligned = |frame: &crate::bundle::FrameRef| frame.offset.is_multiple_of(4096);
        let frames: Vec<_> =
            bundle.frames().map(|frame| frame.unwrap()).filter(|frame| frame.stored_len >= 4096).collect();
        assert_eq!((frames.len(), info.dead_bytes), (4, 0));
        match layout {
            Layout::Access => assert!(frames.iter().all(aligned) && info.padding_bytes > 0),
            Layout::Dense => assert!(info.padding_bytes <= info.live_bytes / 256),
        }
    }
}

#[test]
fn bundles_and_writers_move_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Bundle>();
    shared::<crate::bundle::Committer>();
    sent::<BundleWriter>();
    sent::<crate::bundle::Encoder>();
    sent::<crate::bundle::Decoder>();
}

#[test]
fn two_contents_whose_hashes_begin_alike_are_told_apart() {
    // Found by search: the first six bytes of the two hashes are the same.
    let alike = [b"17988932", b"54323116"];
    let hashes = alike.map(|bytes| ContentHash::of(bytes));
    assert_eq!(hashes[0].0[..6], hashes[1].0[..6]);
    for (first, second) in [(0, 1), (1, 0)] {
        let (memory, mut writer) = writer(Layout::Access);
        let check = |bundle: &Bundle, name: &str, which: usize| {
            let record = bundle.find(&path(name)).unwrap().unwrap();
            assert_eq!(record.content, hashes[which]);
            assert_eq!(load(bundle, &record.content, 0..u64::MAX).unwrap().unwrap(), alike[which]);
            bundle.verify(&mut |finding| assert!(finding.to_string().starts_with("superblock"), "{finding}")).unwrap();
        };
        let put = vec![small(&mut writer, "a", alike[first], &[])];
        let bundle = writer.stage(Changes { put, ..Changes::default() }).unwrap();
        writer.committer().commit(&bundle).unwrap();
        let put = vec![small(&mut writer, "b", alike[second], &[])];
        let bundle = writer.stage(Changes { put, ..Changes::default() }).unwrap();
        check(&bundle, "a", first);
        check(&bundle, "b", second);
        // The first goes; the second is still named by its whole hash, also by those that come to it now.
        let put = vec![asset("c", ContentPut::Existing(hashes[second]), &[])];
        let bundle = writer.stage(Changes { put, remove: vec![path("a").id()], ..Changes::default() }).unwrap();
        check(&bundle, "b", second);
        check(&bundle, "c", second);
        let put = vec![small(&mut writer, "a", alike[first], &[])];
        let remove = vec![path("b").id(), path("c").id()];
        let bundle = writer.stage(Changes { put, remove, ..Changes::default() }).unwrap();
        check(&bundle, "a", first);
        drop(memory);
    }
    // Both at once, in a fresh pack.
    let (_, mut writer) = writer(Layout::Access);
    let put = vec![small(&mut writer, "a", alike[0], &[]), small(&mut writer, "b", alike[1], &[])];
    let bundle = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    for (name, hash) in ["a", "b"].into_iter().zip(hashes) {
        assert_eq!(bundle.find(&path(name)).unwrap().unwrap().content, hash);
    }
}

#[test]
fn verify_names_the_same_damage_in_the_same_order_whichever_core_finds_it() {
    let (memory, mut writer) = writer(Layout::Access);
    let put = (0..1300).map(|at| small(&mut writer, &format!("{at:04}"), &noise(at, 300), &[])).collect();
    let staged = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    writer.committer().commit(&staged).unwrap();
    let mut bytes = memory.bytes();
    let frames: Vec<_> = staged.frames().map(|frame| frame.unwrap()).collect();
    for number in [3, 700, 701, 1200] {
        bytes[frames[number].offset as usize] ^= 1;
    }
    let bundle = Bundle::open(Memory::with(bytes), true).unwrap();
    let check = || {
        let mut findings = Vec::new();
        let verified = bundle.verify(&mut |finding| findings.push(finding.to_string())).unwrap();
        assert_eq!((verified.contents, verified.frames, verified.findings), (1300, 1300, 8));
        assert_eq!(verified.content_bytes, 1300 * 300);
        findings
    };
    let findings = check();
    let damaged = ["frame 3 ", "frame 700 ", "frame 701 ", "frame 1200 ", "0003 ", "0700 ", "0701 ", "1200 "];
    assert!(findings.iter().zip(damaged).all(|(finding, damaged)| finding.starts_with(damaged)), "{findings:?}");
    assert_eq!(findings, check());
}
