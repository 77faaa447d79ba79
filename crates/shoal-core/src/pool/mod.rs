//! The pool: rings in shared memory, the client that fills and empties them, the workers behind them.

pub mod body;
pub mod completion_ring;
pub mod crew;
pub mod current;
pub mod names;
pub mod notice;
pub mod task_ring;

#[cfg(not(loom))]
pub mod account;
#[cfg(not(loom))]
pub mod ahead;
#[cfg(not(loom))]
pub mod batches;
#[cfg(not(loom))]
pub mod chunks;
#[cfg(not(loom))]
pub mod client;
#[cfg(all(test, not(loom)))]
mod damage;
#[cfg(not(loom))]
pub mod death;
#[cfg(not(loom))]
mod in_block;
#[cfg(not(loom))]
pub mod layout;
#[cfg(not(loom))]
pub mod messages;
#[cfg(not(loom))]
pub mod outside;
#[cfg(not(loom))]
pub mod packed;
#[cfg(not(loom))]
pub mod reporter;
#[cfg(not(loom))]
mod table;
#[cfg(not(loom))]
pub mod tasks;
#[cfg(not(loom))]
pub mod terms;
#[cfg(not(loom))]
pub mod trace;
#[cfg(not(loom))]
pub mod worker;
#[cfg(not(loom))]
pub mod zygote;
