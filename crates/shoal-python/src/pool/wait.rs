//! Waiting for workers; and hearing what they have said, before the results that they gave behind it.

use std::cell::Cell;
use std::time::Duration;

use pyo3::prelude::*;
use shoal_core::Error;
use shoal_core::domain::host::Host;
use shoal_core::pool::client::{Pool, Waited};
use shoal_core::sync::bell::Tone;

use crate::errors::exception;
use crate::inside::Inside;

/// How long a result waits for what its task has said while none of it is passed on, should nobody read that.
const PATIENCE: Duration = Duration::from_secs(1);

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

/// Wait until what workers have said so far is passed on; not for ever, should nobody read it. Whoever passes it on does not
/// wait for itself.
#[pyfunction]
pub fn pass_words_on(py: Python<'_>) {
    if !SPEAKS.get() {
        py.detach(|| Host::existing().inspect(|host| host.pass_on(PATIENCE)));
    }
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

/// Waits until all that a pool's workers have said so far is passed on; but not as who passes it on.
pub fn hear_all(py: Python<'_>, pool: &Pool) {
    if !SPEAKS.get() {
        py.detach(|| pool.hear(PATIENCE));
    }
}
