//! The operating system as this file system sees it.

use super::*;
use crate::platform::fs::is_locked;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_second_writer_is_told_that_it_is_locked_and_readers_are_not_disturbed() {
    let folder = folder();
    let path = folder.path().join("a.loft");
    let (writer, lock) = OsFileSystem.open_writer(&path, true).unwrap();
    writer.write_all_at(0, b"hello").unwrap();
    let error = OsFileSystem.open_writer(&path, true).map(|_| ()).unwrap_err();
    assert!(is_locked(&error), "{error}");
    assert!(error.to_string().contains("a.loft"), "{error}");
    let mut bytes = [0; 5];
    OsFileSystem.open(&path).unwrap().read_exact_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    drop(lock);
    // The storage is still open, but the right to write went with the lock.
    assert!(OsFileSystem.open_writer(&path, false).is_ok());
    drop(writer);
}

#[test]
fn a_writer_lock_belongs_to_the_file_and_not_to_the_name() {
    let folder = folder();
    let (path, new) = (folder.path().join("a.loft"), folder.path().join("new"));
    let (_old, old_lock) = OsFileSystem.open_writer(&path, true).unwrap();
    let (_new, new_lock) = OsFileSystem.open_writer(&new, true).unwrap();
    OsFileSystem.rename(&new, &path).unwrap();
    drop(old_lock);
    assert!(is_locked(&OsFileSystem.open_writer(&path, false).map(|_| ()).unwrap_err()));
    drop(new_lock);
    assert!(OsFileSystem.open_writer(&path, false).is_ok());
}

#[test]
fn a_reader_keeps_the_file_it_opened_when_the_name_is_given_to_another() {
    let folder = folder();
    let path = folder.path().join("a");
    OsFileSystem.write_atomic(&path, b"old").unwrap();
    let reader = OsFileSystem.open(&path).unwrap();
    let mapped = reader.map(3).unwrap().unwrap();
    OsFileSystem.write_atomic(&path, b"newer").unwrap();
    let mut bytes = [0; 3];
    reader.read_exact_at(0, &mut bytes).unwrap();
    assert_eq!((&bytes, mapped.bytes()), (b"old", &b"old"[..]));
    assert_eq!(OsFileSystem.read(&path).unwrap(), b"newer");
    drop((reader, mapped));
    assert_eq!(OsFileSystem.read_dir(folder.path()).unwrap().len(), 1, "no temporary file is left");
}

