//! Bytes at positions: what the bundle reads from and writes to. It never opens files itself.

use std::io;
use std::ops::Range;

/// A file, or something like one, that can be read at a position from many threads.
pub trait ReadAt: Send + Sync {
    /// The length in bytes now.
    ///
    /// # Errors
    /// What the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether it holds no byte.
    ///
    /// # Errors
    /// What the operating system says.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Fills `into` with the bytes at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when there are fewer; otherwise what the operating system says.
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Maps the first `len` bytes, if this storage can be mapped. The bytes may change under the mapping when
    /// another process writes: whoever uses them checks bounds and hashes where it uses them.
    ///
    /// # Errors
    /// What the operating system says; `Ok(None)` where mapping is not possible or not wanted.
    fn map(&self, len: u64) -> io::Result<Option<Box<dyn Mapped>>> {
        let _ = len;
        Ok(None)
    }

    /// The operating system's file under this storage, for read engines, the same in every call; `None` where there is
    /// none.
    fn file(&self) -> Option<&std::fs::File> {
        None
    }

    /// The same file, opened to be read past the page cache, the same in every call; `None` where the file system
    /// refuses that.
    fn direct(&self) -> Option<Direct<'_>> {
        None
    }

    /// The name for error messages: the path as the user gave it.
    fn name(&self) -> String;
}

/// A file to be read past the page cache.
#[derive(Clone, Copy, Debug)]
pub struct Direct<'a> {
    /// The file.
    pub file: &'a std::fs::File,
    /// What offsets and lengths must be a multiple of, a power of two.
    pub align: usize,
    /// What the addresses of buffers must be a multiple of, a power of two.
    pub memory_align: usize,
}

/// What is about to be done with a part of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// It is read soon: the system may begin to fetch it.
    WillNeed,
    /// It is read here and there: the system need not fetch what stands around each place. For as long as it is mapped.
    Scattered,
    /// It is to be in memory, and mapped, when the call returns. It ends what [`Advice::Scattered`] said.
    Populate,
}

/// Bytes that are locked at a time: how closely a lock comes to the limit.
pub const LOCK_STEP_BYTES: usize = 64 << 10;

/// A mapping of the start of a storage.
pub trait Mapped: Send + Sync {
    /// The mapped bytes.
    fn bytes(&self) -> &[u8];

    /// The same mapping is to serve for the first `len` bytes of the storage, which it has by now. `false` where it
    /// reaches less far: another one is needed then.
    fn grow(&self, len: u64) -> bool {
        len <= self.bytes().len() as u64
    }

    /// Tells the system what is about to be done with `range`; bytes past the end are passed over. It is speed, not
    /// meaning: where nothing can be told, nothing is.
    ///
    /// # Errors
    /// What the operating system says.
    fn advise(&self, range: Range<usize>, advice: Advice) -> io::Result<()> {
        let _ = (range, advice);
        Ok(())
    }

    /// Keeps `range` in memory, where it should be already, until [`Mapped::unlock`] or the end of the mapping, from its start on as far as the system
    /// allows: how many bytes, and why no more.
    fn lock(&self, range: Range<usize>) -> (usize, io::Result<()>) {
        let _ = range;
        (0, Err(io::ErrorKind::Unsupported.into()))
    }

    /// Lets go of everything that was locked.
    fn unlock(&self) {}
}

/// Storage that one writer may change.
pub trait WriteAt: ReadAt {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// `StorageFull` when the disk is; otherwise what the operating system says.
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when everything written before is durable.
    ///
    /// # Errors
    /// What the operating system says. After an error nothing may be assumed durable.
    fn sync(&self) -> io::Result<()>;

    /// Returns when everything written before is durable, with all that the file system notes about the file.
    ///
    /// # Errors
    /// As for [`WriteAt::sync`].
    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}
