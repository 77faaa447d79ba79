//! The bell: how workers tell the client that completions lie in their rings.
//!
//! Ringing costs a system call, so a worker rings only when someone sleeps who wants to hear it. There are three
//! [`Tone`]s, and a sleeper says from which on it wants to be woken: a thread in `get` by every completion, a thread in
//! `map` when the workers run out of tasks, the pool's own collector only when nothing goes on without it.
//!
//! # Why no ring is lost
//!
//! ```text
//! worker                               sleeper
//! W1  publish the completion           S1  sleepers[tone] += 1
//! W2  SeqCst fence                     S2  SeqCst fence
//! W3  read sleepers                    S3  seq0 = seq; look for what it wants; if there: S5
//! W4  if one counts: seq += 1; wake    S4  futex_wait(seq, seq0)
//!                                      S5  sleepers[tone] -= 1
//! ```
//!
//! The two fences are totally ordered. If W2 comes first, S3 sees the completion and does not sleep. If S2 comes
//! first, W3 sees the sleeper and W4 bumps `seq` after the sleeper counted itself: either S3 reads the new `seq`, and
//! then, as W1 precedes W4, also sees the completion; or it reads the old one, and the kernel refuses to sleep on it
//! (or W4 wakes it). Sleepers are threads of the client: when it dies nobody is left to be woken. A worker that dies
//! between W1 and W4 leaves a completion that was not rung for; the supervisor collects a dead worker's ring itself.

use std::time::Duration;

use super::atomics::{AtomicU32, Ordering, fence};
use super::futex::{Futex, Wake};

/// How much a ring matters. A sleeper hears its own tone and all above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    /// A task has ended.
    Completion = 0,
    /// The workers run out of tasks.
    Idle = 1,
    /// A completion ring fills up, or the task ring has room for what waits in the backlog: somebody has to act.
    Room = 2,
}

const TONES: usize = 3;

/// The bell of one pool, in the pool's segment.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Bell {
    seq: Futex,
    sleepers: [AtomicU32; TONES],
}

impl Bell {
    /// Called after something was published; wakes those who want to know. Costs a fence when nobody does.
    pub fn ring(&self, tone: Tone) {
        fence(Ordering::SeqCst);
        if self.sleepers[..=tone as usize].iter().any(|sleepers| sleepers.load(Ordering::Relaxed) > 0) {
            self.seq.bump(u32::MAX);
        }
    }

    /// Sleeps until the bell rings in `tone` or above, unless `ready` says that there is something already.
    pub fn wait(&self, tone: Tone, ready: impl FnOnce() -> bool, timeout: Option<Duration>) -> Wake {
        let count = &self.sleepers[tone as usize];
        count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let seq = self.seq.word().load(Ordering::SeqCst);
        let wake = if ready() { Wake::Woken } else { self.seq.wait(seq, timeout) };
        count.fetch_sub(1, Ordering::SeqCst);
        wake
    }

    /// Wakes every sleeper, whatever it waits for: the pool's state has changed.
    pub fn ring_all(&self) {
        self.seq.bump(u32::MAX);
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::thread;

    use super::*;

    #[test]
    fn loom_a_sleeper_never_misses_a_completion() {
        loom::model(|| {
            let shared = Arc::new((Bell::default(), AtomicU32::new(0)));
            let worker = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.1.store(1, Ordering::Release);
                    shared.0.ring(Tone::Completion);
                })
            };
            while shared.1.load(Ordering::Acquire) == 0 {
                shared.0.wait(Tone::Completion, || shared.1.load(Ordering::Acquire) != 0, None);
            }
            worker.join().expect("the worker ends");
        });
    }

    #[test]
    fn loom_a_sleeper_hears_what_matters_more() {
        loom::model(|| {
            let shared = Arc::new((Bell::default(), AtomicU32::new(0)));
            let worker = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.1.store(1, Ordering::Release);
                    shared.0.ring(Tone::Completion);
                    shared.1.store(2, Ordering::Release);
                    shared.0.ring(Tone::Room);
                })
            };
            while shared.1.load(Ordering::Acquire) < 2 {
                shared.0.wait(Tone::Idle, || shared.1.load(Ordering::Acquire) == 2, None);
            }
            worker.join().expect("the worker ends");
        });
    }
}
