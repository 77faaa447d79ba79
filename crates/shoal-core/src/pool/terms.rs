//! The terms a task is run on: how long it may take, how often it is tried, what comes before it.

use std::time::Duration;

/// Added to the kind of a result: it may be tried again. With no try left it is the end, without this.
pub const AGAIN: u16 = 0x8000;

/// No pause before a try is longer, however many there were.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// On what terms a function is called. The default: no limit, one try, as it comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// How long it may run, from the moment a worker takes it.
    pub timeout: Option<Duration>,
    /// How often it is tried again after its worker has died, or ended it with [`AGAIN`].
    pub retries: u32,
    /// Whether also after its time was over.
    pub retry_timeouts: bool,
    /// The pause before the first of these tries; each further one is twice as long, up to a minute.
    pub pause: Duration,
    /// What is higher goes first.
    pub priority: i32,
    /// Bytes of the caller's own that travel behind the arguments of each task.
    pub rider: Box<[u8]>,
}

impl Terms {
    /// The pause before the next try, after `tried` of them.
    pub fn pause_after(&self, tried: u32) -> Duration {
        let doubled = 1u32.checked_shl(tried.saturating_sub(1)).and_then(|factor| self.pause.checked_mul(factor));
        doubled.map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE.max(self.pause)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let terms = Terms { pause: Duration::from_secs(1), ..Terms::default() };
        let pauses: Vec<u64> = [1, 2, 3, 6, 7, 8, 99].map(|tried| terms.pause_after(tried).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 32, 60, 60, 60]);
    }

    #[test]
    fn no_pause_stays_none_and_a_long_one_is_not_cut() {
        assert_eq!(Terms::default().pause_after(5), Duration::ZERO);
        let patient = Terms { pause: Duration::from_secs(300), ..Terms::default() };
        assert_eq!(patient.pause_after(1), Duration::from_secs(300));
        assert_eq!(patient.pause_after(2), Duration::from_secs(300));
    }
}
