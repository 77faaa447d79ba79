//! The voice: the thread that passes on what workers say, in the order in which it was heard.
//!
//! Whoever hears something never waits for it to be written: the supervisor has others to look after. So it is queued here,
//! and `shoal-words`, a thread that comes with the first word, has it spoken by whoever registered for the stream.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_sys::pipe;

use super::host::Host;

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

/// See the module.
#[derive(Default)]
pub(super) struct Voice {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    speakers: Mutex<[Option<Speaker>; 3]>,
}

impl std::fmt::Debug for Voice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Voice").field("waiting", &self.waiting).finish_non_exhaustive()
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
}

impl Voice {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn speakers(&self) -> MutexGuard<'_, [Option<Speaker>; 3]> {
        self.speakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what comes on `stream` spoken by `speaker` from now on. With `None` lines are written to this process's own
    /// streams, and reports are dropped.
    pub(super) fn speak_through(&self, stream: Stream, speaker: Option<Speaker>) {
        // Dropped unlocked: what goes with it is not known here.
        let former = std::mem::replace(&mut self.speakers()[stream as usize], speaker);
        drop(former);
    }

    /// Whether nothing more should be heard before what was heard is spoken.
    pub(super) fn is_behind(&self) -> bool {
        let waiting = self.lock();
        waiting.came - waiting.gone > BEHIND as u64
    }

    /// Has `bytes` spoken, without waiting for it.
    pub(super) fn say(&self, stream: Stream, bytes: Vec<u8>, host: &Arc<Host>) {
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
            let speaker = host.clone();
            let thread = std::thread::Builder::new().name("shoal-words".into());
            // Without a thread nothing is passed on before the next word comes.
            waiting.has_thread = thread.spawn(move || speaker.voice.speak(&speaker)).is_ok();
        }
        drop(waiting);
        self.changed.notify_all();
    }

    fn speak(&self, host: &Host) {
        let mut waiting = self.lock();
        loop {
            let Some((stream, bytes)) = waiting.said.pop_front() else {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(waiting);
            let speaker = self.speakers()[stream as usize].clone();
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

    /// Waits until all that was said up to now is spoken, for so long at most.
    pub(super) fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut waiting = self.lock();
        let so_far = waiting.came;
        while waiting.has_thread && waiting.gone < so_far {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
