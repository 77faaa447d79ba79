//! Locks, events, semaphores, conditions, barriers and counters, as Python objects that pickle to handles.
//!
//! What is called often is whole here: `shoal.Lock` is this very class, as CPython has a shorter way to the methods of an
//! object's own class than to those of its base (a pair of calls takes 33 ns instead of 48). Of the others the classes of
//! `shoal` are subclasses. How an object gets to be one of a subclass when it is unpickled: see [`open_shared`].

mod barrier;
mod condition;
mod counter;
mod event;
mod lock;
mod rlock;
mod semaphore;
mod stand_in;
mod tally;
pub(crate) mod wait;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyType};
use shoal_core::domain;
use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;

use crate::block::resolve;
use crate::errors::OrRaise;
use crate::in_flight;
use crate::inside::Inside;

pub use barrier::RawBarrier;
pub use condition::RawCondition;
pub use counter::Counter;
pub use event::Event;
pub use lock::Lock;
pub use rlock::RLock;
pub use semaphore::Semaphore;
pub use stand_in::interruption;
pub use tally::{Counted, RawTally};

/// The cell that a handle names, or a new one.
fn cell(py: Python<'_>, kind: Kind, handle: Option<&[u8]>) -> PyResult<Lease> {
    match handle {
        Some(handle) => resolve(py, handle, kind),
        None => Inside::detach(py, || domain::heap()?.allocate_cell(kind)).or_raise(py),
    }
}

/// The handle of what is being pickled.
fn handle<'py>(py: Python<'py>, lease: &Lease) -> PyResult<Bound<'py, PyBytes>> {
    let handle = domain::handle_of(lease).or_raise(py)?;
    in_flight::note(lease);
    Ok(PyBytes::new(py, &handle.to_bytes()))
}

type Reduced<'py> = (Bound<'py, PyAny>, (Bound<'py, PyType>, Bound<'py, PyBytes>));

/// What an object pickles to.
fn reduce<'py>(object: &Bound<'py, PyAny>, lease: &Lease) -> PyResult<Reduced<'py>> {
    let py = object.py();
    let open = py.import("shoal._engine")?.getattr("open_shared")?;
    Ok((open, (object.get_type(), handle(py, lease)?)))
}

/// The object of class `cls` that a handle names.
#[pyfunction]
pub fn open_shared<'py>(cls: &Bound<'py, PyType>, handle: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
    let given = PyDict::new(cls.py());
    given.set_item("_handle", handle)?;
    cls.call((), Some(&given))
}

/// Adds the classes to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Lock>()?;
    module.add_class::<RLock>()?;
    module.add_class::<Event>()?;
    module.add_class::<Semaphore>()?;
    module.add_class::<RawCondition>()?;
    module.add_class::<RawBarrier>()?;
    module.add_class::<Counter>()?;
    module.add_class::<RawTally>()?;
    module.add_class::<Counted>()?;
    module.add_class::<stand_in::StandIn>()?;
    module.add_class::<stand_in::Twin>()?;
    module.add_function(wrap_pyfunction!(open_shared, module)?)
}
