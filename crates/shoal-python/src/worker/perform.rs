//! What a worker does with a task: reads its arguments, calls the function, writes what that returned.

#![allow(unsafe_code, reason = "copies into new blocks")]

use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PySystemExit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple};
use shoal_core::memory::heap::Lease;
use shoal_core::pool::chunks::TARGET;
use shoal_core::pool::packed::unpack;

use super::ending::dump;
use super::{Ended, Seated};
use crate::allocator;
use crate::errors::{OrRaise, damaged};
use crate::in_flight;
use crate::items::Items;
use crate::message;
use crate::terms;
use crate::wire::{self, EACH_HEAD, Writer, call, result};

/// How long a worker goes on with a piece before it looks whether others are idle.
const LOOK: Duration = Duration::from_micros(200);

/// Bytes of results in a batch, beyond which the rest is given back.
const LARGE: u64 = 1 << 20;

impl Seated {
    /// Runs the current task and puts its result into `out`.
    pub(super) fn perform(&mut self, py: Python<'_>) -> PyResult<Ended> {
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
