//! Results of calls that were submitted one by one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};
use shoal_core::pool::client::Pool;
use shoal_core::pool::tasks::{Inbox as CoreInbox, TaskCell};
use shoal_core::sync::bell::Tone;

use super::functions::Label;
use super::outcome::resolve;
use super::wait::{hear_first, wait};
use super::{PoolBase, lock};
use crate::errors::is_interrupt;
use crate::inside::Inside;

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
    /// Of the task of that number, whose outcome comes into `cell`.
    pub fn new(cell: Arc<TaskCell>, number: u64, label: Arc<Label>) -> AsyncResult {
        AsyncResult { cell, number, label, resolved: Mutex::new(Resolved::Not) }
    }

    /// Unpickles the outcome, once, in the thread that wants it; again, if it was interrupted.
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
        if value.as_ref().is_err_and(|error| is_interrupt(py, error)) {
            self.cell.put_back(outcome);
            return value;
        }
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
        match self.resolve(py) {
            Err(error) if is_interrupt(py, &error) => Err(error),
            value => Ok(value.is_ok()),
        }
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
