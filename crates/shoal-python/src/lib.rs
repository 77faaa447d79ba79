//! The threshold between Python and the engine: converts, detaches from the interpreter, maps errors. No decisions.

mod allocator;
mod block;
mod errors;
mod in_flight;
mod items;
mod job;
mod message;
mod numpy;
mod pool;
mod stream;
mod wire;
mod worker;
mod zygote;

use pyo3::prelude::*;
use shoal_core::domain::host::Host;
use shoal_core::sync::spin;

use crate::errors::OrRaise;

/// CPUs that this process may use, by affinity and cgroup quota.
#[pyfunction]
fn cpu_count() -> usize {
    shoal_core::cpu_count()
}

/// Shared memory of this process's domain: (segments, their bytes, blocks in use, leases on them, bytes given out).
#[pyfunction]
fn memory_usage(py: Python<'_>) -> PyResult<(usize, u64, usize, usize, u64)> {
    let usage = py.detach(|| Host::current().map(|host| host.usage())).or_raise(py)?;
    Ok((usage.segments, usage.bytes, usage.blocks, usage.leases, usage.used))
}

/// Wait until no other thread is inside the engine: at the end of the interpreter, after all pools were terminated.
#[pyfunction]
fn wait_for_threads(py: Python<'_>) {
    pool::Inside::wait_for_none(py);
}

/// The engine, for Python.
#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("SPIN_BUDGET_US", spin::SPIN.as_micros())?;
    module.add_class::<pool::PoolBase>()?;
    module.add_class::<pool::AsyncResult>()?;
    module.add_class::<pool::Inbox>()?;
    module.add_class::<job::Job>()?;
    module.add_class::<stream::IMapIterator>()?;
    module.add_class::<stream::StreamJob>()?;
    module.add_class::<pool::WorkerState>()?;
    module.add_class::<worker::Seated>()?;
    module.add_class::<zygote::Zygote>()?;
    module.add_class::<zygote::Seat>()?;
    module.add_class::<block::Block>()?;
    module.add_class::<block::RawLock>()?;
    module.add_class::<block::RawCounter>()?;
    module.add_function(wrap_pyfunction!(block::open_block, module)?)?;
    module.add_function(wrap_pyfunction!(block::open_lock, module)?)?;
    module.add_function(wrap_pyfunction!(block::open_counter, module)?)?;
    module.add_function(wrap_pyfunction!(message::reduce_buffer, module)?)?;
    module.add_function(wrap_pyfunction!(message::keep_buffer, module)?)?;
    module.add_function(wrap_pyfunction!(message::restore_array, module)?)?;
    module.add_function(wrap_pyfunction!(cpu_count, module)?)?;
    module.add_function(wrap_pyfunction!(wait_for_threads, module)?)?;
    module.add_function(wrap_pyfunction!(memory_usage, module)?)?;
    Ok(())
}
