//! File systems that stand in for the operating system's.

/// The calls in which a file system that misbehaves when bytes are read and written, or when files are looked at, is as the
/// operating system's: within its `impl`.
macro_rules! the_rest_as_the_system {
    () => {
        fn read_dir(&self, path: &std::path::Path) -> std::io::Result<Vec<flyloft::platform::fs::DirEntry>> {
            flyloft::platform::fs::OsFileSystem.read_dir(path)
        }
        fn canonicalize(&self, path: &std::path::Path) -> std::io::Result<std::path::PathBuf> {
            flyloft::platform::fs::OsFileSystem.canonicalize(path)
        }
        fn write_atomic(&self, path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
            flyloft::platform::fs::OsFileSystem.write_atomic(path, bytes)
        }
        fn write_new(&self, path: &std::path::Path, bytes: &[u8], executable: bool) -> std::io::Result<()> {
            flyloft::platform::fs::OsFileSystem.write_new(path, bytes, executable)
        }
        fn create_dir_all(&self, path: &std::path::Path) -> std::io::Result<()> {
            flyloft::platform::fs::OsFileSystem.create_dir_all(path)
        }
        fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
            flyloft::platform::fs::OsFileSystem.rename(from, to)
        }
        fn remove_file(&self, path: &std::path::Path) -> std::io::Result<()> {
            flyloft::platform::fs::OsFileSystem.remove_file(path)
        }
        fn sync_dir(&self, path: &std::path::Path) -> std::io::Result<()> {
            flyloft::platform::fs::OsFileSystem.sync_dir(path)
        }
        fn available_bytes(&self, path: &std::path::Path) -> std::io::Result<u64> {
            flyloft::platform::fs::OsFileSystem.available_bytes(path)
        }
    };
}
pub(crate) use the_rest_as_the_system;
