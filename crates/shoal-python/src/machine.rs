//! What the machine allows: facts for `shoal doctor`, which judges them.

use std::io;
use std::os::fd::AsFd;

use pyo3::prelude::*;
use shoal_sys::cgroup;
use shoal_sys::memory::{self, HUGE_PAGE, Mapping};

/// The text of a file of this process's control group for `controller`, and of its ancestors, from its own upwards. The
/// file's name depends on the version of control groups. Groups that have no such file are left out.
#[pyfunction]
pub fn control_groups(controller: &str, v1: &str, v2: &str) -> Vec<String> {
    cgroup::texts(controller, v1, v2)
}

/// Bytes of memory that this process could use if it were alone, and that it can use now.
#[pyfunction]
pub fn machine_memory() -> (usize, usize) {
    (memory::total_memory(), memory::available_memory())
}

/// Whether shared memory can be moved to huge pages, tried on 2 MiB; if not, the reason.
#[pyfunction]
pub fn try_collapse() -> Option<String> {
    let collapse = || -> io::Result<()> {
        let fd = memory::reserve("shoal-probe", HUGE_PAGE).map_err(io::Error::other)?;
        let map = Mapping::new(fd.as_fd(), HUGE_PAGE)?;
        map.populate(0, HUGE_PAGE)?;
        map.collapse(0, HUGE_PAGE)
    };
    collapse().err().map(|error| error.to_string())
}
