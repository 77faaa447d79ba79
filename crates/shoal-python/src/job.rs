//! A map: items go out in pieces, results come back into one list.
//!
//! The thread that waits for a map also feeds it: it sends as many pieces as keep the workers busy, and the next when
//! results come back. So a map needs no memory for tasks that are far ahead, and learns from the first pieces how large
//! the others should be.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyRange, PySlice, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use shoal_core::pool::chunks::Chunks;
use shoal_core::pool::client::Pool;
use shoal_core::pool::packed::Packed;
use shoal_core::pool::tasks::{Inbox, Outcome, Reply};
use shoal_core::sync::bell::Tone;
use shoal_sys::clock;

use crate::errors::{OrRaise, damaged, is_interrupt};
use crate::in_flight;
use crate::inside::Inside;
use crate::insight::Watch;
use crate::message::{self, Snapshots};
use crate::numpy::Numpy;
use crate::pool::{Named, PoolBase, cancelled, hear_first, resolve, wait};
use crate::wire::{self, Writer, call};

/// Tasks published between two looks whether a worker should be woken.
const BATCH: usize = 32;

/// A map in progress.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Job {
    state: Mutex<Option<State>>,
    pool: Arc<Pool>,
    /// Whether it is to end as soon as may be: seen by the thread that runs it.
    stop: Stop,
    /// Items that are not done, told by the thread that runs it.
    left: AtomicUsize,
    /// Items of a piece, if that is fixed.
    fixed: Option<usize>,
}

/// How a map is to end, as whoever cancels it tells the thread that runs it.
#[derive(Debug, Default)]
pub struct Stop {
    asked: AtomicBool,
    /// Also what workers are at.
    running: AtomicBool,
}

impl Stop {
    pub fn ask(&self, running: bool) {
        // Before the question: who sees that sees this. What was asked for is not taken back by somebody who asks for less.
        self.running.fetch_or(running, Ordering::SeqCst);
        self.asked.store(true, Ordering::SeqCst);
    }

    /// Whether something was asked for that was not taken.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// What was asked for, once: whether what workers are at is to be stopped, too.
    pub fn take(&self) -> Option<bool> {
        self.asked.swap(false, Ordering::SeqCst).then(|| self.running.load(Ordering::SeqCst))
    }
}

struct State {
    pool: Arc<Pool>,
    named: Arc<Named>,
    /// A list, tuple or range.
    items: Py<PyAny>,
    star: bool,
    fixed: Option<usize>,
    chunks: Chunks,
    inbox: Arc<Inbox>,
    /// What came of pieces, and is still to be read.
    ended: VecDeque<(u64, Outcome)>,
    /// The pieces that are out, by tag: their items, and their numbers in the pool.
    sent: HashMap<u64, (Range<usize>, u64)>,
    /// Items that are out.
    out: usize,
    /// Pieces that are out and may be given back in part.
    divisible: usize,
    tag: u64,
    results: Py<PyList>,
    /// Of the first item that failed, in the order of the items: the same however the workers took turns.
    error: Option<(usize, Py<PyAny>)>,
    /// Ctrl-C that came in the middle of something, for whoever waits.
    interrupt: Option<PyErr>,
    /// Whether the pool was told that there is more to come.
    feeding: bool,
    /// Whether items have arrays, so that each has to be a value of its own.
    apart: bool,
    snapshots: Snapshots,
    watch: Watch,
}

impl State {
    /// Tasks this job keeps in the ring at most.
    fn window(&self) -> usize {
        match self.fixed {
            // As many as fit: small ones are gone before the feeder is back.
            Some(_) => usize::MAX,
            None => 2 * self.pool.size() + 2,
        }
    }

    /// Whether a worker may give a part of this piece back.
    fn is_divisible(&self, chunk: &Range<usize>) -> bool {
        self.fixed.is_none() && chunk.len() > 1
    }

    /// Whether something is to be sent, or may yet be given back: until then the pool must not end.
    fn may_send(&self) -> bool {
        self.chunks.left() > 0 || (self.divisible > 0 && !self.chunks.is_abandoned())
    }

