//! Invariant 8: after a crash at any byte of any write the bundle opens at the newest complete generation, and a
//! number that readers may have seen never names other content.

use std::sync::Arc;

use crate::bundle::testing::{Memory, Step, load, noise, path, small, writer};
use crate::bundle::{Bundle, BundleWriter, Changes};
use crate::config::Layout;
use crate::error::Error;
use crate::ids::Generation;
use crate::storage::WriteAt;

/// What a disk may hold when the power fails after `steps`: everything flushed, and of what was not flushed any part.
fn images(steps: &[Step]) -> Vec<Vec<u8>> {
    let flushed = steps.iter().rposition(|step| matches!(step, Step::Sync)).map_or(0, |at| at + 1);
    let apply = |image: &mut Vec<u8>, offset: u64, bytes: &[u8]| {
        let end = offset as usize + bytes.len();
        if image.len() < end {
            image.resize(end, 0);
        }
        image[offset as usize..end].copy_from_slice(bytes);
    };
    let mut base = Vec::new();
    for step in &steps[..flushed] {
        if let Step::Write(offset, bytes) = step {
            apply(&mut base, *offset, bytes);
        }
    }
    let loose: Vec<(u64, &[u8])> = steps[flushed..]
        .iter()
        .filter_map(|step| match step {
            Step::Write(offset, bytes) => Some((*offset, &bytes[..])),
            Step::Sync => None,
        })
        .collect();
    let mut images = vec![base.clone()];
    for (index, (offset, bytes)) in loose.iter().enumerate() {
        let cuts = [1, 7, 64, 511, 512, 4064, 4095, 4096, bytes.len() / 2, bytes.len().saturating_sub(1), bytes.len()];
        for cut in cuts.into_iter().filter(|cut| *cut <= bytes.len()) {
            // Writes before it may have reached the disk or not, whatever the order.
            for before in [0, index] {
                let mut image = base.clone();
                for (offset, bytes) in &loose[..before] {
                    apply(&mut image, *offset, bytes);
                }
                apply(&mut image, *offset, &bytes[..cut]);
                images.push(image);
                // The rest of the write without its beginning.
                let mut image = base.clone();
                apply(&mut image, *offset + cut as u64, &bytes[cut..]);
                images.push(image);
            }
        }
    }
    images
}

fn text(generation: u64) -> Vec<u8> {
    format!("content of generation {generation}").into_bytes()
}

#[test]
fn a_crash_at_any_byte_of_any_write_leaves_the_newest_complete_generation() {
    let (memory, mut writer) = writer(Layout::Access);
    let mut committed = vec![(0, 0)];
    for generation in 1..=4u64 {
        let mut put = vec![small(&mut writer, "a", &text(generation), &[])];
        for at in 0..20 {
            put.push(small(&mut writer, &format!("f/{generation}/{at}"), &noise(generation * 100 + at, 300), &["a"]));
        }
        if generation == 3 {
            writer.reserve(Generation(3)).unwrap();
        }
        let bundle = writer.stage(Changes { put, ..Changes::default() }).unwrap();
        writer.flush_appends().unwrap();
        writer.committer().commit(&bundle).unwrap();
        committed.push((memory.steps().len(), generation));
    }
    let steps = memory.steps();
    for cut in 0..=steps.len() {
        let standing = committed.iter().rev().find(|(at, _)| *at <= cut).map_or(0, |(_, generation)| *generation);
        for image in images(&steps[..cut]) {
            let bundle = match Bundle::open(Memory::with(image), true) {
                Ok(bundle) => bundle,
                Err(error) => {
                    assert_eq!(standing, 0, "{error}");
                    continue;
                }
            };
            let found = bundle.generation().0;
            assert!(found == standing || found == standing + 1, "{found} found, {standing} committed");
            let record = bundle.find(&path("a")).unwrap().unwrap();
            assert_eq!(load(&bundle, &record.content, 0..u64::MAX).unwrap().unwrap(), text(found));
            assert_eq!(bundle.assets().filter(|asset| asset.is_ok()).count(), found as usize * 20 + 1);
        }
    }
}

