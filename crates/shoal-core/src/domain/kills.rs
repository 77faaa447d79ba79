//! Whether it was the kernel that killed a worker, as memory had run out.
//!
//! The kernel counts whom it kills for that, and does not say who it was. It counts before it sends the signal, and the end of
//! the process is known once its memory was taken apart, a moment later. So a death by SIGKILL is put down to a kill that was
//! counted not long ago, and each kill explains one death. One of long ago was of somebody else: of a program that a task has
//! started, say, or of one that has nothing to do with this one but to be in the same control group.

use std::time::{Duration, Instant};

/// How long it may take, from a kill's being counted, until its death is known. Large processes take seconds.
const RECENT: Duration = Duration::from_secs(10);

/// The kernel's count, as it was seen.
#[derive(Debug)]
pub(super) struct Kills {
    counted: u64,
    /// How many of them are no explanation any more.
    explained: u64,
    /// When the count was last seen to have grown.
    grown: Instant,
}

impl Kills {
    pub(super) fn new(count: u64, now: Instant) -> Kills {
        Kills { counted: count, explained: count, grown: now }
    }

    /// Sees the count as it is now. To be told often enough that one of long ago is known to be.
    pub(super) fn see(&mut self, count: u64, now: Instant) {
        if now.saturating_duration_since(self.grown) > RECENT {
            self.explained = self.counted;
        }
        if count > self.counted {
            self.grown = now;
        }
        self.counted = count;
        // Another group of another count: the process was moved.
        self.explained = self.explained.min(count);
    }

    /// Whether a death that is known now is put down to one of them.
    pub(super) fn explain_one(&mut self, count: u64, now: Instant) -> bool {
        self.see(count, now);
        let one = self.explained < self.counted;
        self.explained += u64::from(one);
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// One was killed a second after `start`, and somebody has looked each second since.
    fn seen_for(seconds: u32, start: Instant) -> Kills {
        let mut kills = Kills::new(0, start);
        (1..=seconds).for_each(|second| kills.see(1, start + second * SECOND));
        kills
    }

    #[test]
    fn each_kill_explains_one_death_and_those_before_the_first_look_none() {
        let start = Instant::now();
        let mut kills = Kills::new(7, start);
        assert!(!kills.explain_one(7, start));
        // Two were killed before the first of them was known to be dead.
        assert!(kills.explain_one(9, start + SECOND) && kills.explain_one(9, start + 2 * SECOND));
        assert!(!kills.explain_one(9, start + 2 * SECOND));
        assert!(kills.explain_one(10, start + 100 * SECOND));
    }

    #[test]
    fn a_kill_of_long_ago_was_of_somebody_else() {
        let start = Instant::now();
        let mut kills = seen_for(20, start);
        assert!(!kills.explain_one(1, start + 20 * SECOND));
        assert!(kills.explain_one(2, start + 20 * SECOND), "but not one of just now");
    }

    #[test]
    fn one_that_takes_seconds_to_end_is_explained_however_often_somebody_looks() {
        let start = Instant::now();
        let mut kills = seen_for(5, start);
        assert!(kills.explain_one(1, start + 5 * SECOND));
    }

    #[test]
    fn a_count_that_has_become_less_explains_nothing() {
        let start = Instant::now();
        let mut kills = Kills::new(5, start);
        assert!(!kills.explain_one(2, start + SECOND) && !kills.explain_one(2, start + SECOND));
        assert!(kills.explain_one(3, start + 2 * SECOND));
    }
}
