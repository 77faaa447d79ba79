//! Queues, as Python objects that pickle to handles.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pyo3::call::PyCallArgs;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyRange, PyTuple, PyType};
use shoal_core::domain;
use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;
use shoal_core::queue::{Content, Got, Item, Put, Queue};
use shoal_core::sync::lock::Acquired;

use crate::block::resolve;
use crate::errors::OrRaise;
use crate::in_flight;
use crate::inside::Inside;
use crate::message::Reader;
use crate::sync::interruption;
use crate::sync::wait::{Truth, duration};
use crate::wire::{self, Writer};

/// How long to wait before signals are looked at again.
const SLICE: Duration = Duration::from_millis(50);
/// How long who does not want to wait for an item waits for one who is just taking another: that takes some hundred
/// nanoseconds, unless it was put off the CPU in the middle of it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long who takes an item with the interpreter attached waits for one who is just taking another.
const BRIEF: Duration = Duration::from_micros(50);
/// Bytes of the buffer that is kept for the next item.
const KEPT: usize = 64 << 10;
/// How many small items are put in one go.
const TOGETHER: usize = 64;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What `shoal.Queue` and its kin are made of: the engine's queue, for Python's objects.
#[pyclass(frozen, subclass, weakref, module = "shoal._engine")]
pub struct RawQueue {
    queue: Queue,
    closed: AtomicBool,
}

/// Items that are to be put in one go.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where in `bytes` each lies, and what it names.
    items: Vec<(Range<usize>, Vec<Lease>)>,
}

/// When to give up waiting.
#[derive(Clone, Copy)]
enum Patience {
    No,
    Until(Instant),
    Endless,
}

impl Patience {
    fn new(block: bool, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Patience> {
        if !block {
            return Ok(Patience::No);
        }
        let until = duration(timeout)?.and_then(|timeout| Instant::now().checked_add(timeout));
        Ok(until.map_or(Patience::Endless, Patience::Until))
    }

    fn is_over(self) -> bool {
        match self {
            Patience::No => true,
            Patience::Until(at) => at <= Instant::now(),
            Patience::Endless => false,
        }
    }

    /// How long to wait now.
    fn slice(self) -> Duration {
        match self {
            Patience::No => Duration::ZERO,
            Patience::Until(at) => at.saturating_duration_since(Instant::now()).min(SLICE),
            Patience::Endless => SLICE,
        }
    }
}

fn raise_named<'py>(py: Python<'py>, module: &str, name: &str, args: impl PyCallArgs<'py>) -> PyErr {
    let made = py.import(module).and_then(|module| module.getattr(name)?.call1(args));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// Whether [`PATIENCE`] is over since this was asked first.
fn is_up(asked: &mut Option<Instant>) -> bool {
    asked.get_or_insert_with(Instant::now).elapsed() >= PATIENCE
}

fn shut(py: Python<'_>) -> PyErr {
    raise_named(py, "shoal.queues", "ShutDown", ())
}

impl RawQueue {
    fn check_open(slf: &Bound<'_, Self>) -> PyResult<()> {
        match slf.get().closed.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(PyValueError::new_err(format!("Queue {} is closed", slf.repr()?))),
        }
    }

