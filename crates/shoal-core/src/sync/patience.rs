//! How long somebody is ready to wait, and what may end the waiting before.
//!
//! Every wait is a row of short sleeps: between two of them `stop` is asked, which is how an interpreter hears of Ctrl-C,
//! and the waiter looks again at what it waits for. So a wake-up that died with its sender, where nobody cleans up any
//! more, costs a slice and not for ever.

use std::time::Duration;
#[cfg(not(loom))]
use std::time::Instant;
/// loom knows no time: who has a deadline sleeps once.
#[cfg(loom)]
type Instant = ();

use super::futex::Wake;

/// The longest sleep without a look around.
#[cfg(not(loom))]
const SLICE: Duration = Duration::from_millis(50);

/// Why a wait was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The time was up.
    TimedOut,
    /// `stop` said so, or a signal came in and there is no `stop` to ask.
    Stopped,
}

/// See the module.
pub struct Patience<'a> {
    deadline: Option<Instant>,
    stop: Option<&'a mut (dyn FnMut() -> bool + Send + 'a)>,
}

impl<'a> Patience<'a> {
    /// Waits as long as it takes.
    pub fn endless() -> Patience<'static> {
        Patience { deadline: None, stop: None }
    }

    /// Waits for so long at most; `None`: as long as it takes.
    #[cfg(not(loom))]
    pub fn within(timeout: Option<Duration>) -> Patience<'static> {
        // A time beyond what the clock can tell is as good as for ever.
        Patience { deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)), stop: None }
    }

    /// The same, but `stop` is asked whenever a signal came in, and now and then: `true` ends the wait.
    pub fn unless<'b>(self, stop: &'b mut (dyn FnMut() -> bool + Send + 'b)) -> Patience<'b> {
        Patience { deadline: self.deadline, stop: Some(stop) }
    }

    /// The same, but told to stop when it is asked for the first time: for models and tests of who gives up.
    #[cfg(test)]
    pub(super) fn hasty(self) -> Patience<'static> {
        // A closure without a state takes no memory.
        Patience { deadline: self.deadline, stop: Some(Box::leak(Box::new(|| true))) }
    }

    /// Sleeps once, and its time is up: for models of who gives up.
    #[cfg(all(test, loom))]
    pub(super) fn brief() -> Patience<'static> {
        Patience { deadline: Some(()), stop: None }
    }

    /// The same patience, but without an end of time.
    pub fn without_deadline(&mut self) -> Patience<'_> {
        Patience {
            deadline: None,
            stop: match &mut self.stop {
                Some(stop) => Some(&mut **stop),
                None => None,
            },
        }
    }

    /// Sleeps once, unless it is time to give up. `Ok`: look again.
    #[cfg(not(loom))]
    pub fn rest(&mut self, sleep: impl FnOnce(Option<Duration>) -> Wake) -> Result<(), End> {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(End::TimedOut);
        }
        let wake = sleep(Some(left.map_or(SLICE, |left| left.min(SLICE))));
        let stopped = match (&mut self.stop, wake) {
            (_, Wake::Woken) => false,
            (Some(stop), Wake::Interrupted | Wake::TimedOut) => stop(),
            (None, wake) => wake == Wake::Interrupted,
        };
        if stopped { Err(End::Stopped) } else { Ok(()) }
    }

    /// Sleeps once. `Ok`: look again.
    #[cfg(loom)]
    pub fn rest(&mut self, sleep: impl FnOnce(Option<Duration>) -> Wake) -> Result<(), End> {
        // With a deadline or somebody to ask the sleep ends at once: it may end at any time.
        sleep((self.deadline.is_some() || self.stop.is_some()).then_some(Duration::ZERO));
        let stopped = self.stop.as_mut().is_some_and(|stop| stop());
        match stopped {
            true => Err(End::Stopped),
            false => self.deadline.map_or(Ok(()), |()| Err(End::TimedOut)),
        }
    }
}

impl std::fmt::Debug for Patience<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patience").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn without_time_nobody_sleeps() {
        let mut patience = Patience::within(Some(Duration::ZERO));
        assert_eq!(patience.rest(|_| panic!("it sleeps")), Err(End::TimedOut));
    }

    #[test]
    fn a_sleep_is_never_longer_than_a_slice_or_what_is_left() {
        for timeout in [None, Some(Duration::MAX), Some(Duration::from_secs(100)), Some(Duration::from_millis(5))] {
            let began = Instant::now();
            let mut patience = Patience::within(timeout);
            let longest = timeout.map_or(SLICE, |timeout| timeout.min(SLICE));
            let slept = patience.rest(|slice| {
                assert!(slice.is_some_and(|slice| slice <= longest));
                Wake::Woken
            });
            // On a busy machine the time may be up before it comes to sleep.
            let is_up = timeout.is_some_and(|timeout| began.elapsed() >= timeout);
            assert!(slept == Ok(()) || (slept == Err(End::TimedOut) && is_up));
        }
    }

    #[test]
    fn stop_is_asked_after_signals_and_slices_but_not_after_wake_ups() {
        let mut asked = 0;
        let mut stop = || {
            asked += 1;
            asked == 2
        };
        let mut patience = Patience::endless().unless(&mut stop);
        assert_eq!(patience.rest(|_| Wake::Woken), Ok(()));
        assert_eq!(patience.rest(|_| Wake::TimedOut), Ok(()));
        assert_eq!(patience.rest(|_| Wake::Interrupted), Err(End::Stopped));
        assert_eq!(asked, 2);
    }

    #[test]
    fn where_nobody_can_be_asked_a_signal_ends_the_wait() {
        assert_eq!(Patience::endless().rest(|_| Wake::Interrupted), Err(End::Stopped));
        assert_eq!(Patience::endless().rest(|_| Wake::TimedOut), Ok(()));
    }
}
