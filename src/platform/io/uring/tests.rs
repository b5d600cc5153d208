//! The ring against kernels that refuse, pieces that come short, and askers that die.

use super::*;
use crate::platform::affinity::CpuSet;
use crate::platform::io::DriverConfig;
use crate::platform::io::{Access, ReadDone, ReadOp};
use crate::platform::memory::AlignedBuffer;
use crate::platform::threads::{OsThreads, Pool};
use crate::storage::ReadAt;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::fd::OwnedFd;

struct Pipe(File);

impl ReadAt for Pipe {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_exact_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Ok(())
    }

    fn file(&self) -> Option<&File> {
        Some(&self.0)
    }

    fn name(&self) -> String {
        "pipe".into()
    }
}

fn read(source: &Arc<dyn ReadAt>, token: Arc<()>) -> Op<Arc<()>> {
    let buffer = AlignedBuffer::new_zeroed(4, 64).unwrap();
    ReadOp {
        source: Arc::clone(source),
        offset: 0,
        buffer: buffer.into(),
        len: 4,
        access: Access::Cached,
        limit: None,
        token,
    }
    .into()
}

/// Runs `body` with a ring for two reads, a pipe and its other end; nothing happens where there is no io_uring.
fn with_ring(body: impl FnOnce(Ring<Arc<()>>, Arc<dyn ReadAt>, io::PipeWriter)) {
    if probe().is_err() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let (reader, writer) = io::pipe().unwrap();
    body(
        Ring::new(&DriverConfig { depth: 2, ..DriverConfig::default() }).unwrap(),
        Arc::new(Pipe(File::from(OwnedFd::from(reader)))),
        writer,
    );
}

fn outcome() -> Outcome<Arc<()>> {
    Outcome::default()
}

#[test]
fn a_ring_that_is_dropped_waits_for_what_the_kernel_has() {
    with_ring(|mut ring, source, mut writer| {
        let (lease, mut outcome) = (Arc::new(()), outcome());
        ring.accept(read(&source, Arc::clone(&lease)), &mut outcome);
        assert_eq!(ring.hand_over(&mut outcome), 1);
        // Never handed over: it must not keep the drop waiting.
        ring.accept(read(&source, Arc::clone(&lease)), &mut outcome);
        assert_eq!((ring.with_kernel(), ring.has_more()), (1, true));
        let watched = Arc::downgrade(&source);
        drop(source);
        let other_end = std::thread::spawn(move || {
            assert!(watched.strong_count() > 0, "the entry keeps the source until the kernel has answered");
            writer.write_all(b"late").unwrap();
        });
        drop(ring);
        other_end.join().unwrap();
        assert_eq!(Arc::strong_count(&lease), 1, "both tokens came free, each once");
    });
}

#[test]
fn a_ring_that_breaks_hands_what_it_has_not_submitted_to_threads_and_keeps_the_rest() {
    with_ring(|mut ring, source, mut writer| {
        let (lease, mut outcome) = (Arc::new(()), outcome());
        ring.accept(read(&source, Arc::clone(&lease)), &mut outcome);
        ring.hand_over(&mut outcome);
        ring.accept(read(&source, Arc::clone(&lease)), &mut outcome);
        ring.give_up(&mut outcome);
        assert_eq!((outcome.by_thread.len(), ring.with_kernel()), (1, 1));
        ring.accept(read(&source, Arc::clone(&lease)), &mut outcome);
        assert_eq!(outcome.by_thread.len(), 2, "a broken ring takes nothing more");
        writer.write_all(b"late").unwrap();
        while outcome.done.is_empty() {
            assert_eq!(ring.hand_over(&mut outcome), 0);
            ring.reap(&mut outcome);
        }
        assert_eq!(outcome.done[0].bytes(), b"late");
        assert_eq!(ring.with_kernel(), 0);
    });
}

#[test]
fn a_completion_queue_that_overflows_is_counted_and_loses_nothing() {
    with_ring(|mut ring, source, mut writer| {
        let (lease, mut outcome) = (Arc::new(()), outcome());
        ring.accept(read(&source, Arc::clone(&lease)), &mut outcome);
        ring.hand_over(&mut outcome);
        // More than the queue has places: the read's completion comes behind them all.
        ring.flood(100);
        writer.write_all(b"late").unwrap();
        while outcome.done.is_empty() {
            ring.hand_over(&mut outcome);
            ring.reap(&mut outcome);
        }
        assert_eq!(outcome.done[0].bytes(), b"late");
        assert!(outcome.overflows > 0 && ring.with_kernel() == 0);
    });
}

/// Some kernels set the flag after the call that did the work, and clear it only with the next work.
#[test]
fn a_flag_that_stays_set_keeps_neither_the_actors_from_their_turn_nor_a_completion_from_them() {
    if probe().is_err() {
        return;
    }
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let account = Arc::new(Account::new(2));
            let pool = Pool::new("alarm", 1, &CpuSet::default(), &OsThreads).unwrap();
            let engine = Uring::new(Arc::clone(&account), Arc::new(Positioned::new(pool, Arc::clone(&account))));
            let mut ring = Ring::new(&DriverConfig { depth: 2, ..DriverConfig::default() }).unwrap();
            ring.alarm = true;
            let (reader, mut writer) = io::pipe().unwrap();
            let source: Arc<dyn ReadAt> = Arc::new(Pipe(File::from(OwnedFd::from(reader))));
            let (done, mut completed) = tokio::sync::mpsc::channel(1);
            account.attach(Box::new(move |reads: Vec<ReadDone<Arc<()>>>| drop(done.try_send(reads))));
            let actors = async {
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                engine.start(account.admit(vec![read(&source, Arc::new(()))]).0);
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                writer.write_all(b"late").unwrap();
                let reads = completed.recv().await.unwrap();
                account.close();
                reads[0].bytes().to_vec()
            };
            let ((), bytes) = tokio::join!(run(ring, Depth::new(2, false), &engine), actors);
            tell.send(bytes).unwrap();
        });
    });
    assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), b"late");
}
