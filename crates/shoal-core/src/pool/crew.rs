//! The workers of a pool as its client knows them, and which of them rest.
//!
//! A worker that finds nothing to do for as long as the pool allows ends, and is forked again when there is work. Nobody
//! is told of its leave, and no task may be left lying because of it:
//!
//! ```text
//! worker                                      publisher
//! R1  off the gate                            P1  the task is in the ring, under the lock
//! R2  SeqCst fence                            P2  SeqCst fence
//! R3  a task? back to searching               P3  the gate: nobody is idle
//! R4  left = my epoch + 1; ends               P4  somebody rests, and too few are on their way? fork
//!
//! supervisor, when it has ended
//! S1  under the lock: a task? fork as ever; else it rests
//! S2  P4
//! ```
//!
//! # Why no task is left lying while all rest
//!
//! P2 and R2 are totally ordered. If P2 comes first, R3 sees the task. If R2 does, P3 sees nobody at the gate who is about
//! to leave. The lock orders P1 and S1: if S1 comes first, the publisher finds the worker resting at P4; if P1 does,
//! the supervisor finds the task, at S1 or, as it counted the dead one as being on its way there, at S2.

use std::sync::atomic::Ordering;

use crate::crash;
use crate::sync::atomics::AtomicU32;
use crate::sync::futex::Futex;
use crate::sync::gate::Gate;

/// What is known of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crew {
    /// Asked for.
    Starting {
        /// Which process of that number.
        epoch: u32,
    },
    /// There.
    Running {
        /// Which process of that number.
        epoch: u32,
        /// Its process.
        pid: u32,
    },
    /// Ended for want of work.
    Resting {
        /// Which process of that number.
        epoch: u32,
    },
    /// Ended, and not to be replaced.
    Gone,
}

/// For how many of the `queued` tasks no worker is on its way, if so many are `idle`.
pub(super) fn missing(crew: &[Crew], queued: usize, idle: usize) -> usize {
    let starting = crew.iter().filter(|crew| matches!(crew, Crew::Starting { .. })).count();
    queued.saturating_sub(starting + idle)
}

/// Takes up to `missing` workers out of their rest (P4): whom to fork, and as which process of their number.
pub(super) fn call_back(crew: &mut [Crew], missing: usize) -> Vec<(u16, u32)> {
    let resting = crew.iter_mut().enumerate().filter_map(|(worker, crew)| match *crew {
        Crew::Resting { epoch } => Some((worker as u16, epoch + 1, crew)),
        _ => None,
    });
    let called = resting.take(missing).map(|(worker, epoch, crew)| {
        *crew = Crew::Starting { epoch };
        (worker, epoch)
    });
    called.collect()
}

/// A worker that searches ends for want of work, unless there is some (R1 to R4). `left` is told which process of its
/// number did.
pub(super) fn leave<'a>(
    gate: &Gate,
    worker: u16,
    queued: impl Fn() -> bool,
    park: impl Fn(u16) -> &'a Futex,
    left: &AtomicU32,
    epoch: u32,
) -> bool {
    gate.found(worker, &queued, park);
    crash::point("worker: off the gate");
    let leaves = !queued();
    if leaves {
        left.store(epoch + 1, Ordering::Release);
        crash::point("worker: left");
    }
    leaves
}

