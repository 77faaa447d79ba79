//! What a pool tells of its work: where its workers' time went, a record of tasks, and an account of the last map.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shoal_core::memory::heap::{BlockId, Lease};
use shoal_core::pool::account::{Sampler, Spent, weighted};
use shoal_core::pool::client::WorkerInfo;
use shoal_core::pool::current::AtTask;
use shoal_core::pool::trace::Record;
use shoal_sys::clock;

use crate::errors::OrRaise;
use crate::inside::Inside;
use crate::pool::{Label, PoolBase, name_of};
use crate::wire::result;

/// What a worker has done, in nanoseconds: tasks (a number), busy, decoding, encoding, sending, idle, waiting.
pub type Parts = (u64, u64, u64, u64, u64, u64, u64);

/// For Python.
pub fn parts(spent: &Spent) -> Parts {
    let Spent { tasks, busy, decoding, encoding, sending, idle, waiting } = *spent;
    (tasks, busy, decoding, encoding, sending, idle, waiting)
}

/// What a worker is at: the function's name, if it is known, and for how many nanoseconds.
pub type TaskParts = Option<(Option<String>, u64)>;

/// For Python.
pub fn task_parts(task: Option<AtTask>) -> TaskParts {
    task.map(|task| (task.function, task.nanos))
}

/// A worker's number, process and state, what it is at, and where its time went since the pool began.
type WorkerParts = (u16, Option<u32>, &'static str, TaskParts, Parts);

/// The workers, as they are at this moment; see `shoal.insight.stats`.
#[pyfunction]
pub fn pool_spent(base: &PoolBase) -> Vec<WorkerParts> {
    let of_worker =
        |WorkerInfo { number, pid, state, task, spent }| (number, pid, name_of(state), task_parts(task), parts(&spent));
    base.pool.workers().into_iter().map(of_worker).collect()
}

/// What each worker is at; see [`TaskParts`].
#[pyfunction]
pub fn pool_running(base: &PoolBase) -> Vec<TaskParts> {
    base.pool.running().into_iter().map(task_parts).collect()
}

/// Tasks not taken, and tasks not ended.
#[pyfunction]
pub fn pool_depth(base: &PoolBase) -> (usize, usize) {
    (base.pool.queued(), base.pool.outstanding())
}

/// Begin a record of tasks, of the first `most` that end. False: there is one under way.
#[pyfunction]
pub fn start_trace(py: Python<'_>, base: &PoolBase, most: usize) -> PyResult<bool> {
    base.pool.start_trace(most).or_raise(py)
}

/// What was recorded: [`RECORD`] bytes a task, names of functions by their numbers, how many tasks were left out.
type Recorded<'py> = (Bound<'py, PyBytes>, HashMap<u32, String>, u64);

/// End the record; None if there is none.
#[pyfunction]
pub fn stop_trace<'py>(py: Python<'py>, base: &PoolBase) -> Option<Recorded<'py>> {
    let (bytes, names, left_out) = Inside::detach(py, || {
        let trace = base.pool.stop_trace()?;
        let bytes = trace.records().map(|record| packed(&record)).collect::<Vec<_>>().into_flattened();
        let names = trace.names.into_iter().map(|(id, name)| (id, name.into())).collect();
        Some((bytes, names, trace.left_out))
    })?;
    Some((PyBytes::new(py, &bytes), names, left_out))
}

/// Bytes of a record as Python gets it.
const RECORD: usize = 64;

/// As `struct` unpacks "<6Q2IH B5x": times in nanoseconds, bytes, function, items, worker, and 0: a value, 1: an
/// exception, 2: a worker's death.
fn packed(record: &Record) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    let times = [record.submitted, record.started, record.ended, record.received, record.bytes_in, record.bytes_out];
    for (place, time) in times.into_iter().enumerate() {
        bytes[8 * place..8 * place + 8].copy_from_slice(&time.to_le_bytes());
    }
    bytes[48..52].copy_from_slice(&record.function.to_le_bytes());
    bytes[52..56].copy_from_slice(&record.units.to_le_bytes());
    bytes[56..58].copy_from_slice(&record.worker.to_le_bytes());
    bytes[58] = match record.end {
        shoal_core::pool::trace::End::Died => 2,
        shoal_core::pool::trace::End::Done => u8::from(record.kind == result::ERROR),
    };
    bytes
}

/// Where the account of a pool's last map is kept.
pub type LastMap = Arc<Mutex<Option<MapAccount>>>;

/// What a map took, as it is told to Python. Times are nanoseconds.
#[derive(Clone, Debug)]
pub struct MapAccount {
    name: String,
    wall: u64,
    items: u64,
    pieces: u64,
    bytes: u64,
    client: Client,
    longest: (u64, u64),
    workers: Vec<Spent>,
}

