//! The worker's loop: takes tasks, runs the user's functions, sends what they return or raise.

#![allow(unsafe_code, reason = "copies into new blocks")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning, PySystemExit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use shoal_core::domain;
use shoal_core::memory::heap::Lease;
use shoal_core::memory::view::Views;
use shoal_core::pool::chunks::TARGET;
use shoal_core::pool::packed::unpack;
use shoal_core::pool::terms::AGAIN;
use shoal_core::pool::worker::{Waited, Worker as CoreWorker};
use shoal_sys::{process, procfs};

use crate::allocator;
use crate::errors::{OrRaise, damaged};
use crate::in_flight;
use crate::items::Items;
use crate::message::{self, Reader};
use crate::numpy::Numpy;
use crate::reporter::Reporter;
use crate::terms;
use crate::wire::{self, EACH_HEAD, Writer, call, result};
use crate::zygote::Seat;

/// Functions kept; beyond, all are forgotten and read anew.
const FUNCTIONS: usize = 256;
/// How long a worker goes on with a piece before it looks whether others are idle.
const LOOK: Duration = Duration::from_micros(200);

/// A worker process's end of a pool.
#[pyclass(module = "shoal._engine")]
pub struct Seated {
    worker: CoreWorker,
    functions: HashMap<u32, Py<PyAny>>,
    /// The last function that may hold state of one call or map.
    passing: Option<Passing>,
    out: Vec<u8>,
    views: Arc<Views>,
    /// Whether numpy allocates in this process's arena.
    numpy: bool,
}

/// Gives the sign of life that the client has asked for. A signal handler.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Answerer(Box<dyn Fn() + Send + Sync>);

#[pymethods]
impl Answerer {
    fn __call__(&self, _signal: &Bound<'_, PyAny>, _frame: &Bound<'_, PyAny>) {
        (self.0)();
    }
}

/// A function of one call or map: kept until another comes, or until the client has let go of its memory.
struct Passing {
    id: u32,
    function: Py<PyAny>,
    /// The blocks its arrays lie in.
    leases: Vec<Lease>,
}

impl Passing {
    /// Whether it only keeps memory from others.
    fn is_over(&self) -> bool {
        !self.leases.is_empty() && !self.leases.iter().any(Lease::held_by_host)
    }
}

/// Bytes of results in a batch, beyond which the rest is given back.
const LARGE: u64 = 1 << 20;

/// What a task gave: the kind of its result, how many items it did, and what its payload names by handle.
type Ended = (u16, u64, Vec<Lease>);

#[pymethods]
impl Seated {
    /// Sit down on the seat that the zygote forked this process for.
    #[new]
    fn new(py: Python<'_>, seat: &mut Seat) -> PyResult<Self> {
        let worker = CoreWorker::new(seat.take()?).or_raise(py)?;
        domain::settle(worker.heap().clone());
        let views = Arc::new(Views::default());
        Ok(Seated { worker, functions: HashMap::new(), passing: None, out: Vec::new(), views, numpy: false })
    }

