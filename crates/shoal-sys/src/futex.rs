//! Sleeping until a word of shared memory changes.
//!
//! The word may lie in memory shared between processes, so the futexes are never PRIVATE: the kernel then
//! finds the sleepers by the page, not by the address in one process. A wake-up without a change of the
//! word can happen (another user of the same word, a reused page): callers look at the word again.
//!
//! No wake is lost as long as the waker changes the word *before* it calls [`wake`]: the kernel compares
//! the word with `expected` under the lock that [`wake`] takes too, so a sleeper either sees the change
//! ([`Wake::Changed`]) or is already on the queue that is being woken.

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags};
use rustix::time::Timespec;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Why [`wait`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Someone called [`wake`] (or the kernel woke us for nothing: look at the word).
    Woken,
    /// The word did not hold the expected value, so there was no sleep.
    Changed,
    /// The time is over.
    TimedOut,
    /// A signal handler ran in this thread.
    Interrupted,
}

/// Sleeps while `word` holds `expected`, for `timeout` at most (`None`: without limit).
///
/// Panics if the word's page is not readable (its segment was unmapped or could not get a page).
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Wake {
    // A time too long for the kernel to hold is as good as for ever.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match futex::wait(word, Flags::empty(), expected, timeout.as_ref()) {
        Ok(()) => Wake::Woken,
        Err(Errno::AGAIN) => Wake::Changed,
        Err(Errno::TIMEDOUT) => Wake::TimedOut,
        Err(Errno::INTR) => Wake::Interrupted,
        Err(error) => panic!("futex wait at {word:p} failed: {error}"),
    }
}

/// Wakes up to `count` threads, of any process, that sleep on `word`; returns how many it woke.
///
/// Panics if the word's page is not readable, as [`wait`] does.
pub fn wake(word: &AtomicU32, count: u32) -> usize {
    if count == 0 {
        return 0; // some kernels wake one for a count of 0
    }
    // The kernel takes the count as a signed number, and wakes one only if it is negative.
    match futex::wake(word, Flags::empty(), count.min(i32::MAX as u32)) {
        Ok(woken) => woken,
        Err(error) => panic!("futex wake at {word:p} failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Mapping, reserve};
    use crate::process::testing::in_child;
    use std::os::fd::AsFd;
    use std::sync::atomic::Ordering::SeqCst;
    use std::thread;

    /// Waits until the word is no longer `expected`, whatever the kernel says in between.
    fn wait_for_change(word: &AtomicU32, expected: u32) {
        while word.load(SeqCst) == expected {
            wait(word, expected, None);
        }
    }

    #[test]
    fn a_word_that_has_changed_already_is_not_waited_for() {
        assert_eq!(wait(&AtomicU32::new(1), 0, None), Wake::Changed);
    }

    #[test]
    fn a_wait_ends_when_its_time_is_over() {
        let word = AtomicU32::new(0);
        for timeout in [Duration::ZERO, Duration::from_millis(1)] {
            assert_eq!(wait(&word, 0, Some(timeout)), Wake::TimedOut);
        }
    }

    #[test]
    fn an_endless_timeout_is_no_timeout() {
        assert_eq!(wait(&AtomicU32::new(1), 0, Some(Duration::MAX)), Wake::Changed);
    }

    #[test]
    fn waking_where_nobody_sleeps_wakes_nobody() {
        assert_eq!(wake(&AtomicU32::new(0), u32::MAX), 0);
    }

    #[test]
    fn a_count_is_the_number_of_threads_woken_and_every_one_for_the_largest() {
        let word = AtomicU32::new(0);
        thread::scope(|scope| {
            let sleepers: Vec<_> = (0..3).map(|_| scope.spawn(|| wait(&word, 0, None))).collect();
            let mut woken = 0;
            assert_eq!(wake(&word, 0), 0);
            while woken == 0 {
                woken = wake(&word, 1);
                assert!(woken <= 1);
            }
            while woken < 3 {
                woken += wake(&word, u32::MAX);
            }
            for sleeper in sleepers {
                assert_eq!(sleeper.join().unwrap(), Wake::Woken);
            }
        });
    }

    #[test]
    fn a_process_is_woken_by_another_through_a_segment_mapped_twice() {
        let fd = reserve("futex", 4096).unwrap();
        let ours = Mapping::new(fd.as_fd(), 4096).unwrap();
        // SAFETY: the start of a live mapping of at least 8 bytes, aligned; only used as atomics.
        let words: &[AtomicU32; 2] = unsafe { &*ours.as_ptr().cast() };
        let child = in_child(|| {
            // A mapping of its own: the kernel must find the sleeper at another address.
            let theirs = Mapping::new(fd.as_fd(), 4096).unwrap();
            // SAFETY: as above.
            let words: &[AtomicU32; 2] = unsafe { &*theirs.as_ptr().cast() };
            words[1].store(1, SeqCst);
            wake(&words[1], 1);
            wait_for_change(&words[0], 0);
            words[0].load(SeqCst) == 7
        });
        wait_for_change(&words[1], 0);
        words[0].store(7, SeqCst);
        wake(&words[0], 1);
        child.assert_ok();
    }
}
