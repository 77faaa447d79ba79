//! The voice: the thread that passes on what workers say, in the order in which it was heard.
//!
//! Whoever hears something never waits for it to be written: the supervisor has others to look after. So it is queued here,
//! and `shoal-words`, a thread that comes with the first word, has it spoken by whoever registered for the stream.
//!
//! The host has one voice, for all pools but those that have one of their own: what their workers say is for somebody
//! else, who may be slow to hear it, and others are not to wait for that.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_sys::pipe;

use super::host::Host;
use super::reports::Reports;

/// Bytes that may wait to be spoken.
pub(super) const BEHIND: usize = 1 << 20;

/// What workers say, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Lines of a standard output.
    Out,
    /// Lines of a standard error.
    Err,
    /// A message of the caller's own making: [`Reporter::report`](crate::pool::reporter::Reporter::report).
    Report,
}

/// Says bytes: lines, or one report. `false`: it could not.
pub type Speaker = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Who speaks, for each stream: standard output, standard error, reports.
#[derive(Clone, Default)]
pub struct Speakers(pub [Option<Speaker>; 3]);

impl std::fmt::Debug for Speakers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(Option::is_some)).finish()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Voice {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    speakers: Mutex<Speakers>,
    /// Where those report who have this voice, once there are any.
    reports: Mutex<Option<Arc<Reports>>>,
}

/// The voice of a pool. One of its own ends with it.
#[derive(Debug)]
pub(crate) struct PoolVoice {
    pub(super) voice: Arc<Voice>,
    pub(super) own: bool,
}

