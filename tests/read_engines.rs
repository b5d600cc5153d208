//! One conformance suite for every read engine: whatever holds for one must hold for all.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};

use flyloft::config::Engine;
use flyloft::platform::fs::{FileSystem, OsFileSystem};
#[cfg_attr(not(target_os = "linux"), allow(unused_imports))]
use flyloft::platform::io::{Access, Driver, DriverConfig, ReadDone, ReadOp, is_cancelled, probe_uring};
use flyloft::platform::memory::AlignedBuffer;
use flyloft::platform::random::{Random, SeededRandom};
use flyloft::platform::threads::OsThreads;
use flyloft::storage::ReadAt;

#[path = "read_engines/destinations.rs"]
mod destinations;

use destinations::*;

type Token = (usize, Option<Arc<()>>);

const FILE_BYTES: usize = 3 << 20;
const DEPTH: usize = 16;

fn content(len: usize) -> Vec<u8> {
    let random = SeededRandom::new(1);
    (0..len.div_ceil(8)).flat_map(|_| random.next_u64().to_le_bytes()).take(len).collect()
}

fn buffer(len: usize) -> AlignedBuffer {
    AlignedBuffer::new_zeroed(len, 4096).unwrap()
}

fn op(source: &Arc<dyn ReadAt>, offset: u64, len: usize, number: usize) -> ReadOp<Token> {
    let (source, buffer) = (Arc::clone(source), buffer(len).into());
    ReadOp { source, offset, buffer, len, access: Access::Cached, limit: None, token: (number, None) }
}

fn start(engine: Engine, depth: usize) -> Arc<Driver<Token>> {
    let config = DriverConfig { name: "engine-test".into(), depth, engine, ..DriverConfig::default() };
    Driver::start(config, &OsThreads).unwrap()
}

/// A driver whose completions come out of a channel.
fn listened(engine: Engine, depth: usize) -> (Arc<Driver<Token>>, mpsc::Receiver<ReadDone<Token>>) {
    let driver = start(engine, depth);
    let told = listen(&driver);
    (driver, told)
}

fn listen(driver: &Driver<Token>) -> mpsc::Receiver<ReadDone<Token>> {
    let (tell, told) = mpsc::channel();
    driver.attach(Box::new(move |dones| dones.into_iter().for_each(|done| tell.send(done).unwrap())));
    told
}

/// A file of `content()` that lives as long as the folder.
struct Scene {
    _folder: tempfile::TempDir,
    content: Vec<u8>,
    file: Arc<dyn ReadAt>,
}

impl Scene {
    fn new() -> Self {
        Self::of(FILE_BYTES)
    }

    fn of(len: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content");
        let content = content(len);
        OsFileSystem.write_atomic(&path, &content).unwrap();
        let file = OsFileSystem.open(&path).unwrap();
        Self { _folder: folder, content, file }
    }
}

/// A source without a file under it, whose reads wait at a gate, and that fails or panics where told to.
struct Gated {
    content: Vec<u8>,
    open: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
}

