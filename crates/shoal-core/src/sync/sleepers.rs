//! Those who sleep until something comes that one of them may take: an item, room for an item.
//!
//! One word: 0, nobody sleeps; 1, somebody may. No count, which a death would leave wrong for ever: a word that says 1
//! though nobody sleeps costs the next waker two system calls, and says 0 afterwards.
//!
//! ```text
//! waker                                     sleeper
//! W1  publish one thing                     S1  word = 1
//! W2  SeqCst fence                          S2  SeqCst fence
//! W3  word is 0? done                       S3  is there something? then S5
//! W4  wake one; did one sleep? done         S4  futex_wait(word, 1); look again, perhaps S1
//! W5  word = 0; wake all                    S5  take it, or leave; more there? W2
//! ```
//!
//! # Why nothing is left lying while everybody sleeps
//!
//! The fences are totally ordered. If W2 comes first, S3 sees the thing. If S2 comes first, W3 reads the 1 of S1 or what
//! was written later.
//!
//! - It reads 1: W4 wakes one who sleeps, or there is none: then W5 keeps this sleeper, if it has not come to S4 yet,
//!   from sleeping, and wakes it if it has in between.
//! - It reads 0: another waker's W5 has come between. It, too, has kept this sleeper from sleeping or woken it, unless yet
//!   another sleeper wrote 1 again. That one is not at S4 yet: its S3 sees the thing, and it goes to S5.
//!
//! So whenever there is something, either nobody sleeps or somebody is between S1 and S5, or has been woken, and will look.
//! Whoever looks takes one thing and in S5 wakes the next if there are more. Also who leaves without one, as its time is up,
//! does S5: it may have been woken just now.
//!
//! Who is killed after it was woken takes the wake-up with it. So a death wakes all (`wake_all`), whoever died.

use std::time::Duration;

use super::atomics::{Ordering, fence};
use super::futex::{Futex, Wake};

/// The word. All zero when new.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Sleepers(Futex);

impl Sleepers {
    /// Those that sleep on this word.
    pub fn on(&self) -> On<'_> {
        On(&self.0)
    }

    /// See [`On::wake_one`].
    pub fn wake_one(&self) {
        self.on().wake_one();
    }

    /// See [`On::wake_all`].
    pub fn wake_all(&self) {
        self.on().wake_all();
    }

    /// See [`On::sleep`].
    pub fn sleep(&self, ready: impl FnOnce() -> bool, timeout: Option<Duration>) -> Wake {
        self.on().sleep(ready, timeout)
    }

    /// Nobody is there any more: as new.
    pub fn reset(&self) {
        self.0.word().store(0, Ordering::SeqCst);
    }
}

/// Those that sleep on a word that is somewhere else, all zero when new.
#[derive(Clone, Copy, Debug)]
pub struct On<'a>(pub &'a Futex);

impl On<'_> {
    /// Called after one thing was published, or by who leaves while there are more: wakes one. Costs a fence when nobody
    /// sleeps.
    #[inline]
    pub fn wake_one(&self) {
        fence(Ordering::SeqCst);
        if self.0.word().load(Ordering::Relaxed) != 0 && self.0.wake(1) == 0 {
            self.wake_all();
        }
    }

    /// As [`wake_one`](Self::wake_one), for things that are published and looked for by sequentially consistent operations.
    /// Those of the word are such, too, and in their common order W1 and W3, or S1 and S3, are what the fences say.
    #[inline]
    pub fn wake_one_in_order(&self) {
        // loom has no such order but between fences.
        #[cfg(loom)]
        fence(Ordering::SeqCst);
        if self.0.word().load(Ordering::SeqCst) != 0 && self.0.wake(1) == 0 {
            self.wake_all();
        }
    }

    /// Wakes all, to look again: also those whom somebody who died was about to wake.
    pub fn wake_all(&self) {
        self.0.word().store(0, Ordering::SeqCst);
        self.0.wake(u32::MAX);
    }

    /// Sleeps until woken, unless `ready` says that there is something. Whoever has called this calls
    /// [`wake_one`](Self::wake_one) before it turns to other things, if there is something (more) to be had then.
    pub fn sleep(&self, ready: impl FnOnce() -> bool, timeout: Option<Duration>) -> Wake {
        self.0.word().store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if ready() { Wake::Woken } else { self.0.wait(1, timeout) }
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;
    use loom::thread;

    use super::*;

    #[derive(Default)]
    struct Shared {
        sleepers: Sleepers,
        things: AtomicU32,
    }

    impl Shared {
        fn is_there(&self) -> bool {
            self.things.load(Ordering::SeqCst) > 0
        }

        fn publish(&self) {
            self.things.fetch_add(1, Ordering::SeqCst);
            self.sleepers.wake_one();
        }

        fn try_take(&self) -> bool {
            let now = self.things.load(Ordering::SeqCst);
            now > 0 && self.things.compare_exchange(now, now - 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        }

        fn take(&self) {
            let mut slept = false;
            while !self.try_take() {
                if !self.is_there() {
                    slept = true;
                    self.sleepers.sleep(|| self.is_there(), None);
                }
            }
            if slept && self.is_there() {
                self.sleepers.wake_one();
            }
        }

        /// Its time is up when it has slept once.
        fn take_hastily(&self) {
            if !self.try_take() {
                self.sleepers.sleep(|| true, None);
                if self.is_there() {
                    self.sleepers.wake_one();
                }
            }
        }
    }

    fn model(act: impl Fn(&Arc<Shared>) -> Vec<thread::JoinHandle<()>> + Send + Sync + 'static) {
        let mut explored = loom::model::Builder::new();
        explored.preemption_bound = Some(2);
        explored.check(move || {
            let shared = Arc::new(Shared::default());
            act(&shared).into_iter().for_each(|thread| thread.join().expect("ends"));
        });
    }

    fn go(shared: &Arc<Shared>, act: impl FnOnce(&Shared) + Send + 'static) -> thread::JoinHandle<()> {
        let shared = shared.clone();
        thread::spawn(move || act(&shared))
    }

    #[test]
    fn loom_two_takers_get_two_things_of_two_publishers() {
        model(|shared| {
            let threads = vec![go(shared, Shared::take), go(shared, Shared::take), go(shared, Shared::publish)];
            shared.publish();
            threads
        });
    }

    #[test]
    fn loom_one_who_does_not_wait_takes_no_wake_up_with_it() {
        model(|shared| {
            let threads = vec![go(shared, Shared::take), go(shared, Shared::take_hastily), go(shared, Shared::publish)];
            // Of two things the hasty one takes one at most.
            shared.publish();
            threads
        });
    }
}
