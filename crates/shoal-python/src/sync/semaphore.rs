//! `Semaphore`, and what `BoundedSemaphore` is made of.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use shoal_core::domain;
use shoal_core::memory::lease::Kind;
use shoal_core::memory::words::Shared;
use shoal_core::sync::lock::Acquired;
use shoal_core::sync::semaphore::{Held, MOST, Semaphore as CoreSemaphore};

use super::wait::{Given, Truth, acquire};
use super::{Reduced, reduce};
use crate::block::resolve;
use crate::errors::OrRaise;
use crate::inside::Inside;

/// A number of permits, as `multiprocessing.Semaphore`.
///
/// `acquire` takes one, and waits while there is none; `release` gives one back. A process that is killed gives back
/// what it had acquired and not released, and `recovered` counts that. Not so if the semaphore is used to signal, one
/// process releasing for others to acquire: a permit that was acquired is then a message that was read. Which of both
/// it is shows in the first release by a process that has no permit: from then on nothing is given back.
///
/// Args:
///     value: how many permits there are at first. Default: 1.
///     ctx: ignored; `multiprocessing` has it.
///
/// Raises:
///     TypeError: `value` is no integer.
///     ValueError: `value` is negative, or more than 2**31 - 1.
///
/// Example:
///     >>> connections = shoal.Semaphore(4)
///     >>> def work(url):
///     ...     with connections:
///     ...         return fetch(url)
#[pyclass(frozen, subclass, weakref, module = "shoal.locks")]
pub struct Semaphore(Shared<Held>);

impl Semaphore {
    #[inline]
    fn semaphore(&self) -> CoreSemaphore<'_> {
        CoreSemaphore::new(self.0.lease().cell(), &self.0)
    }

    #[inline]
    fn me(&self) -> u16 {
        self.0.lease().heap().actor()
    }
}

fn permits(value: &Bound<'_, PyAny>) -> PyResult<u32> {
    let number: i128 = value.extract().map_err(|_| {
        let kind = value.get_type().name().map_or_else(|_| "?".into(), |kind| kind.to_string());
        pyo3::exceptions::PyTypeError::new_err(format!("value must be an integer, not {kind}"))
    })?;
    let fits = u32::try_from(number).ok().filter(|&number| number <= MOST);
    fits.ok_or_else(|| PyValueError::new_err(format!("value must be 0 to {MOST}, not {number}")))
}

#[pymethods]
impl Semaphore {
    #[new]
    #[pyo3(signature = (value = Given::Nothing, *, ctx = None, _bounded = false, _handle = None), text_signature = "(value=1, *, ctx=None, _bounded=False, _handle=None)")]
    fn new(
        py: Python<'_>,
        value: Given<'_>,
        ctx: Option<&Bound<'_, PyAny>>,
        _bounded: bool,
        _handle: Option<&[u8]>,
    ) -> PyResult<Self> {
        let _ = ctx;
        let shared = match _handle {
            Some(handle) => Shared::new(resolve(py, handle, Kind::Semaphore)?),
            None => {
                let value = match value {
                    Given::Nothing => 1,
                    Given::This(value) => permits(&value)?,
                };
                let made = Inside::detach(py, || domain::heap()?.allocate_words::<Held>(Kind::Semaphore));
                made.inspect(|shared| {
                    let most = if _bounded { value } else { MOST };
                    CoreSemaphore::new(shared.lease().cell(), shared).make(value, most);
                })
            }
        };
        shared.map(Semaphore).or_raise(py)
    }

    /// Take a permit, and tell whether there was one.
    ///
    /// Args:
    ///     block: whether to wait for one. Default: True. With False, `timeout` is ignored.
    ///     timeout: how long to wait at most, in seconds; zero or less is to try once. Default: None, to wait for ever.
    ///     blocking: what `threading` and managers call `block`.
    ///
    /// Raises:
    ///     TypeError: `timeout` is neither a number nor None.
    ///     ValueError: `timeout` is not a number in the sense of floats (NaN).
    ///
    /// Ctrl-C interrupts the waiting.
    ///
    /// Example:
    ///     >>> if semaphore.acquire(timeout=1.5):
    ///     ...     semaphore.release()
    #[pyo3(
        signature = (block = Truth(true), timeout = None, *, blocking = Truth(true)),
        text_signature = "($self, block=True, timeout=None, *, blocking=True)"
    )]
    fn acquire(
        &self,
        py: Python<'_>,
        block: Truth,
        timeout: Option<&Bound<'_, PyAny>>,
        blocking: Truth,
    ) -> PyResult<bool> {
        let block = block.0 && blocking.0;
        let (semaphore, me) = (self.semaphore(), self.me());
        let now = || if semaphore.try_acquire(me) { Acquired::Yes } else { Acquired::TimedOut };
        acquire(py, block, timeout, now, |patience| {
            semaphore.acquire(me, patience).map_or_else(Acquired::from, |()| Acquired::Yes)
        })
    }

    /// Give a permit back, or a new one: one who waits goes on.
    ///
    /// Raises:
    ///     ValueError: there would be more than a BoundedSemaphore began with, or more than 2**31 - 1.
    fn release(&self) -> PyResult<()> {
        let released = self.semaphore().release(self.me());
        released.map_err(|_| PyValueError::new_err("semaphore or lock released too many times"))
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        self.acquire(py, Truth(true), None, Truth(true))
    }

    fn __exit__(
        &self,
        _kind: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.release()
    }

    /// How many permits are left.
    fn get_value(&self) -> u32 {
        self.semaphore().permits()
    }

    /// How many permits were given back in the place of processes that died with them, in all.
    ///
    /// Example:
    ///     >>> semaphore.recovered
    ///     0
    #[getter]
    fn recovered(&self) -> u64 {
        self.semaphore().recovered()
    }

    /// The most permits there can be.
    #[getter]
    fn _most(&self) -> u32 {
        self.semaphore().most()
    }

    fn __repr__(&self) -> String {
        format!("<Semaphore(value={})>", self.get_value())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        reduce(slf.as_any(), slf.get().0.lease())
    }
}
