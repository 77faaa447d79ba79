//! `map` over what is no sequence: all results are kept.

use std::sync::Arc;
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::PyList;
use pyo3::{PyTraverseError, PyVisit};
use shoal_core::pool::client::Pool;
use shoal_core::sync::bell::Tone;

use super::turn::{Turn, Turns};
use super::{Plan, State};
use crate::errors::is_interrupt;
use crate::inside::Inside;
use crate::job::Stop;
use crate::pool::{PoolBase, hear_first};

/// A map over an input that is read on the way; all results are kept.
#[pyclass(frozen, module = "shoal._engine")]
pub struct StreamJob {
    kept: Turns<Kept>,
    pool: Arc<Pool>,
    /// Whether it is to read no more: seen by the thread that runs it.
    stop: Stop,
}

struct Kept {
    state: State,
    results: Py<PyList>,
    /// Of the first item that failed.
    error: Option<PyErr>,
}

impl Kept {
    fn run(&mut self, py: Python<'_>, timeout: Option<f64>, stop: &Stop) -> PyResult<bool> {
        let started = Instant::now();
        if timeout.is_some_and(|timeout| timeout <= 0.0) {
            // Only a look: but what has come should be seen.
            py.detach(|| self.state.pool.collect());
        }
        loop {
            if let Some(running) = stop.take()
                && !self.state.is_over()
            {
                self.state.stop(py, running);
            }
            self.state.pump(py);
            self.state.interrupted()?;
            while let Some(value) = self.state.take(py) {
                match value {
                    Ok(value) => self.results.bind(py).append(value)?,
                    // Its result is still to be taken.
                    Err(error) if is_interrupt(py, &error) => return Err(error),
                    Err(error) => _ = self.error.get_or_insert(error),
                }
            }
            if self.state.is_over() {
                hear_first(py, &self.state.pool);
                return Ok(true);
            }
            if !self.state.wait(py, Tone::Idle, timeout, started, || stop.is_asked())? {
                return Ok(false);
            }
        }
    }
}

#[pymethods]
impl StreamJob {
    /// A map of `func` over `items`, in pieces of `chunksize`, or as it turns out best.
    #[new]
    #[pyo3(signature = (pool, func, items, chunksize, buffersize, star))]
    fn new(
        py: Python<'_>,
        pool: &PoolBase,
        func: &Bound<'_, PyAny>,
        items: &Bound<'_, PyAny>,
        chunksize: Option<usize>,
        buffersize: Option<usize>,
        star: bool,
    ) -> PyResult<Self> {
        let _inside = Inside::enter(py);
        let plan = Plan { func, items, chunksize, buffersize, star, ordered: true, keep: true };
        let state = State::new(pool, None, &plan)?;
        let kept = Kept { state, results: PyList::empty(py).unbind(), error: None };
        Ok(StreamJob { kept: Turns::new(kept), pool: pool.pool.clone(), stop: Stop::default() })
    }

    /// Send the first pieces. Whether somebody has to go on with it.
    fn start(&self, py: Python<'_>) -> PyResult<bool> {
        let _inside = Inside::enter(py);
        let Turn::Mine(mut kept) = self.kept.take(py, None)? else { return Ok(false) };
        kept.state.pump(py);
        kept.state.interrupted()?;
        Ok(kept.state.feeding)
    }

    /// Read, send and collect until the map is done, at most `timeout` seconds; whether it is.
    #[pyo3(signature = (timeout = None))]
    fn run(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let _inside = Inside::enter(py);
        match self.kept.take(py, timeout)? {
            Turn::Mine(mut kept) => kept.run(py, timeout, &self.stop),
            Turn::Closed => Ok(true),
            Turn::TimedOut => Ok(false),
        }
    }

    /// Have whoever runs it, or does so next, read no more of the input and take back what no worker has taken: then
    /// `result` raises CancelledError. What workers are at is waited for as ever, or stopped by ending them, if `running`.
    #[pyo3(signature = (running = false))]
    fn stop(&self, py: Python<'_>, running: bool) {
        self.stop.ask(running);
        Inside::detach(py, || self.pool.wake());
    }

    /// The results; or what the input raised, or the first exception of an item.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        let _inside = Inside::enter(py);
        let Turn::Mine(kept) = self.kept.take(py, None)? else { return Ok(PyList::empty(py).unbind()) };
        match kept.state.last.as_ref().or(kept.error.as_ref()) {
            Some(error) => Err(error.clone_ref(py)),
            None => Ok(kept.results.clone_ref(py)),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let looked = self.kept.look(|kept| {
            visit.call(&kept.state.input)?;
            visit.call(&kept.results)
        });
        looked.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        drop(self.kept.clear());
    }
}
