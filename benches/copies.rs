//! Copies by size: the compiler's `memcpy` beside stores that go past the caches, and filling by two threads beside one.
//!
//! ```sh
//! cargo bench --bench copies
//! ```
//!
//! "here": source and destination are the same every time, so that both stay in the caches where they fit. "elsewhere":
//! each copy goes from and to memory that was not used for a while, as a load's does. "and read": the same, and the
//! destination is read once after each copy, as whoever asked for an asset reads it. Both kinds run in turns; medians.

use std::hint::black_box;
use std::time::{Duration, Instant};

use flyloft::platform::memory::{AlignedBuffer, copy_streaming};

const SIZES: [usize; 5] = [64, 4 << 10, 32 << 10, 1 << 20, 16 << 20];
/// More than the last cache of most machines.
const REGION_BYTES: usize = 512 << 20;
/// Bytes copied in one turn, so that a turn takes some tens of milliseconds.
const TURN_BYTES: usize = 256 << 20;
const TURNS: usize = 9;

type Copy = fn(&mut [u8], &[u8]);

fn builtin(to: &mut [u8], from: &[u8]) {
    to.copy_from_slice(from);
}

fn main() {
    let mut from = touched();
    let mut to = touched();
    println!("{:<10} {:<10} {:>13} {:>13} {:>9}", "bytes", "where", "memcpy, GB/s", "stream, GB/s", "ratio");
    for size in SIZES {
        for place in ["here", "elsewhere", "and read"] {
            let mut turns: [Vec<Duration>; 2] = Default::default();
            for turn in 0..TURNS {
                for (kind, copy) in [builtin as Copy, copy_streaming].into_iter().enumerate() {
                    // Another part of the regions each time: what the other kind left in the caches is of no use.
                    let start = (2 * turn + kind) * TURN_BYTES % REGION_BYTES;
                    turns[kind].push(copies(copy, place, size, start, &from, &mut to));
                }
            }
            let [builtin, streamed] = turns.map(|turns| rate(TURN_BYTES, median(turns)));
            println!("{size:<10} {place:<10} {builtin:>13.2} {streamed:>13.2} {:>8.2}x", streamed / builtin);
        }
    }
    println!();
    println!("{:<10} {:>13} {:>13} {:>9}", "bytes", "one, GB/s", "two, GB/s", "ratio");
    for size in [1 << 20, 4 << 20, 16 << 20, 64 << 20] {
        let mut turns: [Vec<Duration>; 2] = Default::default();
        for turn in 0..TURNS {
            for (kind, threads) in [1, 2].into_iter().enumerate() {
                turns[kind].push(fills(threads, size, turn as u8, &mut from));
            }
        }
        let [one, two] = turns.map(|turns| rate(TURN_BYTES, median(turns)));
        println!("{size:<10} {one:>13.2} {two:>13.2} {:>8.2}x", two / one);
    }
}

/// Memory of which every page is there.
fn touched() -> AlignedBuffer {
    let mut region = AlignedBuffer::new_zeroed(REGION_BYTES, 4096).expect("memory for the bench");
    region.as_mut_slice().fill(1);
    region
}

/// How long it takes to copy `TURN_BYTES` in pieces of `size`.
fn copies(
    copy: Copy,
    place: &str,
    size: usize,
    start: usize,
    from: &AlignedBuffer,
    to: &mut AlignedBuffer,
) -> Duration {
    let (from, to) = (from.as_slice(), to.as_mut_slice());
    let began = Instant::now();
    for piece in 0..TURN_BYTES / size {
        let at = if place == "here" { 0 } else { (start + piece * size) % REGION_BYTES };
        copy(black_box(&mut to[at..at + size]), black_box(&from[at..at + size]));
        if place == "and read" {
            let sum = to[at..at + size].as_chunks::<8>().0.iter();
            black_box(sum.fold(0, |sum: u64, part| sum.wrapping_add(u64::from_le_bytes(*part))));
        }
    }
    began.elapsed()
}

/// How long it takes to fill `TURN_BYTES` in pieces of `size`, each by `threads` threads that are started for it.
fn fills(threads: usize, size: usize, byte: u8, region: &mut AlignedBuffer) -> Duration {
    let region = region.as_mut_slice();
    let began = Instant::now();
    for piece in 0..TURN_BYTES / size {
        let at = piece * size % REGION_BYTES;
        let parts = black_box(&mut region[at..at + size]).chunks_mut(size / threads);
        std::thread::scope(|scope| {
            let mut parts = parts;
            let own = parts.next();
            for part in parts {
                scope.spawn(move || part.fill(byte));
            }
            if let Some(own) = own {
                own.fill(byte);
            }
        });
    }
    began.elapsed()
}

fn rate(bytes: usize, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64() / 1e9
}

fn median(mut turns: Vec<Duration>) -> Duration {
    turns.sort_unstable();
    turns[turns.len() / 2]
}