impl Drop for PoolVoice {
    fn drop(&mut self) {
        if self.own {
            self.voice.end();
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    said: VecDeque<(Stream, Vec<u8>)>,
    /// Bytes that have been queued so far,
    came: u64,
    /// and bytes that have been spoken.
    gone: u64,
    has_thread: bool,
    /// Its pool is gone.
    over: bool,
}

impl Voice {
    pub(super) fn new(speakers: Speakers) -> Voice {
        Voice { speakers: Mutex::new(speakers), ..Voice::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn speakers(&self) -> MutexGuard<'_, Speakers> {
        self.speakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where workers report, if any may.
    pub(super) fn reports(&self) -> Option<Arc<Reports>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same for a new worker.
    pub(super) fn expect_reports(&self) -> std::io::Result<Arc<Reports>> {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        match &*reports {
            Some(reports) => Ok(reports.clone()),
            None => Ok(reports.insert(Arc::new(Reports::new()?)).clone()),
        }
    }

    /// Has what comes on `stream` spoken by `speaker` from now on. With `None` lines are written to this process's own
    /// streams, and reports are dropped.
    pub(super) fn speak_through(&self, stream: Stream, speaker: Option<Speaker>) {
        // Dropped unlocked: what goes with it is not known here.
        let former = std::mem::replace(&mut self.speakers().0[stream as usize], speaker);
        drop(former);
    }

    /// Whether nothing more should be heard before what was heard is spoken.
    pub(super) fn is_behind(&self) -> bool {
        let waiting = self.lock();
        waiting.came - waiting.gone > BEHIND as u64
    }

    /// Has `bytes` spoken, without waiting for it.
    pub(super) fn say(self: &Arc<Voice>, stream: Stream, bytes: Vec<u8>, host: &Arc<Host>) {
        if bytes.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        waiting.came += bytes.len() as u64;
        match waiting.said.back_mut() {
            // Many lines at a time cost no more than one.
            Some((last, lines)) if *last == stream && stream != Stream::Report => lines.extend_from_slice(&bytes),
            _ => waiting.said.push_back((stream, bytes)),
        }
        if !waiting.has_thread {
            let (voice, host) = (self.clone(), host.clone());
            let thread = std::thread::Builder::new().name("shoal-words".into());
            // Without a thread nothing is passed on before the next word comes.
            waiting.has_thread = thread.spawn(move || voice.speak(&host)).is_ok();
        }
        drop(waiting);
        self.changed.notify_all();
    }

    fn speak(&self, host: &Host) {
        let mut waiting = self.lock();
        loop {
            let Some((stream, bytes)) = waiting.said.pop_front() else {
                if waiting.over {
                    waiting.has_thread = false;
                    return;
                }
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(waiting);
            let speaker = self.speakers().0[stream as usize].clone();
            if !speaker.is_some_and(|speaker| speaker(&bytes)) {
                // Nobody may be there to read it. There is no better place to say so.
                let _ = match stream {
                    Stream::Out => pipe::write_to_stdout(&bytes),
                    Stream::Err => pipe::write_to_stderr(&bytes),
                    Stream::Report => Ok(()),
                };
            }
            waiting = self.lock();
            let was_behind = waiting.came - waiting.gone > BEHIND as u64;
            waiting.gone += bytes.len() as u64;
            self.changed.notify_all();
            if was_behind && waiting.came - waiting.gone <= BEHIND as u64 {
                host.look_again();
            }
        }
    }

    /// There is nothing more to come: its thread ends when all is spoken.
    fn end(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// Waits until all that was said up to now is spoken; not longer than `timeout` for any part of it.
    pub(super) fn flush(&self, timeout: Duration) {
        let mut waiting = self.lock();
        let so_far = waiting.came;
        let mut ear = Ear::new(timeout, waiting.gone);
        while waiting.has_thread && waiting.gone < so_far {
            let Some(slice) = ear.slice(waiting.gone) else { return };
            let began = Instant::now();
            waiting = self.changed.wait_timeout(waiting, slice).unwrap_or_else(PoisonError::into_inner).0;
            ear.waited(began.elapsed());
        }
    }
}

/// How long something may go unspoken before nobody waits for it any more: whoever speaks may be stuck. One who is slow but
/// goes on is waited for some time longer, and so is one whom the machine keeps from it: that keeps the waiter, too.
#[derive(Debug)]
struct Ear {
    timeout: Duration,
    left: Duration,
    /// Of all parts together: whoever speaks may have very much to say.
    total: Duration,
    gone: u64,
}

impl Ear {
    /// What a wait counts at most, however long it took.
    const SLICE: Duration = Duration::from_millis(50);
    /// How many parts are waited for, each as long as may be.
    const PARTS: u32 = 5;

    fn new(timeout: Duration, gone: u64) -> Ear {
        Ear { timeout, left: timeout, total: timeout * Ear::PARTS, gone }
    }

    /// How long to wait now, `gone` bytes having been spoken; `None`: no longer.
    fn slice(&mut self, gone: u64) -> Option<Duration> {
        if gone > self.gone {
            (self.gone, self.left) = (gone, self.timeout);
        }
        let left = self.left.min(self.total);
        (!left.is_zero()).then(|| left.min(Ear::SLICE))
    }

    fn waited(&mut self, passed: Duration) {
        let counted = passed.min(Ear::SLICE);
        (self.left, self.total) = (self.left.saturating_sub(counted), self.total.saturating_sub(counted));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_who_is_stuck_is_not_waited_for_longer_than_that() {
        let mut ear = Ear::new(Duration::from_secs(1), 7);
        for _ in 0..20 {
            assert_eq!(ear.slice(7), Some(Ear::SLICE));
            ear.waited(Ear::SLICE);
        }
        assert_eq!(ear.slice(7), None);
        // Nor for ever, if others say more and wake whoever waits.
        let mut ear = Ear::new(Duration::from_secs(1), 7);
        (0..999).for_each(|_| ear.waited(Duration::from_millis(1)));
        assert_eq!(ear.slice(7), Some(Duration::from_millis(1)));
        ear.waited(Duration::from_millis(1));
        assert_eq!(ear.slice(7), None);
    }

    #[test]
    fn one_who_is_slow_and_goes_on_is_waited_for_some_time_longer() {
        let mut ear = Ear::new(Duration::from_secs(1), 7);
        for gone in 8..13 {
            assert_eq!(ear.slice(gone), Some(Ear::SLICE));
            (0..19).for_each(|_| ear.waited(Ear::SLICE));
        }
        (0..5).for_each(|_| ear.waited(Ear::SLICE));
        assert_eq!(ear.slice(100), None);
    }

    #[test]
    fn a_machine_that_stands_still_counts_little() {
        let mut ear = Ear::new(Duration::from_secs(1), 7);
        ear.waited(Duration::from_secs(100));
        assert_eq!(ear.slice(7), Some(Ear::SLICE));
    }
}
