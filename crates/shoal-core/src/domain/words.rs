//! What workers say on their standard error: passed on line by line, and the last of it kept for when one dies.
//!
//! Each worker has a pipe. The supervisor reads it, as it comes, and never waits: the lines are written to the client's
//! own standard error by a thread that may. If that falls behind, the pipes are left alone until it has caught up, and
//! who writes more than a pipe holds waits, as it would for a slow terminal.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_sys::pipe::{self, Read};

use super::host::Host;

/// Bytes kept of what a worker said.
const KEPT: usize = 32 << 10;
/// A line that is longer is passed on in pieces.
const LONG: usize = 64 << 10;
/// Bytes that may wait to be written.
const BEHIND: usize = 1 << 20;
/// Bytes read at a time.
const GULP: usize = 64 << 10;

/// Listens to somebody.
pub(super) fn lock(words: &Mutex<Words>) -> MutexGuard<'_, Words> {
    words.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A worker's pipe, and what came out of it.
#[derive(Debug)]
pub(super) struct Words {
    pipe: Arc<OwnedFd>,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    last: VecDeque<u8>,
    /// What came since it was asked where it is: for who learns of its end, and not passed on.
    answer: Option<Vec<u8>>,
    ended: bool,
}

/// What is left of somebody who has died.
#[derive(Debug)]
pub(super) struct Left {
    /// What is still to be passed on.
    pub(super) said: Vec<u8>,
    /// Its last words.
    pub(super) last: Arc<str>,
    /// What it answered when it was asked where it is.
    pub(super) answer: Arc<str>,
}

impl Words {
    pub(super) fn new(pipe: OwnedFd) -> Words {
        Words { pipe: Arc::new(pipe), line: Vec::new(), last: VecDeque::new(), answer: None, ended: false }
    }

    /// The pipe, as long as there is somebody to write to it.
    pub(super) fn pipe(&self) -> Option<Arc<OwnedFd>> {
        (!self.ended).then(|| self.pipe.clone())
    }

    /// It is about to be asked where it is: what it says from now on is its answer. What came before, to be passed on.
    pub(super) fn expect_answer(&mut self) -> Vec<u8> {
        let heard = self.listen();
        self.answer.get_or_insert_default();
        heard
    }

    /// Reads what lies there. What is to be passed on: whole lines.
    pub(super) fn listen(&mut self) -> Vec<u8> {
        let (mut heard, mut buffer) = (Vec::new(), [0; GULP]);
        // No more than a pipe holds at a time: who never stops is not to keep the supervisor.
        match pipe::read(&*self.pipe, &mut buffer) {
            Ok(Read::Bytes(count)) => heard.extend_from_slice(&buffer[..count]),
            Ok(Read::Nothing) => return Vec::new(),
            // An error is as good as an end: nothing more will be read here.
            Ok(Read::End) | Err(_) => self.ended = true,
        }
        self.take_in(&heard)
    }

    fn take_in(&mut self, heard: &[u8]) -> Vec<u8> {
        if let Some(answer) = &mut self.answer {
            answer.extend_from_slice(&heard[..heard.len().min(KEPT - answer.len())]);
            return Vec::new();
        }
        self.last.extend(heard);
        let excess = self.last.len().saturating_sub(KEPT);
        self.last.drain(..excess);
        self.line.extend_from_slice(heard);
        // A bar ends its line by going back to the front of it.
        let whole = self.line.iter().rposition(|&byte| byte == b'\n' || byte == b'\r').map_or(0, |end| end + 1);
        let whole = if self.line.len() - whole > LONG { self.line.len() } else { whole };
        let rest = self.line.split_off(whole);
        std::mem::replace(&mut self.line, rest)
    }

    /// The worker is dead: what it has left.
    pub(super) fn end(&mut self) -> Left {
        let mut said = Vec::new();
        loop {
            let heard = self.listen();
            // A process that it started may go on writing to the pipe.
            if heard.is_empty() || said.len() > BEHIND {
                break;
            }
            said.extend_from_slice(&heard);
        }
        let rest = std::mem::take(&mut self.line);
        if !rest.is_empty() {
            said.extend_from_slice(&rest);
            said.push(b'\n');
        }
        let answer = self.answer.take().unwrap_or_default();
        Left {
            said,
            last: String::from_utf8_lossy(self.last.make_contiguous()).into(),
            answer: String::from_utf8_lossy(&answer).into(),
        }
    }
}

/// Writes bytes in another way than to the standard error. `false`: it could not.
pub type Speaker = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Who writes it to the client's standard error.
#[derive(Default)]
pub(super) struct Voice {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    through: Mutex<Option<Speaker>>,
}

impl std::fmt::Debug for Voice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Voice").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    speaking: bool,
    has_thread: bool,
}

