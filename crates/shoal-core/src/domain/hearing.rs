//! What a host hears of its workers: what they write to their standard streams, and what they report.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_sys::pipe;
use shoal_sys::socket::Seqpacket;

use super::host::{Host, Output};
use super::voice::{Speaker, Stream};
use super::words::{Words, lock};
use crate::pool::reporter::Parts;

/// Reports read at a time.
const MOST_REPORTS: usize = 1024;

/// Where workers report.
#[derive(Debug)]
pub(super) struct Reports {
    pub(super) ours: Arc<Seqpacket>,
    /// Every worker has a copy.
    pub(super) theirs: OwnedFd,
    parts: Mutex<Parts>,
}

impl Reports {
    pub(super) fn new() -> std::io::Result<Reports> {
        let (ours, theirs) = Seqpacket::pair()?;
        Ok(Reports { ours: Arc::new(ours), theirs: theirs.into_fd(), parts: Mutex::default() })
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    /// Has what workers say spoken by `speaker`, which may wait. With `None` lines are written to this process's own
    /// streams, and reports are dropped.
    pub fn speak_through(&self, stream: Stream, speaker: Option<Speaker>) {
        self.voice.speak_through(stream, speaker);
    }

    /// Writes a line to the standard error, without waiting for it.
    pub(crate) fn say(self: &Arc<Host>, line: String) {
        self.voice.say(Stream::Err, line.into_bytes(), self);
    }

    /// Passes on what workers have said so far, and waits until it is spoken, for so long at most.
    pub fn pass_on(self: &Arc<Host>, timeout: Duration) {
        let words: Vec<_> = self.state().seats.values().flat_map(|seat| seat.words.clone()).collect();
        words.iter().for_each(|words| self.hear(words));
        self.hear_reports();
        self.voice.flush(timeout);
    }

    /// Reads what lies in a worker's pipe.
    pub(super) fn hear(self: &Arc<Host>, words: &Mutex<Words>) {
        // Locked until it is queued: who reads next is to come behind.
        let mut words = lock(words);
        self.voice.say(words.stream, words.listen(), self);
    }

    /// Reads what workers have reported.
    pub(super) fn hear_reports(self: &Arc<Host>) {
        let Some(reports) = self.state().reports.clone() else { return };
        let mut parts = reports.parts();
        // No more than a socket holds: who never stops is not to keep the supervisor. A packet that did not arrive whole is
        // no worker's.
        for _ in 0..MOST_REPORTS {
            match reports.ours.try_recv() {
                Ok(Some(packet)) => {
                    if let Some(report) = parts.add(&packet.bytes) {
                        self.voice.say(Stream::Report, report, self);
                    }
                }
                Ok(None) => return,
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {}
                Err(_) => return,
            }
        }
    }

    /// A process is dead: what it had not reported to the end is forgotten.
    pub(super) fn forget_reports(&self, pid: u32) {
        if let Some(reports) = self.state().reports.clone() {
            reports.parts().forget(pid);
        }
    }
}

/// What is listened to of a worker, and the worker's ends.
pub(super) fn streams(output: Output) -> Vec<(Words, OwnedFd)> {
    let wanted = [(Stream::Err, output != Output::Unheard)].into_iter();
    let wanted = wanted.chain((output == Output::Forwarded).then_some((Stream::Out, true)));
    let heard = wanted.map(|(stream, passed_on)| {
        let (ours, theirs) = pipe::pipe()?;
        Ok((Words::new(stream, ours, passed_on), theirs))
    });
    // All or none: a worker takes them in this order.
    heard.collect::<std::io::Result<_>>().unwrap_or_default()
}
