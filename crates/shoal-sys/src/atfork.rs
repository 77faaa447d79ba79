//! What a library does around a fork that somebody else makes, whoever that is.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// Has `before` called by every thread that is about to call `fork()`, and then, by the same thread, `in_parent` in the
/// parent (also if the fork failed) and `in_child` in the child. For good, and in every process forked from this one.
///
/// Nothing is called where a process is started without a copy of this one's memory (`vfork`, `posix_spawn`), or by a
/// bare system call. In the child there is the calling thread only, and what others had locked stays locked: `before`
/// takes what `in_child` needs. A panic in one of them ends the process.
pub fn around(before: extern "C" fn(), in_parent: extern "C" fn(), in_child: extern "C" fn()) -> io::Result<()> {
    // SAFETY: functions of this program, which stays loaded: nothing unloads an extension module or an executable.
    match unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// In the child of a fork: closes its copy of a descriptor, so that the parent's end is seen when the parent ends.
///
/// Also if a thread has it that does not exist here, and will never let go of it. A thread that does exist must not have
/// it: it would find another file there, or none.
pub fn close_copy<T: AsRawFd + Into<OwnedFd>>(shared: Arc<T>) {
    match Arc::try_unwrap(shared) {
        Ok(alone) => drop(alone.into()),
        Err(shared) => {
            // SAFETY: open, as `shared` has it; and it will never be closed a second time, as this reference is forgotten.
            unsafe { libc::close(shared.as_raw_fd()) };
            std::mem::forget(shared);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::process::testing::in_child;

    static SEEN: AtomicU32 = AtomicU32::new(0);

    extern "C" fn before() {
        SEEN.store(1, Ordering::SeqCst);
    }

    extern "C" fn in_parent() {
        SEEN.fetch_add(10, Ordering::SeqCst);
    }

    extern "C" fn in_the_child() {
        SEEN.fetch_add(100, Ordering::SeqCst);
    }

    #[test]
    fn both_sides_of_a_fork_are_told() {
        // In a child, as it is for good.
        in_child(|| {
            around(before, in_parent, in_the_child).expect("registered");
            // SAFETY: a child with one thread, which does nothing but end.
            match unsafe { crate::process::fork() }.expect("forked") {
                // SAFETY: always sound.
                None => unsafe { libc::_exit(i32::from(SEEN.load(Ordering::SeqCst) != 101)) },
                Some(_) => {
                    let ended = loop {
                        if let Some((_, exit)) = crate::process::reap().expect("a child") {
                            break exit;
                        }
                    };
                    SEEN.load(Ordering::SeqCst) == 11 && ended == crate::process::Exit::Code(0)
                }
            }
        })
        .assert_ok();
    }
}