impl Voice {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has everything written by `speaker` from now on; by nobody in particular with `None`.
    pub(super) fn speak_through(&self, speaker: Option<Speaker>) {
        // Dropped unlocked: what goes with it is not known here.
        let former = std::mem::replace(&mut *self.through.lock().unwrap_or_else(PoisonError::into_inner), speaker);
        drop(former);
    }

    /// Whether nothing more should be heard before what was heard is passed on.
    pub(super) fn is_behind(&self) -> bool {
        self.lock().bytes.len() > BEHIND
    }

    /// Has `bytes` written, without waiting for it.
    pub(super) fn say(&self, bytes: Vec<u8>, host: &Arc<Host>) {
        if bytes.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        waiting.bytes.extend_from_slice(&bytes);
        if !waiting.has_thread {
            let speaker = host.clone();
            let thread = std::thread::Builder::new().name("shoal-words".into());
            // Without a thread nothing is passed on before the next word comes, or the end.
            waiting.has_thread = thread.spawn(move || speaker.voice.speak(&speaker)).is_ok();
        }
        drop(waiting);
        self.changed.notify_all();
    }

    fn speak(&self, host: &Host) {
        let mut waiting = self.lock();
        loop {
            while waiting.bytes.is_empty() {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            let bytes = std::mem::take(&mut waiting.bytes);
            waiting.speaking = true;
            drop(waiting);
            let through = self.through.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if !through.is_some_and(|speaker| speaker(&bytes)) {
                // Nobody may be there to read it. There is no better place to say so.
                let _ = pipe::write_to_stderr(&bytes);
            }
            waiting = self.lock();
            waiting.speaking = false;
            self.changed.notify_all();
            if bytes.len() > BEHIND {
                host.look_again();
            }
        }
    }

    /// Waits until all is written, for so long at most.
    pub(super) fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut waiting = self.lock();
        while waiting.has_thread && (waiting.speaking || !waiting.bytes.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        let (pipe, _) = pipe::pipe().expect("a descriptor");
        Words::new(pipe)
    }

    #[test]
    fn lines_are_passed_on_whole() {
        let mut words = words();
        assert_eq!(words.take_in(b"one\ntw"), b"one\n");
        assert_eq!(words.take_in(b""), b"");
        assert_eq!(words.take_in(b"o\nthree\nfour"), b"two\nthree\n");
        let left = words.end();
        assert_eq!((left.said, &*left.last), (b"four\n".to_vec(), "one\ntwo\nthree\nfour"));
    }

    #[test]
    fn a_bar_is_passed_on_as_it_moves() {
        let mut words = words();
        assert_eq!(words.take_in(b"\r10%"), b"\r");
        assert_eq!(words.take_in(b"\r20%"), b"10%\r");
    }

    #[test]
    fn a_line_without_an_end_is_passed_on_in_pieces() {
        let mut words = words();
        let long = vec![b'x'; LONG + 1];
        assert_eq!(words.take_in(&long), long);
    }

    #[test]
    fn only_the_last_words_are_kept() {
        let mut words = words();
        (0..10_000).for_each(|n| drop(words.take_in(format!("line {n}\n").as_bytes())));
        let last = words.end().last;
        assert!(last.len() <= KEPT && last.ends_with("line 9999\n"));
    }

    #[test]
    fn what_was_written_before_the_end_is_heard() {
        let (pipe, theirs) = pipe::pipe().expect("descriptors");
        let mut words = Words::new(pipe);
        std::io::Write::write_all(&mut std::fs::File::from(theirs), b"farewell").expect("room");
        assert_eq!(words.listen(), b"");
        assert!(words.pipe().is_some());
        assert_eq!(&*words.end().last, "farewell");
        assert!(words.pipe().is_none());
    }

    #[test]
    fn an_answer_is_kept_apart_and_not_passed_on() {
        let (pipe, theirs) = pipe::pipe().expect("descriptors");
        let mut theirs = std::fs::File::from(theirs);
        let mut say = |what: &[u8]| std::io::Write::write_all(&mut theirs, what).expect("room");
        let mut words = Words::new(pipe);
        say(b"at work\nand");
        assert_eq!(words.expect_answer(), b"at work\n");
        say(b"here\n");
        assert_eq!(words.listen(), b"");
        say(b"I am");
        let left = words.end();
        assert_eq!((left.said, &*left.last, &*left.answer), (b"and\n".to_vec(), "at work\nand", "here\nI am"));
    }

    #[test]
    fn an_answer_without_an_end_is_cut() {
        let mut words = words();
        words.expect_answer();
        (0..3).for_each(|_| drop(words.take_in(&[b'x'; KEPT / 2 + 1])));
        assert_eq!(words.end().answer.len(), KEPT);
    }
}
