//! Memory that processes share: segments, the arena that hands out pieces of them, leases, handles.

#![allow(unsafe_code, reason = "memory that others write to")]

pub mod lease;
pub mod marks;
pub mod place;
pub mod roster;

#[cfg(not(loom))]
mod arena;
#[cfg(not(loom))]
mod block;
#[cfg(all(test, not(loom)))]
mod damage;
#[cfg(not(loom))]
pub mod envelope;
#[cfg(not(loom))]
mod fresh;
#[cfg(not(loom))]
pub mod handle;
#[cfg(not(loom))]
pub mod heap;
#[cfg(not(loom))]
pub mod outside;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
mod size_class;
#[cfg(not(loom))]
pub mod space;
#[cfg(not(loom))]
pub mod vault;
#[cfg(not(loom))]
pub mod view;
#[cfg(not(loom))]
pub mod words;
