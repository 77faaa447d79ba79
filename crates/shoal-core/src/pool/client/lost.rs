//! Tasks that are nowhere any more: somebody has written over the pool's memory.
//!
//! Every process of the pool can write to its segment, and native code that runs wild does. A task that was put into the ring is
//! in its slot, in the record of a worker, or in a completion ring, and goes that way in that order. So it is looked for in
//! that order, now and then, by the pool's own thread: who is not seen at any of these places, and has not been read
//! at the end either, will never come, and whoever waits for it is told. If it is the ring that makes no sense any more,
//! no task will come through it, and the pool is given up. See `docs/design/damage.md`.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::{Shared, State, lock};
use crate::pool::tasks::Outcome;

const WRITTEN_OVER: &str = "somebody has written over the memory that the pool and its workers share";

impl Shared {
    /// Looks for all tasks that are out.
    pub(super) fn look_for_lost(&self) {
        let collecting = self.take_collector();
        if self.settling.load(Ordering::SeqCst) {
            // What the dead one has left is on its way, and at none of these places.
            return;
        }
        let (mut missing, sound) = {
            let core = lock(&self.core);
            let ring = self.memory.tasks();
            let mut out: HashSet<u64> = core.tasks.in_ring().collect();
            ring.each_held(|task| _ = out.remove(&task));
            let ended = !matches!(core.state, State::Open | State::Closed);
            (out, ended || ring.is_sound(core.pushed, self.memory.workers()))
        };
        for worker in 0..self.memory.workers() as u16 {
            if let Some(task) = self.memory.record(worker).current.task() {
                missing.remove(&task);
            }
        }
        self.drain();
        drop(collecting);
        if !sound {
            return self.give_up(WRITTEN_OVER);
        }
        let lost: Vec<_> = {
            let mut core = lock(&self.core);
            missing.retain(|number| core.tasks.get_mut(*number).is_some_and(|task| task.in_ring));
            missing.into_iter().filter_map(|number| core.tasks.remove(number)).collect()
        };
        if lost.is_empty() {
            return;
        }
        lost.into_iter().for_each(|task| task.tell(Outcome::Unreadable(WRITTEN_OVER.into())));
        self.end_if_done(&lock(&self.core));
        self.changed();
    }
}
