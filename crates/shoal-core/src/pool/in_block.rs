//! A completion too large for its ring: in a block of the worker's arena, handed over with it.
//!
//! ```text
//! | number of leases: u64 | Place × that many | payload … |
//! ```

use crate::error::{Error, Result};
use crate::memory::place::Place;

/// Bytes of the number of leases.
pub const COUNT: usize = std::mem::size_of::<u64>();
const PLACE: usize = 24;

/// What lies before the payload.
pub fn head(places: &[Place]) -> Vec<u8> {
    let mut front = (places.len() as u64).to_le_bytes().to_vec();
    for place in places {
        front.extend_from_slice(&u64::from(place.segment).to_le_bytes());
        front.extend_from_slice(&place.offset.to_le_bytes());
        front.extend_from_slice(&place.len.to_le_bytes());
    }
    front
}

fn damaged() -> Error {
    Error::Damaged("result block")
}

fn number(bytes: &[u8], at: usize) -> Result<u64> {
    let eight = bytes.get(at..at + COUNT).and_then(|bytes| bytes.try_into().ok());
    eight.map(u64::from_le_bytes).ok_or_else(damaged)
}

/// How many leases a block holds.
pub fn count(bytes: &[u8]) -> Result<u64> {
    number(bytes, 0)
}

/// Bytes before the payload if there are `count` leases.
pub fn front(count: u64) -> u64 {
    count.saturating_mul(PLACE as u64).saturating_add(COUNT as u64)
}

/// The leases in the front of a block, and where its payload begins.
pub fn read(bytes: &[u8]) -> Result<(Vec<Place>, usize)> {
    let count = usize::try_from(count(bytes)?).map_err(|_| damaged())?;
    let payload_at = count.checked_mul(PLACE).and_then(|len| len.checked_add(COUNT)).ok_or_else(damaged)?;
    if payload_at > bytes.len() {
        return Err(damaged());
    }
    let place = |at: usize| {
        let segment = u32::try_from(number(bytes, at)?).map_err(|_| damaged())?;
        Ok(Place { segment, offset: number(bytes, at + 8)?, len: number(bytes, at + 16)? })
    };
    let places: Result<Vec<Place>> = (0..count).map(|index| place(COUNT + index * PLACE)).collect();
    Ok((places?, payload_at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
        }
    }

    #[test]
    fn a_count_that_does_not_fit_is_refused() {
        assert!(read(&u64::MAX.to_le_bytes()).is_err());
        assert!(read(&1u64.to_le_bytes()).is_err());
        assert_eq!(read(&0u64.to_le_bytes()).expect("sound"), (vec![], 8));
    }
}