    /// Runs `use_it` with an item for the queue that is `object`.
    fn with_item<T>(&self, object: &Bound<'_, PyAny>, use_it: impl FnOnce(&Item<'_>) -> PyResult<T>) -> PyResult<T> {
        let py = object.py();
        self.queue.check().or_raise(py)?;
        let heap = self.queue.heap();
        // Taken, as pickling may run Python code that comes back here.
        let mut bytes = BUFFER.take();
        bytes.clear();
        let what = || "item of a queue".to_owned();
        let (encoded, leases) = in_flight::noting(|| wire::encode(&Writer::Item(heap), object, &mut bytes, what));
        let done = encoded.and_then(|_| Item::new(heap, &bytes, leases).or_raise(py)).and_then(|item| use_it(&item));
        if bytes.capacity() <= KEPT {
            BUFFER.set(bytes);
        }
        done
    }

    /// Puts all items; `false`: there was no room in time, and `rest` is what has not been put.
    fn put_items(&self, py: Python<'_>, rest: &mut &[Item<'_>], patience: Patience) -> PyResult<bool> {
        let mut put = self.queue.put_all(rest, Some(Duration::ZERO)).or_raise(py)?;
        let mut asked = None;
        loop {
            match put {
                Put::Done => return Ok(true),
                Put::Shut => return Err(shut(py)),
                Put::Full if patience.is_over() && (self.queue.is_full() || is_up(&mut asked)) => return Ok(false),
                Put::Full | Put::Interrupted => {}
            }
            interruption(py)?;
            let slice = if patience.is_over() { SLICE } else { patience.slice() };
            let _inside = Inside::enter(py);
            put = py.detach(|| self.queue.put_all(rest, Some(slice))).or_raise(py)?;
        }
    }

    /// The next of `items`, `most` at most, and whether there may be more. What comes before an error is to be put.
    fn batch(&self, items: &mut Bound<'_, PyIterator>, most: usize) -> (Batch, PyResult<bool>) {
        let heap = self.queue.heap();
        let mut batch = Batch::default();
        loop {
            let item = match items.next() {
                None => return (batch, Ok(false)),
                Some(Err(error)) => return (batch, Err(error)),
                Some(Ok(item)) => item,
            };
            let begins = batch.bytes.len();
            let what = || "item of a queue".to_owned();
            let (encoded, leases) =
                in_flight::noting(|| wire::encode(&Writer::Item(heap), &item, &mut batch.bytes, what));
            if let Err(error) = encoded {
                return (batch, Err(error));
            }
            // Large ones one by one: who waits for room should not have many of them ready.
            let large = !leases.is_empty() || batch.bytes.len() >= KEPT;
            batch.items.push((begins..batch.bytes.len(), leases));
            if large || batch.items.len() >= most {
                return (batch, Ok(true));
            }
        }
    }

    /// Puts a batch; whether all of it, and how many.
    fn put_batch(&self, py: Python<'_>, batch: Batch, patience: Patience) -> (PyResult<bool>, usize) {
        let Batch { bytes, items } = batch;
        let item = |(range, leases): (Range<usize>, Vec<Lease>)| Item::new(self.queue.heap(), &bytes[range], leases);
        let items = match items.into_iter().map(item).collect::<Result<Vec<_>, _>>().or_raise(py) {
            Ok(items) => items,
            Err(error) => return (Err(error), 0),
        };
        let mut rest = items.as_slice();
        let done = self.put_items(py, &mut rest, patience);
        (done, items.len() - rest.len())
    }

    /// Takes an item; `None`: there was none in time.
    ///
    /// It waits without the interpreter and takes with it. So a thread that sees an empty queue sees that whoever took
    /// the last item here is on with it: programs that wait for `empty()` count on that, and another process' answer
    /// used to take long enough.
    fn get_item(&self, py: Python<'_>, patience: Patience) -> PyResult<Option<Content>> {
        let mut waited = false;
        let item = self.await_and_take(py, patience, &mut waited);
        if waited {
            // Also without an item, or with an error: it may have been woken for what others can have.
            self.queue.wake_next();
        }
        item
    }

    fn await_and_take(&self, py: Python<'_>, patience: Patience, waited: &mut bool) -> PyResult<Option<Content>> {
        let mut got = self.queue.get(Some(Duration::ZERO)).or_raise(py)?;
        let mut asked = None;
        loop {
            match got {
                Got::Item(content) => return Ok(Some(content)),
                Got::Shut => return Err(shut(py)),
                Got::Empty if patience.is_over() && (self.queue.is_empty() || is_up(&mut asked)) => return Ok(None),
                Got::Empty | Got::Interrupted => {}
            }
            interruption(py)?;
            let slice = if patience.is_over() { SLICE } else { patience.slice() };
            let _inside = Inside::enter(py);
            *waited = true;
            py.detach(|| self.queue.await_item(slice)).or_raise(py)?;
            // Who is not to wait any more takes nothing either; what it may have been woken for is another's.
            interruption(py).inspect_err(|_| self.queue.wake_next())?;
            got = self.queue.get(Some(BRIEF)).or_raise(py)?;
        }
    }

    fn decode<'py>(&self, py: Python<'py>, content: &Content) -> PyResult<Bound<'py, PyAny>> {
        let reader = Reader { heap: self.queue.heap(), views: None };
        wire::decode(py, content.bytes().or_raise(py)?, &reader)
    }
}

