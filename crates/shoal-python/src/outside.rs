//! Pools and memory of other processes, as `shoal top` looks at them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use pyo3::prelude::*;
use shoal_core::memory::outside as memory;
use shoal_core::pool::outside::Outside;
use shoal_sys::memory::open_of_another;

use crate::errors::OrRaise;
use crate::insight::{Parts, TaskParts, parts, task_parts};

/// A pool of another process, by the path `/proc/<pid>/fd/<number>` of its segment.
#[pyclass(frozen, module = "shoal._engine")]
pub struct PoolOutside(Outside);

/// A worker: pid, whether it is ready, whether it has left; the function's name and for how many nanoseconds it has been
/// at it; its account.
type WorkerParts = (u32, bool, bool, TaskParts, Parts);

/// A pool: client, domain, whether it goes on, tasks not taken, workers.
type PoolParts = (u32, u64, bool, u64, Vec<WorkerParts>);

#[pymethods]
impl PoolOutside {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<PoolOutside> {
        let opened = py.detach(|| Outside::open(open_of_another(&path)?));
        Ok(PoolOutside(opened.or_raise(py)?))
    }

    /// The device and number of its segment's file.
    fn file(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        self.0.file().or_raise(py)
    }

    /// What it is at.
    fn look(&self) -> PoolParts {
        let look = self.0.look();
        let workers = look
            .workers
            .into_iter()
            .map(|worker| (worker.pid, worker.ready, worker.left, task_parts(worker.task), parts(&worker.spent)));
        (look.client, look.domain, look.open, look.queued, workers.collect())
    }
}

/// The memory of a domain: its number, segments, bytes, bytes given back, blocks, leases; by process leases and bytes.
type MemoryParts = (u64, usize, u64, u64, usize, usize, BTreeMap<u32, (usize, u64)>);

/// The memory of another process's domain, by the paths of its roster and of the segments that the process has.
#[pyfunction]
pub fn memory_outside(py: Python<'_>, roster: PathBuf, segments: Vec<PathBuf>) -> PyResult<MemoryParts> {
    let look = py.detach(|| {
        let segments = segments.iter().filter_map(|path| match open_of_another(path) {
            // It has been given up since.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            opened => Some(opened),
        });
        let segments: std::io::Result<Vec<OwnedFd>> = segments.collect();
        memory::look(&open_of_another(&roster)?, segments?)
    });
    let look = look.or_raise(py)?;
    let holders = look.holders.into_iter().map(|(pid, held)| (pid, (held.leases, held.bytes))).collect();
    Ok((look.domain, look.segments, look.bytes, look.released, look.blocks, look.leases, holders))
}
