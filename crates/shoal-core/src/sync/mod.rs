//! Waiting and waking across processes: futex words, the bell, the gate, spinning within a budget; locks, events,
//! semaphores, conditions, barriers, counts.

pub mod apart;
pub mod atomics;
pub mod barrier;
pub mod bell;
pub mod bits;
pub mod condition;
#[cfg(all(test, not(loom)))]
mod damage;
#[cfg(not(loom))]
pub(crate) mod deaths;
pub mod event;
pub mod futex;
pub mod gate;
pub mod lock;
pub mod patience;
pub mod rlock;
pub mod semaphore;
pub mod sleepers;
#[cfg(not(loom))]
pub mod spin;
pub mod tally;