    fn feed(&mut self, py: Python<'_>, everything: bool) {
        if self.chunks.left() > 0 && !self.feeding {
            // Before the first piece: a pool that is closed between two of them is to go on until all are sent.
            match self.pool.feed(0).or_raise(py) {
                Ok(()) => self.feeding = true,
                Err(error) => {
                    self.chunks.abandon();
                    self.failed(py, 0, error);
                }
            }
        }
        let mut unpublished = 0;
        while self.chunks.left() > 0
            && self.interrupt.is_none()
            && (everything || self.sent.is_empty() || (self.sent.len() < self.window() && self.pool.room() > 0))
        {
            let Some(chunk) = self.chunks.next_chunk() else { break };
            self.send(py, chunk);
            unpublished += 1;
            if unpublished == BATCH {
                self.pool.publish();
                unpublished = 0;
            }
        }
        if unpublished > 0 {
            self.pool.publish();
        }
        if self.chunks.left() > 0 {
            self.pool.ring_at(if self.fixed.is_some() { usize::MAX } else { self.pool.size() });
        } else if self.feeding && !self.may_send() {
            self.pool.fed();
            self.feeding = false;
        }
    }

    fn send(&mut self, py: Python<'_>, chunk: Range<usize>) {
        let items = self.items.bind(py);
        let mut payload = Vec::with_capacity(64);
        let writer = Writer::Task(&self.pool);
        let item_name = |item: usize| format!("item {item} of map({})", self.named.label.name);
        let (star, fixed, apart) = (self.star, self.fixed, &mut self.apart);
        // Arrays that several items have are copied once for all tasks of this map.
        let (kind, leases) = in_flight::noting(|| {
            message::with_snapshots(&mut self.snapshots, || {
                if chunk.len() == 1 && fixed == Some(1) {
                    wire::encode(&writer, &items.get_item(chunk.start)?, &mut payload, || item_name(chunk.start))?;
                    return Ok(if star { call::STAR } else { call::ONE });
                }
                let kind = match (fixed.is_some(), star) {
                    (false, false) => call::CHUNK,
                    (false, true) => call::STAR_CHUNK,
                    (true, false) => call::FIXED_CHUNK,
                    (true, true) => call::FIXED_STAR_CHUNK,
                };
                if !*apart {
                    let slice = PySlice::new(py, chunk.start as isize, chunk.end as isize, 1);
                    let what = || format!("items of map({})", self.named.label.name);
                    *apart = writer.pickle(&items.get_item(slice)?, &mut payload, what)?.arrays;
                    if !*apart || chunk.len() == 1 {
                        return Ok(kind);
                    }
                    // With arrays, each item is to be a value of its own.
                }
                let (mut packed, mut value) = (Packed::default(), Vec::new());
                for item in chunk.clone() {
                    value.clear();
                    wire::encode(&writer, &items.get_item(item)?, &mut value, || item_name(item))?;
                    // Leases are noted for the task as a whole.
                    packed.push(&value, Vec::new());
                }
                payload = packed.message(0..chunk.len());
                Ok(kind | call::APART)
            })
        });
        match kind {
            Ok(kind) => {
                self.watch.sent(chunk.len(), payload.len(), &leases);
                // A function that may hold state has a number of this map's own: each worker unpickles it once a map.
                let tag = self.tag;
                let reply = Reply::Inbox(self.inbox.clone(), tag);
                let kind = kind | self.named.flags;
                match self.pool.submit_quietly(&self.named.function, kind, &payload, leases, reply).or_raise(py) {
                    Ok(number) => {
                        self.tag += 1;
                        self.out += chunk.len();
                        self.divisible += usize::from(self.is_divisible(&chunk));
                        self.sent.insert(tag, (chunk, number));
                    }
                    Err(error) => {
                        // The pool has ended: so have the pieces that are out, one way or the other.
                        self.chunks.abandon();
                        self.failed(py, chunk.start, error);
                    }
                }
            }
            Err(error) if is_interrupt(py, &error) => {
                self.chunks.give_back(chunk);
                self.interrupt = Some(error);
            }
            Err(error) => self.failed(py, chunk.start, error),
        }
    }

    fn failed(&mut self, py: Python<'_>, item: usize, error: PyErr) {
        if self.error.as_ref().is_none_or(|(first, _)| item < *first) {
            self.error = Some((item, error.into_value(py).into_any()));
        }
    }

