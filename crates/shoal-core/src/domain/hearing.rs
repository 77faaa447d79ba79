//! What a host hears of its workers: what they write to their standard streams, and what they report; and who passes it on.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_sys::pipe;

use super::host::{Host, Output};
use super::voice::{PoolVoice, Speaker, Speakers, Stream, Voice};
use super::words::{Words, lock};

impl Host {
    /// Has what workers say spoken by `speaker`, which may wait. With `None` lines are written to this process's own
    /// streams, and reports are dropped.
    pub fn speak_through(&self, stream: Stream, speaker: Option<Speaker>) {
        self.voice.speak_through(stream, speaker);
    }

    /// The voice of a new pool: one of its own, if it has speakers of its own.
    pub(crate) fn voice_for(&self, speakers: Option<Speakers>) -> PoolVoice {
        let Some(speakers) = speakers else { return PoolVoice { voice: self.voice.clone(), own: false } };
        let voice = Arc::new(Voice::new(speakers));
        let mut state = self.state();
        state.voices.retain(|voice| voice.strong_count() > 0);
        state.voices.push(Arc::downgrade(&voice));
        PoolVoice { voice, own: true }
    }

    /// Says something as a worker would, on `stream`, without waiting until it is spoken.
    pub fn say(self: &Arc<Host>, stream: Stream, bytes: Vec<u8>) {
        self.voice.say(stream, bytes, self);
    }

    /// Writes a line to the standard error of a pool's workers, without waiting for it.
    pub(crate) fn complain(self: &Arc<Host>, voice: &PoolVoice, line: String) {
        voice.voice.say(Stream::Err, line.into_bytes(), self);
    }

    /// Passes on what workers have said so far, of pools without a voice of their own, and waits until it is spoken,
    /// unless nothing of it is for that time.
    pub fn pass_on(self: &Arc<Host>, timeout: Duration) {
        self.pass_on_by(&self.voice, timeout);
    }

    /// The same for a pool's workers.
    pub(crate) fn pass_on_of(self: &Arc<Host>, voice: &PoolVoice, timeout: Duration) {
        self.pass_on_by(&voice.voice, timeout);
    }

    fn pass_on_by(self: &Arc<Host>, voice: &Arc<Voice>, timeout: Duration) {
        if !self.is_mine() {
            // In a fork nobody is heard.
            return;
        }
        let words: Vec<_> = {
            let state = self.state();
            let seats = state.seats.values().filter(|seat| Arc::ptr_eq(&seat.voice, voice));
            seats.flat_map(|seat| seat.words.clone()).collect()
        };
        words.iter().for_each(|words| self.hear(words, voice));
        self.hear_reports(voice);
        voice.flush(timeout);
    }

    /// Reads what lies in a worker's pipe.
    pub(super) fn hear(self: &Arc<Host>, words: &Mutex<Words>, voice: &Arc<Voice>) {
        // Locked until it is queued: who reads next is to come behind.
        let mut words = lock(words);
        voice.say(words.stream, words.listen(), self);
    }

    /// Reads what those have reported who have this voice.
    pub(super) fn hear_reports(self: &Arc<Host>, voice: &Arc<Voice>) {
        if let Some(reports) = voice.reports() {
            reports.hear(voice, self);
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
