//! `Barrier`.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shoal_core::domain::{self, stand_in};
use shoal_core::memory::lease::Kind;
use shoal_core::memory::words::Shared;
use shoal_core::sync::barrier::{Barrier, Broken, Inside, MOST};

use super::handle;
use super::wait::{duration, patiently};
use crate::block::resolve;
use crate::errors::OrRaise;
use crate::inside;

/// A barrier in shared memory.
#[pyclass(frozen, subclass, module = "shoal._engine")]
pub struct RawBarrier(Shared<Inside>);

impl RawBarrier {
    fn barrier(&self) -> Barrier<'_> {
        Barrier::new(self.0.lease().cell(), &self.0)
    }
}

fn parties(value: &Bound<'_, PyAny>) -> PyResult<u32> {
    let number: i128 = value.extract().map_err(|_| {
        let kind = value.get_type().name().map_or_else(|_| "?".into(), |kind| kind.to_string());
        PyTypeError::new_err(format!("parties must be an integer, not {kind}"))
    })?;
    let fits = u32::try_from(number).ok().filter(|number| (1..=MOST).contains(number));
    fits.ok_or_else(|| PyValueError::new_err(format!("parties must be 1 to {MOST}, not {number}")))
}

/// The exception of a wait that did not end well.
fn exception(py: Python<'_>, broken: Broken, raised: Option<PyErr>) -> PyErr {
    if let Some(error) = raised {
        return error;
    }
    let made = py.import("threading").and_then(|threading| {
        let class = threading.getattr("BrokenBarrierError")?;
        match broken {
            Broken::Died => class.call1(("a process died while it waited at the barrier",)),
            Broken::Broken | Broken::Stopped => class.call0(),
        }
    });
    made.map_or_else(|error| error, PyErr::from_value)
}

#[pymethods]
impl RawBarrier {
    #[new]
    #[pyo3(signature = (parties = None, *, _handle = None))]
    fn new(py: Python<'_>, parties: Option<&Bound<'_, PyAny>>, _handle: Option<&[u8]>) -> PyResult<Self> {
        let shared = match (_handle, parties) {
            (Some(handle), _) => Shared::new(resolve(py, handle, Kind::Barrier)?),
            (None, Some(value)) => {
                let parties = self::parties(value)?;
                let made = inside::Inside::detach(py, || domain::heap()?.allocate_words::<Inside>(Kind::Barrier));
                made.inspect(|shared| Barrier::new(shared.lease().cell(), shared).make(parties))
            }
            (None, None) => return Err(PyTypeError::new_err("parties must be an integer, not None")),
        };
        shared.map(RawBarrier).or_raise(py)
    }

    /// Wait until all are there; the last one to come calls `action` first.
    fn _wait(
        &self,
        py: Python<'_>,
        timeout: Option<&Bound<'_, PyAny>>,
        action: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u32> {
        let (barrier, timeout) = (self.barrier(), duration(timeout)?);
        let me = self.0.lease().heap().actor();
        let act = action.is_some();
        let (passed, raised) = patiently(py, timeout, |patience| {
            let (party, last) = barrier.arrive(me, patience)?;
            if !last {
                // A process elsewhere that has ended, for which this thread stands, is not one that has only given up.
                barrier.wait(party, patience).inspect_err(|_| {
                    if stand_in::is_over() {
                        barrier.mourn(party);
                    }
                })?;
            } else if !act {
                barrier.open(party, true)?;
            }
            Ok((party, last))
        });
        let (party, last) = passed.map_err(|broken| exception(py, broken, raised))?;
        if let (true, Some(action)) = (last, action) {
            let done = action.call0();
            let opened = barrier.open(party, done.is_ok());
            done?;
            opened.map_err(|broken| exception(py, broken, None))?;
        }
        Ok(party.index())
    }

    /// Begin anew: those who wait at this moment get a `threading.BrokenBarrierError`.
    fn reset(&self) {
        self.barrier().reset();
    }

    /// Break it: those who wait, and who come, get a `threading.BrokenBarrierError`, until it is reset.
    fn abort(&self) {
        self.barrier().abort();
    }

    /// For how many it is.
    #[getter]
    fn parties(&self) -> u32 {
        self.barrier().parties()
    }

    /// How many wait at this moment.
    #[getter]
    fn n_waiting(&self) -> u32 {
        self.barrier().waiting()
    }

    /// Whether it is broken.
    #[getter]
    fn broken(&self) -> bool {
        self.barrier().is_broken()
    }

    /// What it pickles to besides its action.
    fn _to_handle<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        handle(py, self.0.lease())
    }
}
