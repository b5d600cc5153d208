//! Where bytes go and come from: pools, claims, several places at once, past the page cache, and back to the file.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use flyloft::config::Engine;
use flyloft::platform::fill::FillBuffer;
use flyloft::platform::fs::{FileSystem, OsFileSystem};
use flyloft::platform::io::{Access, Driver, DriverConfig, ReadDone, ReadOp, WriteAction, WriteOp, is_cancelled};
use flyloft::platform::memory::{AlignedBuffer, BufferPool, Heap, IoBuffer, Segment};
use flyloft::platform::random::{Random, SeededRandom};
use flyloft::platform::threads::OsThreads;
use flyloft::storage::ReadAt;

use super::{DEPTH, FILE_BYTES, Gated, Scene, Token, listened};

const BLOCK: usize = 4096;

struct Rig {
    driver: Arc<Driver<usize>>,
    told: mpsc::Receiver<ReadDone<usize>>,
    pool: Arc<BufferPool>,
}

impl Rig {
    fn new(engine: Engine) -> Self {
        Self::with(DriverConfig { name: "places".into(), depth: DEPTH, engine, ..DriverConfig::default() })
    }

    fn with(config: DriverConfig) -> Self {
        let pool = BufferPool::new(4 << 20, None).unwrap();
        let driver = Driver::start(DriverConfig { pool: Some(Arc::clone(&pool)), ..config }, &OsThreads).unwrap();
        let (tell, told) = mpsc::channel();
        driver.attach(Box::new(move |dones: Vec<ReadDone<usize>>| {
            dones.into_iter().for_each(|done| tell.send(done).unwrap());
        }));
        Self { driver, told, pool }
    }

    /// Submits all and hands each completion to `take`.
    fn run(&self, ops: Vec<ReadOp<usize>>, mut take: impl FnMut(ReadDone<usize>)) {
        let mut left = ops.len();
        let mut ops = self.driver.submit(ops);
        while left > 0 {
            take(self.told.recv().unwrap());
            left -= 1;
            ops = self.driver.submit(ops);
        }
    }

    fn write(&self, ops: Vec<WriteOp<usize>>) -> Vec<ReadDone<usize>> {
        let count = ops.len();
        assert!(self.driver.submit_writes(ops).is_empty());
        self.told.iter().take(count).collect()
    }
}

fn read(
    source: &Arc<dyn ReadAt>,
    offset: usize,
    buffer: impl Into<IoBuffer>,
    len: usize,
    token: usize,
) -> ReadOp<usize> {
    let (source, buffer) = (Arc::clone(source), buffer.into());
    ReadOp { source, offset: offset as u64, buffer, len, access: Access::Direct, limit: None, token }
}

pub fn direct_reads_of_any_range_give_its_bytes(engine: Engine) {
    // Not whole blocks: the last read goes past the end.
    let scene = Scene::of(FILE_BYTES + 123);
    let rig = Rig::new(engine);
    let random = SeededRandom::new(3);
    let mut ranges = vec![(scene.content.len() - 1, 1), (scene.content.len() - 5000, 5000), (0, 4096), (8192, 0)];
    ranges.extend((0..300).map(|_| {
        let len = 1 + random.below(60_000) as usize;
        (random.below((scene.content.len() - len) as u64) as usize, len)
    }));
    let op = |(number, (offset, len)): (usize, &(usize, usize))| {
        let buffer: IoBuffer = match number % 4 {
            // No room to widen: read through the cache.
            0 => AlignedBuffer::new_zeroed(*len, 64).unwrap().into(),
            1 => AlignedBuffer::new_in_blocks(len + BLOCK, BLOCK).unwrap().into(),
            _ => rig
                .pool
                .take(len + 2 * BLOCK)
                .map_or_else(|| AlignedBuffer::new_zeroed(*len, 64).unwrap().into(), Into::into),
        };
        read(&scene.file, *offset, buffer, *len, number)
    };
    let ops = ranges.iter().enumerate().map(op).collect();
    rig.run(ops, |done| {
        done.result.as_ref().unwrap();
        let (offset, len) = ranges[done.token];
        assert_eq!(done.bytes().len(), len);
        assert!(done.bytes() == &scene.content[offset..offset + len], "{:?}", ranges[done.token]);
    });
    let stats = rig.driver.stats();
    assert_eq!(rig.pool.stats().lent_bytes, 0, "every part came back");
    assert!(stats.not_direct > 0, "{stats:?}");
    assert_eq!(stats.direct > 0, scene.file.direct().is_some(), "{stats:?}");
    if rig.pool.stats().registered_bytes > 0 {
        assert!(stats.fixed > 0, "{stats:?}");
    }
}