impl Gated {
    fn new(open: bool) -> Arc<Self> {
        let content = content(FILE_BYTES);
        Arc::new(Self { content, open: Mutex::new(open), opened: Condvar::new(), waiting: AtomicUsize::new(0) })
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

/// Reads at this offset fail.
const FAILS_AT: u64 = 4096;
/// Reads at this offset panic.
const PANICS_AT: u64 = 8192;

impl ReadAt for Gated {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.opened.wait(open).unwrap();
        }
        drop(open);
        match offset {
            FAILS_AT => Err(io::Error::other("on purpose")),
            PANICS_AT => panic!("the source breaks on purpose"),
            _ => {
                let from = offset as usize;
                let bytes = self.content.get(from..from + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                into.copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn name(&self) -> String {
        "gated".into()
    }
}

fn right_bytes_at_random_offsets_and_lengths(engine: Engine) {
    let scene = Scene::new();
    let gated: Arc<dyn ReadAt> = Gated::new(true);
    let random = SeededRandom::new(2);
    let (driver, told) = listened(engine, DEPTH);
    let mut ranges = Vec::new();
    let mut ops = Vec::new();
    for number in 0..600 {
        let len = match number % 4 {
            0 => random.below(200_000) as usize,
            1 => 4096,
            _ => random.below(5000) as usize,
        };
        // The gated source fails at two offsets; odd ones avoid them.
        let offset = random.below((FILE_BYTES - len) as u64 / 2) * 2 + u64::from(len < FILE_BYTES / 2);
        let source = if number % 5 == 0 { &gated } else { &scene.file };
        ranges.push((offset as usize, len));
        ops.push(op(source, offset, len, number));
    }
    let mut answered = vec![false; ranges.len()];
    let mut refused = 0;
    while answered.contains(&false) {
        let before = ops.len();
        ops = driver.submit(ops);
        refused += usize::from(!ops.is_empty());
        assert!(driver.in_flight() <= DEPTH && before - ops.len() <= DEPTH);
        let done = told.recv().unwrap();
        let number = done.token.0;
        done.result.as_ref().unwrap();
        let (offset, len) = ranges[number];
        assert_eq!(done.len, len);
        assert!(*done.bytes() == scene.content[offset..offset + len], "read {number}");
        assert!(!std::mem::replace(&mut answered[number], true), "answered twice: {number}");
    }
    assert!(refused > 0, "more reads than the depth were tried");
    assert_eq!(driver.in_flight(), 0);
    let stats = driver.stats();
    assert_eq!((stats.submitted, stats.completed, stats.failed), (600, 600, 0));
    assert_eq!(stats.bytes, ranges.iter().map(|range| range.1 as u64).sum::<u64>());
    match driver.engine() {
        "io_uring" | "iocp" => assert_eq!(stats.positioned, 120),
        _ => assert_eq!((stats.positioned, stats.batches), (600, 0)),
    }
}

fn what_is_beyond_the_end_or_makes_no_sense_is_an_error_and_the_buffer_comes_back(engine: Engine) {
    let scene = Scene::new();
    let (driver, told) = listened(engine, DEPTH);
    let end = FILE_BYTES as u64;
    let mut too_long = op(&scene.file, 0, 10, 3);
    too_long.len = 11;
    let ops = vec![
        op(&scene.file, end - 5, 10, 0),
        op(&scene.file, end, 1, 1),
        op(&scene.file, end + 5000, 100, 2),
        too_long,
        op(&scene.file, u64::MAX - 2, 10, 4),
        op(&scene.file, i64::MAX as u64, 10, 5),
        op(&scene.file, end + 77, 0, 6),
        op(&scene.file, end - 5, 5, 7),
    ];
    assert!(driver.submit(ops).is_empty());
    let mut dones: Vec<_> = told.iter().take(8).collect();
    dones.sort_by_key(|done| done.token.0);
    let kinds: Vec<_> = dones.iter().map(|done| done.result.as_ref().err().map(io::Error::kind)).collect();
    let (eof, invalid) = (Some(io::ErrorKind::UnexpectedEof), Some(io::ErrorKind::InvalidInput));
    assert_eq!(kinds, [eof, eof, eof, invalid, invalid, invalid, None, None]);
    let lens: Vec<_> = dones.iter().map(|done| done.buffer.capacity()).collect();
    assert_eq!(lens, [10, 1, 100, 10, 10, 10, 0, 5]);
}

fn a_source_that_fails_or_panics_fails_its_own_read_only(engine: Engine) {
    let gated: Arc<dyn ReadAt> = Gated::new(true);
    let (driver, told) = listened(engine, DEPTH);
    let ops = [FAILS_AT, PANICS_AT, 1, PANICS_AT, 2].iter().enumerate();
    assert!(driver.submit(ops.map(|(number, offset)| op(&gated, *offset, 100, number)).collect()).is_empty());
    let mut dones: Vec<_> = told.iter().take(5).collect();
    dones.sort_by_key(|done| done.token.0);
    let text = |number: usize| dones[number].result.as_ref().unwrap_err().to_string();
    assert_eq!(text(0), "on purpose");
    assert_eq!(text(1), "the source panicked: the source breaks on purpose");
    assert_eq!(text(3), text(1));
    assert!(dones[2].result.is_ok() && dones[4].result.is_ok());
    assert_eq!(driver.stats().failed, 3);
}

fn reads_in_flight_while_listeners_come_and_go_lose_nothing(engine: Engine) {
    let scene = Scene::new();
    let gated = Gated::new(false);
    let source: Arc<dyn ReadAt> = gated.clone();
    let driver = start(engine, DEPTH);
    let lease = Arc::new(());
    let mut ops: Vec<_> = (0..8).map(|number| op(&source, 1, 100, number)).collect();
    ops.extend((8..16).map(|number| op(&scene.file, number as u64, 100, number)));
    ops.iter_mut().for_each(|op| op.token.1 = Some(Arc::clone(&lease)));

    // The first listener goes, whatever it was told, with reads in flight.
    let first = listen(&driver);
    assert!(driver.submit(ops).is_empty());
    driver.detach();
    gated.open();
    // The second comes when it pleases.
    let second = listen(&driver);
    let mut numbers: Vec<_> = Vec::new();
    let mut take = |done: ReadDone<Token>| {
        done.result.as_ref().unwrap();
        let from = if done.token.0 < 8 { 1 } else { done.token.0 };
        assert!(*done.bytes() == scene.content[from..from + 100]);
        numbers.push(done.token.0);
    };
    // Nothing more can come once the driver has stopped; a replaced sink is dropped, which ends its channel.
    driver.stop();
    first.iter().for_each(&mut take);
    driver.detach();
    second.iter().for_each(&mut take);
    numbers.sort_unstable();
    assert_eq!(numbers, (0..16).collect::<Vec<_>>());
    assert_eq!(Arc::strong_count(&lease), 1, "every token came back and was dropped once");
}

fn completions_without_a_listener_wait_for_the_next_one_in_order(engine: Engine) {
    let scene = Scene::new();
    let driver = start(engine, DEPTH);
    assert!(driver.submit((0..4).map(|number| op(&scene.file, 0, 10, number)).collect()).is_empty());
    driver.stop();
    assert_eq!(driver.in_flight(), 0);
    let told = listen(&driver);
    driver.detach();
    assert_eq!(told.iter().count(), 4, "also after the stop");
}

fn stopping_waits_for_reads_in_flight_and_refuses_new_ones(engine: Engine) {
    let scene = Scene::new();
    let gated = Gated::new(false);
    let source: Arc<dyn ReadAt> = gated.clone();
    let (driver, told) = listened(engine, DEPTH);
    let mut ops = vec![op(&source, 1, 100, 0), op(&scene.file, 0, FILE_BYTES, 1)];
    ops.extend((2..6).map(|number| op(&scene.file, 0, 100, number)));
    assert!(driver.submit(ops).is_empty());
    let stopping = {
        let driver = Arc::clone(&driver);
        std::thread::spawn(move || {
            driver.stop();
            assert_eq!(driver.in_flight(), 0, "stop returned with a read in flight");
        })
    };
    // Wait until the stop has begun: new reads come back whole from then on.
    loop {
        let back = driver.submit(vec![op(&source, 1, 50, 9)]);
        if back.len() == 1 && back[0].buffer.capacity() == 50 {
            break;
        }
        std::thread::yield_now();
    }
    assert!(!stopping.is_finished());
    assert!(driver.in_flight() > 0);
    gated.open();
    stopping.join().unwrap();
    driver.stop();
    driver.detach();
    let numbers: Vec<_> = told.iter().map(|done| done.token.0).filter(|number| *number != 9).collect();
    assert_eq!(numbers.len(), 6);
    assert_eq!(driver.submit(vec![op(&scene.file, 0, 10, 0)]).len(), 1);
}

fn a_sink_that_panics_does_not_end_the_driver(engine: Engine) {
    let scene = Scene::new();
    let driver = start(engine, 1);
    let (tell, told) = mpsc::channel();
    driver.attach(Box::new(move |dones| {
        for done in dones {
            tell.send(done.token.0).unwrap();
            assert!(done.token.0 != 0, "the sink breaks on purpose");
        }
    }));
    for number in 0..3 {
        let mut ops = vec![op(&scene.file, 0, 10, number)];
        while !ops.is_empty() {
            ops = driver.submit(ops);
        }
        assert_eq!(told.recv().unwrap(), number);
    }
    driver.stop();
    assert_eq!((driver.stats().sink_panics, driver.stats().completed), (1, 3));
}

fn a_sink_may_submit_and_stop_from_within(engine: Engine) {
    let scene = Scene::new();
    let driver = start(engine, 4);
    let (tell, told) = mpsc::channel();
    let within = Arc::downgrade(&driver);
    let file = Arc::clone(&scene.file);
    driver.attach(Box::new(move |dones| {
        let Some(driver) = within.upgrade() else { return };
        for done in dones {
            let number = done.token.0;
            if number < 100 {
                assert!(driver.submit(vec![op(&file, 0, 10, number + 1)]).is_empty());
            } else {
                driver.stop();
                tell.send(number).unwrap();
            }
        }
    }));
    assert!(driver.submit(vec![op(&scene.file, 0, 10, 0)]).is_empty());
    assert_eq!(told.recv().unwrap(), 100);
    assert_eq!(driver.submit(vec![op(&scene.file, 0, 10, 0)]).len(), 1);
}

fn tasks_live_on_the_drivers_thread_and_submit_from_there(engine: Engine) {
    let scene = Scene::new();
    let (driver, told) = listened(engine, DEPTH);
    let (say, said) = mpsc::channel();
    let on_thread = Arc::downgrade(&driver);
    let file = Arc::clone(&scene.file);
    driver.handle().spawn(async move {
        say.send(std::thread::current().name().map(str::to_owned)).unwrap();
        let driver = on_thread.upgrade().unwrap();
        let ops = (0..DEPTH).map(|number| op(&file, number as u64, 4096, number)).collect();
        assert!(driver.submit(ops).is_empty());
    });
    assert_eq!(said.recv().unwrap().as_deref(), Some("engine-test"));
    assert_eq!(told.iter().take(DEPTH).filter(|done| done.result.is_ok()).count(), DEPTH);
    if driver.engine() == "io_uring" {
        assert_eq!(driver.stats().batches, 1, "one system call for the batch");
    }
    driver.stop();
}

fn many_threads_share_one_driver(engine: Engine) {
    let scene = Scene::new();
    let (driver, told) = listened(engine, 256);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (driver, file) = (&driver, &scene.file);
            scope.spawn(move || {
                for batch in 0..16 {
                    let first = (thread * 16 + batch) * 16;
                    let mut ops: Vec<_> =
                        (first..first + 16).map(|number| op(file, number as u64 * 512, 2048, number)).collect();
                    while !ops.is_empty() {
                        ops = driver.submit(ops);
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut seen = vec![false; 1024];
        for done in told.iter().take(1024) {
            let number = done.token.0;
            done.result.as_ref().unwrap();
            assert!(*done.bytes() == scene.content[number * 512..number * 512 + 2048]);
            assert!(!std::mem::replace(&mut seen[number], true));
        }
    });
}

fn a_file_that_is_replaced_while_it_is_read_gives_its_own_bytes(engine: Engine) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    OsFileSystem.write_atomic(&path, &vec![1; 65536]).unwrap();
    let old = OsFileSystem.open(&path).unwrap();
    let (driver, told) = listened(engine, DEPTH);
    assert!(driver.submit((0..8).map(|number| op(&old, 0, 65536, number)).collect()).is_empty());
    OsFileSystem.write_atomic(&path, &vec![2; 65536]).unwrap();
    assert!(driver.submit((8..12).map(|number| op(&old, 0, 65536, number)).collect()).is_empty());
    drop(old);
    for done in told.iter().take(12) {
        assert!(done.result.is_ok() && done.bytes().iter().all(|byte| *byte == 1));
    }
}

macro_rules! conformance {
    ($($check:ident),* $(,)?) => {
        mod positioned {
            $(#[test] fn $check() { super::$check(super::Engine::Positioned) })*
        }
        mod uring {
            $(#[test] fn $check() {
                match super::probe_uring() {
                    // Windows has its own.
                    Err(_) if cfg!(windows) => {}
                    Ok(()) => super::$check(super::Engine::Uring),
                    Err(why) => super::uring_is_missing_and_that_is_said(&why),
                }
            })*
        }
        #[cfg(windows)]
        mod iocp {
            $(#[test] fn $check() { super::$check(super::Engine::Iocp) })*
        }
    };
}

conformance!(
    right_bytes_at_random_offsets_and_lengths,
    what_is_beyond_the_end_or_makes_no_sense_is_an_error_and_the_buffer_comes_back,
    a_source_that_fails_or_panics_fails_its_own_read_only,
    reads_in_flight_while_listeners_come_and_go_lose_nothing,
    completions_without_a_listener_wait_for_the_next_one_in_order,
    stopping_waits_for_reads_in_flight_and_refuses_new_ones,
    a_sink_that_panics_does_not_end_the_driver,
    a_sink_may_submit_and_stop_from_within,
    tasks_live_on_the_drivers_thread_and_submit_from_there,
    many_threads_share_one_driver,
    a_file_that_is_replaced_while_it_is_read_gives_its_own_bytes,
    a_file_that_shrinks_while_it_is_read_gives_its_bytes_or_says_so,
    direct_reads_of_any_range_give_its_bytes,
    reads_into_a_heap_are_right_before_and_after_the_ring_has_registered_it,
    claims_are_filled_in_place_and_count_when_their_holder_says_so,
    one_range_goes_to_several_places,
    segments_that_make_no_sense_are_refused_and_come_back,
    what_is_written_and_flushed_is_read_back,
    what_is_cancelled_ends_once_with_its_buffer,
    right_bytes_in_every_mode,
);

#[test]
fn auto_takes_the_ring_exactly_where_the_probe_works() {
    let driver = start(Engine::Auto, 4);
    match probe_uring() {
        Err(_) if cfg!(windows) => assert_eq!((driver.engine(), driver.engine_note()), ("iocp", None)),
        Ok(()) => assert_eq!((driver.engine(), driver.engine_note()), ("io_uring", None)),
        Err(why) => assert_eq!((driver.engine(), driver.engine_note()), ("positioned", Some(why))),
    }
}

/// Reads that the kernel itself holds: a pipe is a file whose reads end when the test says so.
#[cfg(target_os = "linux")]
mod in_the_kernel {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::OwnedFd;

    struct Pipe(File);

    impl ReadAt for Pipe {
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }

        fn read_exact_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Err(io::Error::other("a thread was asked, not the ring"))
        }

        fn file(&self) -> Option<&File> {
            Some(&self.0)
        }

        fn name(&self) -> String {
            "pipe".into()
        }
    }

    fn pipe() -> (Arc<dyn ReadAt>, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        (Arc::new(Pipe(File::from(OwnedFd::from(reader)))), writer)
    }

    #[test]
    fn a_read_that_comes_in_pieces_is_continued_to_its_end() {
        let Ok(()) = probe_uring() else { return };
        let (driver, told) = listened(Engine::Uring, DEPTH);
        let (source, mut writer) = pipe();
        assert!(driver.submit(vec![op(&source, 0, 10, 0)]).is_empty());
        writer.write_all(b"012").unwrap();
        while driver.stats().continued == 0 {
            std::thread::yield_now();
        }
        writer.write_all(b"3456789").unwrap();
        let done = told.recv().unwrap();
        done.result.as_ref().unwrap();
        assert_eq!(done.bytes(), b"0123456789");
        // And one whose source ends in the middle.
        assert!(driver.submit(vec![op(&source, 0, 10, 1)]).is_empty());
        writer.write_all(b"012").unwrap();
        drop(writer);
        assert_eq!(told.recv().unwrap().result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn buffers_outlive_whoever_asked_while_the_kernel_has_them() {
        let Ok(()) = probe_uring() else { return };
        let driver = start(Engine::Uring, DEPTH);
        let lease = Arc::new(());
        let pipes: Vec<_> = (0..DEPTH).map(|_| pipe()).collect();
        let mut writers = Vec::new();
        // An actor asks and is killed: its task, its listener and its hold on the sources are gone.
        let mut ops: Vec<_> =
            pipes.iter().enumerate().map(|(number, (source, _))| op(source, 0, 100, number)).collect();
        ops.iter_mut().for_each(|op| op.token.1 = Some(Arc::clone(&lease)));
        for (source, writer) in pipes {
            drop(source);
            writers.push(writer);
        }
        let told = listen(&driver);
        let asked = {
            let driver = Arc::clone(&driver);
            driver.handle().spawn(async move {
                assert!(driver.submit(ops).is_empty());
                std::future::pending::<()>().await;
            })
        };
        while driver.stats().batches == 0 {
            std::thread::yield_now();
        }
        asked.abort();
        driver.detach();
        drop(told);
        assert_eq!(driver.in_flight(), DEPTH);
        assert_eq!(driver.submit(vec![op(&pipe().0, 0, 1, 0)]).len(), 1, "the depth is taken");
        // The next one comes, and the kernel answers: every buffer, every byte.
        let told = listen(&driver);
        for (number, writer) in writers.iter_mut().enumerate() {
            writer.write_all(&[number as u8; 100]).unwrap();
        }
        for done in told.iter().take(DEPTH) {
            done.result.as_ref().unwrap();
            assert!(*done.bytes() == [done.token.0 as u8; 100]);
        }
        assert_eq!((driver.in_flight(), Arc::strong_count(&lease)), (0, 1));
    }

    #[test]
    fn the_kernel_lets_go_of_what_is_cancelled_or_takes_too_long() {
        let Ok(()) = probe_uring() else { return };
        let (driver, told) = listened(Engine::Uring, DEPTH);
        let (pipes, _writers): (Vec<_>, Vec<_>) = (0..3).map(|_| pipe()).unzip();
        let mut ops: Vec<_> = pipes.iter().enumerate().map(|(number, source)| op(source, 0, 100, number)).collect();
        ops[1].limit = Some(std::time::Duration::from_millis(1));
        assert!(driver.submit(ops).is_empty());
        let late = told.recv().unwrap();
        assert_eq!((late.token.0, late.result.unwrap_err().kind()), (1, io::ErrorKind::TimedOut));
        driver.cancel(|token| token.0 == 2);
        let ended = told.recv().unwrap();
        assert_eq!((ended.token.0, ended.buffer.capacity()), (2, 100));
        assert!(is_cancelled(&ended.result.unwrap_err()));
        assert_eq!(driver.in_flight(), 1);
        driver.cancel(|_| true);
        assert!(is_cancelled(&told.recv().unwrap().result.unwrap_err()));
    }

    #[test]
    fn stopping_waits_for_the_kernel() {
        let Ok(()) = probe_uring() else { return };
        let (driver, told) = listened(Engine::Uring, DEPTH);
        let (source, mut writer) = pipe();
        assert!(driver.submit(vec![op(&source, 0, 4, 7)]).is_empty());
        let stopping = {
            let driver = Arc::clone(&driver);
            std::thread::spawn(move || driver.stop())
        };
        // Once the stop has begun, everything comes back.
        while driver.submit(vec![op(&source, 0, 0, 8)]).is_empty() {
            std::thread::yield_now();
        }
        assert!(!stopping.is_finished() && driver.in_flight() > 0);
        writer.write_all(b"done").unwrap();
        stopping.join().unwrap();
        driver.detach();
        let done = told.iter().find(|done| done.token.0 == 7).unwrap();
        assert!(done.result.is_ok() && done.bytes() == b"done");
    }
}
