//! Invariant 9: a bundle from anywhere is hostile input. Bits flipped, bytes cut off, and lies under true hashes.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use proptest::prelude::*;

use crate::bundle::page::{PageRef, Position};
use crate::bundle::testing::{Memory, asset, content, load, noise, path, small, try_content, writer};
use crate::bundle::tree::{TREES, child};
use crate::bundle::{BuildInput, BuildRecord, BuildStep, Bundle, BundleWriter, Changes, FORMAT_MAJOR, Finding};
use crate::config::{Layout, TablesConfig};
use crate::error::{Error, Result};
use crate::ids::ContentHash;

/// A bundle so small that each of its bytes can be tried.
fn tiny() -> Vec<u8> {
    let (memory, mut writer) = writer(Layout::Access);
    writer.put_dictionary(b"a dictionary".to_vec()).unwrap();
    let content = content(&mut writer, &noise(1, 300), 100);
    let put = vec![
        asset("d/large", content, &[]),
        small(&mut writer, "index.html", &b"<html></html>".repeat(20), &["d/large", "later.js"]),
    ];
    let bundle = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    writer.committer().commit(&bundle).unwrap();
    memory.bytes()
}

/// A bundle that has something in every tree.
fn sample() -> &'static [u8] {
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let (memory, mut writer) = writer(Layout::Access);
        writer.put_dictionary(b"a dictionary of some bytes".to_vec()).unwrap();
        writer.put_section(*b"TEST", Some(b"section".to_vec())).unwrap();
        let large = noise(1, 1000);
        let many: Vec<String> = (0..70).map(|at| format!("m{at}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut built = small(&mut writer, "d/built.json", b"{}", &["d/a.css"]);
        built.build = Some(BuildRecord {
            steps: vec![BuildStep { transform: "t".into(), version: 1, parameters: [1; 32] }],
            source: ContentHash::of(b"s"),
            inputs: vec![
                BuildInput::Read { path: path("in"), hash: None },
                BuildInput::Read { path: path("d/a.css"), hash: Some(ContentHash::of(b"c")) },
                BuildInput::Exists { path: path("d/b.css"), exists: true },
                BuildInput::Listed { folder: None, names: ContentHash::of(b"n") },
            ],
            labels: vec!["mesh/0".into()],
        });
        let put = vec![
            small(&mut writer, "d/a.css", &b"body { color: red }".repeat(20), &[]),
            small(&mut writer, "index.html", b"<html></html>", &["d/a.css", "later.js"]),
            built,
            small(&mut writer, "scene", b"scene", &many),
            {
                let content = content(&mut writer, &large, 100);
                asset("large.bin", content, &[])
            },
        ];
        let changes = Changes { put, put_folders: vec![path("empty")], ..Changes::default() };
        let bundle = writer.stage(changes).unwrap();
        writer.committer().commit(&bundle).unwrap();
        memory.bytes()
    })
}

/// Reads all there is through every question that can be asked.
fn read_all(bytes: Vec<u8>, mapping: bool) -> Result<BTreeMap<String, Vec<u8>>> {
    let bundle = Bundle::open(Memory::with(bytes), mapping)?;
    let mut all = BTreeMap::new();
    let mut first = None;
    let mut keep = |result: Result<(String, Vec<u8>)>| match result {
        Ok((key, value)) => {
            all.insert(key, value);
        }
        Err(error) => {
            first.get_or_insert(error);
        }
    };
    for record in bundle.assets() {
        let answer = record.and_then(|record| {
            let mut value = load(&bundle, &record.content, 0..u64::MAX)?.unwrap_or_default();
            value.extend(load(&bundle, &record.content, 10..50)?.unwrap_or_default());
            let found = bundle.asset(record.id)?;
            let facts = (
                found == Some(record.clone()),
                bundle.find(&record.path)?.is_some(),
                bundle.dependencies(record.id)?,
                bundle.dependents(record.id)?,
                bundle.build_record(record.id)?,
                bundle.content(&record.content)?,
                record.executable,
                record.kind,
            );
            value.extend(format!("{facts:?}").into_bytes());
            Ok((record.path.to_string(), value))
        });
        keep(answer);
    }
    for folder in bundle.folders() {
        keep(folder.map(|folder| (format!("{folder}/"), Vec::new())));
    }
    for frame in bundle.frames() {
        keep(frame.map(|frame| (format!("frame {}", frame.number), frame.stored_hash.to_vec())));
    }
    for content in bundle.contents() {
        keep(content.map(|content| (format!("content {}", content.hash), content.len.to_le_bytes().to_vec())));
    }
    keep(bundle.dictionary(1).map(|bytes| ("dictionary".into(), bytes.to_vec())));
    keep(bundle.section(*b"TEST").map(|bytes| ("section".into(), bytes.unwrap_or_default())));
    keep(bundle.dependents(path("later.js").id()).map(|ids| ("later".into(), format!("{ids:?}").into_bytes())));
    let tables = TablesConfig { populate: true, lock: true };
    keep(bundle.prepare_tables(&tables).map(|_| ("tables".into(), Vec::new())));
    let mut found = None;
    bundle.verify(&mut |finding| match finding {
        Finding::Superblock { .. } => {}
        finding => found = Some(Error::corrupt("t", finding.to_string())),
    })?;
    assert!(found.is_some() || first.is_none(), "verify found nothing: {first:?}");
    match found {
        Some(error) => Err(error),
        None => Ok(all),
    }
}

