//! How a program that was started is asked to end, with whatever it started itself.

use std::io;

/// How a group of processes is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Asked to (SIGTERM).
    Asked,
    /// Made to (SIGKILL).
    Made,
}

/// Ends the process group that `leader` leads: the program started as its own group and everything it started that did
/// not leave it. The caller has not waited for the end of `leader` yet, so that its number is still its own.
///
/// # Errors
/// What the system says; that there is no such group any more, when all of it has ended. Where there are no process
/// groups (Windows), [`io::ErrorKind::Unsupported`]: then the program alone can be ended.
#[cfg(unix)]
pub fn end_group(leader: u32, end: End) -> io::Result<()> {
    let signal = match end {
        End::Asked => libc::SIGTERM,
        End::Made => libc::SIGKILL,
    };
    // 0 and 1 would stand for the caller's own group and for every process there is.
    let group = libc::pid_t::try_from(leader).ok().filter(|group| *group > 1);
    let group = group.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the call takes two numbers and touches no memory of this process.
    #[allow(unsafe_code)]
    let sent = unsafe { libc::kill(-group, signal) };
    if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// There are no process groups here.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`].
#[cfg(not(unix))]
pub fn end_group(_leader: u32, _end: End) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Command, Stdio};

    #[test]
    fn a_group_ends_with_what_its_leader_started() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo up; wait"]).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        // The pipe ends when the last one that has it is gone, the sleeper included.
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        assert_eq!(line, "up\n");
        end_group(child.id(), End::Asked).unwrap();
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut said, &mut rest).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    }

    #[test]
    fn what_leads_no_group_of_its_own_is_refused() {
        assert_eq!(end_group(0, End::Made).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(end_group(1, End::Made).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
