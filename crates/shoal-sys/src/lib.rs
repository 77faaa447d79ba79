//! The ground shoal stands on: everything it asks of the operating system, and nothing else.
//!
//! | module | is |
//! | --- | --- |
//! | [`memory`] | segments: memfds backed by real pages, their mappings, and how much memory there is |
//! | [`futex`] | sleeping on a word of shared memory, across processes |
//! | [`socket`] | packets with file descriptors between processes, and who the peer is |
//! | [`process`] | pidfds, fork, spawn, reaping |
//! | [`atfork`] | being told of forks that others make |
//! | [`poll`] | waiting for descriptors, and a descriptor to wake the one who waits |
//! | [`pipe`] | what a process writes to its standard streams, read by another |
//! | [`procfs`], [`oom`] | what the kernel tells of other processes: their memory, and whom it killed for want of it |
//! | [`clock`] | the time that all processes share |
//! | [`cpu`] | how many CPUs this process may use |
//! | [`random`] | unguessable tokens |
//! | [`cgroup`] | what is written in this process's control groups |
//!
//! Linux 5.14 or newer, x86-64 and aarch64. Every descriptor made or received here is close-on-exec.

#![allow(unsafe_code, reason = "what is asked of the operating system, and nothing else")]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("shoal runs on 64-bit Linux (x86-64 and aarch64) only");

pub mod atfork;
pub mod cgroup;
pub mod clock;
pub mod cpu;
pub mod futex;
pub mod memory;
pub mod oom;
mod pid;
pub mod pipe;
pub mod poll;
pub mod process;
pub mod procfs;
pub mod random;
pub mod socket;
