//! The pool's fast path: from a Python call to a task in the ring, and back.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use shoal_core::domain::host::{Host, Launch, Output};
use shoal_core::memory::heap::{Heap, Lease};
use shoal_core::pool::client::{Config, Limits, Pool, Waited, WorkerInfo, WorkerState as State};
use shoal_core::pool::tasks::{Function, Inbox as CoreInbox, Outcome, Reply, TaskCell};
use shoal_core::sync::bell::Tone;

use shoal_core::Error;

use crate::deaths;
use crate::errors::{OrRaise, exception, raise};
use crate::in_flight;
use crate::insight::LastMap;
use crate::message::Reader;
use crate::terms::{RIDER, Terms};
use crate::wire::{self, Writer, call, result};

/// How long a result waits for what its task has said, should nobody read that.
const PATIENCE: Duration = Duration::from_secs(1);

/// Functions kept serialized; beyond, all are forgotten and begin anew.
const FUNCTIONS: usize = 256;

/// Set in a task's kind: the function may hold state of this one call, the worker shall not keep it.
pub const ONCE: u16 = 0x8000;

/// A function in its serialized form, with its name for messages.
#[derive(Debug)]
pub struct Named {
    pub label: Arc<Label>,
    pub function: Arc<Function>,
    /// Said in the kind of each task: ONCE, unless it is the same at every call; RIDER, if its terms have one.
    pub flags: u16,
}

impl Named {
    /// The same function, on terms.
    fn on(&self, terms: &Terms) -> Arc<Named> {
        let rider = if terms.0.rider.is_empty() { 0 } else { RIDER };
        let function = self.function.on(terms.0.clone());
        Arc::new(Named { label: self.label.clone(), function, flags: self.flags | rider })
    }
}

/// Which function in which pool a result is of. Unlike the function itself, it keeps no memory that the function refers to.
#[derive(Debug)]
pub struct Label {
    pub pool: Arc<Pool>,
    pub name: String,
}

struct Known {
    /// Keeps the function alive, so that its address stays its own.
    _function: Py<PyAny>,
    /// Asked whether it is still as it was serialized; `None`: always.
    snapshot: Option<Py<PyAny>>,
    named: Arc<Named>,
}

struct OnTerms {
    without: Arc<Named>,
    terms: Py<Terms>,
    with: Arc<Named>,
}

/// The engine behind `shoal.Pool`.
#[pyclass(frozen, module = "shoal._engine")]
pub struct PoolBase {
    pub pool: Arc<Pool>,
    known: Mutex<HashMap<usize, Known>>,
    pub last_map: LastMap,
    /// The last function that was called on terms, without them and with them.
    on_terms: Mutex<Option<OnTerms>>,
    /// What every new worker reads first may name shared things.
    _setup_leases: Vec<Lease>,
}

static STABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static ALWAYS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PoolBase {
    /// The function in serialized form, serialized anew only if it may have changed.
    pub fn named(&self, function: &Bound<'_, PyAny>) -> PyResult<Arc<Named>> {
        let py = function.py();
        if let Ok(prepared) = function.cast_exact::<Prepared>() {
            return Ok(prepared.get().0.clone());
        }
        let key = function.as_ptr() as usize;
        // Out of the map while it is asked: the question runs Python code, which may come back here.
        let known =
            lock(&self.known).get(&key).map(|k| (k.snapshot.as_ref().map(|s| s.clone_ref(py)), k.named.clone()));
        match known {
            Some((None, named)) => return Ok(named),
            Some((Some(snapshot), named)) if snapshot.call_method0(py, "unchanged")?.is_truthy(py)? => {
                return Ok(named);
            }
            _ => {}
        }
        if !function.is_callable() {
            return Err(PyTypeError::new_err(format!("func must be callable, not {}", function.get_type().name()?)));
        }
        let serialize = |name: &str| PyResult::Ok(py.import("shoal.serialize.function")?.getattr(name)?.unbind());
        let stable = STABLE.get_or_try_init(py, || serialize("stable"))?;
        let always = ALWAYS.get_or_try_init(py, || serialize("_ALWAYS"))?;
        // Before it is pickled, so that a change in between is noticed.
        let snapshot = stable.call1(py, (function,))?;
        let name = wire::name_of(function);
        let mut bytes = Vec::new();
        let writer = self.writer();
        let (pickled, leases) = in_flight::noting(|| writer.pickle(function, &mut bytes, || name.clone()));
        pickled?;
        let function_in_pool = self.pool.function_named(&name, &bytes, leases).or_raise(py)?;
        let stable = !snapshot.is_none(py);
        let named = Arc::new(Named {
            label: Arc::new(Label { pool: self.pool.clone(), name }),
            function: function_in_pool,
            flags: if stable { 0 } else { ONCE },
        });
        if stable {
            let entry = Known {
                _function: function.clone().unbind(),
                snapshot: if snapshot.is(always) { None } else { Some(snapshot) },
                named: named.clone(),
            };
            let mut known = lock(&self.known);
            let forgotten = if known.len() >= FUNCTIONS { std::mem::take(&mut *known) } else { HashMap::new() };
            let former = known.insert(key, entry);
            // With nothing locked any more: what goes here may run Python code.
            drop(known);
            drop((forgotten, former));
        }
        Ok(named)
    }

    /// As [`named`](Self::named), to be called on terms.
    fn named_on(&self, function: &Bound<'_, PyAny>, terms: Option<&Bound<'_, Terms>>) -> PyResult<Arc<Named>> {
        let named = self.named(function)?;
        let Some(terms) = terms else { return Ok(named) };
        let mut last = lock(&self.on_terms);
        if let Some(last) = last.as_ref().filter(|last| Arc::ptr_eq(&last.without, &named) && last.terms.is(terms)) {
            return Ok(last.with.clone());
        }
        let with = named.on(terms.get());
        let former = last.replace(OnTerms { without: named, terms: terms.clone().unbind(), with: with.clone() });
        drop(last);
        // With nothing locked any more.
        drop(former);
        Ok(with)
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
        let named = self.named_on(function, terms)?;
        let mut payload = Vec::with_capacity(64);
        let (kind, leases) =
            in_flight::noting(|| wire::encode_call(&self.writer(), &named.label.name, args, kwargs, &mut payload));
        let kind = kind? | named.flags;
        let number = self.pool.submit(&named.function, kind, &payload, leases, reply).or_raise(function.py())?;
        Ok((named, number))
    }
}

/// Threads inside the engine.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// The thread that ends the interpreter, once it does.
static ENDING: OnceLock<ThreadId> = OnceLock::new();

thread_local! {
    /// How often the thread is counted as inside.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Counts a thread that is inside the engine and may have to come back to the interpreter.
///
/// At the end of the interpreter CPython ends a daemon thread by force when it next wants to be attached, and that must
/// not happen in the middle of Rust code. So the end waits for those inside, and who comes later stays outside.
pub struct Inside;

impl Inside {
    /// Counts the calling thread. Does not return if another one is ending the interpreter.
    pub fn enter(py: Python<'_>) -> Inside {
        Inside::stay_if_ending(py);
        INSIDE.fetch_add(1, Ordering::SeqCst);
        DEPTH.set(DEPTH.get() + 1);
        Inside
    }

    /// Acts detached from the interpreter, as a thread that is counted.
    pub fn detach<T: Send>(py: Python<'_>, act: impl FnOnce() -> T + Send) -> T {
        let _inside = Inside::enter(py);
        py.detach(act)
    }

    /// As [`enter`](Self::enter), for a thread of the engine's own, which is told that another one is ending the interpreter.
    pub fn enter_unless_ending(_attached: Python<'_>) -> Option<Inside> {
        // Counted before it looks: who ends the interpreter marks that, and then looks whom it has to wait for.
        INSIDE.fetch_add(1, Ordering::SeqCst);
        DEPTH.set(DEPTH.get() + 1);
        let inside = Inside;
        ENDING.get().is_none_or(|thread| *thread == std::thread::current().id()).then_some(inside)
    }

    /// Does not return if another thread is ending the interpreter: what the calling one waited for was cut off by that,
    /// and nobody wants to hear of it. Only daemon threads are left then.
    pub fn stay_if_ending(py: Python<'_>) {
        if ENDING.get().is_none_or(|thread| *thread == std::thread::current().id()) {
            return;
        }
        INSIDE.fetch_sub(DEPTH.take(), Ordering::SeqCst);
        loop {
            py.detach(|| std::thread::sleep(Duration::from_secs(3600)));
        }
    }

    /// The calling thread ends the interpreter: from now on no other comes back from the engine.
    pub fn end() {
        ENDING.get_or_init(|| std::thread::current().id());
    }

    /// The calling thread ends the interpreter: waits until no other is inside, a few seconds at most.
    pub fn wait_for_none(py: Python<'_>) {
        Inside::end();
        let deadline = Instant::now() + Duration::from_secs(5);
        while INSIDE.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            py.detach(|| std::thread::sleep(Duration::from_millis(1)));
        }
    }
}

