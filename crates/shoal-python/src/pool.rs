//! The engine behind `shoal.Pool`: from a Python call to a task in the ring, and back.

mod functions;
mod outcome;
mod results;
mod wait;
mod workers;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use shoal_core::domain::host::{Host, Launch, Output};
use shoal_core::memory::heap::Lease;
use shoal_core::pool::client::{Config, Limits, Pool, WorkerState as State};
use shoal_core::pool::tasks::{Reply, TaskCell};
use shoal_core::sync::bell::Tone;

use self::functions::Functions;
use crate::errors::OrRaise;
use crate::in_flight;
use crate::inside::Inside;
use crate::insight::LastMap;
use crate::terms::Terms;
use crate::watch;
use crate::wire::{self, Writer};

pub use self::functions::{Label, Named, Prepared};
pub use self::outcome::{cancelled, load, resolve};
pub use self::results::{AsyncResult, Inbox};
use self::wait::hear_all;
pub use self::wait::{hear_first, pass_words_on, speaking, wait};
pub use self::workers::{WorkerState, name_of};

/// The pool of the engine, and what Python calls need besides.
#[pyclass(frozen, module = "shoal._engine")]
pub struct PoolBase {
    pub pool: Arc<Pool>,
    functions: Functions,
    pub last_map: LastMap,
    /// What every new worker reads first may name shared things.
    _setup_leases: Vec<Lease>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PoolBase {
    /// The function in serialized form, serialized anew only if it may have changed.
    pub fn named(&self, function: &Bound<'_, PyAny>) -> PyResult<Arc<Named>> {
        self.functions.named(&self.pool, function)
    }

    /// How arguments are written: into this process's memory, and never to give away what lies there.
    pub fn writer(&self) -> Writer<'_> {
        Writer::Task(&self.pool)
    }

    fn send(
        &self,
        function: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
        terms: Option<&Bound<'_, Terms>>,
        reply: Reply,
    ) -> PyResult<(Arc<Named>, u64)> {
        let named = self.functions.named_on(&self.pool, function, terms)?;
        let mut payload = Vec::with_capacity(64);
        let (kind, leases) =
            in_flight::noting(|| wire::encode_call(&self.writer(), &named.label.name, args, kwargs, &mut payload));
        let kind = kind? | named.flags;
        let number = self.pool.submit(&named.function, kind, &payload, leases, reply).or_raise(function.py())?;
        Ok((named, number))
    }
}

