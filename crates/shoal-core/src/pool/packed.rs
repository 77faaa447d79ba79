//! Several items in one message, each by itself: any run of them can be sent, and sent again, without looking inside.
//!
//! ```text
//! | bytes of the items, one behind the other | length of each: u32 | number of items: u32 |
//! ```

use std::ops::Range;

use crate::error::{Error, Result};
use crate::memory::heap::Lease;

/// Items, each of some bytes that may name shared things.
#[derive(Debug, Default)]
pub struct Packed {
    bytes: Vec<u8>,
    /// Where each item ends.
    ends: Vec<usize>,
    /// What the items name by handle, with the item's place.
    leases: Vec<(usize, Lease)>,
}

impl Packed {
    /// Puts an item behind the others.
    pub fn push(&mut self, item: &[u8], leases: Vec<Lease>) {
        let place = self.ends.len();
        self.bytes.extend_from_slice(item);
        self.ends.push(self.bytes.len());
        self.leases.extend(leases.into_iter().map(|lease| (place, lease)));
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of these items.
    pub fn bytes(&self, items: Range<usize>) -> &[u8] {
        let end = |items: usize| if items == 0 { 0 } else { self.ends[items - 1] };
        &self.bytes[end(items.start)..end(items.end)]
    }

    /// What these items name by handle.
    pub fn leases(&self, items: Range<usize>) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(move |(place, _)| items.contains(place)).map(|(_, lease)| lease)
    }

    /// These items as a message. An item has less than 4 GiB: larger ones travel alone, as they are.
    pub fn message(&self, items: Range<usize>) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.bytes(items.clone()).len() + 4 * (items.len() + 1));
        message.extend_from_slice(self.bytes(items.clone()));
        for item in items.clone() {
            message.extend_from_slice(&(self.bytes(item..item + 1).len() as u32).to_le_bytes());
        }
        message.extend_from_slice(&(items.len() as u32).to_le_bytes());
        message
    }
}

fn damaged() -> Error {
    Error::Damaged("items of a task")
}

/// The items of a message.
pub fn unpack(message: &[u8]) -> Result<impl Iterator<Item = &[u8]>> {
    let (rest, count) = message.split_last_chunk::<4>().ok_or_else(damaged)?;
    let lengths = (u32::from_le_bytes(*count) as usize).checked_mul(4).ok_or_else(damaged)?;
    let (mut bytes, lengths) = rest.split_at_checked(rest.len().wrapping_sub(lengths)).ok_or_else(damaged)?;
    let length = |four: &[u8]| u32::from_le_bytes(four.try_into().expect("four bytes")) as usize;
    if lengths.chunks_exact(4).map(|four| length(four) as u64).sum::<u64>() != bytes.len() as u64 {
        return Err(damaged());
    }
    Ok(lengths.chunks_exact(4).map(move |four| {
        let (item, behind) = bytes.split_at(length(four));
        bytes = behind;
        item
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever run of items is sent, they come out as they went in.
        #[test]
        fn any_run_of_items_survives_the_journey(
            items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..40),
            cut in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        ) {
            let mut packed = Packed::default();
            items.iter().for_each(|item| packed.push(item, vec![]));
            let (a, b) = (cut.0.index(items.len() + 1), cut.1.index(items.len() + 1));
            let run = a.min(b)..a.max(b);
            let message = packed.message(run.clone());
            let read: Vec<&[u8]> = unpack(&message).expect("sound").collect();
            prop_assert_eq!(read, items[run].iter().map(Vec::as_slice).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(items) = unpack(&bytes) {
                let _ = items.count();
            }
        }
    }
}