impl Inside {
    /// In the child of a fork: no other thread is there.
    pub fn forked() {
        INSIDE.store(0, Ordering::SeqCst);
        DEPTH.set(0);
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().saturating_sub(1));
        // Not below 0: the thread that forked may have been inside.
        let _ = INSIDE.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1));
    }
}

/// Waits in the engine, detached from the interpreter; a signal's exception ends the wait.
pub fn wait(
    py: Python<'_>,
    pool: &Pool,
    tone: Tone,
    done: impl FnMut() -> bool + Send,
    timeout: Option<f64>,
) -> PyResult<bool> {
    let timeout = timeout.map(|timeout| Duration::try_from_secs_f64(timeout.max(0.0)).unwrap_or(Duration::MAX));
    let mut raised = None;
    let _inside = Inside::enter(py);
    let waited = py.detach(|| {
        pool.wait(tone, done, timeout, || {
            raised = Python::attach(|py| py.check_signals()).err();
            raised.is_some()
        })
    });
    Inside::stay_if_ending(py);
    match (raised, waited) {
        (Some(error), _) => Err(error),
        (None, Waited::Forked) => Err(exception(py, Error::Forked)),
        (None, waited) => Ok(waited == Waited::Done),
    }
}

/// Wait until what workers have written to their standard error so far is passed on; not for ever, should nobody read it.
#[pyfunction]
pub fn pass_words_on(py: Python<'_>) {
    py.detach(|| Host::existing().inspect(|host| host.pass_on(PATIENCE)));
}

thread_local! {
    /// Whether this thread is passing on what workers say.
    static SPEAKS: Cell<bool> = const { Cell::new(false) };
}

/// Calls what passes on the words of workers. What it waits for itself, it does not hear in time.
pub fn speaking<T>(speak: impl FnOnce() -> T) -> T {
    SPEAKS.set(true);
    let spoken = speak();
    SPEAKS.set(false);
    spoken
}

/// Before a result is handed over: what workers have said before is passed on first. Two looks, if they said nothing.
pub fn hear_first(py: Python<'_>, pool: &Pool) {
    if pool.has_news() && !SPEAKS.get() {
        py.detach(|| pool.hear(PATIENCE));
    }
}

/// What became of a task, as a value or an exception.
pub fn resolve<'py>(py: Python<'py>, heap: &Arc<Heap>, outcome: &Outcome, name: &str) -> PyResult<Bound<'py, PyAny>> {
    match outcome {
        Outcome::Done { kind, payload, .. } => {
            let bytes = payload.bytes().or_raise(py)?;
            if *kind == result::VALUE {
                return wire::decode(py, bytes, &Reader { heap, views: None });
            }
            Err(load(py, bytes)?)
        }
        Outcome::Died(failed) => Err(deaths::worker_died(py, heap, name, failed)),
        Outcome::TimedOut(limit, failed) => Err(deaths::task_timeout(py, heap, name, *limit, failed)),
        &Outcome::OutOfSharedMemory { wanted, available, limit } => {
            Err(exception(py, Error::OutOfSharedMemory { wanted, available, limit }))
        }
        Outcome::Unreadable(why) => Err(raise(py, "ShoalError", (format!("the result can't be read: {why}"),))),
        Outcome::NoWorkers(why) => Err(raise(py, "ShoalError", (format!("workers cannot be started: {why}"),))),
        Outcome::Terminated => {
            Inside::stay_if_ending(py);
            Err(raise(py, "PoolClosed", ("the pool was terminated before the task was done",)))
        }
        Outcome::Cancelled => Err(cancelled(py, name)),
    }
}

/// The error of what was taken back.
pub fn cancelled(py: Python<'_>, name: &str) -> PyErr {
    let make = || py.import("concurrent.futures")?.getattr("CancelledError")?.call1((format!("{name} was cancelled"),));
    make().map_or_else(|error| error, PyErr::from_value)
}

/// An exception, as the worker dumped it.
pub fn load(py: Python<'_>, bytes: &[u8]) -> PyResult<PyErr> {
    let load = py.import("shoal.serialize.exceptions")?.getattr("load_exception")?;
    Ok(PyErr::from_value(load.call1((PyBytes::new(py, bytes),))?))
}