#[test]
fn any_byte_flipped_gives_an_error_or_the_same_data() {
    let bytes = tiny();
    let expected = read_all(bytes.clone(), true).unwrap();
    for at in 0..bytes.len() {
        // The superblocks are mostly zeros under one checksum: a few of those say as much as all.
        if (160..4064).contains(&(at % 4096)) && at < 8192 && at % 97 != 0 {
            continue;
        }
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        if let Ok(all) = read_all(damaged, at % 2 == 0) {
            assert_eq!(all, expected, "byte {at}");
            // Only the two superblocks stand in for each other.
            assert!(at < 8192, "byte {at} is not checked by anything");
        }
    }
}

#[test]
fn any_truncation_is_an_error() {
    let bytes = tiny();
    for len in (0..8192).step_by(61).chain(8192..bytes.len()) {
        let error = read_all(bytes[..len].to_vec(), len % 2 == 0).unwrap_err();
        let expected = matches!(error, Error::NotABundle { .. } | Error::Corrupt { .. });
        assert!(expected && !error.to_string().contains('\n'), "{len}: {error}");
    }
}

#[test]
fn tables_that_claim_more_than_the_file_holds_are_not_followed_for_ever() {
    let memory = {
        let (memory, mut writer) = writer(Layout::Access);
        let put = (0..2_000).map(|at| small(&mut writer, &format!("{at:05}"), &[at as u8], &[])).collect();
        let bundle = writer.stage(Changes { put, ..Changes::default() }).unwrap();
        writer.committer().commit(&bundle).unwrap();
        memory
    };
    let tables = TablesConfig { populate: false, lock: true };
    let mut bytes = memory.bytes();
    let bundle = Bundle::open(Memory::with(bytes.clone()), true).unwrap();
    let all = bundle.prepare_tables(&tables).unwrap().report().bytes;
    assert!(all > 0 && all <= bundle.info().toc_bytes + 4096, "{all}");
    // Every child of one interior page claims to be as long as a page may be.
    let pages = pages(&bundle);
    let inner = bundle.inner.root.trees.iter().flatten().find(|root| root.level > 0).expect("a tree of two levels");
    let start = inner.page.offset as usize;
    let page = bytes[start..start + inner.page.len as usize].to_vec();
    let mut position = Position::start(&page, TREES[0]).or_else(|_| Position::start(&page, TREES[1])).unwrap();
    let lie = (crate::limits::PAGE_BYTES_MAX as u32).to_le_bytes();
    while let Some(payload) = position.next(&page).unwrap() {
        let truth = child(payload).unwrap().len.to_le_bytes();
        let at = payload.as_ptr().addr() - page.as_ptr().addr();
        let len = payload.windows(4).position(|bytes| bytes == truth).expect("its length");
        bytes[start + at + len..][..4].copy_from_slice(&lie);
    }
    reseal(&mut bytes, &pages);
    let error = Bundle::open(Memory::with(bytes), true).unwrap().prepare_tables(&tables).unwrap_err();
    assert!(error.to_string().contains("larger than the file"), "{error}");
}

#[test]
fn a_newer_version_and_an_unknown_feature_say_so() {
    let check = |change: fn(&mut [u8]), text: &str| {
        let mut bytes = sample().to_vec();
        for slot in [0, 4096] {
            change(&mut bytes[slot..slot + 4064]);
            let checksum = blake3::hash(&bytes[slot..slot + 4064]);
            bytes[slot + 4064..slot + 4096].copy_from_slice(checksum.as_bytes());
        }
        match (read_all(bytes, true), text) {
            (Ok(_), "") => {}
            (Err(Error::TooNew { what, .. }), text) => assert!(what.contains(text), "{what}"),
            (other, _) => panic!("{other:?}"),
        }
    };
    check(|block| block[8] = FORMAT_MAJOR as u8 + 1, "format 2.0");
    check(|block| block[24] = 4, "0x4");
    // A newer minor version and an unknown compatible feature are no obstacle.
    check(|block| block[10] = 9, "");
    check(|block| block[16] = 1, "");
}

