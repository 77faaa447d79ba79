//! The gate: where idle workers wait for tasks, first searching (spinning), then asleep.
//!
//! Waking a process costs the waker a system call and the sleeper some tens of microseconds, so a publisher wakes
//! at most one worker, and none while somebody is searching already. Whoever stops searching because it found a
//! task looks whether there are more and then wakes the next: wake-ups spread as a chain, as in Go's and rayon's
//! schedulers.
//!
//! # Who writes what
//!
//! | word | written by | meaning |
//! | --- | --- | --- |
//! | `searching` bit w | w; whoever wakes w | w looks for tasks and will see what is published now |
//! | `sleeping` bit w | w sets; w or the waker that wins clears | w sleeps or is about to |
//! | `live` bit w | supervisor | there is a process behind w |
//! | `park[w]` | w clears to 0; the waker sets to 1 | the futex w sleeps on |
//!
//! The two bits of a worker lie in the same word and change in one step. (Were they apart, a slow waker could mark as
//! searching a worker that has long woken by itself and found a task: then nobody would wake the others. loom found that.)
//!
//! # Why no task is left lying while a worker sleeps
//!
//! ```text
//! publisher                                   worker that gives up searching
//! P1  publish the task                        G1  park = 0
//! P2  SeqCst fence                            G2  searching -> sleeping
//! P3  if nobody is searching:                 G3  SeqCst fence
//! P4    some w: sleeping -> searching;        G4  look for a task; if there is one: sleeping -> searching
//!       park[w] = 1; wake                     G5  futex_wait(park, 0)
//! ```
//!
//! P2 and G3 are totally ordered. If G3 comes first, P3 sees w asleep, so P4 wakes w or another. If P2 comes first, G4
//! sees the task. If P3 finds somebody else searching, that worker has not passed its own G2 at that moment: its
//! G4 is still to come and sees the task, or it finds the task by searching; and when it leaves the search with another
//! task it runs `found`, which is P2 to P4 again. G1 may undo a wake-up that came late: then G2 and G4 come after it, and
//! the argument starts anew.
//!
//! # Deaths
//!
//! A worker may die anywhere: as a searcher that publishers rely on, or as a waker before it has set `park`. The
//! supervisor takes the dead one's bits out and then wakes everybody (`remove`): an unneeded wake-up does no harm, and
//! the state is again one of those above.

use std::time::Duration;

use super::atomics::{AtomicU64, Ordering, fence};
use super::bits::{BitSet, CAPACITY};
use super::futex::{Futex, Wake};

/// Workers in a word: the low half says who is searching, the high half who is sleeping.
const SHARE: u16 = 32;
const WORDS: usize = CAPACITY / SHARE as usize;

/// The gate of one pool, in the pool's segment. The `park` words live in the workers' records and are passed in.
#[repr(C)]
#[derive(Debug)]
pub struct Gate {
    idle: [AtomicU64; WORDS],
    live: BitSet,
}

impl Default for Gate {
    fn default() -> Self {
        Gate { idle: std::array::from_fn(|_| AtomicU64::new(0)), live: BitSet::default() }
    }
}

const fn searching(worker: u16) -> u64 {
    1 << (worker % SHARE)
}

const fn sleeping(worker: u16) -> u64 {
    searching(worker) << SHARE
}

impl Gate {
    fn word(&self, worker: u16) -> &AtomicU64 {
        &self.idle[usize::from(worker / SHARE)]
    }

    /// Moves `worker`'s bits in one step: those of `clear` go, those of `set` come. The word before.
    fn change(&self, worker: u16, clear: u64, set: u64) -> u64 {
        let word = self.word(worker);
        let mut now = word.load(Ordering::Relaxed);
        loop {
            match word.compare_exchange_weak(now, now & !clear | set, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(before) => return before,
                Err(changed) => now = changed,
            }
        }
    }

    /// Counts `worker` as alive and busy.
    pub fn add(&self, worker: u16) {
        self.live.insert(worker);
    }

