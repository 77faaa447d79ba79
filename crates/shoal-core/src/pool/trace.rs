//! A record of each task while somebody wants one: when it was submitted, taken, ended and received, by whom, and what it
//! weighed. See `docs/design/insight.md`.
//!
//! All of it is written by the client, which knows of a task's beginning, and learns the rest with its end. So a
//! worker does not know whether it is watched, and a pool that nobody watches looks at one pointer more a task.

use std::collections::HashMap;

use shoal_sys::{clock, memory};

use super::completion_ring::Head;
use super::tasks::Task;
use super::terms::AGAIN;

/// Records of a chunk, 16 MiB: they are never moved while the pool works, and most lie in large pages, as the first touch
/// of a small one costs as much as all the rest of a record.
const CHUNK: usize = 1 << 18;

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// By itself; whether with a value or an exception is the caller's own matter, see [`Record::kind`].
    Done = 0,
    /// Its worker died at it.
    Died = 1,
}

/// A task. Times are nanoseconds on the clock that all processes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was submitted; those that are sent together have the time of the first.
    pub submitted: u64,
    /// When its worker took it.
    pub started: u64,
    /// When it ended.
    pub ended: u64,
    /// When the client saw that.
    pub received: u64,
    /// Bytes of its arguments, and of the blocks that these name.
    pub bytes_in: u64,
    /// Bytes of its result, likewise.
    pub bytes_out: u64,
    /// Its function's number.
    pub function: u32,
    /// Work units, by the caller's own count.
    pub units: u32,
    /// Its worker.
    pub worker: u16,
    /// The caller's tag of its result.
    pub kind: u16,
    /// How it ended.
    pub end: End,
}

/// What is known of a task before its end.
#[derive(Clone, Copy, Debug, Default)]
struct Submitted {
    /// Its number; the place is that of another one before.
    task: u64,
    at: u64,
    bytes: u64,
    function: u32,
}

/// What was recorded.
#[derive(Debug, Default)]
pub struct Trace {
    chunks: Vec<Vec<Record>>,
    /// The names of functions by their numbers.
    pub names: HashMap<u32, Box<str>>,
    /// Tasks that were not recorded, because there were more than wanted.
    pub left_out: u64,
}

impl Trace {
    /// The tasks, in the order in which their ends were seen.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.chunks.iter().flatten()
    }
}

/// Records, with the pool's core locked.
#[derive(Debug)]
pub(super) struct Recorder {
    most: usize,
    recorded: usize,
    trace: Trace,
    /// By the places of tasks in the table.
    submitted: Vec<Submitted>,
    last_function: Option<u32>,
}

impl Recorder {
    /// Records the first `most` tasks that end.
    pub(super) fn new(most: usize) -> Recorder {
        Recorder { most, recorded: 0, trace: Trace::default(), submitted: Vec::new(), last_function: None }
    }

    /// `task` has got a number, `now`.
    pub(super) fn submitted(&mut self, number: u64, task: &Task, now: u64) {
        let place = number as u32 as usize;
        if place >= self.submitted.len() {
            self.submitted.resize(place + 1, Submitted { task: u64::MAX, ..Submitted::default() });
        }
        let function = task.function.code.id;
        if self.last_function != Some(function) {
            self.last_function = Some(function);
            self.trace.names.entry(function).or_insert_with(|| task.function.code.name.clone());
        }
        self.submitted[place] = Submitted { task: number, at: now, bytes: task.bytes(), function };
    }

    /// A task, or a try of one that is to be tried again, has ended by itself; that was seen at `received`.
    pub(super) fn done(&mut self, worker: u16, head: &Head, bytes_out: u64, received: u64) {
        let ended = head.started.saturating_add(head.nanos);
        let (kind, units) = (head.kind & !AGAIN, u32::try_from(head.units).unwrap_or(u32::MAX));
        self.record(head.task, |submitted| Record {
            submitted: submitted.at,
            started: head.started,
            ended,
            received,
            bytes_in: submitted.bytes,
            bytes_out,
            function: submitted.function,
            units,
            worker,
            kind,
            end: End::Done,
        });
    }

    /// A worker has died at a task; at `started` it took that, or the one before if it died while it took it.
    pub(super) fn died(&mut self, worker: u16, task: u64, started: u64) {
        let now = clock::nanos();
        self.record(task, |submitted| Record {
            submitted: submitted.at,
            started: started.clamp(submitted.at, now),
            ended: now,
            received: now,
            bytes_in: submitted.bytes,
            bytes_out: 0,
            function: submitted.function,
            units: 0,
            worker,
            kind: 0,
            end: End::Died,
        });
    }

    fn record(&mut self, task: u64, make: impl FnOnce(&Submitted) -> Record) {
        // What was submitted before the recording began is not in it.
        let Some(submitted) = self.submitted.get(task as u32 as usize).filter(|known| known.task == task) else {
            return;
        };
        if self.recorded == self.most {
            self.trace.left_out += 1;
            return;
        }
        self.recorded += 1;
        let record = make(submitted);
        match self.trace.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(record),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                memory::prefer_large_pages(chunk.spare_capacity_mut());
                chunk.push(record);
                self.trace.chunks.push(chunk);
            }
        }
    }

    pub(super) fn into_trace(self) -> Trace {
        self.trace
    }
}