#[pymethods]
impl RawQueue {
    #[new]
    #[pyo3(signature = (maxsize = 0, *, handle = None, **_options))]
    fn new(
        py: Python<'_>,
        maxsize: i64,
        handle: Option<&[u8]>,
        _options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let queue = match handle {
            Some(handle) => Queue::open(resolve(py, handle, Kind::Queue)?),
            None => domain::heap().and_then(|heap| Queue::new(&heap, maxsize.max(0) as u64)),
        };
        Ok(RawQueue { queue: queue.or_raise(py)?, closed: AtomicBool::new(false) })
    }

    /// Put an item, waiting for room if need be. queue.Full if there was none in time.
    #[pyo3(signature = (obj, block = Truth(true), timeout = None), text_signature = "($self, obj, block=True, timeout=None)")]
    fn put(
        slf: &Bound<'_, Self>,
        obj: &Bound<'_, PyAny>,
        block: Truth,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        Self::check_open(slf)?;
        let patience = Patience::new(block.0, timeout)?;
        let this = slf.get();
        match this.with_item(obj, |item| this.put_items(slf.py(), &mut std::slice::from_ref(item), patience))? {
            true => Ok(()),
            false => Err(raise_named(slf.py(), "queue", "Full", ())),
        }
    }

    /// Put an item without waiting for room.
    fn put_nowait(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::put(slf, obj, Truth(false), None)
    }

