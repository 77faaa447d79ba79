//! Buffers beside a pickle: what is large lies in blocks of shared memory, the pickle says where.
//!
//! ```text
//! | number of entries: u32 | is the pickle itself an entry?: u8 | Entry … | the pickle, if not |
//!
//! Entry: | segment, line, generation: u32 | offset, len: u64 | order: u8 | dimensions: u8 | length of each: i64 … |
//! ```
//!
//! While an object is pickled, its large buffers are gathered (`Gathering`): numpy arrays by [`reduce_buffer`], all
//! else by the pickler's buffer callback, [`keep_buffer`]. Then, with no more Python code in between, they are copied
//! into blocks, many small ones into one. What lies in the arena already (see `allocator`) is not copied: it is
//! handed over, if it turns out that nobody else uses it.

#![allow(unsafe_code, reason = "the C interfaces of CPython and numpy, and copies into new blocks")]

mod common;
mod copy;
mod gather;
mod restore;

pub use common::Common;
pub use copy::{Snapshots, refer_to_copy, with_snapshots};
pub use gather::{Pickled, keep_buffer, modules, pickle, reduce_buffer};
pub use restore::{Reader, restore_array, unpickle, unpickle_by, unpickle_with_leases};

/// In place of the number of dimensions: a buffer that is no array.
const PLAIN: u8 = u8::MAX;
