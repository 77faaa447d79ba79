//! A handle: what a block is called outside its domain. Plain bytes that any pickler can carry.

use super::heap::BlockId;
use crate::error::{Error, Result};

/// Where a domain is to be found, and the secret that lets a process in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Names the broker's socket.
    pub domain: [u8; 16],
    /// Unguessable: who knows it was given it.
    pub token: [u8; 16],
}

impl Address {
    /// Whether that is the token. Takes the same time whatever differs.
    pub fn admits(&self, token: &[u8; 16]) -> bool {
        std::hint::black_box(u128::from_ne_bytes(self.token) ^ u128::from_ne_bytes(*token)) == 0
    }
}

/// Names a block to any process of the same user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Whom to ask.
    pub address: Address,
    /// Which block.
    pub block: BlockId,
}

const MAGIC: [u8; 4] = *b"shl1";

/// Bytes of a handle.
pub const SIZE: usize = 4 + 32 + 12;

impl Handle {
    /// As bytes.
    pub fn to_bytes(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..20].copy_from_slice(&self.address.domain);
        bytes[20..36].copy_from_slice(&self.address.token);
        bytes[36..40].copy_from_slice(&self.block.segment.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.block.entry.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.block.generation.to_le_bytes());
        bytes
    }

    /// From bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Handle> {
        let bytes: &[u8; SIZE] = bytes.try_into().map_err(|_| Error::Damaged("handle"))?;
        if bytes[..4] != MAGIC {
            return Err(Error::Damaged("handle"));
        }
        let part = |at: usize| -> [u8; 16] { std::array::from_fn(|i| bytes[at + i]) };
        let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Ok(Handle {
            address: Address { domain: part(4), token: part(20) },
            block: BlockId { segment: number(36), entry: number(40), generation: number(44) },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_that_differs_in_one_bit_is_another() {
        let address = Address { domain: [1; 16], token: [7; 16] };
        assert!(address.admits(&[7; 16]));
        for bit in 0..128 {
            let mut token = [7; 16];
            token[bit / 8] ^= 1 << (bit % 8);
            assert!(!address.admits(&token), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn a_handle_survives_the_journey(domain: [u8; 16], token: [u8; 16], segment: u32, entry: u32, generation: u32) {
            let handle = Handle { address: Address { domain, token }, block: BlockId { segment, entry, generation } };
            prop_assert_eq!(Handle::from_bytes(&handle.to_bytes()).expect("sound"), handle);
        }

        #[test]
        fn other_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assume!(!bytes.starts_with(&MAGIC));
            prop_assert!(Handle::from_bytes(&bytes).is_err());
        }
    }
}
