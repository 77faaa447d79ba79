//! Unguessable tokens: what a process must know to be given a segment.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// 128 bits from the kernel's random number generator.
///
/// Panics if the kernel has none to give, which no supported kernel does once it has booted.
pub fn token() -> [u8; 16] {
    let mut bytes = [0; 16];
    loop {
        match getrandom(&mut bytes[..], GetRandomFlags::empty()) {
            Ok(16) => return bytes,
            // Only while the generator is being seeded at boot.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("the kernel gave no random bytes: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_tokens_are_alike() {
        let tokens: HashSet<_> = (0..1000).map(|_| token()).collect();
        assert_eq!(tokens.len(), 1000);
    }

    #[test]
    fn every_byte_of_a_token_is_random() {
        let tokens: Vec<_> = (0..100).map(|_| token()).collect();
        for byte in 0..16 {
            let values: HashSet<_> = tokens.iter().map(|token| token[byte]).collect();
            assert!(values.len() > 10, "byte {byte} took {} values in 100 tokens", values.len());
        }
    }
}
