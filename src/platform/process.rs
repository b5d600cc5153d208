//! Programs of others: run in a folder of their own, with a time limit, and stopped together with what they started.
//!
//! No shell is between, nothing is typed to them, and of the environment they see what is named here. What they write
//! to their output and error streams is read while they run, and the end of it is kept, for the error message.

mod end;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

pub use self::end::{End, end_group};

/// The variables of the environment that a program sees: where programs are, where temporary files go, which language
/// to speak, and without which nothing starts on Windows.
pub const ENVIRONMENT: [&str; 10] =
    ["PATH", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "WINDIR", "PATHEXT", "COMSPEC"];

/// Bytes kept of what a program says.
const SAID_BYTES_MAX: usize = 4 << 10;
/// How long what it said is waited for once it ended: something that it left behind may hold the pipe open.
const SAID_WITHIN: Duration = Duration::from_millis(500);
/// Names that are tried for a folder.
const SCRATCH_ATTEMPTS: u32 = 1000;

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status; `None` when it took too long and was stopped.
    pub status: Option<ExitStatus>,
    /// The end of what it wrote to its output and error streams.
    pub said: String,
    /// Whether these are closed, and nothing can be added to what it said.
    pub silent: bool,
}

/// Runs `argv` in `folder` and waits until it ends, `within` at most; then it is killed, on Unix with all that it
/// started and did not put into a group of its own.
///
/// # Errors
/// When it cannot be started.
pub fn run(argv: &[String], folder: &Path, within: Duration) -> io::Result<Ended> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program is named"));
    };
    let (mut reader, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    command.env_clear();
    for name in ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    group::apart(&mut command);
    let child = command.spawn();
    // It holds the ends of the pipe that are written to.
    drop(command);
    let child = child?;
    let said = Arc::new(Mutex::new(VecDeque::new()));
    let (all_said, heard) = sync_channel::<()>(1);
    let listened = std::thread::Builder::new().name("flyloft-command".into()).spawn({
        let said = Arc::clone(&said);
        move || {
            let mut buffer = [0; 1024];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                let mut said = said.lock();
                said.extend(&buffer[..len]);
                let excess = said.len().saturating_sub(SAID_BYTES_MAX);
                said.drain(..excess);
            }
            drop(all_said);
        }
    });
    let status = wait(child, within)?;
    // The thread lets go of its end of the channel when it is done.
    let silent = listened.is_ok() && heard.recv_timeout(SAID_WITHIN) == Err(RecvTimeoutError::Disconnected);
    let said: Vec<u8> = said.lock().iter().copied().collect();
    Ok(Ended { status, said: String::from_utf8_lossy(&said).into_owned(), silent })
}

/// Waits for the end of `child` and of what it started; stops them after `within`.
fn wait(mut child: Child, within: Duration) -> io::Result<Option<ExitStatus>> {
    let ended = group::wait(&mut child, within);
    // Whatever it left behind goes as well. It is not reaped yet, so its number is still its own.
    group::kill(&mut child);
    let status = child.wait()?;
    Ok(ended?.then_some(status))
}

#[cfg(unix)]
mod group {
    //! A program leads a process group, so that all of it can be stopped.

    use super::*;
    use std::os::unix::process::CommandExt;

    pub fn apart(command: &mut Command) {
        command.process_group(0);
    }

