//! The terms a function is called on, and how their part that is Python's own travels.
//!
//! Which exceptions are a reason to try again is for the worker to say: it has the exception, and need not unpickle the
//! classes unless one is raised. They ride behind the arguments of each task, with their length (4 bytes) at the end.

use std::time::Duration;

use pyo3::prelude::*;
use shoal_core::pool::terms::Terms as CoreTerms;

/// Set in a task's kind: behind its arguments rides a pickle of the exceptions that are a reason to try again.
pub const RIDER: u16 = 0x4000;

/// How long tasks may take, how often they are tried, what comes before them.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Terms(pub CoreTerms);

#[pymethods]
impl Terms {
    /// Seconds, counts; `retry_on` is a pickle of a tuple of exceptions, empty for none.
    #[new]
    #[pyo3(signature = (timeout, retries, retry_on, retry_timeouts, pause, priority))]
    fn new(
        timeout: Option<f64>,
        retries: u32,
        retry_on: &[u8],
        retry_timeouts: bool,
        pause: f64,
        priority: i32,
    ) -> Self {
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let rider = match retry_on {
            [] => Box::default(),
            pickle => [pickle, &(pickle.len() as u32).to_le_bytes()].concat().into(),
        };
        let (timeout, pause) = (timeout.map(seconds), seconds(pause));
        Terms(CoreTerms { timeout, retries, retry_timeouts, pause, priority, rider })
    }
}

/// The arguments of a task, and the pickle that rides behind them, if one does.
pub fn split(kind: u16, payload: &[u8]) -> (&[u8], Option<&[u8]>) {
    let found = (kind & RIDER != 0).then(|| {
        let (rest, len) = payload.split_last_chunk::<4>()?;
        let at = rest.len().checked_sub(u32::from_le_bytes(*len) as usize)?;
        Some(rest.split_at(at))
    });
    // One that is damaged is none: the arguments won't be what they should be either, and that is told.
    found.flatten().map_or((payload, None), |(arguments, rider)| (arguments, Some(rider)))
}