    /// What the client wants every worker to know before it starts.
    fn setup<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (setup, _) = self.beginnings(py)?;
        message::unpickle(py, &setup, &self.reader())
    }

    /// What every worker calls before it starts: a function and its arguments, or None.
    fn initializer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (_, initializer) = self.beginnings(py)?;
        message::unpickle(py, &initializer, &self.reader())
    }

    /// Its place in the pool, from 0.
    #[getter]
    fn number(&self) -> u16 {
        self.worker.number()
    }

    /// What to call when SIGURG comes in: the client wants to know whether this interpreter still runs.
    fn answerer(&self) -> Answerer {
        Answerer(Box::new(self.worker.answerer()))
    }

    /// How this process tells its client something.
    fn reporter(&self) -> Reporter {
        Reporter(self.worker.reporter())
    }

    /// Run tasks until the pool is over, or `most` are done, or after one the process has more than `most_memory` bytes to
    /// itself. `notice(bytes)` is called before a task if the client has left something. SystemExit of a task is raised.
    #[pyo3(signature = (most, most_memory, notice))]
    fn run(
        &mut self,
        py: Python<'_>,
        most: Option<u64>,
        most_memory: Option<u64>,
        notice: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.worker.ready();
        let mut left = most.unwrap_or(u64::MAX);
        while left > 0 && self.next(py)? {
            if let Some(bytes) = self.worker.notice() {
                notice.call1((PyBytes::new(py, &bytes),))?;
            }
            let ended = self.perform(py);
            self.finish(py, ended)?;
            left -= 1;
            if most_memory.is_some_and(|most| procfs::private_memory(process::pid()).is_some_and(|has| has > most)) {
                break;
            }
        }
        Ok(())
    }

    /// Take one task and end it with `error`: the worker could not be set up. False: the pool is over.
    fn fail_one(&mut self, py: Python<'_>, error: Bound<'_, PyAny>) -> PyResult<bool> {
        self.worker.ready();
        let taken = self.next(py)?;
        if taken {
            self.finish(py, Err(PyErr::from_value(error)))?;
        }
        Ok(taken)
    }
}

