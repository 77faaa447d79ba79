//! What a worker is at: the one word that decides between a task's end and its being stopped.
//!
//! ```text
//!             begin               end                    done
//!   NO_TASK ─────────▶ running ─────────▶ ending ─────────────────▶ NO_TASK
//!  (worker)               │    (worker: CAS)   (the completion is committed in between)
//!                         └──────────▶ stopped ───▶ the worker is killed
//!                       stop (client: CAS)
//! ```
//!
//! Who wants to stop a task has to kill the process that runs it. Between the look that finds the worker at that task
//! and the signal, the worker could end it and begin another, which would die for it. So both sides swap the word first:
//! a worker that finds its task stopped sends nothing more and waits for its end, and a client that finds it ending
//! kills nobody. See `docs/design/faults.md`.

use crate::sync::atomics::{AtomicU64, Ordering};

/// No task: what the word holds between tasks.
pub const NO_TASK: u64 = u64::MAX;

/// A task's number has an index in its low half. The two highest bits of that say how far the task is.
pub const MOST_TASKS: u32 = 1 << 30;
const STAGE: u64 = 0b11 << 30;
const ENDING: u64 = 0b01 << 30;
const STOPPED: u64 = 0b10 << 30;

/// A task under way, as it is told to users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtTask {
    /// What its function is called, if that is known.
    pub function: Option<String>,
    /// For how many nanoseconds it has run.
    pub nanos: u64,
}

/// The word, in the worker's record.
#[repr(transparent)]
#[derive(Debug)]
pub struct Current(AtomicU64);

impl Default for Current {
    fn default() -> Self {
        Current(AtomicU64::new(NO_TASK))
    }
}

impl Current {
    /// The worker has taken a task. Before its slot is released: see `docs/design/task-ring.md`.
    pub fn begin(&self, task: u64) {
        self.0.store(task, Ordering::Release);
    }

    /// The worker is about to commit the task's end. `false`: the task was stopped, nobody is to hear of its end.
    pub fn end(&self, task: u64) -> bool {
        self.0.compare_exchange(task, task | ENDING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The worker has committed it.
    pub fn done(&self) {
        self.0.store(NO_TASK, Ordering::Release);
    }

    /// The client stops the task if the worker runs it. `true`: it does, and now the worker is to be killed.
    pub fn stop(&self, task: u64) -> bool {
        self.0.compare_exchange(task, task | STOPPED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The task that runs; `None` while there is none, or it is ending, or was stopped.
    pub fn running(&self) -> Option<u64> {
        let word = self.0.load(Ordering::Acquire);
        (word & STAGE == 0).then_some(word)
    }

    /// What the worker is at, however far it is with it.
    pub fn task(&self) -> Option<u64> {
        let word = self.0.load(Ordering::Acquire);
        (word != NO_TASK).then_some(word & !STAGE)
    }

    /// Whether the worker is between tasks.
    pub fn is_idle(&self) -> bool {
        self.0.load(Ordering::Acquire) == NO_TASK
    }

    /// Whether the task was stopped: its worker has no other future than to be killed.
    pub fn is_stopped(&self) -> bool {
        let word = self.0.load(Ordering::Acquire);
        word != NO_TASK && word & STAGE == STOPPED
    }

    /// The supervisor, for a worker that is dead: what it was at.
    pub fn take(&self) -> Option<u64> {
        let word = self.0.swap(NO_TASK, Ordering::AcqRel);
        (word != NO_TASK).then_some(word & !STAGE)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const TASK: u64 = 7 << 32 | 9;

    #[test]
    fn a_task_that_has_begun_to_end_is_not_stopped() {
        let current = Current::default();
        current.begin(TASK);
        assert_eq!(current.running(), Some(TASK));
        assert!(current.end(TASK));
        assert!(!current.stop(TASK));
        assert_eq!(current.running(), None);
        current.done();
        assert!(current.is_idle());
    }

    #[test]
    fn a_task_that_was_stopped_does_not_end() {
        let current = Current::default();
        current.begin(TASK);
        assert!(current.stop(TASK) && current.is_stopped());
        assert!(!current.stop(TASK), "once");
        assert!(!current.end(TASK));
        assert_eq!(current.take(), Some(TASK));
        assert_eq!(current.take(), None);
    }

    #[test]
    fn another_task_of_the_worker_is_not_stopped() {
        let current = Current::default();
        assert!(!current.stop(TASK) && !current.is_stopped());
        current.begin(TASK + 1);
        assert!(!current.stop(TASK));
        assert_eq!(current.running(), Some(TASK + 1));
    }

    #[test]
    fn what_a_worker_died_at_is_found_however_far_it_was() {
        let current = Current::default();
        current.begin(TASK);
        assert_eq!(current.take(), Some(TASK));
        current.begin(TASK);
        current.end(TASK);
        assert_eq!(current.take(), Some(TASK));
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::thread;

    use super::*;

    /// The worker ends task 1 and goes on with task 2; the client wants to stop task 1.
    #[test]
    fn loom_a_task_ends_or_is_stopped_and_the_next_one_is_never_hit() {
        loom::model(|| {
            let shared = Arc::new((Current::default(), AtomicU32::new(0)));
            shared.0.begin(1);
            let worker = {
                let shared = shared.clone();
                thread::spawn(move || {
                    if !shared.0.end(1) {
                        return false;
                    }
                    // The commit.
                    shared.1.store(1, Ordering::Release);
                    shared.0.done();
                    shared.0.begin(2);
                    true
                })
            };
            let client = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let stopped = shared.0.stop(1);
                    if stopped {
                        assert_eq!(shared.1.load(Ordering::Acquire), 0, "nothing is committed");
                    }
                    stopped
                })
            };
            let stopped = client.join().expect("ends");
            let ended = worker.join().expect("ends");
            assert!(ended != stopped);
            assert_eq!(shared.0.running(), ended.then_some(2));
        });
    }
}
