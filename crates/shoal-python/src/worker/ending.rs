//! How a worker tells what became of a task: by its result, or by the exception it raised.

use std::sync::Arc;

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shoal_core::memory::heap::Lease;
use shoal_core::pool::terms::AGAIN;

use super::{Ended, Seated};
use crate::errors::OrRaise;
use crate::in_flight;
use crate::terms;
use crate::wire::result;

impl Seated {
    /// Tells the client how the current task ended. SystemExit is not told, but raised.
    pub(super) fn finish(&mut self, py: Python<'_>, ended: PyResult<Ended>) -> PyResult<()> {
        let (kind, units, leases) = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_instance_of::<PySystemExit>(py) => return Err(error),
            Err(error) => self.record_or_again(py, error)?,
        };
        // What lies in another domain than the client's does not travel with the completion: it is kept for a while.
        let (ours, foreign) = leases.into_iter().partition(|lease| Arc::ptr_eq(lease.heap(), self.worker.heap()));
        let foreign: Vec<Lease> = foreign;
        foreign.iter().for_each(in_flight::note);
        if let Err(error) = self.worker.finish(kind, units, &self.out, ours) {
            // No memory for a large result: the error itself is small.
            let error = crate::errors::exception(py, error);
            let (kind, units, leases) = self.record(py, error)?;
            self.worker.finish(kind, units, &self.out, leases).or_raise(py)?;
        }
        Ok(())
    }

    /// As [`record`](Self::record); said besides if the terms of the task make it a reason to try again.
    fn record_or_again(&mut self, py: Python<'_>, error: PyErr) -> PyResult<Ended> {
        let (error, again) = match self.is_reason_to_try_again(py, &error) {
            Ok(again) => (error, again),
            // The exceptions of `retry_on` can't be had here: the caller should know, and why that mattered.
            Err(other) => {
                other.set_cause(py, Some(error));
                (other, false)
            }
        };
        let (kind, units, leases) = self.record(py, error)?;
        Ok((if again { kind | AGAIN } else { kind }, units, leases))
    }

    fn is_reason_to_try_again(&self, py: Python<'_>, error: &PyErr) -> PyResult<bool> {
        let payload = self.worker.payload().or_raise(py)?;
        let (_, Some(rider)) = terms::split(self.worker.task().kind, &payload) else { return Ok(false) };
        let reasons = py.import("pickle")?.getattr("loads")?.call1((PyBytes::new(py, rider),))?;
        error.value(py).is_instance(&reasons)
    }

    fn record(&mut self, py: Python<'_>, error: PyErr) -> PyResult<Ended> {
        self.out.clear();
        let leases = dump(py, error, &mut self.out)?;
        Ok((result::ERROR, 1, leases))
    }
}

/// Puts an exception behind what `out` holds; returns what it names by handle.
pub(super) fn dump(py: Python<'_>, error: PyErr, out: &mut Vec<u8>) -> PyResult<Vec<Lease>> {
    let dump = py.import("shoal.serialize.exceptions")?.getattr("dump_exception")?;
    let (dumped, leases) = in_flight::noting(|| dump.call1((error.into_value(py),)));
    out.extend_from_slice(dumped?.cast::<PyBytes>()?.as_bytes());
    Ok(leases)
}
