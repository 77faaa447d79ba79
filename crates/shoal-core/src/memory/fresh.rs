//! Blocks that nobody else knows yet: what lies in them from the start.

use std::sync::Arc;

use super::heap::{Heap, Lease};
use crate::error::Result;

impl Heap {
    /// Allocates a block, all zero.
    pub fn allocate_zeroed(self: &Arc<Heap>, len: u64) -> Result<Lease> {
        let lease = self.allocate(len)?;
        let address = lease.address()?;
        // SAFETY: the block is that long, new, and nobody else's yet.
        unsafe { address.write_bytes(0, len as usize) };
        Ok(lease)
    }

    /// Allocates a block with these bytes in it, one part behind the other.
    pub fn allocate_filled(self: &Arc<Heap>, parts: &[&[u8]]) -> Result<Lease> {
        let lease = self.allocate(parts.iter().map(|part| part.len() as u64).sum())?;
        let mut address = lease.address()?;
        for part in parts {
            // SAFETY: the block is as long as all parts, new, and nobody else's yet.
            unsafe { address.copy_from_nonoverlapping(part.as_ptr(), part.len()) };
            address = address.wrapping_add(part.len());
        }
        Ok(lease)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::heap;

    #[test]
    fn what_is_put_into_a_new_block_lies_there_in_order() {
        let heap = heap();
        let dirty = heap.allocate_filled(&[&[7; 5000]]).expect("memory");
        drop(dirty);
        let filled = heap.allocate_filled(&[b"one", b"", b"two"]).expect("memory");
        // SAFETY: nobody writes to it any more.
        assert_eq!(unsafe { filled.bytes() }.expect("mapped"), b"onetwo");
        let zeroed = heap.allocate_zeroed(5000).expect("memory");
        // SAFETY: as above.
        assert!(unsafe { zeroed.bytes() }.expect("mapped").iter().all(|byte| *byte == 0));
    }
}
