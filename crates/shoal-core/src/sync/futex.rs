//! A 32-bit word in shared memory on which parties of any process sleep.
//!
//! The kernel compares and sleeps in one step: a waker that changes the word before it wakes can't slip between a
//! sleeper's look at the word and its sleep. Under loom a mutex and a condition variable play the kernel.

use std::time::Duration;

use super::atomics::{AtomicU32, Ordering};

/// Why a wait ended. None of them says that what was waited for has come: the caller looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Somebody woke it, or the word was already another.
    Woken,
    /// The time was up.
    TimedOut,
    /// A signal came in.
    Interrupted,
}

/// A word to sleep on. Four bytes in shared memory, all zero when new.
#[cfg(not(loom))]
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Futex(AtomicU32);

#[cfg(not(loom))]
impl Futex {
    /// Sleeps while the word is `expected`, at most for `timeout`.
    pub fn wait(&self, expected: u32, timeout: Option<Duration>) -> Wake {
        match shoal_sys::futex::wait(&self.0, expected, timeout) {
            shoal_sys::futex::Wake::Woken | shoal_sys::futex::Wake::Changed => Wake::Woken,
            shoal_sys::futex::Wake::TimedOut => Wake::TimedOut,
            shoal_sys::futex::Wake::Interrupted => Wake::Interrupted,
        }
    }

    /// Wakes up to `count` sleepers; how many it woke.
    pub fn wake(&self, count: u32) -> usize {
        shoal_sys::futex::wake(&self.0, count)
    }

    /// The word itself.
    pub fn word(&self) -> &AtomicU32 {
        &self.0
    }
}

/// loom's twin of [`Futex`].
#[cfg(loom)]
#[derive(Debug, Default)]
pub struct Futex {
    word: AtomicU32,
    /// How many sleep.
    kernel: loom::sync::Mutex<usize>,
    sleepers: loom::sync::Condvar,
}

#[cfg(loom)]
impl Futex {
    /// Sleeps while the word is `expected`; not at all if there is a timeout, as loom knows no time.
    pub fn wait(&self, expected: u32, timeout: Option<Duration>) -> Wake {
        if timeout.is_some() {
            return Wake::TimedOut;
        }
        let mut asleep = self.kernel.lock().expect("loom's mutex is never poisoned");
        if self.word.load(Ordering::SeqCst) == expected {
            *asleep += 1;
            drop(self.sleepers.wait(asleep).expect("loom's mutex is never poisoned"));
        }
        Wake::Woken
    }

    /// Wakes up to `count` sleepers; how many it woke.
    pub fn wake(&self, count: u32) -> usize {
        let mut asleep = self.kernel.lock().expect("loom's mutex is never poisoned");
        let woken = (*asleep).min(count as usize);
        *asleep -= woken;
        (0..woken).for_each(|_| self.sleepers.notify_one());
        woken
    }

    /// The word itself.
    pub fn word(&self) -> &AtomicU32 {
        &self.word
    }
}

impl Futex {
    /// Adds one to the word and wakes up to `count` sleepers: whoever read the word before can't fall asleep on it.
    pub fn bump(&self, count: u32) {
        self.word().fetch_add(1, Ordering::SeqCst);
        self.wake(count);
    }
}