impl Seated {
    /// The two messages that every worker reads first.
    fn beginnings(&self, py: Python<'_>) -> PyResult<(Vec<u8>, Vec<u8>)> {
        let bytes = self.worker.setup().or_raise(py)?;
        let split = bytes
            .split_first_chunk::<8>()
            .and_then(|(len, rest)| rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?));
        let (setup, initializer) = split.ok_or_else(|| damaged("setup"))?;
        Ok((setup.to_vec(), initializer.to_vec()))
    }

    /// How arguments are read: privately.
    fn reader(&self) -> Reader<'_> {
        Reader { heap: self.worker.heap(), views: Some(&self.views) }
    }

    /// numpy's large arrays lie in the arena from the first task on that finds it imported.
    fn settle_numpy(&mut self, py: Python<'_>) -> PyResult<()> {
        if let Some(numpy) = Numpy::loaded(py).filter(|_| !self.numpy) {
            self.numpy = true;
            if let Err(error) = allocator::install(py, numpy, self.worker.heap()) {
                // Results are copied then, and that is all.
                let message = format!("numpy's arrays are not allocated in shared memory: {error}");
                let category = py.get_type::<PyRuntimeWarning>();
                let message = std::ffi::CString::new(message)?;
                PyErr::warn(py, &category, &message, 1)?;
            }
        }
        Ok(())
    }

    fn next(&mut self, py: Python<'_>) -> PyResult<bool> {
        loop {
            if self.worker.try_next() {
                return Ok(true);
            }
            let restless = self.passing.as_ref().is_some_and(|passing| !passing.leases.is_empty());
            // Detached until there is a task: a worker that waits for its interpreter must not count as one that searches.
            let waited = py.detach(|| {
                loop {
                    match self.worker.wait(restless) {
                        Waited::Look if self.worker.try_next() => return Waited::Look,
                        Waited::Look if self.passing.as_ref().is_some_and(Passing::is_over) => {
                            return Waited::Interrupted;
                        }
                        Waited::Look => {}
                        end => return end,
                    }
                }
            });
            match waited {
                Waited::Look => return Ok(true),
                Waited::Interrupted => {
                    self.passing = self.passing.take().filter(|passing| !passing.is_over());
                    py.check_signals()?;
                }
                Waited::Over => return Ok(false),
            }
        }
    }

    fn function<'py>(&mut self, py: Python<'py>, once: bool) -> PyResult<Bound<'py, PyAny>> {
        let id = self.worker.task().function;
        let passing = self.passing.as_ref().filter(|passing| passing.id == id).map(|passing| &passing.function);
        if let Some(function) = self.functions.get(&id).or(passing) {
            return Ok(function.bind(py).clone());
        }
        // The last one goes first: arrays of the new one may come to lie where its own did.
        if once {
            self.passing = None;
        }
        let (function, leases) =
            message::unpickle_with_leases(py, &self.worker.function().or_raise(py)?, &self.reader())?;
        if once {
            self.passing = Some(Passing { id, function: function.clone().unbind(), leases });
        } else {
            let forgotten =
                if self.functions.len() >= FUNCTIONS { std::mem::take(&mut self.functions) } else { HashMap::new() };
            self.functions.insert(id, function.clone().unbind());
            drop(forgotten);
        }
        Ok(function)
    }

    /// Runs the current task and puts its result into `out`.
    fn perform(&mut self, py: Python<'_>) -> PyResult<Ended> {
        if !self.numpy {
            self.settle_numpy(py)?;
        }
        let (kind, once) = call::split(self.worker.task().kind);
        let function = self.function(py, once)?;
        if matches!(kind, call::BATCH | call::STAR_BATCH) {
            let mut out = std::mem::take(&mut self.out);
            let ended = self.batch(&function, kind == call::STAR_BATCH, &mut out);
            self.out = out;
            return ended;
        }
        let (value, units) = self.call(&function, kind)?;
        self.worker.laps().called();
        let name = || wire::name_of(&function);
        let what = || match call::is_chunk(kind) {
            false => format!("result of {}", name()),
            true => format!("results of map({})", name()),
        };
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let written = self.give(value, &mut out, what);
        self.worker.laps().encoded();
        self.out = out;
        Ok((result::VALUE, units, written?))
    }

    /// Writes a result behind what `out` holds, and lets go of it. Returns what the bytes refer to.
    fn give(&self, value: Bound<'_, PyAny>, out: &mut Vec<u8>, what: impl FnOnce() -> String) -> PyResult<Vec<Lease>> {
        let py = value.py();
        let writer = Writer::Result(self.worker.heap());
        let (encoded, mut leases, handovers) = in_flight::noting_all(|| wire::encode(&writer, &value, out, what));
        encoded?;
        // Here the result goes, and with it all arrays that nobody else has.
        drop(value);
        // What somebody still uses, a global or a cycle, is copied: what is written there later must not be seen in the
        // result.
        for handover in handovers.iter().filter(|handover| allocator::is_alive(handover.start, handover.serial)) {
            let copy = self.worker.heap().allocate(handover.lease.len()).or_raise(py)?;
            let (from, to) = (handover.lease.address().or_raise(py)?, copy.address().or_raise(py)?);
            let len = handover.lease.len() as usize;
            let (from, to) = (from.expose_provenance(), to.expose_provenance());
            py.detach(|| {
                let (from, to) = (std::ptr::with_exposed_provenance(from), std::ptr::with_exposed_provenance_mut(to));
                // SAFETY: two blocks of that length, both held.
                unsafe { shoal_sys::memory::copy(from, to, len, len) };
            });
            message::refer_to_copy(out, handover, &copy);
            leases.retain(|lease| lease.id() != handover.lease.id());
            leases.push(copy);
        }
        Ok(leases)
    }

    /// Calls the function of the current task: what it returns, and how many items that did.
    fn call<'py>(&self, function: &Bound<'py, PyAny>, kind: u16) -> PyResult<(Bound<'py, PyAny>, u64)> {
        let py = function.py();
        let payload = self.worker.payload().or_raise(py)?;
        let (payload, _) = terms::split(self.worker.task().kind, &payload);
        let reader = self.reader();
        let value = match kind {
            call::EMPTY => {
                self.worker.laps().decoded();
                function.call0()?
            }
            call::ONE => {
                let argument = wire::decode(py, payload, &reader)?;
                self.worker.laps().decoded();
                function.call1((argument,))?
            }
            call::STAR => {
                let arguments = positional(&wire::decode(py, payload, &reader)?)?;
                self.worker.laps().decoded();
                function.call1(arguments)?
            }
            call::PICKLED => {
                let (args, kwargs): (Bound<'_, PyTuple>, Bound<'_, PyDict>) =
                    message::unpickle(py, payload, &reader)?.extract()?;
                self.worker.laps().decoded();
                function.call(args, Some(&kwargs))?
            }
            kind if call::is_chunk(kind) => {
                let items = match kind & call::APART {
                    0 => message::unpickle(py, payload, &reader)?,
                    _ => Bound::new(py, Items::new(py, payload, self.worker.heap(), &self.views)?)?.into_any(),
                };
                self.worker.laps().decoded();
                let kind = kind & !call::APART;
                let star = matches!(kind, call::STAR_CHUNK | call::FIXED_STAR_CHUNK);
                let may_stop = matches!(kind, call::CHUNK | call::STAR_CHUNK);
                let results = self.chunk(function, &items, star, may_stop)?;
                let units = results.len() as u64;
                return Ok((results.into_any(), units));
            }
            _ => return Err(damaged("task")),
        };
        Ok((value, 1))
    }

    /// Runs a piece of a map, in strides that double while they take next to no time. Between strides, what is left
    /// is given back if others have nothing to do.
    fn chunk<'py>(
        &self,
        function: &Bound<'py, PyAny>,
        items: &Bound<'py, PyAny>,
        star: bool,
        may_stop: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = function.py();
        let (total, results) = (items.len()?, PyList::empty(py));
        let mapped = if star {
            tool(py, &STARMAP, "itertools", "starmap")?.call1((function, items))?
        } else {
            tool(py, &MAP, "builtins", "map")?.call1((function, items))?
        };
        let islice = tool(py, &ISLICE, "itertools", "islice")?;
        let (started, mut stride) = (Instant::now(), 1);
        loop {
            let before = Instant::now();
            let done = results.len();
            results.call_method1("extend", (islice.call1((&mapped, stride))?,))?;
            let now = results.len();
            if now < total && now - done < stride {
                // An iterator takes it for its end.
                let name = wire::name_of(function);
                return Err(PyRuntimeError::new_err(format!("{name} raised StopIteration at item {now} of its piece")));
            }
            if now >= total {
                return Ok(results);
            }
            let (elapsed, so_far) = (before.elapsed(), started.elapsed());
            if elapsed < LOOK / 2 {
                stride *= 2;
            } else if elapsed > LOOK {
                stride = (stride / 2).max(1);
            }
            if may_stop && so_far > LOOK && self.worker.others_are_idle() {
                return Ok(results);
            }
        }
    }

    /// Runs a batch of a stream: each item as if it were alone, with its own result or exception. The rest is given back
    /// when the results should be on their way, or others have nothing to do.
    fn batch(&self, function: &Bound<'_, PyAny>, star: bool, out: &mut Vec<u8>) -> PyResult<Ended> {
        let py = function.py();
        let payload = self.worker.payload().or_raise(py)?;
        let (payload, _) = terms::split(self.worker.task().kind, &payload);
        let items = unpack(payload).or_raise(py)?;
        out.clear();
        let (mut units, mut named, mut noted) = (0, 0, Vec::new());
        let started = Instant::now();
        let mut looked = started;
        for (place, item) in items.enumerate() {
            self.worker.laps().item(place);
            let head = out.len();
            out.extend_from_slice(&[0; EACH_HEAD]);
            let (mut kind, mut leases) = (result::VALUE, Vec::new());
            if let Err(error) = self.one(function, item, star, out, &mut leases) {
                if error.is_instance_of::<PySystemExit>(py) {
                    return Err(error);
                }
                out.truncate(head + EACH_HEAD);
                (kind, leases) = (result::ERROR, dump(py, error, out)?);
            }
            let len = u32::try_from(out.len() - head - EACH_HEAD);
            let len = len.map_err(|_| PyRuntimeError::new_err("a result of a batch has 4 GiB or more"))?;
            out[head] = kind as u8;
            out[head + 1..head + EACH_HEAD].copy_from_slice(&len.to_le_bytes());
            units += 1;
            named += leases.iter().map(Lease::len).sum::<u64>();
            noted.append(&mut leases);
            let now = Instant::now();
            if now - started > 2 * TARGET || out.len() as u64 + named > LARGE {
                break;
            }
            if now - looked > LOOK {
                looked = now;
                if self.worker.others_are_idle() {
                    break;
                }
            }
        }
        Ok((result::EACH, units, noted))
    }

    fn one(
        &self,
        function: &Bound<'_, PyAny>,
        item: &[u8],
        star: bool,
        out: &mut Vec<u8>,
        leases: &mut Vec<Lease>,
    ) -> PyResult<()> {
        let value = {
            let item = wire::decode(function.py(), item, &self.reader())?;
            if star {
                let arguments = positional(&item)?;
                self.worker.laps().decoded();
                function.call1(arguments)?
            } else {
                self.worker.laps().decoded();
                function.call1((item,))?
            }
        };
        self.worker.laps().called();
        *leases = self.give(value, out, || format!("result of {}", wire::name_of(function)))?;
        self.worker.laps().encoded();
        Ok(())
    }

    fn finish(&mut self, py: Python<'_>, ended: PyResult<Ended>) -> PyResult<()> {
        let (kind, units, leases) = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_instance_of::<PySystemExit>(py) => return Err(error),
            Err(error) => self.record_or_again(py, error)?,
        };
        // What lies in another domain than the client's does not travel with the completion: it is kept for a while.
        let (ours, foreign) = leases.into_iter().partition(|lease| Arc::ptr_eq(lease.heap(), self.worker.heap()));
        let foreign: Vec<Lease> = foreign;
        foreign.iter().for_each(in_flight::note);
        if let Err(error) = self.worker.finish(kind, units, &self.out, ours) {
            // No memory for a large result: the error itself is small.
            let error = crate::errors::exception(py, error);
            let (kind, units, leases) = self.record(py, error)?;
            self.worker.finish(kind, units, &self.out, leases).or_raise(py)?;
        }
        Ok(())
    }

    /// As [`record`](Self::record); said besides if the terms of the task make it a reason to try again.
    fn record_or_again(&mut self, py: Python<'_>, error: PyErr) -> PyResult<Ended> {
        let (error, again) = match self.is_reason_to_try_again(py, &error) {
            Ok(again) => (error, again),
            // The exceptions of `retry_on` can't be had here: the caller should know, and why that mattered.
            Err(other) => {
                other.set_cause(py, Some(error));
                (other, false)
            }
        };
        let (kind, units, leases) = self.record(py, error)?;
        Ok((if again { kind | AGAIN } else { kind }, units, leases))
    }

    fn is_reason_to_try_again(&self, py: Python<'_>, error: &PyErr) -> PyResult<bool> {
        let payload = self.worker.payload().or_raise(py)?;
        let (_, Some(rider)) = terms::split(self.worker.task().kind, &payload) else { return Ok(false) };
        let reasons = py.import("pickle")?.getattr("loads")?.call1((PyBytes::new(py, rider),))?;
        error.value(py).is_instance(&reasons)
    }

    fn record(&mut self, py: Python<'_>, error: PyErr) -> PyResult<Ended> {
        self.out.clear();
        let leases = dump(py, error, &mut self.out)?;
        Ok((result::ERROR, 1, leases))
    }
}

/// Puts an exception behind what `out` holds; returns what it names by handle.
fn dump(py: Python<'_>, error: PyErr, out: &mut Vec<u8>) -> PyResult<Vec<Lease>> {
    let dump = py.import("shoal.serialize.exceptions")?.getattr("dump_exception")?;
    let (dumped, leases) = in_flight::noting(|| dump.call1((error.into_value(py),)));
    out.extend_from_slice(dumped?.cast::<PyBytes>()?.as_bytes());
    Ok(leases)
}

fn positional<'py>(arguments: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    match arguments.cast::<PyTuple>() {
        Ok(tuple) => Ok(tuple.clone()),
        Err(_) => PyTuple::new(arguments.py(), arguments.try_iter()?.collect::<PyResult<Vec<_>>>()?),
    }
}

static MAP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static STARMAP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static ISLICE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn tool<'py>(
    py: Python<'py>,
    cell: &'py PyOnceLock<Py<PyAny>>,
    module: &str,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    cell.get_or_try_init(py, || Ok(py.import(module)?.getattr(name)?.unbind())).map(|tool| tool.bind(py))
}
