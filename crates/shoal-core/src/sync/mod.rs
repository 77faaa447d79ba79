//! Waiting and waking across processes: futex words, the bell, the gate, spinning within a budget, locks.

pub mod atomics;
pub mod bell;
pub mod bits;
pub mod futex;
pub mod gate;
pub mod lock;
pub mod sleepers;
#[cfg(not(loom))]
pub mod spin;
