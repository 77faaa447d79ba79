//! Processes: starting them, watching and ending them, and learning how they ended.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitOptions};
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

pub use crate::pid::pid;
pub use rustix::process::Signal;

/// The user this process acts as.
pub fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The id of the process that started this one, or of the one that adopted it when that ended; 0 if it is in a PID
/// namespace that this process can't see.
pub fn parent_pid() -> u32 {
    std::os::unix::process::parent_id()
}

/// The number of threads of this process; 0 (unknown) where `/proc` is not mounted.
///
/// A process that is about to fork asks, because a library may have started threads behind its back.
pub fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Names the calling thread, as `ps` and `top` show it (and the process, if it is the main thread).
///
/// The kernel keeps 15 bytes: a longer name is cut at a character, and every name at its first NUL.
pub fn set_name(name: &str) {
    let name = name.split('\0').next().unwrap_or_default();
    let end = (0..=name.len().min(15)).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    let name = CString::new(&name[..end]).expect("cut at the first NUL");
    rustix::thread::set_name(&name).expect("the kernel takes any name");
}

/// Asks the kernel to kill this process (SIGKILL) as soon as the parent *thread*, the one that forked it, ends.
///
/// So it is only for children of a thread that lives as long as its process, and a parent that ended before this call
/// is not noticed: compare [`parent_pid`] afterwards. A fork does not inherit it.
pub fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// A descriptor of a process: becomes readable when it ends, and never means another one of the same id.
///
/// Fails with `InvalidInput` if `pid` is no id, with ESRCH if there is no such process.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let id = i32::try_from(pid).ok().filter(|&id| id > 0).and_then(Pid::from_raw);
    let id = id.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("pid: no process has id {pid}")))?;
    Ok(rustix::process::pidfd_open(id, PidfdFlags::empty())?)
}

/// The error number of [`pidfd_open`] for a process that is not there.
pub const NO_SUCH_PROCESS: i32 = libc::ESRCH;

/// Sends a signal to the process of a pidfd. One that has ended already is no error.
pub fn pidfd_kill(fd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    match rustix::process::pidfd_send_signal(fd.as_fd(), signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl fmt::Display for Exit {
    /// `exit code 3`, `signal 9 (SIGKILL)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(signal) => match signal_name(signal) {
                Some(name) => write!(f, "signal {signal} ({name})"),
                None => write!(f, "signal {signal}"),
            },
        }
    }
}

/// The name of a signal that can kill; the real-time ones have none.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGSTKFLT => "SIGSTKFLT",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGVTALRM => "SIGVTALRM",
        libc::SIGPROF => "SIGPROF",
        libc::SIGIO => "SIGIO",
        libc::SIGPWR => "SIGPWR",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

/// Takes the word of one child that has ended: its id and how. `None` if none has, or there are no children.
///
/// Any child: only for a process all of whose children are its own doing (the zygote), never for a client, whose other
/// code waits for children of its own.
pub fn reap() -> io::Result<Option<(u32, Exit)>> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let code = status.exit_status().map(Exit::Code);
                if let Some(exit) = code.or(status.terminating_signal().map(Exit::Signal)) {
                    return Ok(Some((pid.as_raw_pid().cast_unsigned(), exit)));
                }
                // A traced child that stopped is reported unasked; it has not ended.
            }
            Ok(None) | Err(Errno::CHILD) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Has this process's children wait for [`reap`] when they have ended. That is what a new process has, unless the one that
/// started it leaves its children to nobody (SIGCHLD ignored): then it has that from there.
pub fn keep_dead_children() -> io::Result<()> {
    // SAFETY: the default action needs no handler.
    match unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Splits this process in two: `Some(child's id)` in the parent, `None` in the child.
///
/// # Safety
///
/// The child has the calling thread only; whatever locks the others held stay locked in it for ever. So either this
/// process has one thread, or the child does nothing but async-signal-safe calls until it ends or execs.
pub unsafe fn fork() -> io::Result<Option<u32>> {
    // SAFETY: the caller's promise.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid.cast_unsigned())),
    }
}