#[test]
fn reads_beyond_the_end_are_unexpected_eof() {
    let folder = folder();
    let path = folder.path().join("a");
    OsFileSystem.write_atomic(&path, b"12345").unwrap();
    let reader = OsFileSystem.open(&path).unwrap();
    let error = reader.read_exact_at(3, &mut [0; 3]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(reader.read_exact_at(3, &mut [0; 2]).is_ok());
    assert_eq!(reader.map(6).map(|_| ()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert!(reader.map(0).unwrap().unwrap().bytes().is_empty());
    assert_eq!(reader.len().unwrap(), 5);
    assert!(reader.file().is_some() && !reader.is_empty().unwrap());
}

#[test]
#[cfg(unix)]
fn a_stat_has_nanoseconds_identity_and_the_execute_bit() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = folder();
    let (path, link) = (folder.path().join("a"), folder.path().join("link"));
    std::fs::write(&path, b"123").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink(&path, &link).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_600_000_000, 123_456_789);
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let stat = OsFileSystem.stat(&path, false).unwrap();
    assert_eq!((stat.kind, stat.len, stat.executable), (FileKind::File, 3, true));
    assert_eq!(stat.mtime_ns, 1_600_000_000_123_456_789);
    assert!(stat.ctime_ns > stat.mtime_ns, "setting the time is itself a change");
    assert_eq!(OsFileSystem.stat(&link, false).unwrap().kind, FileKind::Symlink);
    assert!(OsFileSystem.stat(&link, true).unwrap().is_same_file(&stat));
    let mut names: Vec<_> = OsFileSystem.read_dir(folder.path()).unwrap();
    names.sort_by(|a, b| a.name.cmp(&b.name));
    let expected = [("a", FileKind::File), ("link", FileKind::Symlink)];
    let got: Vec<_> = names.iter().map(|entry| (entry.name.to_str().unwrap(), entry.kind)).collect();
    assert_eq!(got, expected);
}

#[test]
fn a_folder_is_not_opened_as_a_file() {
    let folder = folder();
    for error in [
        OsFileSystem.open(folder.path()).map(|_| ()).unwrap_err(),
        OsFileSystem.open_writer(folder.path(), true).map(|_| ()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    let missing = folder.path().join("missing");
    assert_eq!(OsFileSystem.open(&missing).map(|_| ()).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(OsFileSystem.open_writer(&missing, false).map(|_| ()).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_storage_full_and_a_quota_is_too() {
    let file = Arc::new(OpenOptions::new().read(true).write(true).open("/dev/full").unwrap());
    let full = OsFile::new(file, Path::new("/dev/full"));
    assert_eq!(full.write_all_at(4096, b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    let quota = full_disk(io::Error::from_raw_os_error(libc::EDQUOT));
    assert_eq!(quota.kind(), io::ErrorKind::StorageFull);
    assert!(OsFileSystem.open(Path::new("/dev/full")).is_err(), "a device is not opened as a file");
}

#[test]
fn a_failed_atomic_write_leaves_the_old_content_and_nothing_else() {
    let folder = folder();
    let path = folder.path().join("taken");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("inside"), b"x").unwrap();
    assert!(OsFileSystem.write_atomic(&path, b"y").is_err(), "a folder is not replaced by a file");
    assert_eq!(OsFileSystem.read_dir(folder.path()).unwrap().len(), 1);
    OsFileSystem.create_dir_all(&path.join("a/b")).unwrap();
    OsFileSystem.create_dir_all(&path.join("a/b")).unwrap();
    OsFileSystem.sync_dir(&path).unwrap();
    OsFileSystem.remove_file(&path.join("inside")).unwrap();
    #[cfg(unix)]
    assert!(OsFileSystem.available_bytes(&path).unwrap() > 0);
    assert!(OsFileSystem.canonicalize(&path.join("a/../a")).unwrap().ends_with("taken/a"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_that_somebody_is_writing_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut writer = std::fs::File::create(&path).unwrap();
    assert!(OsFileSystem.is_being_written(&path).unwrap());
    std::io::Write::write_all(&mut writer, b"x").unwrap();
    drop(writer);
    assert!(!OsFileSystem.is_being_written(&path).unwrap());
    let _reader = std::fs::File::open(&path).unwrap();
    assert!(!OsFileSystem.is_being_written(&path).unwrap());
    assert!(OsFileSystem.is_being_written(&folder.path().join("none")).is_err());
}

#[test]
#[cfg(unix)]
fn a_mapping_is_put_into_memory_and_locked_as_far_as_it_goes() {
    use crate::storage::{Advice, LOCK_STEP_BYTES};
    let folder = folder();
    let path = folder.path().join("a");
    let len = 2 * LOCK_STEP_BYTES + 5;
    OsFileSystem.write_atomic(&path, &vec![7; len]).unwrap();
    let mapped = OsFileSystem.open(&path).unwrap().map(len as u64).unwrap().unwrap();
    for advice in [Advice::Scattered, Advice::WillNeed, Advice::Populate] {
        mapped.advise(0..len, advice).unwrap();
        mapped.advise(len - 3..usize::MAX, advice).unwrap();
        mapped.advise(usize::MAX - 1..usize::MAX, advice).unwrap();
    }
    let (locked, outcome) = mapped.lock(4096..usize::MAX);
    // Whatever the limit here is: all of it, or whole steps and the reason.
    match outcome {
        Ok(()) => assert_eq!(locked, len - 4096),
        Err(_) => assert!(locked < len - 4096 && locked.is_multiple_of(LOCK_STEP_BYTES), "{locked}"),
    }
    mapped.unlock();
    assert!(mapped.lock(len..usize::MAX).1.is_ok(), "nothing is always locked");
    assert!(mapped.bytes().iter().all(|byte| *byte == 7));
}

#[test]
fn files_below_a_folder_are_read_like_files_at_their_paths() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::write(root.join("deep/er/file.txt"), b"0123456789").unwrap();
    let below = OsFileSystem.below(&root).unwrap();
    let mut room = [0; 16];
    let (len, stat) = below.read_into("deep/er/file.txt", &mut room).unwrap();
    assert_eq!(
        (&room[..len], stat),
        (&b"0123456789"[..], OsFileSystem.stat(&root.join("deep/er/file.txt"), true).unwrap())
    );
    below.read_exact_at("deep/er/file.txt", 4, &mut room[..3]).unwrap();
    assert_eq!(&room[..3], b"456");
    let kind = |read: io::Result<()>| read.unwrap_err().kind();
    assert_eq!(kind(below.read_exact_at("deep/er/file.txt", 8, &mut room[..3])), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(below.read_into("deep/none", &mut room).map(drop)), io::ErrorKind::NotFound);
    assert!(OsFileSystem.below(&root.join("deep/er/file.txt")).is_err() || cfg!(not(unix)));
    assert!(OsFileSystem.below(&root.join("none")).is_err() || cfg!(not(unix)));
}
