//! Waiting and waking across processes: futex words, the bell, the gate, spinning within a budget, locks, counts.

pub mod atomics;
pub mod bell;
pub mod bits;
pub mod futex;
pub mod gate;
pub mod lock;
#[cfg(not(loom))]
pub mod spin;
pub mod tally;
