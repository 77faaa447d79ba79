//! Envelopes: blocks that name other blocks, and keep them.
//!
//! What lies in a queue has no process that holds it. The block itself has the bit of [`IN_QUEUE`](super::lease::IN_QUEUE);
//! but what it names may be named by others too, and one bit can't be counted. So the *owner* of the envelope, who alone
//! closes it and therefore always knows whether it is open, holds what it names until it is closed ([`Heap::enclose`]). When
//! the owner dies, the host does so in its place, before anything of the dead one is given back.
//!
//! ```text
//! | number of names: u32 | segment, line, generation: u32 × that many | bytes … |
//! ```

use std::sync::Arc;

use super::heap::{BlockId, Heap, Lease};
use super::segment::Segment;
use crate::crash;
use crate::error::{Error, Result};

const COUNT: usize = 4;
const NAME: usize = 12;

impl Heap {
    /// A new block with these bytes in it, and what it is to keep as long as it is open.
    pub fn envelope(self: &Arc<Heap>, bytes: &[u8], leases: Vec<Lease>) -> Result<Lease> {
        // What lies in another domain the host here can't hold: as long as this process lives, it does.
        let ours: Vec<BlockId> = leases.iter().filter(|lease| Arc::ptr_eq(lease.heap(), self)).map(Lease::id).collect();
        let mut front = (ours.len() as u32).to_le_bytes().to_vec();
        for id in &ours {
            [id.segment, id.entry, id.generation].iter().for_each(|number| front.extend(number.to_le_bytes()));
        }
        let block = self.allocate((front.len() + bytes.len()) as u64)?;
        let address = block.address()?;
        crash::point("envelope: allocated");
        // SAFETY: the block is that long, new, and nobody else's yet.
        unsafe { address.copy_from_nonoverlapping(front.as_ptr(), front.len()) };
        let behind = address.wrapping_add(front.len());
        // SAFETY: as above.
        unsafe { behind.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        crash::point("envelope: written");
        if !leases.is_empty() {
            self.enclose(&block, leases);
            crash::point("envelope: sealed");
        }
        Ok(block)
    }
}

fn names(front: &[u8]) -> Result<(impl Iterator<Item = BlockId>, usize)> {
    let damaged = || Error::Damaged("envelope");
    let (count, rest) = front.split_first_chunk::<COUNT>().ok_or_else(damaged)?;
    let len = (u32::from_le_bytes(*count) as usize).checked_mul(NAME).filter(|len| *len <= rest.len());
    let len = len.ok_or_else(damaged)?;
    let number = |name: &[u8], at: usize| u32::from_le_bytes(std::array::from_fn(|i| name[at + i]));
    let id =
        move |name: &[u8]| BlockId { segment: number(name, 0), entry: number(name, 4), generation: number(name, 8) };
    Ok((rest[..len].chunks_exact(NAME).map(id), COUNT + len))
}

/// What the envelope in that line of a segment's table names. Somebody must hold it.
pub fn named(segment: &Segment, index: u32) -> Result<Vec<BlockId>> {
    let entry = segment.entries().get(index as usize).ok_or(Error::Damaged("envelope"))?;
    // SAFETY: who makes an envelope is done with it when it becomes one, and nobody writes to it while it is held.
    let bytes = unsafe { segment.bytes(entry.offset(), entry.len()) }?;
    Ok(names(bytes)?.0.collect())
}

/// The bytes in an envelope.
pub fn bytes(envelope: &Lease) -> Result<&[u8]> {
    // SAFETY: who makes an envelope is done with it when it passes it on, and nobody writes to it while it is held.
    let bytes = unsafe { envelope.bytes() }?;
    let (_, front) = names(bytes)?;
    Ok(&bytes[front..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = names(&bytes).map(|(names, _)| names.count());
        }
    }
}
