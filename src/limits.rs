//! Hard bounds. Each is a constant; what they must be to each other is asserted at compile time.

/// Longest asset path, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;
/// Most requests that may be open at once.
pub const OPEN_REQUESTS_MAX: usize = 4 << 20;
/// Most reads in one batch to an I/O worker.
pub const READ_BATCH_MAX: usize = 64;
/// Most reads that one I/O worker has with the kernel at once.
pub const READS_IN_FLIGHT_MAX: usize = 1024;
/// Most bytes of one read: neighbouring frames are merged up to here.
pub const READ_BYTES_MAX: usize = 1 << 20;
/// Most bytes of one read at low priority, but for a single frame that is larger: an urgent read never waits behind more
/// than a few of these.
pub const READ_BYTES_LOW_MAX: usize = 128 << 10;
/// Largest decoded frame of the `access` layout.
pub const FRAME_ACCESS_BYTES_MAX: usize = 64 << 10;
/// Largest decoded frame of any layout.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Alignment of stored frames, of direct I/O and of the superblocks.
pub const BLOCK_BYTES: usize = 4096;
/// Alignment of a resident asset's first byte.
pub const RESIDENT_ALIGN: usize = 64;
/// Largest asset that a table of contents may describe: 16 TiB.
pub const ASSET_BYTES_MAX: u64 = 16 << 40;
/// Largest page of a table of contents.
pub const PAGE_BYTES_MAX: usize = 64 << 10;
/// Largest `.flyloftignore` that is read.
pub const IGNORE_FILE_BYTES_MAX: u64 = 1 << 20;
/// Deepest tree of a table of contents.
pub const TREE_DEPTH_MAX: usize = 12;
/// Attempts before an asset that breaks a stage is quarantined.
pub const ATTEMPTS_MAX: u32 = 5;
/// Smallest budget: below it nothing useful can be resident beside the I/O reserve.
pub const BUDGET_BYTES_MIN: u64 = 8 << 20;
/// Most of a budget that is set aside for compressed buffers in flight and decoding scratch.
pub const IO_RESERVE_BYTES_MAX: u64 = 32 << 20;
/// Smallest I/O reserve: a merged read and a decoded frame, twice over.
pub const IO_RESERVE_BYTES_MIN: u64 = 4 << 20;
/// Bytes of an I/O worker's pool, unless another size is asked for: what an ordinary process may lock in memory.
pub const IO_POOL_BYTES: u64 = 8 << 20;
/// Smallest pool of an I/O worker.
pub const IO_POOL_BYTES_MIN: u64 = 4 << 20;
/// Frees of at least this many bytes are done by the reaper thread, not by whoever drops the handle.
pub const LARGE_FREE_BYTES: usize = 256 << 10;
/// Largest piece that a stream reads at once. Fixed-size frames of every layout divide it.
pub const STREAM_BYTES_MAX: usize = 1 << 20;
/// Largest asset, decoded, that is looked at for whether it can be sent as it is stored.
pub const STORED_BYTES_MAX: u64 = 64 << 20;
/// Events that a slow subscriber may fall behind before it is told that it lagged.
pub const EVENTS_BEHIND_MAX: usize = 1024;
/// Largest bundle that is put into memory whole when its tables are asked for ahead; of a larger one the tables alone are.
pub const POPULATE_BYTES_MAX: u64 = 100 << 20;
/// Smallest action cache.
pub const ACTION_CACHE_BYTES_MIN: u64 = 1 << 20;
/// Most generations that are kept besides the one that readers see.
pub const GENERATIONS_RETAINED_MAX: usize = 256;
/// While older generations are kept a store compacts itself only when dead bytes, theirs among them, exceed the live ones
/// so many times: they cannot be gone back to after it.
pub const COMPACT_RETAINED_TIMES: u64 = 4;
/// Labelled assets that are made beside one source at most.
pub const LABELS_MAX: usize = 1 << 16;
/// Generation numbers reserved ahead at once, durably, before the first of them is shown to a reader.
pub const GENERATIONS_RESERVED: u64 = 1024;

const _: () = {
    assert!(FRAME_ACCESS_BYTES_MAX <= FRAME_BYTES_MAX);
    assert!(FRAME_BYTES_MAX <= READ_BYTES_MAX);
    assert!(FRAME_ACCESS_BYTES_MAX <= READ_BYTES_LOW_MAX && READ_BYTES_LOW_MAX <= READ_BYTES_MAX);
    assert!(FRAME_BYTES_MAX <= u32::MAX as usize);
    assert!(
        STREAM_BYTES_MAX.is_multiple_of(FRAME_BYTES_MAX) && STREAM_BYTES_MAX.is_multiple_of(FRAME_ACCESS_BYTES_MAX)
    );
    assert!(READ_BATCH_MAX <= READS_IN_FLIGHT_MAX);
    assert!(IO_RESERVE_BYTES_MIN < IO_RESERVE_BYTES_MAX);
    assert!(IO_POOL_BYTES_MIN <= IO_POOL_BYTES && IO_POOL_BYTES <= IO_RESERVE_BYTES_MAX);
    assert!(IO_POOL_BYTES_MIN <= IO_RESERVE_BYTES_MIN);
    assert!(IO_RESERVE_BYTES_MIN < BUDGET_BYTES_MIN);
    assert!(IO_RESERVE_BYTES_MIN as usize >= 2 * (READ_BYTES_MAX + FRAME_BYTES_MAX));
    assert!(BLOCK_BYTES.is_power_of_two() && RESIDENT_ALIGN.is_power_of_two());
    assert!(PAGE_BYTES_MAX > 2 * PATH_BYTES_MAX);
};