pub fn reads_into_a_heap_are_right_before_and_after_the_ring_has_registered_it(engine: Engine) {
    let scene = Scene::new();
    let heap = Heap::new(16 << 20).unwrap();
    let config =
        DriverConfig { name: "heap".into(), depth: DEPTH, engine, heap: Some(Arc::clone(&heap)), ..Default::default() };
    let rig = Rig::with(config);
    // Blocks that lie across two slabs are among them, and stay where they are: the next ones are others.
    let block = 300_000;
    let mut kept = Vec::new();
    for round in 0..8 {
        let ops = (0..5).map(|number| {
            let (offset, buffer) = ((round * 5 + number) * BLOCK, heap.take(block + 2 * BLOCK, BLOCK).unwrap());
            read(&scene.file, offset, buffer, block, number)
        });
        rig.run(ops.collect(), |done| {
            done.result.as_ref().unwrap();
            let offset = (round * 5 + done.token) * BLOCK;
            assert!(done.bytes() == &scene.content[offset..offset + block], "round {round}, read {}", done.token);
            kept.push(done);
        });
        // As the runtime has it done, ahead of use.
        heap.warm();
    }
    let (stats, heap) = (rig.driver.stats(), heap.stats());
    assert!(heap.registered_bytes <= heap.warmed_bytes, "{heap:?}");
    assert_eq!(stats.fixed > 0, heap.registered_bytes > 0, "{stats:?} {heap:?}");
}

pub fn claims_are_filled_in_place_and_count_when_their_holder_says_so(engine: Engine) {
    let scene = Scene::new();
    let rig = Rig::new(engine);
    // Whole blocks, then a rest: as the frames of a stored asset.
    let (len, frame, from) = (300_000, 65_536, 2 * BLOCK);
    let target = Arc::new(FillBuffer::new(AlignedBuffer::new_in_blocks(len, BLOCK).unwrap()));
    let frames: Vec<_> = (0..len).step_by(frame).map(|to| (to, frame.min(len - to))).collect();
    let ops = frames
        .iter()
        .map(|(to, len)| read(&scene.file, from + to, target.claim(*to, *len).unwrap(), *len, *to))
        .collect();
    rig.run(ops, |done| {
        done.result.as_ref().unwrap();
        let at = from + done.token;
        assert!(done.bytes() == &scene.content[at..at + done.len]);
        assert!(target.take().is_none());
        let IoBuffer::Claim(claim) = done.buffer else { panic!("the claim comes back") };
        claim.done();
    });
    assert!(target.take().unwrap().as_slice() == &scene.content[from..from + len]);
    let stats = rig.driver.stats();
    if scene.file.direct().is_some() {
        assert_eq!((stats.direct, stats.not_direct), (frames.len() as u64, 0), "{stats:?}");
    }
    // One that is dropped instead: its bytes never count.
    let lost = Arc::new(FillBuffer::new(AlignedBuffer::new_in_blocks(10, BLOCK).unwrap()));
    rig.run(vec![read(&scene.file, 0, lost.claim(0, 10).unwrap(), 10, 0)], drop);
    assert!(lost.take().is_none());
}