/// The same when a generation is gone back to: the crash leaves it, or the one before it.
#[test]
fn a_crash_while_a_generation_is_gone_back_to_leaves_a_complete_one() {
    let (memory, mut writer) = writer(Layout::Access);
    let mut staged: Vec<Bundle> = Vec::new();
    for generation in 1..=3u64 {
        // What is new in one is gone in the next, and so are its frames from the tables.
        let put = vec![
            small(&mut writer, "a", &text(generation), &[&format!("f/{generation}")]),
            small(&mut writer, &format!("f/{generation}"), &noise(generation, 300), &[]),
        ];
        let remove = vec![path(&format!("f/{}", generation - 1)).id()];
        let bundle = writer.stage(Changes { put, remove, ..Changes::default() }).unwrap();
        writer.committer().commit(&bundle).unwrap();
        staged.push(bundle);
    }
    let before = memory.steps().len();
    let back = writer.stage_again(&staged[0]).unwrap();
    assert_eq!(back.generation(), Generation(4));
    writer.committer().commit(&back).unwrap();
    let steps = memory.steps();
    let written: usize = steps[before..]
        .iter()
        .map(|step| match step {
            Step::Write(offset, bytes) if *offset >= 8192 => bytes.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(written, staged[0].inner.at.len as usize, "one page, the root");
    for cut in before..=steps.len() {
        for image in images(&steps[..cut]) {
            let bundle = Bundle::open(Memory::with(image), true).unwrap();
            let found = bundle.generation().0;
            assert!(found == 4 || found == 3 && cut < steps.len(), "{found}");
            let is = if found == 4 { 1 } else { 3 };
            let record = bundle.find(&path("a")).unwrap().unwrap();
            assert_eq!(load(&bundle, &record.content, 0..u64::MAX).unwrap().unwrap(), text(is));
            assert_eq!(bundle.assets().count(), 2);
        }
    }
    // It is a generation like any other: it verifies, and what follows it builds on it.
    let check = |bundle: &Bundle| bundle.verify(&mut |finding| panic!("{finding}")).unwrap();
    check(&back);
    let put = vec![small(&mut writer, "b", b"after", &["a"]), small(&mut writer, "f/3", &noise(3, 300), &[])];
    let after = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    writer.committer().commit(&after).unwrap();
    let bundle = Bundle::open(Memory::with(memory.bytes()), true).unwrap();
    assert_eq!((bundle.generation(), check(&bundle).assets), (Generation(5), 4));
    let numbers: Vec<u32> = bundle.assets().map(|record| record.unwrap().number).collect();
    assert!(numbers.iter().all(|number| staged[2].assets().flatten().all(|old| old.number != *number || *number == 0)));
    // Opened again the writer knows the old ones no more, but they are of the same bundle and still there.
    let mut writer = BundleWriter::open(memory.clone()).unwrap();
    let again = writer.stage_again(&staged[1]).unwrap();
    check(&again);
    assert_eq!(writer.stage_again(&again).unwrap().generation(), again.generation(), "it is there already");
    let (_, mut other) = super::super::testing::writer(Layout::Access);
    let put = vec![small(&mut other, "a", b"other", &[])];
    other.stage(Changes { put, ..Changes::default() }).unwrap();
    assert!(matches!(other.stage_again(&again), Err(Error::NotRetained { .. })));
}

#[test]
fn after_a_crash_no_number_is_given_that_was_seen_and_nothing_but_the_older_superblock_is_overwritten() {
    let (memory, mut writer) = writer(Layout::Access);
    writer.reserve(Generation(10)).unwrap();
    assert!(matches!(Bundle::open(memory.clone(), true), Err(Error::NotABundle { .. })));
    let put = vec![small(&mut writer, "a", b"one", &[])];
    let first = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    assert_eq!(first.generation(), Generation(1));
    // Shown to readers, never committed: the power fails.
    let mut writer = BundleWriter::open(memory.clone()).unwrap();
    assert!(writer.bundle().is_none());
    let mut seen = memory.bytes();
    for generation in 11..20 {
        let put = vec![small(&mut writer, "a", &text(generation), &[])];
        let bundle = writer.stage(Changes { put, ..Changes::default() }).unwrap();
        assert_eq!(bundle.generation(), Generation(generation));
        writer.committer().commit(&bundle).unwrap();
        let now = memory.bytes();
        assert_eq!(now[8192..seen.len()], seen[8192..]);
        let slots = [0..4096, 4096..8192].into_iter().filter(|slot| seen[slot.clone()] != now[slot.clone()]).count();
        assert_eq!(slots, 1);
        seen = now;
    }
    writer.reserve(Generation(30)).unwrap();
    let writer = BundleWriter::open(memory).unwrap();
    assert_eq!((writer.bundle().unwrap().generation(), writer.next_generation()), (Generation(19), Generation(31)));
}

#[test]
fn generations_that_were_overtaken_are_not_committed() {
    let (memory, mut writer) = writer(Layout::Access);
    let mut staged = Vec::new();
    for generation in 1..=3 {
        let put = vec![small(&mut writer, "a", &text(generation), &[])];
        staged.push(writer.stage(Changes { put, ..Changes::default() }).unwrap());
    }
    let committer = writer.committer();
    committer.commit(&staged[1]).unwrap();
    committer.commit(&staged[0]).unwrap();
    assert_eq!(committer.committed(), Generation(2));
    assert_eq!(Bundle::open(memory.clone(), true).unwrap().generation(), Generation(2));
    committer.commit(&staged[2]).unwrap();
    assert_eq!(Bundle::open(memory, true).unwrap().generation(), Generation(3));
}

#[test]
fn a_full_disk_says_what_is_needed_and_the_writer_goes_on_when_there_is_room() {
    let (memory, mut writer) = writer(Layout::Access);
    let put = vec![small(&mut writer, "a", &noise(1, 5000), &[])];
    let first = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    writer.committer().commit(&first).unwrap();
    memory.fill_at(Some(memory.bytes().len() as u64 + 100));
    let put = vec![small(&mut writer, "b", &noise(2, 5000), &[])];
    let error = writer.stage(Changes { put: put.clone(), ..Changes::default() }).unwrap_err();
    let Error::DiskFull { needed_bytes, standing, .. } = error else { panic!("{error}") };
    assert!((5000..20_000).contains(&needed_bytes), "{needed_bytes}");
    assert_eq!(standing, Some(Generation(1)));
    assert_eq!(writer.bundle().unwrap().generation(), Generation(1));
    assert_eq!(Bundle::open(memory.clone(), true).unwrap().generation(), Generation(1));
    memory.fill_at(None);
    let second = writer.stage(Changes { put, ..Changes::default() }).unwrap();
    writer.committer().commit(&second).unwrap();
    let bundle = Bundle::open(Memory::with(memory.bytes()), true).unwrap();
    assert_eq!(bundle.verify(&mut |finding| panic!("{finding}")).unwrap().assets, 2);
}

#[test]
fn after_a_failed_flush_nothing_more_is_committed() {
    for ahead in [false, true] {
        let (memory, mut writer) = writer(Layout::Access);
        let put = vec![small(&mut writer, "a", b"one", &[])];
        let first = writer.stage(Changes { put, ..Changes::default() }).unwrap();
        writer.committer().commit(&first).unwrap();
        let put = vec![small(&mut writer, "a", b"two", &[])];
        let second = writer.stage(Changes { put, ..Changes::default() }).unwrap();
        memory.fail_syncs(true);
        if ahead {
            writer.committer().flush_ahead();
        } else {
            assert!(writer.committer().commit(&second).is_err());
        }
        memory.fail_syncs(false);
        assert!(writer.committer().commit(&second).is_err());
        assert_eq!(Bundle::open(memory.clone(), true).unwrap().generation(), Generation(1));
        // Opened again, the writer knows what the disk has.
        let mut writer = BundleWriter::open(memory.clone() as Arc<dyn WriteAt>).unwrap();
        let put = vec![small(&mut writer, "a", b"two", &[])];
        let again = writer.stage(Changes { put, ..Changes::default() }).unwrap();
        writer.committer().commit(&again).unwrap();
        assert_eq!(Bundle::open(memory, true).unwrap().generation(), again.generation());
    }
}
