//! What workers write to their standard streams: passed on line by line, and the last of it kept for when one dies.
//!
//! Each stream is a pipe. The supervisor reads it, as it comes, and never waits: what is to become of the lines is the
//! affair of a thread that may, see `voice`. If that falls behind, the pipes are left alone until it has caught up, and
//! who writes more than a pipe holds waits, as it would for a slow terminal.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_sys::pipe::{self, Read};

use super::voice::{BEHIND, Stream};

/// Bytes kept of what a worker said.
const KEPT: usize = 32 << 10;
/// A line that is longer is passed on in pieces.
const LONG: usize = 1 << 20;
/// Bytes read at a time.
const GULP: usize = 64 << 10;

/// Listens to somebody.
pub(super) fn lock(words: &Mutex<Words>) -> MutexGuard<'_, Words> {
    words.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of a worker's pipes, and what came out of it.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) stream: Stream,
    pipe: Arc<OwnedFd>,
    /// Whether anybody wants it passed on.
    wanted: bool,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// Of a standard error: what it said last.
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
    pub(super) fn new(stream: Stream, pipe: OwnedFd, wanted: bool) -> Words {
        let (line, last) = (Vec::new(), VecDeque::new());
        Words { stream, pipe: Arc::new(pipe), wanted, line, last, answer: None, ended: false }
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
        self.gulp().unwrap_or_default()
    }

    /// `None`: nothing lies there.
    fn gulp(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; GULP];
        // No more than a pipe holds at a time: who never stops is not to keep the supervisor.
        match pipe::read(&*self.pipe, &mut buffer) {
            Ok(Read::Bytes(count)) => Some(self.take_in(&buffer[..count])),
            Ok(Read::Nothing) => None,
            // An error is as good as an end: nothing more will be read here.
            Ok(Read::End) | Err(_) => {
                self.ended = true;
                None
            }
        }
    }

    fn take_in(&mut self, heard: &[u8]) -> Vec<u8> {
        if let Some(answer) = &mut self.answer {
            answer.extend_from_slice(&heard[..heard.len().min(KEPT - answer.len())]);
            return Vec::new();
        }
        if self.stream == Stream::Err {
            self.last.extend(heard);
            let excess = self.last.len().saturating_sub(KEPT);
            self.last.drain(..excess);
        }
        if !self.wanted {
            return Vec::new();
        }
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
        // Not for ever: a process that it started may go on writing to the pipe.
        for _ in 0..BEHIND / GULP {
            let Some(heard) = self.gulp() else { break };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        let (pipe, _) = pipe::pipe().expect("a descriptor");
        Words::new(Stream::Err, pipe, true)
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
    fn what_nobody_wants_is_kept_for_the_end_only() {
        let (pipe, _) = pipe::pipe().expect("a descriptor");
        let mut words = Words::new(Stream::Err, pipe, false);
        assert_eq!(words.take_in(b"one\ntwo"), b"");
        let left = words.end();
        assert_eq!((left.said, &*left.last), (vec![], "one\ntwo"));
    }

    #[test]
    fn what_was_written_before_the_end_is_heard() {
        let (pipe, theirs) = pipe::pipe().expect("descriptors");
        let mut words = Words::new(Stream::Err, pipe, true);
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
        let mut words = Words::new(Stream::Err, pipe, true);
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
