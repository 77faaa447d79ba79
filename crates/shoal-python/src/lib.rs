//! The threshold between Python and the engine: converts, detaches from the interpreter, maps errors. No decisions.

mod allocator;
mod block;
mod copies;
mod deaths;
mod errors;
mod in_flight;
mod inside;
mod insight;
mod items;
mod job;
mod machine;
mod message;
mod numpy;
mod outside;
mod pool;
mod queue;
mod reporter;
mod stream;
mod sync;
mod terms;
mod watch;
mod wire;
mod worker;
mod zygote;

use pyo3::prelude::*;
use shoal_core::domain::host::{Host, LAST_WORD};
use shoal_core::memory::heap::Holder;
use shoal_core::sync::spin;

use crate::errors::OrRaise;
use crate::inside::Inside;

/// CPUs that this process may use, by affinity and cgroup quota.
#[pyfunction]
fn cpu_count() -> usize {
    shoal_core::cpu_count()
}

/// Bytes by holder: this process, workers by pid, all guests together.
type Holders = (u64, Vec<(u32, u64)>, u64);
type Usage = (usize, u64, usize, usize, u64, u64, u64, Option<u64>, Holders);

/// Shared memory of this process's domain: (segments, their bytes, blocks in use, leases on them, bytes given out, free,
/// given back to the system, limit, bytes by holder).
#[pyfunction]
fn memory_usage(py: Python<'_>) -> PyResult<Usage> {
    let usage = Inside::detach(py, || Host::current().map(|host| host.usage())).or_raise(py)?;
    let (mut here, mut workers, mut guests) = (0, vec![], 0);
    for (holder, bytes) in usage.holders {
        match holder {
            Holder::Host => here = bytes,
            Holder::Worker(pid) => workers.push((pid, bytes)),
            Holder::Guest => guests += bytes,
        }
    }
    let holders = (here, workers, guests);
    let (free, released, limit) = (usage.free, usage.released, usage.limit);
    Ok((usage.segments, usage.bytes, usage.blocks, usage.leases, usage.used, free, released, limit, holders))
}

/// Limit the shared memory of this process's domain, in bytes. Returns the limit before.
#[pyfunction]
#[pyo3(signature = (limit))]
fn limit_memory(py: Python<'_>, limit: Option<u64>) -> PyResult<Option<u64>> {
    Ok(Host::current().or_raise(py)?.limit_memory(limit))
}

/// The calling thread ends the interpreter: no other comes back from the engine any more. Before pools are terminated, so
/// that whoever is cut off by that has nothing to say.
#[pyfunction]
fn end_threads() {
    Inside::end();
}

/// Does not return if another thread is ending the interpreter: for whoever is about to hear, outside of the engine, of what
/// that has cut off.
#[pyfunction]
fn stay_if_ending(py: Python<'_>) {
    Inside::stay_if_ending(py);
}

/// Wait until no other thread is inside the engine, and all that workers said is written: at the end of the interpreter, after all pools were terminated.
#[pyfunction]
fn wait_for_threads(py: Python<'_>) {
    Inside::wait_for_none(py);
    pool::pass_words_on(py);
}

extern "C" fn nothing_to_do() {}

/// In the child of a fork: what counts the parent's threads, or waits for what the parent has sent, begins anew.
extern "C" fn in_child() {
    Inside::forked();
    in_flight::forked();
}

/// The engine, for Python.
#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // Before anything here makes a descriptor.
    shoal_sys::pipe::hold_standard_streams()?;
    shoal_sys::atfork::around(nothing_to_do, nothing_to_do, in_child)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("SPIN_BUDGET_US", spin::SPIN.as_micros())?;
    module.add("LAST_WORD", LAST_WORD.as_raw())?;
    module.add_class::<pool::PoolBase>()?;
    module.add_function(wrap_pyfunction!(pool::start_zygote, module)?)?;
    module.add_class::<pool::AsyncResult>()?;
    module.add_class::<pool::Inbox>()?;
    module.add_class::<pool::Prepared>()?;
    module.add_class::<copies::Copies>()?;
    module.add_class::<message::Common>()?;
    module.add_class::<terms::Terms>()?;
    module.add_class::<job::Job>()?;
    module.add_class::<stream::IMapIterator>()?;
    module.add_class::<stream::StreamJob>()?;
    module.add_class::<pool::WorkerState>()?;
    module.add_class::<worker::Seated>()?;
    module.add_class::<worker::Answerer>()?;
    module.add_class::<reporter::Reporter>()?;
    module.add_class::<zygote::Zygote>()?;
    module.add_class::<zygote::Seat>()?;
    module.add_class::<block::Block>()?;
    module.add_class::<block::SmallBlock>()?;
    module.add_class::<queue::RawQueue>()?;
    module.add_function(wrap_pyfunction!(queue::open_queue, module)?)?;
    module.add_function(wrap_pyfunction!(block::open_block, module)?)?;
    module.add_function(wrap_pyfunction!(block::open_small_block, module)?)?;
    sync::add(module)?;
    module.add_function(wrap_pyfunction!(watch::when_readable, module)?)?;
    module.add_function(wrap_pyfunction!(watch::speak_through, module)?)?;
    module.add_function(wrap_pyfunction!(watch::say, module)?)?;
    module.add_function(wrap_pyfunction!(pool::pass_words_on, module)?)?;
    module.add_function(wrap_pyfunction!(message::reduce_buffer, module)?)?;
    module.add_function(wrap_pyfunction!(message::keep_buffer, module)?)?;
    module.add_function(wrap_pyfunction!(message::restore_array, module)?)?;
    module.add_function(wrap_pyfunction!(cpu_count, module)?)?;
    module.add_function(wrap_pyfunction!(end_threads, module)?)?;
    module.add_function(wrap_pyfunction!(stay_if_ending, module)?)?;
    module.add_function(wrap_pyfunction!(wait_for_threads, module)?)?;
    module.add_function(wrap_pyfunction!(memory_usage, module)?)?;
    module.add_function(wrap_pyfunction!(limit_memory, module)?)?;
    module.add_function(wrap_pyfunction!(insight::pool_running, module)?)?;
    module.add_function(wrap_pyfunction!(insight::pool_spent, module)?)?;
    module.add_function(wrap_pyfunction!(insight::pool_depth, module)?)?;
    module.add_function(wrap_pyfunction!(insight::start_trace, module)?)?;
    module.add_function(wrap_pyfunction!(insight::stop_trace, module)?)?;
    module.add_function(wrap_pyfunction!(insight::last_map, module)?)?;
    module.add_class::<outside::PoolOutside>()?;
    module.add_function(wrap_pyfunction!(outside::memory_outside, module)?)?;
    module.add_function(wrap_pyfunction!(machine::control_groups, module)?)?;
    module.add_function(wrap_pyfunction!(machine::machine_memory, module)?)?;
    module.add_function(wrap_pyfunction!(machine::try_collapse, module)?)?;
    Ok(())
}