pub fn one_range_goes_to_several_places(engine: Engine) {
    let scene = Scene::new();
    let rig = Rig::new(engine);
    for (access, aligned) in [(Access::Cached, false), (Access::Direct, false), (Access::Direct, true)] {
        // Neighbouring frames of one range, the padding before the next one between them.
        let lens = [5000, 4096, 1, 20_000, 12_345];
        let mut segments = Vec::new();
        let mut targets = Vec::new();
        let mut at = if aligned { BLOCK } else { 77 };
        let from = at;
        for (index, len) in lens.into_iter().enumerate() {
            if index > 0 {
                let gap = if aligned { at.next_multiple_of(BLOCK) - at } else { 300 };
                segments.push(Segment::Gap(gap));
                at += gap;
            }
            if index == 2 {
                segments.push(Segment::Pooled(rig.pool.take(len).unwrap(), len));
            } else {
                let target = Arc::new(FillBuffer::new(AlignedBuffer::new_in_blocks(len, BLOCK).unwrap()));
                segments.push(Segment::Claim(target.claim(0, len).unwrap()));
                targets.push(target);
            }
            at += len;
        }
        let len = at - from;
        let op = ReadOp { access, ..read(&scene.file, from, IoBuffer::Scatter(segments), len, 0) };
        let before = rig.driver.stats();
        rig.run(vec![op], |done| {
            done.result.as_ref().unwrap();
            let IoBuffer::Scatter(segments) = done.buffer else { panic!("the segments come back") };
            let mut at = from;
            for segment in segments {
                let len = segment.len();
                if !matches!(segment, Segment::Gap(_)) {
                    assert!(segment.bytes() == &scene.content[at..at + len], "{access:?} {aligned} at {at}");
                }
                at += len;
                if let Segment::Claim(claim) = segment {
                    claim.done();
                }
            }
        });
        assert!(targets.iter().all(|target| target.take().is_some()));
        let stats = rig.driver.stats();
        let direct = u64::from(aligned && scene.file.direct().is_some());
        assert_eq!(stats.direct - before.direct, direct, "{access:?} {aligned}");
        if rig.driver.engine() == "io_uring" {
            assert_eq!(stats.positioned, 0, "one call of the ring, no thread");
        }
    }
}

pub fn segments_that_make_no_sense_are_refused_and_come_back(engine: Engine) {
    let scene = Scene::new();
    let rig = Rig::new(engine);
    let pooled = |len| Segment::Pooled(rig.pool.take(10).unwrap(), len);
    let cases = [
        (vec![pooled(10)], 11),
        (vec![pooled(10), Segment::Gap(5)], 15),
        (vec![pooled(1 << 20)], 1 << 20),
        (vec![Segment::Gap(usize::MAX), Segment::Gap(10), pooled(1)], usize::MAX),
        ((0..1025).map(|_| Segment::Gap(1)).collect(), 1025),
    ];
    let ops =
        cases.into_iter().map(|(segments, len)| read(&scene.file, 0, IoBuffer::Scatter(segments), len, 0)).collect();
    rig.run(ops, |done| {
        assert_eq!(done.result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(matches!(done.buffer, IoBuffer::Scatter(segments) if !segments.is_empty()));
    });
    assert_eq!(rig.pool.stats().lent_bytes, 0);
}

pub fn a_file_that_shrinks_while_it_is_read_gives_its_bytes_or_says_so(engine: Engine) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let content = vec![7u8; 1 << 20];
    std::fs::write(&path, &content).unwrap();
    let file = OsFileSystem.open(&path).unwrap();
    let rig = Rig::new(engine);
    let op = |number: usize| {
        let buffer = AlignedBuffer::new_in_blocks(65_536, BLOCK).unwrap();
        let access = if number.is_multiple_of(2) { Access::Direct } else { Access::Cached };
        ReadOp { access, ..read(&file, number % 16 * 65_536, buffer, 65_536, number) }
    };
    let mut shrunk = false;
    let mut ended_early = 0;
    rig.run((0..64).map(op).collect(), |done| {
        if !std::mem::replace(&mut shrunk, true) {
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100_000).unwrap();
        }
        match &done.result {
            Ok(()) => assert_eq!(done.bytes().len(), 65_536),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                ended_early += 1;
            }
        }
    });
    assert!(ended_early > 0, "reads beyond the new end were submitted after it was there");
}

