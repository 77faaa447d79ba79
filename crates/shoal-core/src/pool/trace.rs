//! A record of each task while somebody wants one: when it was submitted, taken, ended and received, by whom, and what it
//! weighed. See `docs/design/insight.md`.
//!
//! All of it is written by the client, which knows of a task's beginning, and learns the rest with its end. So a
//! worker does not know whether it is watched, and a pool that nobody watches looks at one pointer more a task.

use std::collections::HashMap;

use shoal_sys::{clock, memory};

use super::completion_ring::Head;
use super::tasks::{Code, Task};
use super::terms::AGAIN;

/// Records of a chunk, 16 MiB: they are never moved while the pool works, and most lie in large pages, as the first touch
/// of a small one costs as much as all the rest of a record.
const CHUNK: usize = 1 << 19;

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

/// A record as it is kept if its figures are small, as nearly all are: half as long, as memory that nobody has touched
/// before is most of what a record costs. Four words, so that it takes no more than four stores:
///
/// ```text
///     started 64
///     from its submission until then 32 | from then to its end 32
///     from its end until the client saw that 32 | function 16 | units 16
///     bytes_in 16 | bytes_out 16 | worker 16 | kind 8 | end 8
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Small([u64; 4]);

/// In the place of a record that is no small one: it is the next one of `Trace::large`.
const LARGE: Small = Small([u64::MAX; 4]);

impl Small {
    #[inline(always)]
    fn of(record: &Record) -> Option<Small> {
        let queued = record.started.wrapping_sub(record.submitted);
        let took = record.ended.wrapping_sub(record.started);
        let back = record.received.wrapping_sub(record.ended);
        let (function, units, kind) = (u64::from(record.function), u64::from(record.units), u64::from(record.kind));
        // What is in the wrong order is large, too. All at once, as there is hardly ever one.
        let halves = function | units | record.bytes_in | record.bytes_out;
        ((queued | took | back) >> 32 | halves >> 16 | kind >> 8 == 0).then(|| {
            let bytes = record.bytes_in | record.bytes_out << 16;
            Small([
                record.started,
                queued | took << 32,
                back | function << 32 | units << 48,
                bytes | u64::from(record.worker) << 32 | kind << 48 | (record.end as u64) << 56,
            ])
        })
    }

    fn whole(self) -> Record {
        let Small([started, times, numbers, rest]) = self;
        let ended = started + (times >> 32);
        Record {
            submitted: started - u64::from(times as u32),
            started,
            ended,
            received: ended + u64::from(numbers as u32),
            bytes_in: u64::from(rest as u16),
            bytes_out: u64::from((rest >> 16) as u16),
            function: u32::from((numbers >> 32) as u16),
            units: (numbers >> 48) as u32,
            worker: (rest >> 32) as u16,
            kind: u16::from((rest >> 48) as u8),
            end: if rest >> 56 == End::Done as u64 { End::Done } else { End::Died },
        }
    }
}

/// What was recorded.
#[derive(Debug, Default)]
pub struct Trace {
    /// Full ones, and the one that is being filled.
    full: Vec<Vec<Small>>,
    chunk: Vec<Small>,
    large: Vec<Record>,
    /// The names of functions by their numbers.
    pub names: HashMap<u32, Box<str>>,
    /// Tasks that were not recorded, because there were more than wanted.
    pub left_out: u64,
}

impl Trace {
    /// The tasks, in the order in which their ends were seen.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let mut large = self.large.iter();
        let whole = move |small: &Small| if *small == LARGE { large.next().copied() } else { Some(small.whole()) };
        self.full.iter().chain([&self.chunk]).flatten().filter_map(whole)
    }

    #[inline(always)]
    fn push(&mut self, record: &Record) {
        let small = Small::of(record).unwrap_or_else(|| self.keep_large(record));
        if self.chunk.len() == self.chunk.capacity() {
            self.begin_chunk();
        }
        self.chunk.push(small);
    }

    #[cold]
    fn keep_large(&mut self, record: &Record) -> Small {
        self.large.push(*record);
        LARGE
    }

    #[cold]
    fn begin_chunk(&mut self) {
        let mut chunk = Vec::with_capacity(CHUNK);
        memory::prefer_large_pages(chunk.spare_capacity_mut());
        let full = std::mem::replace(&mut self.chunk, chunk);
        self.full.push(full);
    }
}