    fn collect(&mut self, py: Python<'_>) {
        self.ended.extend(self.inbox.take_all());
        while let Some((tag, outcome)) = self.ended.pop_front() {
            let Some((chunk, number)) = self.sent.remove(&tag) else { continue };
            match self.store(py, &outcome, chunk.clone()) {
                // It concerns whoever waits: the results are read again by who does so next.
                Err(error) if is_interrupt(py, &error) => {
                    self.sent.insert(tag, (chunk, number));
                    self.ended.push_front((tag, outcome));
                    self.interrupt = Some(error);
                    return;
                }
                Err(error) => self.failed(py, chunk.start, error),
                Ok(()) => {}
            }
            self.out -= chunk.len();
            self.divisible -= usize::from(self.is_divisible(&chunk));
        }
    }

    fn store(&mut self, py: Python<'_>, outcome: &Outcome, chunk: Range<usize>) -> PyResult<()> {
        let value = resolve(py, self.pool.heap(), outcome, &self.named.label.name)?;
        let Outcome::Done { units, nanos, .. } = outcome else { return Ok(()) };
        self.watch.ended(*nanos, *units);
        let results = self.results.bind(py);
        if chunk.len() == 1 && self.fixed == Some(1) {
            return results.set_item(chunk.start, value);
        }
        // As many as the worker says, which is at least one.
        let done = value.len()?;
        if done as u64 != *units || !(1..=chunk.len()).contains(&done) || (done < chunk.len() && self.fixed.is_some()) {
            return Err(damaged("result"));
        }
        let middle = chunk.start + done;
        self.chunks.measured(done, *nanos);
        self.chunks.give_back(middle..chunk.end);
        self.watch.came_back(chunk.end - middle);
        results.set_slice(chunk.start, middle, &value)
    }

    /// Sends no more, and takes back what no worker has taken; if `running`, stops what workers are at as well.
    fn stop(&mut self, py: Python<'_>, running: bool) {
        if self.is_done() {
            return;
        }
        self.chunks.abandon();
        let numbers: Vec<u64> = self.sent.values().map(|(_, number)| *number).collect();
        py.detach(|| self.pool.stop_all(numbers, running));
        self.failed(py, 0, cancelled(py, &self.named.label.name));
    }

    /// Raises an interrupt that has come.
    fn interrupted(&mut self) -> PyResult<()> {
        self.interrupt.take().map_or(Ok(()), Err)
    }

    fn is_done(&self) -> bool {
        self.sent.is_empty() && self.chunks.left() == 0
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.feeding {
            self.pool.fed();
        }
    }
}

/// Whether there are arrays in the first item: then in all of them, mostly.
fn has_arrays(items: &Bound<'_, PyAny>) -> PyResult<bool> {
    let Some(numpy) = Numpy::loaded(items.py()).filter(|_| !items.is_exact_instance_of::<PyRange>()) else {
        return Ok(false);
    };
    if items.is_empty()? {
        return Ok(false);
    }
    let first = items.get_item(0)?;
    let parts = match first.cast_exact::<PyTuple>() {
        Ok(parts) => parts.iter().collect(),
        Err(_) => match first.cast_exact::<PyList>() {
            Ok(parts) => parts.iter().collect(),
            Err(_) => match first.cast_exact::<PyDict>() {
                Ok(parts) => parts.values().iter().collect(),
                Err(_) => vec![first],
            },
        },
    };
    Ok(parts.iter().any(|part| numpy.layout(part).is_some()))
}

#[pymethods]
impl Job {
    /// An exception knows the frames it came through, and one of them this map.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(Some(state)) = self.state.try_lock().as_deref() {
            visit.call(&state.items)?;
            visit.call(&state.results)?;
            if let Some((_, error)) = &state.error {
                visit.call(error)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let former = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(former);
    }

