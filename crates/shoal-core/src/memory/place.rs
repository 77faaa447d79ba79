//! Where something lies in shared memory, for any process of the domain.

/// Where a larger piece of data lies: in a segment, by offset. All zero: nowhere.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The segment's number.
    pub segment: u32,
    /// Bytes from the segment's start.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}