#[pymethods]
impl PoolBase {
    #[new]
    #[pyo3(signature = (workers, program, args, envs, preload, setup, initializer, memory_limit, limits, output, speaker = None))]
    #[allow(clippy::too_many_arguments, reason = "they are the interpreter's to give")]
    fn new(
        py: Python<'_>,
        workers: usize,
        program: String,
        args: Vec<String>,
        envs: Vec<(String, String)>,
        preload: Vec<Vec<u8>>,
        setup: &Bound<'_, PyAny>,
        initializer: &Bound<'_, PyAny>,
        memory_limit: Option<u64>,
        limits: (Option<u64>, Option<f64>, Option<f64>),
        output: &str,
        speaker: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let _inside = Inside::enter(py);
        let output = match output {
            "shared" => Output::Shared,
            "forwarded" => Output::Forwarded,
            "unheard" => Output::Unheard,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "output must be shared, forwarded or unheard, not {output:?}"
                )));
            }
        };
        let launch = launch(program, args, envs);
        let host = Host::current().or_raise(py)?;
        let writer = Writer::Setup(host.heap());
        // Apart: the first is read in whatever state a worker begins, the second when it is settled.
        let (mut bytes, mut start) = (Vec::new(), Vec::new());
        let (written, setup_leases) = in_flight::noting(|| {
            writer.pickle(initializer, &mut start, || "initializer and initargs".to_owned())?;
            writer.pickle(setup, &mut bytes, || "setup".to_owned())
        });
        written?;
        let setup = [&(bytes.len() as u64).to_le_bytes(), &bytes[..], &start].concat();
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let (private_memory, idle, answer) = limits;
        let limits = Limits { private_memory, idle: idle.map(seconds), answer: answer.map(seconds) };
        let speakers = speaker.map(|speaker| watch::speakers(py, &speaker));
        let config = Config { workers, launch, preload, setup, memory_limit, limits, output, speakers };
        let pool = py.detach(|| Pool::new(&config)).or_raise(py)?;
        Ok(PoolBase {
            pool: Arc::new(pool),
            functions: Functions::default(),
            last_map: LastMap::default(),
            _setup_leases: setup_leases,
        })
    }

    /// Serialize `func`, for many calls that are to use it as it is now, and on these terms.
    #[pyo3(signature = (func, terms = None))]
    fn prepare(&self, func: &Bound<'_, PyAny>, terms: Option<&Bound<'_, Terms>>) -> PyResult<Prepared> {
        let _inside = Inside::enter(func.py());
        Ok(Prepared(self.functions.named_on(&self.pool, func, terms)?))
    }

    /// Submit a call; returns an AsyncResult at once.
    #[pyo3(signature = (func, args, kwargs = None, terms = None))]
    pub fn submit_call(
        &self,
        py: Python<'_>,
        func: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
        terms: Option<&Bound<'_, Terms>>,
    ) -> PyResult<Py<AsyncResult>> {
        let _inside = Inside::enter(py);
        let cell = Arc::new(TaskCell::default());
        let (named, number) = self.send(func, args, kwargs, terms, Reply::Cell(cell.clone()))?;
        Py::new(py, AsyncResult::new(cell, number, named.label.clone()))
    }

    /// Leave some bytes for workers: each looks at them before its next task, the latest only. False: they are too many.
    fn leave_notice(&self, notice: &[u8]) -> bool {
        self.pool.leave_notice(notice)
    }

    /// Whether there is more to come than was submitted: then a worker without a task is waiting, else it is idle. Each True
    /// is to be followed by a False.
    fn expect_more(&self, py: Python<'_>, more: bool) -> PyResult<()> {
        let told = || {
            if more {
                return self.pool.feed(0);
            }
            self.pool.fed();
            Ok(())
        };
        Inside::detach(py, told).or_raise(py)
    }

    /// Take back all tasks that no worker has taken yet.
    fn cancel_queued(&self, py: Python<'_>) {
        Inside::detach(py, || self.pool.cancel_queued());
    }

    /// Close: no more tasks.
    fn close_now(&self, py: Python<'_>) {
        Inside::detach(py, || self.pool.close());
    }

    /// End the workers now; with SIGKILL at once, if `kill`.
    #[pyo3(signature = (kill = false))]
    fn terminate_now(&self, py: Python<'_>, kill: bool) {
        Inside::detach(py, || if kill { self.pool.kill() } else { self.pool.terminate() });
    }

    /// Wait until all workers of a closed pool have ended; false if the time was up.
    #[pyo3(signature = (timeout = None))]
    fn wait_over(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let over = wait(py, &self.pool, Tone::Completion, || self.pool.is_over(), timeout)?;
        hear_all(py, &self.pool);
        Ok(over)
    }

    /// Whether tasks may be submitted.
    #[getter]
    fn is_open(&self) -> bool {
        self.pool.is_open()
    }

    /// Number of workers.
    #[getter]
    fn size(&self) -> usize {
        self.pool.size()
    }

    /// The workers, as they are at this moment. Those that are starting are waited for.
    #[getter]
    fn workers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        loop {
            wait(py, &self.pool, Tone::Completion, || !self.pool.is_starting() || self.pool.is_over(), None)?;
            let workers = self.pool.workers();
            // A death may be settled in between, and another worker be on its way.
            if self.pool.is_over() || workers.iter().all(|worker| worker.state != State::Starting) {
                return PyTuple::new(py, workers.into_iter().map(WorkerState));
            }
        }
    }
}

/// Starts the zygote, if there is none yet, so that a pool that comes later need not wait for it.
#[pyfunction]
pub fn start_zygote(
    py: Python<'_>,
    program: String,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    preload: Vec<Vec<u8>>,
) -> PyResult<()> {
    let host = Host::current().or_raise(py)?;
    let launch = launch(program, args, envs);
    Inside::detach(py, || host.prepare(&launch, &preload)).or_raise(py)
}

fn launch(program: String, args: Vec<String>, envs: Vec<(String, String)>) -> Launch {
    Launch {
        program: program.into(),
        args: args.into_iter().map(Into::into).collect(),
        envs: envs.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
    }
}