    /// A map of `func` over `items` (a list, tuple or range) in pieces of `chunksize`, or as it turns out best.
    #[new]
    #[pyo3(signature = (pool, func, items, chunksize, star))]
    fn new(
        py: Python<'_>,
        pool: &PoolBase,
        func: &Bound<'_, PyAny>,
        items: &Bound<'_, PyAny>,
        chunksize: Option<usize>,
        star: bool,
    ) -> PyResult<Self> {
        let _inside = Inside::enter(py);
        if chunksize == Some(0) {
            return Err(PyValueError::new_err("chunksize must be 1 or more, not 0"));
        }
        let len = items.len()?;
        let named = pool.named(func)?;
        let watch = Watch::new(named.label.clone(), pool.last_map.clone());
        let none = PyList::new(py, [py.None()])?;
        let results = none.call_method1("__mul__", (len,))?.cast_into::<PyList>()?;
        let state = State {
            pool: pool.pool.clone(),
            named,
            items: items.clone().unbind(),
            star,
            fixed: chunksize,
            chunks: Chunks::new(len, chunksize, pool.pool.size()),
            inbox: Inbox::new(),
            ended: VecDeque::new(),
            sent: HashMap::new(),
            out: 0,
            divisible: 0,
            tag: 0,
            results: results.unbind(),
            error: None,
            interrupt: None,
            feeding: false,
            watch,
            apart: false,
            snapshots: if has_arrays(items)? { Snapshots::of(py, items)? } else { Snapshots::default() },
        };
        Ok(Job {
            state: Mutex::new(Some(state)),
            pool: pool.pool.clone(),
            stop: Stop::default(),
            left: AtomicUsize::new(len),
            fixed: chunksize,
        })
    }

    /// Send the first pieces; all of them if `everything`. Whether there is more to send.
    fn start(&self, py: Python<'_>, everything: bool) -> PyResult<bool> {
        let _inside = Inside::enter(py);
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = guard.as_mut().ok_or_else(|| PyRuntimeError::new_err("the map is being waited for"))?;
        let then = clock::nanos();
        state.feed(py, everything);
        state.watch.has_sent(then, 0);
        state.interrupted()?;
        Ok(state.chunks.left() > 0)
    }

    /// Feed and collect until the map is done, at most `timeout` seconds; whether it is. One thread at a time.
    #[pyo3(signature = (timeout = None))]
    fn run(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let _inside = Inside::enter(py);
        // Taken out while Python code may run: the lock is never held then.
        let taken = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut state = taken.ok_or_else(|| PyRuntimeError::new_err("the map is being waited for"))?;
        let done = self.advance(py, &mut state, timeout);
        if let Ok(true) = done {
            hear_first(py, &self.pool);
        }
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        done
    }

    /// Have whoever runs it, or does so next, send no more and take back what no worker has taken: then `result` raises
    /// CancelledError. What workers are at is waited for as ever, or stopped by ending them, if `running`.
    #[pyo3(signature = (running = false))]
    fn stop(&self, py: Python<'_>, running: bool) {
        self.stop.ask(running);
        Inside::detach(py, || self.pool.wake());
    }

    /// Pieces that are not done if their size is fixed, else items; as it was when somebody last looked.
    fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed).div_ceil(self.fixed.unwrap_or(1))
    }

    /// The results, or the first exception.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        let guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = guard.as_ref().ok_or_else(|| PyRuntimeError::new_err("the map is being waited for"))?;
        match &state.error {
            Some((_, error)) => Err(PyErr::from_value(error.bind(py).clone())),
            None => Ok(state.results.clone_ref(py)),
        }
    }
}

impl Job {
    fn advance(&self, py: Python<'_>, state: &mut State, timeout: Option<f64>) -> PyResult<bool> {
        let started = std::time::Instant::now();
        loop {
            if let Some(running) = self.stop.take() {
                state.stop(py, running);
            }
            if timeout.is_some_and(|timeout| timeout <= 0.0) {
                // Only a look: but what has come should be seen.
                py.detach(|| state.pool.collect());
            }
            let then = clock::nanos();
            state.collect(py);
            let then = state.watch.has_received(then);
            // After collecting: what came back may have made room, or was all that was out.
            state.feed(py, false);
            let then = state.watch.has_sent(then, 0);
            self.left.store(state.out + state.chunks.left(), Ordering::Relaxed);
            state.interrupted()?;
            if state.is_done() {
                state.watch.tell();
                state.snapshots = Snapshots::default();
                return Ok(true);
            }
            if !state.inbox.is_empty() {
                continue;
            }
            let left = timeout.map(|timeout| timeout - started.elapsed().as_secs_f64());
            if left.is_some_and(|left| left <= 0.0) {
                return Ok(false);
            }
            let inbox = state.inbox.clone();
            wait(py, &state.pool, Tone::Idle, || !inbox.is_empty() || self.stop.is_asked(), left)?;
            state.watch.has_waited(then);
        }
    }
}