pub fn what_is_written_and_flushed_is_read_back(engine: Engine) {
    let folder = tempfile::tempdir().unwrap();
    let (target, _lock) = OsFileSystem.open_writer(&folder.path().join("a"), true).unwrap();
    let rig = Rig::new(engine);
    let write = |offset: usize, buffer: IoBuffer, len, token| {
        let action = WriteAction::Write { offset: offset as u64, buffer, len };
        WriteOp { target: Arc::clone(&target), action, token }
    };
    let mut owned = AlignedBuffer::new_zeroed(100_000, 64).unwrap();
    owned.as_mut_slice().fill(1);
    let mut pooled = rig.pool.take(BLOCK).unwrap();
    pooled.as_mut_slice().fill(2);
    let mut part = rig.pool.take(10).unwrap();
    part.as_mut_slice().fill(3);
    let mut last = rig.pool.take(10).unwrap();
    last.as_mut_slice().fill(4);
    let segments = vec![Segment::Pooled(part, 10), Segment::Gap(5000), Segment::Pooled(last, 7)];
    let written = rig.write(vec![
        write(0, owned.into(), 100_000, 0),
        write(100_000, pooled.into(), 1000, 1),
        write(101_000, IoBuffer::Scatter(segments), 5017, 2),
    ]);
    assert!(written.iter().all(|done| done.result.is_ok()), "{written:?}");
    let flush = |action, token| WriteOp { target: Arc::clone(&target), action, token };
    let flushed = rig.write(vec![flush(WriteAction::SyncData, 3), flush(WriteAction::SyncAll, 4)]);
    assert!(flushed.iter().all(|done| done.result.is_ok() && done.len == 0), "{flushed:?}");

    let mut expected = vec![1u8; 100_000];
    expected.extend([2; 1000]);
    expected.extend([3; 10]);
    expected.extend([0; 5000]);
    expected.extend([4; 7]);
    let source: Arc<dyn ReadAt> = target.clone();
    let buffer = AlignedBuffer::new_in_blocks(expected.len(), BLOCK).unwrap();
    rig.run(vec![read(&source, 0, buffer, expected.len(), 5)], |done| assert!(done.bytes() == expected));
    drop(written);
    assert_eq!(rig.pool.stats().lent_bytes, 0);

    // More than the buffer has, and a place that no file has.
    let small = || AlignedBuffer::new_zeroed(10, 64).unwrap().into();
    let refused = rig.write(vec![write(0, small(), 11, 6), write(i64::MAX as usize, small(), 10, 7)]);
    assert!(refused.iter().all(|done| done.result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::InvalidInput)));
}

pub fn what_is_cancelled_ends_once_with_its_buffer(engine: Engine) {
    let gated = Gated::new(false);
    let source: Arc<dyn ReadAt> = gated.clone();
    let (driver, told) = listened(engine, 256);
    // More than there are threads: some wait behind others.
    let ops = (0..100).map(|number| super::op(&source, 1, 100, number)).collect();
    assert!(driver.submit(ops).is_empty());
    driver.cancel(|token| token.0 % 2 == 0);
    driver.cancel(|_| panic!("it breaks on purpose, and means nothing"));
    gated.open();
    let mut cancelled = Vec::new();
    for done in told.iter().take(100) {
        assert_eq!(done.buffer.capacity(), 100);
        match done.result {
            Ok(()) => {}
            Err(error) => {
                assert!(is_cancelled(&error), "{error}");
                cancelled.push(done.token.0);
            }
        }
    }
    assert!(cancelled.len() >= 30 && cancelled.iter().all(|number| number % 2 == 0), "{cancelled:?}");
    assert_eq!(driver.in_flight(), 0);
}

pub fn right_bytes_in_every_mode(engine: Engine) {
    let scene = Scene::new();
    for (sqpoll, adaptive_depth) in [(None, true), (Some(Duration::from_millis(5)), false)] {
        let config =
            DriverConfig { name: "modes".into(), depth: 64, engine, sqpoll, adaptive_depth, ..DriverConfig::default() };
        let rig = Rig::with(config);
        let op = |number: usize| {
            let len = 1 + number % 9000;
            read(&scene.file, number * 100, AlignedBuffer::new_in_blocks(len, 64).unwrap(), len, number)
        };
        rig.run((0..3000).map(op).collect(), |done| {
            done.result.as_ref().unwrap();
            let at = done.token * 100;
            assert!(done.bytes() == &scene.content[at..at + done.len]);
        });
    }
}

/// Where a sandbox has no io_uring, `Auto` must fall back with that very reason, and `Uring` must refuse with it.
pub fn uring_is_missing_and_that_is_said(why: &str) {
    let config = |engine| DriverConfig { name: "engine-test".into(), depth: 4, engine, ..DriverConfig::default() };
    let auto = Driver::<Token>::start(config(Engine::Auto), &OsThreads).unwrap();
    assert_eq!((auto.engine(), auto.engine_note().as_deref()), ("positioned", Some(why)));
    let error = Driver::<Token>::start(config(Engine::Uring), &OsThreads).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}