#[pymethods]
impl PoolBase {
    #[new]
    #[pyo3(signature = (workers, program, args, envs, preload, setup, initializer, memory_limit, limits, output))]
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
        let config = Config { workers, launch, preload, setup, memory_limit, limits, output };
        let pool = py.detach(|| Pool::new(&config)).or_raise(py)?;
        Ok(PoolBase {
            pool: Arc::new(pool),
            known: Mutex::default(),
            last_map: LastMap::default(),
            on_terms: Mutex::default(),
            _setup_leases: setup_leases,
        })
    }

    /// Serialize `func`, for many calls that are to use it as it is now, and on these terms.
    #[pyo3(signature = (func, terms = None))]
    fn prepare(&self, func: &Bound<'_, PyAny>, terms: Option<&Bound<'_, Terms>>) -> PyResult<Prepared> {
        let _inside = Inside::enter(func.py());
        Ok(Prepared(self.named_on(func, terms)?))
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
        Py::new(py, AsyncResult { cell, number, label: named.label.clone(), resolved: Mutex::new(Resolved::Not) })
    }

    /// Leave some bytes for workers: each looks at them before its next task, the latest only. False: they are too many.
    fn leave_notice(&self, notice: &[u8]) -> bool {
        self.pool.leave_notice(notice)
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
        pass_words_on(py);
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
        wait(py, &self.pool, Tone::Completion, || !self.pool.is_starting() || self.pool.is_over(), None)?;
        PyTuple::new(py, self.pool.workers().into_iter().map(WorkerState))
    }
}

/// What Python calls a worker's state.
pub fn name_of(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Idle => "idle",
        State::Busy => "busy",
        State::Stopped => "stopped",
        State::Silent => "unresponsive",
        State::Resting => "resting",
        State::Gone => "gone",
    }
}

/// A worker of a pool, as it was when asked.
#[pyclass(frozen, name = "Worker", module = "shoal._engine")]
pub struct WorkerState(WorkerInfo);

#[pymethods]
impl WorkerState {
    /// Its place in the pool, from 0. A worker that replaces another has the same.
    #[getter]
    fn number(&self) -> u16 {
        self.0.number
    }

    /// Its process id; None while it is starting, when it rests or is gone.
    #[getter]
    fn pid(&self) -> Option<u32> {
        self.0.pid
    }

    /// "starting", "idle", "busy", "unresponsive" (at a task, and gives no sign of life), "stopped" (by a signal), "resting"
    /// (ended for want of work) or "gone".
    #[getter]
    fn state(&self) -> &'static str {
        name_of(self.0.state)
    }

    /// What the function is called that it is at; "" if that is not known, None if it is at none.
    #[getter]
    fn task(&self) -> Option<&str> {
        self.0.task.as_ref().map(|task| task.function.as_deref().unwrap_or_default())
    }

    /// For how many seconds; 0.0 if it is at none. Of a map, a task has many items.
    #[getter]
    fn task_seconds(&self) -> f64 {
        self.0.task.as_ref().map_or(0.0, |task| task.nanos as f64 * 1e-9)
    }

    /// Tasks ended at this place.
    #[getter]
    fn tasks(&self) -> u64 {
        self.0.spent.tasks
    }

    /// Seconds spent on them.
    #[getter]
    fn busy(&self) -> f64 {
        self.0.spent.busy as f64 * 1e-9
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let pid = self.0.pid.map_or("None".to_owned(), |pid| pid.to_string());
        let at = match self.task() {
            Some(task) => {
                let words = py.import("shoal._text")?.getattr("at_task")?;
                words.call1((task, self.task_seconds()))?.extract()?
            }
            None => String::new(),
        };
        Ok(format!("<shoal.Worker {}: pid {pid}, {}{at}, {} tasks>", self.0.number, self.state(), self.0.spent.tasks))
    }
}

#[derive(Debug)]
enum Resolved {
    Not,
    Value(Py<PyAny>),
    Error(Py<PyAny>),
}

/// The result of a task that was submitted, as `multiprocessing.pool.AsyncResult`.
#[pyclass(frozen, weakref, module = "shoal._engine")]
pub struct AsyncResult {
    cell: Arc<TaskCell>,
    number: u64,
    label: Arc<Label>,
    resolved: Mutex<Resolved>,
}

impl AsyncResult {
    /// Unpickles the outcome, once, in the thread that wants it.
    fn resolve(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let outcome = loop {
            match &*lock(&self.resolved) {
                Resolved::Value(value) => return Ok(value.clone_ref(py)),
                Resolved::Error(error) => return Err(PyErr::from_value(error.bind(py).clone())),
                Resolved::Not => {}
            }
            if let Some(outcome) = self.cell.take() {
                break outcome;
            }
            // Another thread is at it: it may run Python code, so the lock is not held meanwhile.
            py.detach(|| std::thread::sleep(Duration::from_micros(100)));
        };
        let value = resolve(py, self.label.pool.heap(), &outcome, &self.label.name).map(Bound::unbind);
        *lock(&self.resolved) = match &value {
            Ok(value) => Resolved::Value(value.clone_ref(py)),
            Err(error) => Resolved::Error(error.clone_ref(py).into_value(py).into_any()),
        };
        value
    }
}