/// Starts a program with `stdin` as its standard input, and stdout and stderr inherited.
///
/// `envs` are added to this process's environment. The program gets a process group of its own, so that the terminal's
/// Ctrl-C does not reach it. A program without a slash is searched for in PATH.
pub fn spawn_with_stdin(
    program: &OsStr,
    args: &[OsString],
    envs: &[(OsString, OsString)],
    stdin: OwnedFd,
) -> io::Result<Child> {
    // Nothing here may need code between fork and exec (`pre_exec`, a PATH of the child's own for a bare name):
    // without it std uses posix_spawn, which does not copy the page tables of a client that may have gigabytes.
    let mut command = Command::new(program);
    command.args(args).envs(envs.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::from(stdin)).process_group(0).spawn()
}

#[cfg(test)]
pub(crate) mod testing {
    //! Tests that start processes run one at a time: until a new process ends or execs it holds a copy of every
    //! descriptor, and tests in other threads would wait in vain for the last one to be closed.

    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    static ALONE: Mutex<()> = Mutex::new(());

    /// For tests that start a process, and for tests that close a descriptor and look for the consequence.
    pub(crate) fn alone() -> MutexGuard<'static, ()> {
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A forked child. While it is not dropped, no other test starts a process.
    pub(crate) struct Forked {
        pub(crate) pid: u32,
        _alone: MutexGuard<'static, ()>,
    }

    /// Runs `body` in a forked child, which exits with 0 if it returns true, with 1 if false and with 2 if it panics.
    pub(crate) fn in_child(body: impl FnOnce() -> bool) -> Forked {
        let alone = alone();
        // SAFETY: the child calls nothing that needs a lock of another thread, but for malloc, which glibc makes
        // usable in a fork.
        match unsafe { fork() }.expect("fork works") {
            Some(pid) => Forked { pid, _alone: alone },
            None => {
                let code = catch_unwind(AssertUnwindSafe(body)).map_or(2, |ok| i32::from(!ok));
                // SAFETY: always sound; skips the test harness's own exit.
                unsafe { libc::_exit(code) }
            }
        }
    }

    impl Forked {
        /// Waits for the child's end.
        pub(crate) fn exit(&self) -> Exit {
            let pid = Pid::from_raw(self.pid.cast_signed());
            let (_, status) = rustix::process::waitpid(pid, WaitOptions::empty()).unwrap().unwrap();
            status.exit_status().map_or_else(|| Exit::Signal(status.terminating_signal().unwrap()), Exit::Code)
        }