    /// Takes a dead worker out and wakes everybody.
    pub fn remove<'a>(&self, worker: u16, park: impl Fn(u16) -> &'a Futex) {
        self.live.remove(worker);
        self.change(worker, sleeping(worker) | searching(worker), 0);
        self.wake_all(park);
    }

    /// Wakes everybody who sleeps: the pool's state has changed, or a waker may have died.
    pub fn wake_all<'a>(&self, park: impl Fn(u16) -> &'a Futex) {
        for worker in (0..CAPACITY as u16).filter(|worker| self.live.contains(*worker)) {
            self.wake(worker, park(worker));
        }
    }

    /// Wakes `worker` if it sleeps, also if a waker that died had begun to. Whether it was asleep by its bit.
    fn wake(&self, worker: u16, park: &Futex) -> bool {
        let word = self.word(worker);
        let moved = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
            (now & sleeping(worker) != 0).then_some(now & !sleeping(worker) | searching(worker))
        });
        park.word().store(1, Ordering::SeqCst);
        park.wake(1);
        moved.is_ok()
    }

    /// A publisher has put tasks into the ring: wakes a worker if none is searching (P2 to P4).
    pub fn published<'a>(&self, park: impl Fn(u16) -> &'a Futex) {
        fence(Ordering::SeqCst);
        while let Some(worker) = self.to_wake() {
            if self.wake(worker, park(worker)) {
                return;
            }
        }
    }

    /// A sleeper, if nobody is searching.
    fn to_wake(&self) -> Option<u16> {
        let mut sleeper = None;
        for (index, word) in self.idle.iter().enumerate() {
            let word = word.load(Ordering::SeqCst);
            if word as u32 != 0 {
                return None;
            }
            if sleeper.is_none() && word != 0 {
                sleeper = Some(index as u16 * SHARE + ((word >> SHARE) as u32).trailing_zeros() as u16);
            }
        }
        sleeper
    }

    /// `worker` starts to search.
    pub fn search(&self, worker: u16) {
        self.change(worker, 0, searching(worker));
    }

    /// `worker` has found a task. If it was the last one searching and there is `more`, the next one is woken.
    pub fn found<'a>(&self, worker: u16, more: impl FnOnce() -> bool, park: impl Fn(u16) -> &'a Futex) {
        self.change(worker, searching(worker), 0);
        fence(Ordering::SeqCst);
        if more() {
            self.published(park);
        }
    }

    /// `worker` gives up searching and sleeps until it is woken or the time is up (G1 to G5). `ready` looks for a
    /// task or a change of the pool. Afterwards the worker is searching again.
    pub fn sleep(&self, worker: u16, park: &Futex, ready: impl FnOnce() -> bool, timeout: Option<Duration>) -> Wake {
        park.word().store(0, Ordering::SeqCst);
        self.change(worker, searching(worker), sleeping(worker));
        fence(Ordering::SeqCst);
        let wake = if ready() { Wake::Woken } else { park.wait(0, timeout) };
        self.change(worker, sleeping(worker), searching(worker));
        wake
    }

    /// Live workers that run a task at this moment.
    pub fn running(&self) -> u32 {
        let idle: u32 = self.idle.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum();
        self.live.len().saturating_sub(idle)
    }

    /// Workers that are spinning.
    pub fn spinning(&self) -> u32 {
        self.idle.iter().map(|word| (word.load(Ordering::Relaxed) as u32).count_ones()).sum()
    }

    /// Workers that are idle, asleep or searching.
    pub fn idle(&self) -> usize {
        self.idle.iter().map(|word| word.load(Ordering::SeqCst).count_ones() as usize).sum()
    }

    /// Whether somebody is idle, asleep or searching: a task could be taken at once.
    pub fn has_idle(&self) -> bool {
        self.idle.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::thread;

    use super::*;

    struct Shared {
        gate: Gate,
        park: [Futex; 2],
        queued: AtomicU32,
        done: AtomicU32,
    }

    fn take(shared: &Shared) -> bool {
        shared.queued.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
    }

    /// A worker that runs `quota` tasks; it never spins, as loom would spin for ever.
    fn work(shared: &Shared, me: u16, quota: u32) {
        for _ in 0..quota {
            shared.gate.search(me);
            while !take(shared) {
                let ready = || shared.queued.load(Ordering::SeqCst) > 0;
                shared.gate.sleep(me, &shared.park[usize::from(me)], ready, None);
            }
            shared.gate.found(me, || shared.queued.load(Ordering::SeqCst) > 0, |w| &shared.park[usize::from(w)]);
            shared.done.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn model(workers: &'static [u32], tasks: u32) {
        let mut explored = loom::model::Builder::new();
        explored.preemption_bound = Some(3);
        explored.check(move || {
            let shared = Arc::new(Shared {
                gate: Gate::default(),
                park: [Futex::default(), Futex::default()],
                queued: AtomicU32::new(0),
                done: AtomicU32::new(0),
            });
            let threads: Vec<_> = workers
                .iter()
                .enumerate()
                .map(|(me, &quota)| {
                    shared.gate.add(me as u16);
                    let shared = shared.clone();
                    thread::spawn(move || work(&shared, me as u16, quota))
                })
                .collect();
            for _ in 0..tasks {
                shared.queued.fetch_add(1, Ordering::SeqCst);
                shared.gate.published(|w| &shared.park[usize::from(w)]);
            }
            threads.into_iter().for_each(|thread| thread.join().expect("the worker ends"));
            assert_eq!(shared.done.load(Ordering::SeqCst), tasks);
        });
    }

    #[test]
    fn loom_one_worker_gets_every_task() {
        model(&[2], 2);
    }

    #[test]
    fn loom_two_workers_each_get_one() {
        model(&[1, 1], 2);
    }
}
