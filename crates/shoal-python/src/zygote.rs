//! The zygote's end: waits for the client's wishes; the interpreter itself forks.

#![allow(unsafe_code, reason = "a descriptor that Python hands over")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shoal_core::pool::worker::Seat as CoreSeat;
use shoal_core::pool::zygote::{Request, Zygote as CoreZygote};

use crate::errors::OrRaise;

/// A worker's place, until a process takes it.
#[pyclass(module = "shoal._engine")]
pub struct Seat(Option<CoreSeat>);

impl Seat {
    /// The seat, once.
    pub fn take(&mut self) -> PyResult<CoreSeat> {
        self.0.take().ok_or_else(|| PyRuntimeError::new_err("the seat is taken"))
    }
}

/// A process that forks workers for its client.
#[pyclass(module = "shoal._engine")]
pub struct Zygote(CoreZygote);

#[pymethods]
impl Zygote {
    /// Take over the socket `fd` that leads to the client.
    #[new]
    fn new(py: Python<'_>, fd: RawFd) -> PyResult<Self> {
        // SAFETY: the descriptor was made for this by the caller, who hands it over.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        CoreZygote::new(shoal_sys::socket::Seqpacket::from_fd(fd)).map(Zygote).or_raise(py)
    }

    /// Tell the client that the zygote is up.
    fn ready(&self, py: Python<'_>) -> PyResult<()> {
        self.0.ready().or_raise(py)
    }

    /// Wait for a wish: a Seat to fork for, bytes to get ready, or None when the client is gone.
    fn next<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(match self.0.next_request().or_raise(py)? {
            Request::Fork(seat) => Some(Bound::new(py, Seat(Some(seat)))?.into_any()),
            Request::Preload(what) => Some(PyBytes::new(py, &what).into_any()),
            Request::End => None,
        })
    }

    /// In the parent, after the fork: the worker of `seat` is process `pid`.
    fn forked(&mut self, py: Python<'_>, seat: &mut Seat, pid: u32) -> PyResult<()> {
        self.0.forked(seat.take()?, pid).or_raise(py)
    }

    /// The fork failed with this error.
    fn failed(&self, py: Python<'_>, seat: &mut Seat, errno: i32) -> PyResult<()> {
        let error = std::io::Error::from_raw_os_error(errno);
        self.0.failed(seat.take()?.place, &error).or_raise(py)
    }
}