/// What the client's thread did meanwhile.
#[derive(Clone, Copy, Debug, Default)]
struct Client {
    /// In the input's own code.
    reading: u64,
    /// Writing arguments and sending them.
    sending: u64,
    /// Reading results.
    receiving: u64,
    /// Waiting for workers.
    waiting: u64,
}

/// The account of a map in progress.
#[derive(Debug)]
pub struct Watch {
    began: u64,
    before: Vec<Spent>,
    items: u64,
    pieces: u64,
    bytes: u64,
    seen: HashSet<BlockId>,
    client: Client,
    /// Nanoseconds and items of the longest piece.
    longest: (u64, u64),
    reads: Sampler,
    takes: Sampler,
    label: Arc<Label>,
    last: LastMap,
    told: bool,
}

impl Watch {
    /// A map begins.
    pub fn new(label: Arc<Label>, last: LastMap) -> Watch {
        let before = label.pool.spent();
        let (client, reads, takes) = Default::default();
        let (items, pieces, bytes, longest, seen, told) = Default::default();
        let began = clock::nanos();
        Watch { began, before, items, pieces, bytes, seen, client, longest, reads, takes, label, last, told }
    }

    /// A piece of so many items was sent.
    pub fn sent(&mut self, items: usize, bytes: usize, leases: &[Lease]) {
        self.pieces += 1;
        self.items += items as u64;
        self.bytes += bytes as u64;
        for lease in leases {
            if self.seen.insert(lease.id()) {
                self.bytes += lease.len();
            }
        }
    }

    /// So many items were not done, and are sent once more.
    pub fn came_back(&mut self, items: usize) {
        self.items -= items as u64;
    }

    /// A piece has taken its worker so long.
    pub fn ended(&mut self, nanos: u64, items: u64) {
        self.longest = self.longest.max((nanos, items));
    }

    /// The thread goes on: what it did since `then` was sending, but for what it read.
    pub fn has_sent(&mut self, then: u64, read_before: u64) -> u64 {
        let now = clock::nanos();
        self.client.sending += (now - then).saturating_sub(self.client.reading - read_before);
        now
    }

    /// Likewise: receiving.
    pub fn has_received(&mut self, then: u64) -> u64 {
        let now = clock::nanos();
        self.client.receiving += now - then;
        now
    }

    /// Likewise: waiting.
    pub fn has_waited(&mut self, then: u64) {
        self.client.waiting += clock::nanos() - then;
    }

    /// What reading took so far.
    pub fn read(&self) -> u64 {
        self.client.reading
    }

    /// Runs `read`, a look at the input. Of quick ones some count for the others.
    pub fn reading<T>(&mut self, read: impl FnOnce() -> T) -> T {
        let weight = self.reads.weight(false);
        if weight == 0 {
            return read();
        }
        let then = clock::nanos();
        let result = read();
        let nanos = clock::nanos() - then;
        self.reads.saw(nanos);
        self.client.reading += weighted(nanos, weight);
        result
    }

    /// A result is about to be read: what that counts for, and so whether it is clocked.
    pub fn takes(&mut self) -> u64 {
        self.takes.weight(false)
    }

    /// It was read, since `then`.
    pub fn took(&mut self, then: u64, weight: u64) {
        let nanos = clock::nanos() - then;
        self.takes.saw(nanos);
        self.client.receiving += weighted(nanos, weight);
    }

    /// The map is done: the account is kept, once.
    pub fn tell(&mut self) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let workers =
            self.label.pool.spent().iter().zip(&self.before).map(|(after, before)| after.since(before)).collect();
        let account = MapAccount {
            name: self.label.name.clone(),
            wall: clock::nanos() - self.began,
            items: self.items,
            pieces: self.pieces,
            bytes: self.bytes,
            client: self.client,
            longest: self.longest,
            workers,
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(account);
    }
}

/// (name, wall, items, pieces, bytes, (reading, sending, receiving, waiting), (longest, its items), workers).
type LastMapParts = (String, u64, u64, u64, u64, (u64, u64, u64, u64), (u64, u64), Vec<Parts>);

/// The account of the pool's last map that is done; None if there is none yet.
#[pyfunction]
pub fn last_map(base: &PoolBase) -> Option<LastMapParts> {
    let account = base.last_map.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
    let Client { reading, sending, receiving, waiting } = account.client;
    let workers = account.workers.iter().map(parts).collect();
    let (name, client) = (account.name, (reading, sending, receiving, waiting));
    Some((name, account.wall, account.items, account.pieces, account.bytes, client, account.longest, workers))
}