    /// Whether it ended in time. It is left unreaped.
    pub fn wait(child: &mut Child, within: Duration) -> io::Result<bool> {
        let id = child.id();
        let (tell, told) = sync_channel(1);
        std::thread::Builder::new().name("flyloft-wait".into()).spawn(move || tell.send(ended(id)))?;
        match told.recv_timeout(within) {
            Ok(result) => result.map(|()| true),
            Err(RecvTimeoutError::Timeout) => {
                kill(child);
                // The thread must be done before the child is reaped, or it would wait for a number that is free.
                told.recv().map_err(|_| gone())?.map(|()| false)
            }
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }

    fn gone() -> io::Error {
        io::Error::other("the thread that waits for it is gone")
    }

    /// Blocks until the child ended, and leaves it to be reaped.
    fn ended(id: u32) -> io::Result<()> {
        loop {
            // SAFETY: the structure is plain data for which zero is a value, and the call writes nothing else.
            #[allow(unsafe_code)]
            let result = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                libc::waitid(libc::P_PID, id as libc::id_t, &raw mut info, libc::WEXITED | libc::WNOWAIT)
            };
            if result == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    pub fn kill(child: &mut Child) {
        // Nothing of it may be left, and that is what is wanted.
        drop(super::end_group(child.id(), super::End::Made));
    }
}

#[cfg(windows)]
mod group {
    //! One process; what it started is not known here.

    use super::*;
    use std::os::windows::io::AsRawHandle;
    use windows_sys::Win32::Foundation::{WAIT_OBJECT_0, WAIT_TIMEOUT};
    use windows_sys::Win32::System::Threading::WaitForSingleObject;

    pub fn apart(_command: &mut Command) {}

    pub fn wait(child: &mut Child, within: Duration) -> io::Result<bool> {
        // The largest number means for ever.
        let ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX).min(u32::MAX - 1);
        // SAFETY: the handle is the child's, which is borrowed here and keeps it open.
        #[allow(unsafe_code)]
        let waited = unsafe { WaitForSingleObject(child.as_raw_handle(), ms) };
        match waited {
            WAIT_OBJECT_0 => Ok(true),
            WAIT_TIMEOUT => Ok(false),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub fn kill(child: &mut Child) {
        // It may have ended by itself.
        let _ = child.kill();
    }
}

#[cfg(not(any(unix, windows)))]
mod group {
    //! Systems on which no limit can be held.

    use super::*;

    pub fn apart(_command: &mut Command) {}

    pub fn wait(child: &mut Child, _within: Duration) -> io::Result<bool> {
        child.wait().map(|_| true)
    }

    pub fn kill(child: &mut Child) {
        let _ = child.kill();
    }
}

#[cfg(unix)]
fn private_folder() -> std::fs::DirBuilder {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// The folder of temporary files is the user's own there.
#[cfg(not(unix))]
fn private_folder() -> std::fs::DirBuilder {
    std::fs::DirBuilder::new()
}

/// A folder for one run, that nobody else may look into, and that goes with this value.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// Makes one where temporary files go. `number` keeps the folders of this process apart.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new(number: u64) -> io::Result<Self> {
        let builder = private_folder();
        let mut attempt = 0;
        loop {
            let folder = std::env::temp_dir().join(format!("flyloft-{}-{number}-{attempt}", std::process::id()));
            match builder.create(&folder) {
                Ok(()) => return Ok(Self { folder }),
                // An earlier process of this number left it, or one of another container has it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < SCRATCH_ATTEMPTS => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Writes a file below it, and the folders above that.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, path: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        let at = self.folder.join(path);
        if let Some(above) = at.parent() {
            std::fs::create_dir_all(above)?;
        }
        std::fs::write(&at, bytes)?;
        Ok(at)
    }

    /// Makes a folder below it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn folder(&self, path: &str) -> io::Result<PathBuf> {
        let at = self.folder.join(path);
        std::fs::create_dir_all(&at)?;
        Ok(at)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever clears the folder of temporary files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The regular files below `folder` with their paths from it, `/`-separated and in order. What is no regular file or
/// has a name that is not UTF-8 is an error: a link may lead anywhere.
///
/// # Errors
/// What the file system says.
pub fn files_below(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut waiting = vec![(String::new(), folder.to_owned())];
    while let Some((prefix, folder)) = waiting.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|name| {
                io::Error::new(io::ErrorKind::InvalidData, format!("the name of {name:?} is not UTF-8"))
            })?;
            let name = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                waiting.push((format!("{name}/"), entry.path()));
            } else if kind.is_file() {
                found.push((name, entry.path()));
            } else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("'{name}' is no regular file")));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The bytes of a regular file of at most `bytes_max`; `None` when there is none of that name.
///
/// # Errors
/// What the file system says; that it is larger, or no regular file.
pub fn read_at_most(file: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    match std::fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(stat) if !stat.is_file() => refused("it is no regular file".into()),
        Ok(_) => {
            let mut bytes = Vec::new();
            std::fs::File::open(file)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > bytes_max {
                return refused(format!("it has more than {bytes_max} bytes"));
            }
            Ok(Some(bytes))
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn sh(script: &str, within: Duration) -> Ended {
        let folder = Scratch::new(u64::from(blake3::hash(script.as_bytes()).as_bytes()[0])).unwrap();
        run(&["sh".into(), "-c".into(), script.into()], folder.path(), within).unwrap()
    }

    #[test]
    fn what_it_says_on_both_streams_and_how_it_ends_is_known() {
        let ended = sh("echo one; echo two >&2; exit 3", LONG);
        assert_eq!((ended.status.unwrap().code(), ended.said.as_str()), (Some(3), "one\ntwo\n"));
        let ended = sh("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done", LONG);
        assert!(ended.said.len() == SAID_BYTES_MAX && ended.said.ends_with("line 1999\n"), "{}", ended.said);
    }

    #[test]
    fn it_sees_nothing_of_the_environment_that_is_not_named() {
        let ended = sh("env", LONG);
        let shell = ["PWD", "SHLVL", "_", "OLDPWD"];
        for line in ended.said.lines() {
            let name = line.split('=').next().unwrap();
            assert!(ENVIRONMENT.contains(&name) || shell.contains(&name), "{line}");
        }
        assert!(ended.said.contains("PATH="), "{}", ended.said);
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "there is something to hide");
    }

    #[test]
    fn what_takes_too_long_is_stopped_with_all_that_it_started() {
        // Its child holds the pipe, which is closed only once that is gone as well.
        let ended = sh("sleep 1000 & sleep 1000", Duration::from_millis(100));
        assert!(ended.status.is_none() && ended.silent, "{ended:?}");
        let ended = sh("sleep 1000 & echo done", LONG);
        assert!(ended.status.unwrap().success() && ended.said == "done\n" && ended.silent, "{ended:?}");
    }

    #[test]
    fn a_program_that_is_missing_is_an_error() {
        let folder = Scratch::new(1000).unwrap();
        let missing = run(&["flyloft-no-such-program".into()], folder.path(), LONG).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_folder_goes_with_its_value_and_only_regular_files_count() {
        let scratch = Scratch::new(1001).unwrap();
        let folder = scratch.path().to_owned();
        scratch.write("b/c.txt", b"c").unwrap();
        scratch.write("a.txt", b"abc").unwrap();
        let names: Vec<String> = files_below(&folder).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a.txt", "b/c.txt"]);
        assert_eq!(read_at_most(&folder.join("a.txt"), 3).unwrap().unwrap(), b"abc");
        assert!(read_at_most(&folder.join("a.txt"), 2).is_err());
        assert!(read_at_most(&folder.join("no"), 2).unwrap().is_none());
        std::os::unix::fs::symlink("/etc/hostname", folder.join("link")).unwrap();
        assert!(files_below(&folder).is_err() && read_at_most(&folder.join("link"), 99).is_err());
        drop(scratch);
        assert!(!folder.exists());
    }
}
