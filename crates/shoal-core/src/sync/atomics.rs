//! One door for atomics and data cells, so that loom can stand in for the real ones.
//!
//! Everything that lives in shared memory is built from these types. In an ordinary build they are those of
//! `std`, laid out as C would; under `--cfg loom` they are loom's, and the same protocol code is explored over all
//! interleavings.

#![allow(unsafe_code, reason = "cells of shared memory: who uses them tells the protocol")]

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// A place for plain data that two parties hand to and fro under a protocol of atomics.
#[cfg(not(loom))]
#[repr(transparent)]
#[derive(Debug)]
pub struct DataCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T: Copy> DataCell<T> {
    /// A cell that holds `value`.
    pub fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Copies the data out.
    ///
    /// # Safety
    /// The protocol must make sure that nobody writes meanwhile.
    pub unsafe fn read(&self) -> T {
        // SAFETY: the pointer is valid and aligned as it comes from the cell; the caller excludes a writer.
        unsafe { self.0.get().read() }
    }

    /// Puts `value` in.
    ///
    /// # Safety
    /// The protocol must make sure that nobody else reads or writes meanwhile.
    pub unsafe fn write(&self, value: T) {
        // SAFETY: the pointer is valid and aligned as it comes from the cell; the caller has it to itself.
        unsafe { self.0.get().write(value) }
    }
}

/// loom's twin of [`DataCell`]: it reports every unsynchronised access.
#[cfg(loom)]
#[derive(Debug)]
pub struct DataCell<T>(loom::cell::UnsafeCell<T>);

#[cfg(loom)]
impl<T: Copy> DataCell<T> {
    /// A cell that holds `value`.
    pub fn new(value: T) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }

    /// Copies the data out.
    ///
    /// # Safety
    /// As for the real cell; loom checks it.
    pub unsafe fn read(&self) -> T {
        self.0.with(|p| {
            // SAFETY: loom hands out a valid pointer and reports a concurrent writer.
            unsafe { p.read() }
        })
    }

    /// Puts `value` in.
    ///
    /// # Safety
    /// As for the real cell; loom checks it.
    pub unsafe fn write(&self, value: T) {
        self.0.with_mut(|p| {
            // SAFETY: loom hands out a valid pointer and reports any concurrent access.
            unsafe { p.write(value) }
        })
    }
}

// SAFETY: a DataCell is only reached under a protocol that excludes concurrent access (see `read` and `write`).
unsafe impl<T: Copy + Send> Sync for DataCell<T> {}