#[test]
fn what_is_not_a_bundle_is_called_so() {
    for bytes in [vec![], b"hello".to_vec(), vec![0; 10_000], noise(1, 20_000)] {
        assert!(matches!(read_all(bytes, true), Err(Error::NotABundle { .. })));
    }
}

/// Every page, children before their parents, the root page last.
fn pages(bundle: &Bundle) -> Vec<PageRef> {
    fn below(bundle: &Bundle, index: usize, at: PageRef, level: u8, all: &mut Vec<PageRef>) {
        if level > 0 {
            let page = bundle.inner.view.page(&at).unwrap();
            let mut position = Position::start(&page, TREES[index]).unwrap();
            while let Some(payload) = position.next(&page).unwrap() {
                below(bundle, index, child(payload).unwrap(), level - 1, all);
            }
        }
        all.push(at);
    }
    let mut all = Vec::new();
    for (index, root) in bundle.inner.root.trees.iter().enumerate() {
        if let Some(root) = root {
            below(bundle, index, root.page, root.level, &mut all);
        }
    }
    all.push(bundle.inner.at);
    all
}

/// Makes every hash true again after a page was changed.
fn reseal(bytes: &mut [u8], pages: &[PageRef]) {
    for page in pages {
        let range = page.offset as usize..page.offset as usize + page.len as usize;
        let hash = *blake3::hash(&bytes[range]).as_bytes();
        if hash != page.hash {
            let places: Vec<_> =
                bytes.windows(32).enumerate().filter(|(_, window)| *window == page.hash).map(|(at, _)| at).collect();
            for at in places {
                bytes[at..at + 32].copy_from_slice(&hash);
            }
        }
    }
    for slot in [0, 4096] {
        let checksum = blake3::hash(&bytes[slot..slot + 4064]);
        bytes[slot + 4064..slot + 4096].copy_from_slice(checksum.as_bytes());
    }
}

/// Asks everything of a bundle that lies, and writes to it.
fn survive(bytes: Vec<u8>, mapping: bool) {
    let _ = read_all(bytes.clone(), mapping);
    let Ok(mut writer) = BundleWriter::open(Memory::with(bytes)) else { return };
    let Ok(new) = try_content(&mut writer, b"new", 100) else { return };
    let put = vec![asset("d/a.css", new.clone(), &["later.js"]), asset("later.js", new, &[])];
    let remove = vec![path("scene").id(), path("large.bin").id()];
    if let Ok(bundle) = writer.stage(Changes { put, remove, remove_folders: vec![path("empty")], ..Changes::default() })
    {
        let _ = writer.committer().commit(&bundle);
    }
}

#[test]
fn a_lie_in_any_byte_of_the_tables_under_true_hashes_is_survived() {
    let bytes = sample();
    let pages = pages(&Bundle::open(Memory::with(bytes.to_vec()), true).unwrap());
    let first = pages.iter().map(|page| page.offset as usize).min().unwrap();
    let mut salt = 1u8;
    for at in first..bytes.len() {
        for value in [0, 0xff, bytes[at] ^ 0x80, bytes[at].wrapping_add(1)] {
            salt = salt.wrapping_mul(5).wrapping_add(1);
            // Each place gets some of the lies; over all places every kind comes up often.
            if salt & 15 != 0 {
                continue;
            }
            let mut lying = bytes.to_vec();
            lying[at] = value;
            reseal(&mut lying, &pages);
            survive(lying, at % 2 == 0);
        }
    }
}

#[test]
fn a_lie_in_any_field_of_the_superblock_under_a_true_checksum_is_survived() {
    let bytes = sample();
    for at in 8..128 {
        for value in [0, 0xff, 0x7f] {
            let mut lying = bytes.to_vec();
            for slot in [0, 4096] {
                lying[slot + at] = value;
            }
            reseal(&mut lying, &[]);
            survive(lying, at % 2 == 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn several_lies_at_once_are_survived(
        lies in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        mapping: bool,
    ) {
        let bytes = sample();
        let pages = pages(&Bundle::open(Memory::with(bytes.to_vec()), true).unwrap());
        let first = pages.iter().map(|page| page.offset as usize).min().unwrap();
        let mut lying = bytes.to_vec();
        for (at, value) in lies {
            let at = first + at.index(bytes.len() - first);
            lying[at] = value;
        }
        reseal(&mut lying, &pages);
        survive(lying, mapping);
    }

    #[test]
    fn a_page_of_any_bytes_is_walked_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for spec in TREES {
            let mut page = bytes.clone();
            if let Some(tree) = page.first_mut() {
                *tree = spec.number;
            }
            if let Ok(mut position) = Position::start(&page, spec) {
                while let Ok(Some(_)) = position.next(&page) {}
            }
        }
    }
}
