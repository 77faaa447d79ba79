//! Queues: any number of processes put items, any number take them, and whichever is killed takes nothing along.
//!
//! An item is a run of bytes and the blocks that it names. Short ones lie in the queue's own memory, longer ones and those
//! that name blocks in an envelope (`memory::envelope`). No thread stands behind a queue: when `put` returns, the item lies
//! there, whatever becomes of who put it. See `docs/design/queue.md`.
//!
//! - `state`: the words of a queue, and how its sides take their steps
//! - `ring`: the bytes that items lie in
//! - `put`, `get`: the two sides
//! - `recover`: after a death, and when nobody has the queue any more

pub mod state;

#[cfg(all(test, not(loom)))]
mod damage;
#[cfg(not(loom))]
mod get;
#[cfg(not(loom))]
mod put;
#[cfg(not(loom))]
mod recover;
#[cfg(not(loom))]
mod ring;

#[cfg(not(loom))]
pub use self::{
    get::{Content, Got},
    put::{Item, Put},
    recover::{clear, recover},
    shared::{Queue, TooManyDone},
};

#[cfg(not(loom))]
mod shared {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use super::ring::{Chunk, Mapped, STATE};
    use super::state::Side;
    use crate::error::{Error, Result};
    use crate::memory::heap::{BlockId, Heap, Lease};
    use crate::memory::lease::Kind;
    use crate::sync::futex::Wake;
    use crate::sync::lock::{Acquired, Lock};
    use crate::sync::sleepers::Sleepers;
    use crate::sync::spin;

    /// How often to look at a lock before sleeping for it: its holder needs some hundred nanoseconds.
    const LOOKS: u32 = 200;

    /// A queue, as one process has it. Any number of threads may use it at once.
    #[derive(Debug)]
    pub struct Queue {
        pub(super) state: Mapped<Lease>,
        /// The chunk that this process last wrote in, or read from. Whoever has the side's lock has it to itself; still a
        /// mutex, never waited for: in a fork it may be the copy of one that is locked for ever.
        pub(super) writing: Mutex<Option<Chunk>>,
        pub(super) reading: Mutex<Option<Chunk>>,
        /// At least so many items were put: spares looking at the other side's words.
        pub(super) seen: AtomicU64,
        /// For how many nanoseconds to spin: less when it was in vain.
        patience: AtomicU64,
    }

    /// More items are said to be done than were put.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
    #[error("more items are done than were put")]
    pub struct TooManyDone;

    /// Which block, by its name in shared memory.
    pub(super) fn id_of([segment, entry, generation]: [u32; 3]) -> Option<BlockId> {
        (generation != 0).then_some(BlockId { segment, entry, generation })
    }

    /// The other way round.
    pub(super) fn name_of(id: Option<BlockId>) -> [u32; 3] {
        id.map_or([0; 3], |id| [id.segment, id.entry, id.generation])
    }