#[pymethods]
impl AsyncResult {
    /// An exception knows the frames it came through, and one of them this result.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.resolved.try_lock().as_deref() {
            Ok(Resolved::Value(object) | Resolved::Error(object)) => visit.call(object),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        let former = std::mem::replace(&mut *lock(&self.resolved), Resolved::Not);
        drop(former);
    }

    /// The result, when it arrives; the task's exception if it raised one.
    ///
    /// Raises multiprocessing.TimeoutError if it takes longer than `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn get(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let _inside = Inside::enter(py);
        if !self.cell.is_done() && !wait(py, &self.label.pool, Tone::Completion, || self.cell.is_done(), timeout)? {
            let error = py.import("multiprocessing")?.getattr("TimeoutError")?;
            return Err(PyErr::from_value(error.call0()?));
        }
        hear_first(py, &self.label.pool);
        self.resolve(py)
    }

    /// Wait until the task has ended, at most `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        wait(py, &self.label.pool, Tone::Completion, || self.cell.is_done(), timeout).map(drop)
    }

    /// Whether the task has ended.
    fn ready(&self, py: Python<'_>) -> bool {
        if !self.cell.is_done() {
            Inside::detach(py, || self.label.pool.collect());
        }
        self.cell.is_done()
    }

    /// Whether the task ended without an exception. ValueError if it has not ended.
    fn successful(&self, py: Python<'_>) -> PyResult<bool> {
        let _inside = Inside::enter(py);
        if !self.ready(py) {
            return Err(PyValueError::new_err(format!("{} not ready", self.label.name)));
        }
        Ok(self.resolve(py).is_ok())
    }

    /// Take the task back, unless a worker has taken it or it has ended: then False. Its `get` raises CancelledError.
    ///
    /// If `running`, also one that a worker runs: the worker is ended and replaced.
    #[pyo3(signature = (*, running = false))]
    fn cancel(&self, py: Python<'_>, running: bool) -> bool {
        let pool = &self.label.pool;
        Inside::detach(py, || if running { pool.stop(self.number) } else { pool.cancel(self.number) })
    }

    /// Whether the task was taken back.
    fn cancelled(&self) -> bool {
        self.cell.is_cancelled()
    }

    /// Whether no worker has taken the task yet.
    fn queued(&self, py: Python<'_>) -> bool {
        !self.cell.is_done() && Inside::detach(py, || self.label.pool.is_queued(self.number))
    }

    /// Have `inbox` told of the end, with `tag`. False if it has ended already: then nobody is told.
    fn watch(&self, inbox: &Inbox, tag: u64) -> bool {
        self.cell.watch(&inbox.inbox, tag)
    }

    fn __repr__(&self) -> String {
        let state = if self.cell.is_done() { "ready" } else { "pending" };
        format!("<shoal.AsyncResult of {}, {state}>", self.label.name)
    }

    #[classmethod]
    fn __class_getitem__(cls: &Bound<'_, pyo3::types::PyType>, _item: &Bound<'_, PyAny>) -> Py<pyo3::types::PyType> {
        cls.clone().unbind()
    }
}

/// A function as it was serialized, for many calls. Only for the pool that it was prepared by.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Prepared(Arc<Named>);

/// Where it is told which watched tasks have ended.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Inbox {
    pool: Arc<Pool>,
    inbox: Arc<CoreInbox<u64>>,
}

#[pymethods]
impl Inbox {
    #[new]
    fn new(pool: &PoolBase) -> Self {
        Inbox { pool: pool.pool.clone(), inbox: CoreInbox::new() }
    }

    /// Wait until something has ended, at most `timeout` seconds; returns the tags of all that has.
    #[pyo3(signature = (timeout = None))]
    fn take(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Vec<u64>> {
        let _inside = Inside::enter(py);
        wait(py, &self.pool, Tone::Completion, || !self.inbox.is_empty(), timeout)?;
        Ok(self.inbox.take_all().into())
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

/// Kinds of calls, for the worker: what it is, and whether the function is not to be kept.
pub fn kind_of(kind: u16) -> (u16, bool) {
    (kind & !(ONCE | RIDER), kind & ONCE != 0)
}

const _: () = assert!((call::STAR_BATCH | call::APART) & (ONCE | RIDER) == 0);
