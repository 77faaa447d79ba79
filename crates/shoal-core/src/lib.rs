//! The shoal engine: a pool of worker processes over shared memory. It knows nothing of Python.
//!
//! - [`sync`]: waiting and waking across processes
//! - [`memory`]: segments, arenas, leases
//! - [`domain`]: who shares memory with whom; the host, its supervisor, its guests
//! - [`queue`]: queues of bytes and blocks
//! - [`pool`]: tasks, rings, workers
//! - [`crash`]: where tests kill

#[cfg(not(loom))]
mod aside;
pub mod crash;
#[cfg(not(loom))]
pub mod domain;
#[cfg(not(loom))]
pub mod error;
pub mod memory;
pub mod pool;
pub mod queue;
pub mod sync;
#[cfg(all(test, not(loom)))]
mod testing;

#[cfg(not(loom))]
pub use error::{Error, Result};
#[cfg(not(loom))]
pub use shoal_sys::cpu::cpu_count;
