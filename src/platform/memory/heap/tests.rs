//! Blocks never overlap, keep what is written to them, and all come back.

use proptest::prelude::*;

use super::*;

/// The bytes of the smallest heap, less what the size classes and records may take.
const NEARLY_ALL: usize = RANGE_ALIGN / 64 * 61;

/// What the model does: takes a block (length, power of two of its alignment, whether in whole blocks), or gives back
/// the block at a place among those held.
#[derive(Clone, Debug)]
enum Step {
    Take(usize, u32, bool),
    Give(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![0usize..200, 0usize..20_000, 0usize..700_000];
    let take = (len, 0u32..14, any::<bool>()).prop_map(|(len, power, whole)| Step::Take(len, power, whole));
    let step = prop_oneof![3 => take, 2 => any::<prop::sample::Index>().prop_map(Step::Give)];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn blocks_keep_their_bytes_and_all_come_back(steps in steps()) {
        let heap = Heap::new(1).unwrap();
        let mut held: Vec<(AlignedBuffer, u8)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Take(len, power, whole) => {
                    let align = 1usize << power;
                    let block = if whole { heap.take_in_blocks(len, align) } else { heap.take(len, align) };
                    let Some(mut block) = block else { continue };
                    prop_assert_eq!(block.len(), len);
                    prop_assert_eq!(block.capacity(), if whole { len.next_multiple_of(align) } else { len });
                    prop_assert_eq!(block.as_slice().as_ptr() as usize % align, 0);
                    // Were any two blocks, or a block and the allocator's records, to overlap, a later look would tell.
                    block.with_spare_mut().fill(number as u8);
                    held.push((block, number as u8));
                }
                Step::Give(index) if !held.is_empty() => {
                    let (block, fill) = held.swap_remove(index.index(held.len()));
                    prop_assert!(block.with_spare().iter().all(|byte| *byte == fill));
                }
                Step::Give(_) => {}
            }
            let lent: usize = held.iter().map(|(block, _)| block.capacity()).sum();
            prop_assert_eq!(heap.stats().lent_bytes, lent as u64);
        }
        for (block, fill) in held {
            prop_assert!(block.with_spare().iter().all(|byte| *byte == fill));
        }
        prop_assert_eq!(heap.stats().lent_bytes, 0);
        prop_assert!(heap.take(NEARLY_ALL, 64).is_some(), "it is one free block again");
    }
}

#[test]
fn what_does_not_fit_gives_none_and_is_counted() {
    let heap = Heap::new(1).unwrap();
    assert_eq!(heap.stats(), HeapStats { bytes: RANGE_ALIGN as u64, ..HeapStats::default() });
    assert!(heap.take(RANGE_ALIGN, 64).is_none(), "the records need room too");
    assert!(heap.take(1 << 50, 64).is_none());
    assert!(heap.take(usize::MAX, 64).is_none() && heap.take(1, 3).is_none() && heap.take_in_blocks(1, 0).is_none());
    let all = heap.take(NEARLY_ALL, 4096).unwrap();
    assert!(heap.take(NEARLY_ALL, 4096).is_none());
    drop(all);
    assert!(heap.take(NEARLY_ALL, 4096).is_some());
    assert_eq!(heap.stats().misses, 3);
    assert!(Heap::new(usize::MAX).is_err());
}

#[test]
fn warming_stays_ahead_of_use_within_bounds() {
    let heap = Heap::new(256 << 20).unwrap();
    assert!(!heap.is_cold(), "nothing is used yet");
    let first = heap.take(5 << 20, 64).unwrap();
    assert!(heap.is_cold() && !heap.is_cold(), "one caller is told");
    heap.warm();
    let warmed = heap.stats().warmed_bytes;
    assert!((10 << 20..=14 << 20).contains(&warmed), "{warmed}");
    assert!(first.as_slice().iter().all(|byte| *byte == 0), "warming writes nothing");
    let second = heap.take(200 << 20, 64).unwrap();
    assert!(heap.is_cold());
    heap.warm();
    let warmed = heap.stats().warmed_bytes;
    assert!(warmed <= (205 << 20) + AHEAD_BYTES_MAX as u64 + 2 * RANGE_ALIGN as u64 && warmed > 205 << 20, "{warmed}");
    let third = heap.take(40 << 20, 64).unwrap();
    heap.warm();
    assert_eq!(heap.stats().warmed_bytes, heap.stats().bytes, "no further than the end");
    drop((first, second, third));
}

#[test]
fn a_block_outlives_whoever_made_the_heap() {
    let heap = Heap::new(4 << 20).unwrap();
    let mut block = heap.take(100_000, 64).unwrap();
    let weak = Arc::downgrade(&heap);
    drop(heap);
    block.as_mut_slice().fill(3);
    assert!(block.as_slice().iter().all(|byte| *byte == 3));
    drop(block);
    assert!(weak.upgrade().is_none());
}

#[test]
fn threads_take_and_give_back_each_others_blocks() {
    let heap = Heap::new(1).unwrap();
    let (sender, receiver) = crossbeam_channel::bounded::<(AlignedBuffer, u8)>(8);
    std::thread::scope(|scope| {
        for fill in 0..3u8 {
            let (heap, sender) = (Arc::clone(&heap), sender.clone());
            scope.spawn(move || {
                for round in 0..2000usize {
                    let Some(mut block) = heap.take(1 + round * 37 % 60_000, 64 << (round % 7)) else { continue };
                    block.as_mut_slice().fill(fill);
                    sender.send((block, fill)).unwrap();
                }
            });
        }
        drop(sender);
        for _ in 0..2 {
            let receiver = receiver.clone();
            scope.spawn(move || {
                for (block, fill) in receiver {
                    assert!(block.as_slice().iter().all(|byte| *byte == fill));
                }
            });
        }
        drop(receiver);
    });
    assert_eq!(heap.stats().lent_bytes, 0);
    assert!(heap.take(NEARLY_ALL, 64).is_some());
}

#[test]
#[cfg(target_os = "linux")]
fn memory_under_free_blocks_goes_back_and_what_is_lent_or_registered_stays() {
    let heap = Heap::new(64 << 20).unwrap();
    let mut blocks: Vec<_> = (0..48).map(|_| heap.take(1 << 20, 4096).unwrap()).collect();
    for (number, block) in blocks.iter_mut().enumerate() {
        block.as_mut_slice().fill(number as u8 + 1);
    }
    let before = crate::platform::memory::resident_set_bytes().unwrap().now_bytes;
    // Every sixth one stays, and so do the first two slabs.
    assert_eq!(heap.register(0, || true), Some(true));
    assert_eq!(heap.register(1, || true), Some(true));
    assert_eq!(heap.register(2, || false), Some(false));
    let kept: Vec<_> = blocks.into_iter().enumerate().filter(|(number, _)| number % 6 == 0).collect();
    let given = heap.give_unused_back();
    assert!(given > 30 << 20, "{given}");
    let after = crate::platform::memory::resident_set_bytes().unwrap().now_bytes;
    assert!(before.saturating_sub(after) > 16 << 20, "{before} {after}");
    for (number, block) in &kept {
        assert!(block.as_slice().iter().all(|byte| usize::from(*byte) == number + 1));
    }
    assert_eq!((heap.stats().lent_bytes, heap.stats().registered_bytes), (8 << 20, 4 << 20));
    // All of it can be had again.
    drop(kept);
    let mut whole = heap.take(60 << 20, 4096).unwrap();
    whole.as_mut_slice().fill(9);
}