        /// Waits for the child's end, which must be that its body returned true.
        pub(crate) fn assert_ok(self) {
            assert_eq!(self.exit(), Exit::Code(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{alone, in_child};
    use super::*;
    use crate::poll::poll;
    use crate::socket::Seqpacket;
    use std::thread;
    use std::time::Duration;

    /// Reaps until a child's end is reported.
    fn reap_one() -> (u32, Exit) {
        loop {
            match reap().unwrap() {
                Some(ended) => return ended,
                None => thread::yield_now(),
            }
        }
    }

    /// Forks a child that runs `body`, which never returns.
    fn fork_into(body: impl FnOnce()) -> u32 {
        // SAFETY: used in a child of the test process, which has one thread.
        match unsafe { fork() }.unwrap() {
            Some(pid) => pid,
            None => {
                body();
                // SAFETY: always sound.
                unsafe { libc::_exit(99) }
            }
        }
    }

    fn die_of(signal: i32) {
        // SAFETY: always sound.
        unsafe { libc::raise(signal) };
    }

    #[test]
    fn how_a_process_ended_reads_well() {
        assert_eq!(Exit::Code(3).to_string(), "exit code 3");
        assert_eq!(Exit::Signal(9).to_string(), "signal 9 (SIGKILL)");
        assert_eq!(Exit::Signal(11).to_string(), "signal 11 (SIGSEGV)");
        assert_eq!(Exit::Signal(40).to_string(), "signal 40");
    }

    #[test]
    fn a_child_of_a_fork_knows_its_parent() {
        let parent = pid();
        in_child(|| parent_pid() == parent && pid() != parent).assert_ok();
    }

    #[test]
    fn reaping_tells_who_ended_and_how() {
        in_child(|| {
            assert_eq!(reap().unwrap(), None, "there are no children");
            let (ours, theirs) = Seqpacket::pair().unwrap();
            let waits = fork_into(|| {
                theirs.recv().unwrap();
                // SAFETY: always sound.
                unsafe { libc::_exit(3) }
            });
            assert_eq!(reap().unwrap(), None, "the only child is alive");
            let killed = fork_into(|| die_of(libc::SIGKILL));
            assert_eq!(reap_one(), (killed, Exit::Signal(9)));
            ours.send(b"go", &[]).unwrap();
            assert_eq!(reap_one(), (waits, Exit::Code(3)));
            reap().unwrap().is_none()
        })
        .assert_ok();
    }

    #[test]
    fn children_wait_to_be_reaped_whatever_the_parents_parent_thinks_of_its_own() {
        in_child(|| {
            // SAFETY: nobody in this process relies on it.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            keep_dead_children().unwrap();
            let killed = fork_into(|| die_of(libc::SIGKILL));
            reap_one() == (killed, Exit::Signal(9))
        })
        .assert_ok();
    }

    #[test]
    fn a_pidfd_is_readable_when_its_process_has_ended_and_killing_it_again_is_no_error() {
        let child = in_child(|| {
            thread::sleep(Duration::MAX);
            false
        });
        let fd = pidfd_open(child.pid).unwrap();
        assert_eq!(poll(&[fd.as_fd()], Some(Duration::ZERO)).unwrap(), [false]);
        pidfd_kill(fd.as_fd(), Signal::TERM).unwrap();
        assert_eq!(poll(&[fd.as_fd()], None).unwrap(), [true]);
        assert_eq!(child.exit(), Exit::Signal(libc::SIGTERM));
        pidfd_kill(fd.as_fd(), Signal::TERM).unwrap();
        assert_eq!(pidfd_open(child.pid).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_number_that_is_no_process_id_is_refused() {
        for pid in [0, u32::MAX] {
            assert_eq!(pidfd_open(pid).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_process_that_dies_with_its_parent_does() {
        let (ours, theirs) = Seqpacket::pair().unwrap();
        let parent = in_child(|| {
            fork_into(|| {
                die_with_parent().unwrap();
                theirs.send(b"ready", &[]).unwrap();
                thread::sleep(Duration::MAX);
            });
            thread::sleep(Duration::MAX);
            false
        });
        drop(theirs);
        assert_eq!(ours.recv().unwrap().unwrap().bytes, b"ready");
        pidfd_kill(pidfd_open(parent.pid).unwrap().as_fd(), Signal::KILL).unwrap();
        assert_eq!(parent.exit(), Exit::Signal(libc::SIGKILL));
        // The grandchild held the last copy of the other end.
        assert!(ours.recv().unwrap().is_none());
    }

    #[test]
    fn threads_are_counted() {
        in_child(|| {
            assert_eq!(thread_count(), 1);
            let (ours, theirs) = Seqpacket::pair().unwrap();
            let other = thread::spawn(move || theirs.recv().unwrap());
            assert_eq!(thread_count(), 2);
            drop(ours);
            other.join().unwrap().is_none()
        })
        .assert_ok();
    }

    #[test]
    fn a_name_is_cut_at_15_bytes_but_never_inside_a_character() {
        thread::spawn(|| {
            for (given, kept) in [
                ("shoal", "shoal"),
                ("0123456789abcdefg", "0123456789abcde"),
                ("0123456789abcdé", "0123456789abcd"),
                ("a\0b", "a"),
            ] {
                set_name(given);
                assert_eq!(rustix::thread::name().unwrap().to_str().unwrap(), kept);
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_started_program_has_our_socket_as_stdin_its_own_group_and_the_added_environment() {
        let _alone = alone();
        let (ours, theirs) = Seqpacket::pair().unwrap();
        // The fifth field is the process group.
        let group = r#"read -r stat </proc/self/stat; set -- $stat; [ "$5" = "$$" ]"#;
        let script = format!(r#"{group} && [ "$COLOUR" = red ] && echo "$HELLO" >&0"#);
        let args = ["-c".into(), script.into()];
        let envs = [("COLOUR".into(), "red".into()), ("HELLO".into(), "hello".into())];
        let mut child = spawn_with_stdin(OsStr::new("sh"), &args, &envs, theirs.into_fd()).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(ours.recv().unwrap().unwrap().bytes, b"hello\n");
        assert!(ours.recv().unwrap().is_none());
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_at_once() {
        let _alone = alone();
        let (_ours, theirs) = Seqpacket::pair().unwrap();
        let error = spawn_with_stdin(OsStr::new("/no/such/program"), &[], &[], theirs.into_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