/// Whether the process `epoch` of a worker's number, which has ended, did so for want of work.
pub(super) fn has_left(left: &AtomicU32, epoch: u32) -> bool {
    left.load(Ordering::Acquire) == epoch + 1
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_called_back_as_are_missing() {
        let mut crew = vec![
            Crew::Resting { epoch: 3 },
            Crew::Running { epoch: 0, pid: 1 },
            Crew::Starting { epoch: 0 },
            Crew::Resting { epoch: 0 },
            Crew::Resting { epoch: 7 },
            Crew::Gone,
        ];
        assert_eq!(missing(&crew, 4, 1), 2, "one is starting, and one is idle");
        assert_eq!(call_back(&mut crew, 2), [(0, 4), (3, 1)]);
        assert_eq!(crew[0], Crew::Starting { epoch: 4 });
        assert_eq!(missing(&crew, 4, 1), 0);
        assert_eq!(call_back(&mut crew, 2), [(4, 8)], "no more than rest");
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::atomic::Ordering;
    use loom::sync::{Arc, Mutex};
    use loom::thread;
    use std::time::Duration;

    use super::*;

    struct Core {
        crew: Vec<Crew>,
        /// Processes that were asked for.
        forked: Vec<(u16, u32)>,
    }

    struct Shared {
        core: Mutex<Core>,
        gate: Gate,
        park: [Futex; 2],
        left: [AtomicU32; 2],
        resting: AtomicU32,
        queued: AtomicU32,
        done: AtomicU32,
    }

    impl Shared {
        fn has_tasks(&self) -> bool {
            self.queued.load(Ordering::SeqCst) > 0
        }

        fn missing(&self, core: &Core) -> usize {
            missing(&core.crew, self.queued.load(Ordering::SeqCst) as usize, self.gate.idle())
        }

        fn call_back(&self) {
            let mut core = self.core.lock().expect("sound");
            let missing = self.missing(&core);
            let called = call_back(&mut core.crew, missing);
            self.resting.fetch_sub(called.len() as u32, Ordering::Relaxed);
            core.forked.extend(called);
        }

        fn submit(&self) {
            let core = self.core.lock().expect("sound");
            self.queued.fetch_add(1, Ordering::SeqCst);
            drop(core);
            self.gate.published(|worker| &self.park[usize::from(worker)]);
            if self.resting.load(Ordering::Relaxed) > 0 {
                self.call_back();
            }
        }

        fn take(&self) -> bool {
            self.queued.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |queued| queued.checked_sub(1)).is_ok()
        }

        /// A worker that has no patience at all; and the supervisor, when it has ended.
        fn live(&self, me: u16, epoch: u32) {
            let park = |worker: u16| &self.park[usize::from(worker)];
            self.gate.add(me);
            let mut searching = false;
            loop {
                while self.take() {
                    if std::mem::take(&mut searching) {
                        self.gate.found(me, || self.has_tasks(), park);
                    }
                    self.done.fetch_add(1, Ordering::SeqCst);
                }
                if !searching {
                    self.gate.search(me);
                    self.gate.sleep(me, park(me), || self.has_tasks(), Some(Duration::ZERO));
                    searching = true;
                    continue;
                }
                searching = false;
                if leave(&self.gate, me, || self.has_tasks(), park, &self.left[usize::from(me)], epoch) {
                    break;
                }
            }
            self.core.lock().expect("sound").crew[usize::from(me)] = Crew::Starting { epoch };
            self.gate.remove(me, park);
            let mut core = self.core.lock().expect("sound");
            let rests = has_left(&self.left[usize::from(me)], epoch) && self.missing(&core) == 0;
            if rests {
                core.crew[usize::from(me)] = Crew::Resting { epoch };
                self.resting.fetch_add(1, Ordering::Relaxed);
                drop(core);
                self.call_back();
            } else {
                core.crew[usize::from(me)] = Crew::Starting { epoch: epoch + 1 };
                core.forked.push((me, epoch + 1));
            }
        }
    }

    /// Tasks are submitted while workers that are there leave, and others rest already. In the end those that were forked
    /// meanwhile run: all tasks must be done then.
    fn model(crew: &'static [Crew], tasks: u32, preemptions: usize) {
        let mut explored = loom::model::Builder::new();
        explored.preemption_bound = Some(preemptions);
        explored.check(move || {
            let resting = crew.iter().filter(|crew| matches!(crew, Crew::Resting { .. })).count();
            let shared = Arc::new(Shared {
                core: Mutex::new(Core { crew: crew.to_vec(), forked: vec![] }),
                gate: Gate::default(),
                park: [Futex::default(), Futex::default()],
                left: [AtomicU32::new(0), AtomicU32::new(0)],
                resting: AtomicU32::new(resting as u32),
                queued: AtomicU32::new(0),
                done: AtomicU32::new(0),
            });
            let there = crew.iter().enumerate().filter(|(_, crew)| matches!(crew, Crew::Running { .. }));
            let threads: Vec<_> = there
                .map(|(me, _)| {
                    let shared = shared.clone();
                    thread::spawn(move || shared.live(me as u16, 0))
                })
                .collect();
            (0..tasks).for_each(|_| shared.submit());
            threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
            loop {
                let next = shared.core.lock().expect("sound").forked.pop();
                let Some((worker, epoch)) = next else { break };
                shared.live(worker, epoch);
            }
            assert_eq!(shared.done.load(Ordering::SeqCst), tasks);
        });
    }

    const HERE: Crew = Crew::Running { epoch: 0, pid: 1 };
    const RESTS: Crew = Crew::Resting { epoch: 0 };

    #[test]
    fn loom_a_task_that_comes_as_the_only_worker_leaves_is_run() {
        model(&[HERE], 2, 3);
    }

    #[test]
    fn loom_a_task_that_comes_as_one_leaves_and_another_rests_is_run() {
        model(&[HERE, RESTS], 1, 3);
    }

    #[test]
    fn loom_a_task_that_comes_as_two_leave_is_run() {
        model(&[HERE, HERE], 1, 2);
    }
}
