//! Words that are written by different parties, kept from slowing each other down.

/// Keeps its content on cache lines of its own (two: the prefetcher fetches pairs).
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Apart<T>(pub T);
