//! The worker's loop: takes tasks, runs the user's functions, sends what they return or raise.

mod ending;
mod perform;

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::exceptions::PyRuntimeWarning;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shoal_core::domain;
use shoal_core::memory::heap::Lease;
use shoal_core::memory::view::Views;
use shoal_core::pool::worker::{Waited, Worker as CoreWorker};
use shoal_sys::{process, procfs};

use crate::allocator;
use crate::errors::{OrRaise, damaged};
use crate::message::{self, Reader};
use crate::numpy::Numpy;
use crate::reporter::Reporter;
use crate::zygote::Seat;

/// Functions kept; beyond, all are forgotten and read anew.
const FUNCTIONS: usize = 256;

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
}
