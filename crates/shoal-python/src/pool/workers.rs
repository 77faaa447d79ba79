//! The workers of a pool, as Python is told of them.

use pyo3::prelude::*;
use shoal_core::pool::client::{WorkerInfo, WorkerState as State};

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
pub struct WorkerState(pub WorkerInfo);

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