    /// Frees a side's lock at the end.
    pub(super) struct Locked<'a>(Lock<'a>);

    impl Drop for Locked<'_> {
        fn drop(&mut self) {
            self.0.release();
        }
    }

    impl Queue {
        /// A new queue of `capacity` items at most; 0: as many as there is memory for.
        pub fn new(heap: &Arc<Heap>, capacity: u64) -> Result<Queue> {
            let queue = Self::open(heap.allocate_room(Kind::Queue, STATE)?)?;
            queue.state.common.0.capacity.store(capacity, Ordering::Relaxed);
            Ok(queue)
        }

        /// The queue that a lease was taken on.
        pub fn open(lease: Lease) -> Result<Queue> {
            Ok(Queue {
                state: Mapped::of(lease)?,
                writing: Mutex::default(),
                reading: Mutex::default(),
                seen: AtomicU64::new(0),
                patience: AtomicU64::new(spin::SPIN.as_nanos() as u64),
            })
        }

        /// Its lease.
        pub fn lease(&self) -> &Lease {
            &self.state.kept
        }

        /// The heap that its items lie in.
        pub fn heap(&self) -> &Arc<Heap> {
            self.lease().heap()
        }

        /// An error in a fork of the process that has the queue: what that would do, it would do in the parent's name.
        pub fn check(&self) -> Result<()> {
            if self.heap().is_mine() { Ok(()) } else { Err(Error::Inherited) }
        }

        /// How many items lie in it.
        pub fn len(&self) -> u64 {
            self.state.len()
        }

        /// Whether nothing lies in it.
        pub fn is_empty(&self) -> bool {
            self.state.is_empty()
        }

        /// Whether no more fits now.
        pub fn is_full(&self) -> bool {
            self.state.is_full()
        }

        /// How many items it holds at most; 0: as many as there is memory for.
        pub fn capacity(&self) -> u64 {
            self.state.capacity()
        }

        /// Whether it was shut down.
        pub fn is_shut(&self) -> bool {
            self.state.is_shut()
        }

        /// Items that were put and not yet said to be done.
        pub fn unfinished(&self) -> u64 {
            self.state.unfinished()
        }

        /// `count` items that were taken are done with.
        pub fn done(&self, count: u64) -> std::result::Result<(), TooManyDone> {
            let done = &self.state.common.0.done;
            let mut now = done.load(Ordering::SeqCst);
            loop {
                let more = now.checked_add(count).filter(|more| *more <= self.state.put.steps()).ok_or(TooManyDone)?;
                match done.compare_exchange_weak(now, more, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(_) => break,
                    Err(changed) => now = changed,
                }
            }
            if self.unfinished() == 0 {
                self.state.common.0.joiners.wake_all();
            }
            Ok(())
        }

        /// Waits until all items that were put are done with: `true`; `false`: the time was up, or a signal came in.
        pub fn join(&self, timeout: Option<Duration>) -> bool {
            let until = Until::new(timeout);
            let done = || self.unfinished() == 0;
            while !done() {
                let left = until.left();
                if left.is_some_and(|left| left.is_zero())
                    || self.state.common.0.joiners.sleep(done, left) == Wake::Interrupted
                {
                    return done();
                }
            }
            true
        }

        /// Nothing is put any more, and who waits is told. What lies in it may still be taken.
        pub fn shut_down(&self, timeout: Option<Duration>) -> Acquired {
            // Under the lock: when this returns, every `put` has either been done or will be refused.
            let acquired = self.lock(&self.state.put, Until::new(timeout));
            if let Ok(locked) = acquired {
                self.state.common.0.shut.store(1, Ordering::SeqCst);
                drop(locked);
                self.state.common.0.getters.wake_all();
                self.state.common.0.putters.wake_all();
                return Acquired::Yes;
            }
            acquired.map_or_else(|why| why, |_| Acquired::Yes)
        }

        /// Takes a side's lock.
        pub(super) fn lock<'a>(&self, side: &'a Side, until: Until) -> std::result::Result<Locked<'a>, Acquired> {
            let (lock, me) = (Lock::over(side.lock()), self.heap().me());
            for _ in 0..LOOKS {
                if lock.try_acquire(me) {
                    return Ok(Locked(lock));
                }
                std::hint::spin_loop();
            }
            if until == Until::Now {
                return Err(Acquired::TimedOut);
            }
            match lock.acquire(me, until.left()) {
                Acquired::Yes => Ok(Locked(lock)),
                why => Err(why),
            }
        }

        /// Waits until `ready`, spinning first. It was woken, perhaps; or the time is up, or a signal came in.
        pub(super) fn wait(&self, sleepers: &Sleepers, ready: impl Fn() -> bool, until: Until) -> Wake {
            let patience = Duration::from_nanos(self.patience.load(Ordering::Relaxed));
            let started = Instant::now();
            let allowed = || started.elapsed() < patience && !until.is_over();
            if crate::cpu_count() > 1 {
                let spun = spin::until(&ready, allowed) != spin::Spun::No;
                let most = spin::SPIN.as_nanos() as u64;
                let patience = if spun { most } else { (patience.as_nanos() as u64 / 2).max(most / 16) };
                self.patience.store(patience, Ordering::Relaxed);
                if spun {
                    return Wake::Woken;
                }
            }
            match until.left() {
                Some(left) if left.is_zero() => Wake::TimedOut,
                left => sleepers.sleep(ready, left),
            }
        }
    }

    /// When to give up waiting.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Until {
        /// At once. Known without a look at the clock, which would cost a tenth of a whole `put`.
        Now,
        At(Instant),
        Endless,
    }

    impl Until {
        pub(super) fn new(timeout: Option<Duration>) -> Until {
            match timeout {
                None => Until::Endless,
                Some(Duration::ZERO) => Until::Now,
                Some(timeout) => Instant::now().checked_add(timeout).map_or(Until::Endless, Until::At),
            }
        }

        /// How much time is left; `None`: no end of it.
        pub(super) fn left(self) -> Option<Duration> {
            match self {
                Until::Now => Some(Duration::ZERO),
                Until::At(when) => Some(when.saturating_duration_since(Instant::now())),
                Until::Endless => None,
            }
        }

        pub(super) fn is_over(self) -> bool {
            self.left().is_some_and(|left| left.is_zero())
        }
    }
}