    /// Take an item, waiting for one if need be. queue.Empty if there was none in time.
    #[pyo3(signature = (block = Truth(true), timeout = None), text_signature = "($self, block=True, timeout=None)")]
    fn get<'py>(
        slf: &Bound<'py, Self>,
        block: Truth,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::check_open(slf)?;
        let this = slf.get();
        match this.get_item(slf.py(), Patience::new(block.0, timeout)?)? {
            Some(content) => this.decode(slf.py(), &content),
            None => Err(raise_named(slf.py(), "queue", "Empty", ())),
        }
    }

    /// Take an item without waiting for one.
    fn get_nowait<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::get(slf, Truth(false), None)
    }

    /// Take what lies there, `n` items at most; wait as `get` does for the first. If one of them can't be unpickled, its error
    /// has the others as `got`.
    #[pyo3(signature = (n = None, timeout = None))]
    fn get_many<'py>(
        slf: &Bound<'py, Self>,
        n: Option<i64>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        Self::check_open(slf)?;
        let (this, py) = (slf.get(), slf.py());
        let most = match n {
            Some(n) if n < 1 => return Err(PyValueError::new_err(format!("n must be 1 or more, or None, not {n}"))),
            n => n.map_or(usize::MAX, |n| n as usize),
        };
        let Some(first) = this.get_item(py, Patience::new(true, timeout)?)? else {
            return Err(raise_named(py, "queue", "Empty", ()));
        };
        let mut items = vec![first];
        this.queue.get_more(most - 1, &mut items);
        let (list, mut failed) = (PyList::empty(py), None);
        for content in items {
            match this.decode(py, &content) {
                Ok(item) => list.append(item)?,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let Some(error) = failed else { return Ok(list) };
        error.value(py).setattr("got", list)?;
        Err(error)
    }

    /// Put all items, in their order, waiting for room if need be. queue.Full, with the number of those that were put, if
    /// there was none in time.
    #[pyo3(signature = (items, block = Truth(true), timeout = None), text_signature = "($self, items, block=True, timeout=None)")]
    fn put_many(
        slf: &Bound<'_, Self>,
        items: &Bound<'_, PyAny>,
        block: Truth,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        Self::check_open(slf)?;
        let patience = Patience::new(block.0, timeout)?;
        let this = slf.get();
        this.queue.check().or_raise(slf.py())?;
        // Of an iterator one by one: it may wait for what becomes of an item before it gives the next.
        let at_hand = items.is_exact_instance_of::<PyList>()
            || items.is_exact_instance_of::<PyTuple>()
            || items.is_exact_instance_of::<PyRange>();
        let most = if at_hand { TOGETHER } else { 1 };
        let (mut items, mut count) = (items.try_iter()?, 0);
        loop {
            let (batch, more) = this.batch(&mut items, most);
            let (done, put) = this.put_batch(slf.py(), batch, patience);
            count += put;
            if !done? {
                return Err(raise_named(slf.py(), "queue", "Full", (count,)));
            }
            if !more? {
                return Ok(());
            }
        }
    }

    /// How many items lie in it.
    fn qsize(&self) -> u64 {
        self.queue.len()
    }

    /// Whether nothing lies in it.
    fn empty(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Self::check_open(slf)?;
        Ok(slf.get().queue.is_empty())
    }

    /// Whether no more fits.
    fn full(&self) -> bool {
        self.queue.is_full()
    }

    /// How many items it holds at most; 0: as many as there is memory for.
    #[getter]
    fn maxsize(&self) -> u64 {
        self.queue.capacity()
    }

    /// Neither put nor get any more through this object.
    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether `close` was called.
    #[getter]
    fn closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Refuse all further items, everywhere. With `immediate`, those that lie there are dropped.
    #[pyo3(signature = (immediate = false))]
    fn shutdown(&self, py: Python<'_>, immediate: bool) -> PyResult<()> {
        while self.queue.shut_down(Some(Duration::ZERO)) != Acquired::Yes {
            interruption(py)?;
            let _inside = Inside::enter(py);
            if py.detach(|| self.queue.shut_down(Some(SLICE))) == Acquired::Yes {
                break;
            }
        }
        // Without the interpreter: who is just taking an item may have been stopped in that.
        let drop_all = || {
            loop {
                match self.queue.get(Some(SLICE))? {
                    Got::Item(_) => _ = self.queue.done(1),
                    other => return shoal_core::Result::Ok(other),
                }
            }
        };
        while immediate && !matches!(Inside::detach(py, drop_all).or_raise(py)?, Got::Shut) {
            interruption(py)?;
        }
        Ok(())
    }

    /// `count` items that were taken are done with. ValueError if there are not so many.
    #[pyo3(name = "_done", signature = (count = 1))]
    fn done(&self, count: u64) -> PyResult<()> {
        self.queue.done(count).map_err(|_| PyValueError::new_err("task_done() called too many times"))
    }

    /// Wait until all items that were put are done with; false: the time was up.
    #[pyo3(name = "_wait_done", signature = (timeout = None))]
    fn wait_done(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let patience = Patience::new(true, timeout)?;
        while self.queue.unfinished() > 0 {
            if patience.is_over() {
                return Ok(false);
            }
            let _inside = Inside::enter(py);
            if !py.detach(|| self.queue.join(Some(patience.slice()))) {
                interruption(py)?;
            }
        }
        Ok(true)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let lease = slf.get().queue.lease();
        let handle = domain::handle_of(lease).or_raise(py)?;
        in_flight::note(lease);
        let handle = PyBytes::new(py, &handle.to_bytes()).into_any();
        let kind = slf.get_type().into_any();
        Ok((py.import("shoal._engine")?.getattr("open_queue")?, PyTuple::new(py, [kind, handle])?))
    }
}

/// The queue behind a handle, as an object of that class.
#[pyfunction]
pub fn open_queue<'py>(kind: &Bound<'py, PyType>, handle: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
    let py = kind.py();
    if !kind.is_subclass_of::<RawQueue>()? {
        return Err(PyTypeError::new_err(format!("{kind} is no class of queues")));
    }
    let options = PyDict::new(py);
    options.set_item("handle", handle)?;
    kind.call_method("__new__", (kind,), Some(&options))
}