/// Records, with the pool's core locked.
#[derive(Debug)]
pub(super) struct Recorder {
    most: usize,
    recorded: usize,
    trace: Trace,
    /// When the latest task of each place in the table was submitted; 0: before the record began.
    submitted: Vec<u64>,
    /// The one that was seen last: its name is known. 0: none was.
    last_function: u32,
}

impl Recorder {
    /// Records the first `most` tasks that end.
    pub(super) fn new(most: usize) -> Recorder {
        Recorder { most, recorded: 0, trace: Trace::default(), submitted: Vec::new(), last_function: 0 }
    }

    /// A task, or a further try of one, has got that number, `now`.
    pub(super) fn submitted(&mut self, number: u64, now: u64) {
        let place = number as u32 as usize;
        if place >= self.submitted.len() {
            self.submitted.resize(place + 1, 0);
        }
        self.submitted[place] = now;
    }

    /// A task, or a try of one that is to be tried again, has ended by itself; that was seen at `received`.
    pub(super) fn done(&mut self, worker: u16, head: &Head, task: &Task, bytes_out: u64, received: u64) {
        self.record(head.task, task, |submitted| Record {
            submitted,
            started: head.started,
            ended: head.started.saturating_add(head.nanos),
            received,
            bytes_in: task.bytes(),
            bytes_out,
            function: task.function.code.id,
            units: u32::try_from(head.units).unwrap_or(u32::MAX),
            worker,
            kind: head.kind & !AGAIN,
            end: End::Done,
        });
    }

    /// A worker has died at a task; at `started` it took that, or the one before if it died while it took it.
    pub(super) fn died(&mut self, worker: u16, number: u64, task: &Task, started: u64) {
        let now = clock::nanos();
        self.record(number, task, |submitted| Record {
            submitted,
            started: started.clamp(submitted, now),
            ended: now,
            received: now,
            bytes_in: task.bytes(),
            bytes_out: 0,
            function: task.function.code.id,
            units: 0,
            worker,
            kind: 0,
            end: End::Died,
        });
    }

    #[inline(always)]
    fn record(&mut self, number: u64, task: &Task, make: impl FnOnce(u64) -> Record) {
        // What was submitted before the recording began is not in it.
        let Some(&submitted) = self.submitted.get(number as u32 as usize).filter(|at| **at > 0) else { return };
        if self.recorded == self.most {
            self.trace.left_out += 1;
            return;
        }
        self.recorded += 1;
        let code = &task.function.code;
        if self.last_function != code.id {
            self.name(code);
        }
        self.trace.push(&make(submitted));
    }

    #[cold]
    fn name(&mut self, code: &Code) {
        self.last_function = code.id;
        self.trace.names.entry(code.id).or_insert_with(|| code.name.clone());
    }

    pub(super) fn into_trace(self) -> Trace {
        self.trace
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Mostly small, sometimes anything.
    fn figure() -> impl Strategy<Value = u64> {
        prop_oneof![4 => 0..70_000_u64, 1 => 0..1_u64 << 33, 1 => any::<u64>()]
    }

    fn record() -> impl Strategy<Value = Record> {
        let times = (figure(), figure(), figure(), figure());
        let rest = (figure(), figure(), figure(), figure(), any::<u16>(), any::<bool>());
        (times, rest).prop_map(
            |((submitted, queued, took, back), (bytes_in, bytes_out, function, units, worker, died))| {
                let started = submitted.wrapping_add(queued);
                let ended = started.wrapping_add(took);
                Record {
                    submitted,
                    started,
                    ended,
                    received: ended.wrapping_add(back),
                    bytes_in,
                    bytes_out,
                    function: function as u32,
                    units: units as u32,
                    worker,
                    kind: units as u16,
                    end: if died { End::Died } else { End::Done },
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_recorded_comes_back_as_it_was_and_in_its_order(records in prop::collection::vec(record(), 0..50)) {
            let mut trace = Trace::default();
            records.iter().for_each(|record| trace.push(record));
            prop_assert_eq!(trace.records().collect::<Vec<_>>(), records);
        }
    }
}
