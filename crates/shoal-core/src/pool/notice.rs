//! A notice: some bytes that the client leaves for its workers; only the latest counts.
//!
//! Two halves, of which the lowest bit of the version says which one is valid:
//!
//! ```text
//! writer, one at a time                reader
//! W1  the other half := bytes          R1  v = version (Acquire)
//! W2  version := v + 1 (Release)       R2  copies half v & 1
//! W3  fence (SeqCst)                   R3  fence (Acquire)
//!                                      R4  version still v? else from R1
//! ```
//!
//! What R2 copies is what was written for v, by W2 and R1, unless a word of it is already of v + 2. That was stored behind
//! W3 of v + 1, so if R2 has seen it, R4 sees W2 of v + 1, by the two fences. A writer that dies leaves the half that is not
//! valid; a reader leaves nothing.

use crate::sync::atomics::{AtomicU32, AtomicU64, Ordering, fence};

/// See the module.
#[repr(C)]
#[derive(Debug)]
pub struct Notice<const WORDS: usize> {
    version: AtomicU32,
    halves: [Half<WORDS>; 2],
}

#[repr(C)]
#[derive(Debug)]
struct Half<const WORDS: usize> {
    len: AtomicU32,
    words: [AtomicU64; WORDS],
}

impl<const WORDS: usize> Default for Notice<WORDS> {
    fn default() -> Self {
        let half = || Half { len: AtomicU32::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) };
        Notice { version: AtomicU32::new(0), halves: [half(), half()] }
    }
}

impl<const WORDS: usize> Notice<WORDS> {
    /// Leaves `bytes`, instead of what was left before. `false`: there is no room for so many. One writer at a time.
    pub fn leave(&self, bytes: &[u8]) -> bool {
        if bytes.len() > WORDS * 8 {
            return false;
        }
        let next = self.version.load(Ordering::Relaxed).wrapping_add(1);
        let half = &self.halves[(next & 1) as usize];
        half.len.store(bytes.len() as u32, Ordering::Relaxed);
        for (word, bytes) in half.words.iter().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(whole), Ordering::Relaxed);
        }
        self.version.store(next, Ordering::Release);
        fence(Ordering::SeqCst);
        true
    }

    /// What was left last, and its version; `None` if that is `seen`.
    pub fn look(&self, seen: u32) -> Option<(u32, Vec<u8>)> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            if version == seen {
                return None;
            }
            let half = &self.halves[(version & 1) as usize];
            let len = (half.len.load(Ordering::Relaxed) as usize).min(WORDS * 8);
            let words = half.words[..len.div_ceil(8)].iter();
            let mut bytes: Vec<u8> = words.flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
            bytes.truncate(len);
            fence(Ordering::Acquire);
            if self.version.load(Ordering::Relaxed) == version {
                return Some((version, bytes));
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_latest_notice_is_found_once(notices in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..33), 0..5)) {
            let notice = Notice::<4>::default();
            prop_assert_eq!(notice.look(0), None);
            for bytes in &notices {
                prop_assert!(notice.leave(bytes));
            }
            if let Some(last) = notices.last() {
                let (version, bytes) = notice.look(0).expect("there is one");
                prop_assert_eq!(&bytes, last);
                prop_assert_eq!(notice.look(version), None);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_the_one_before_stays() {
        let notice = Notice::<1>::default();
        assert!(notice.leave(b"12345678"));
        assert!(!notice.leave(b"123456789"));
        assert_eq!(notice.look(0), Some((1, b"12345678".to_vec())));
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// Two notices one after the other, of one word each that is the same in both places; a reader meanwhile.
    #[test]
    fn loom_a_notice_is_never_seen_in_halves() {
        loom::model(|| {
            let notice = Arc::new(Notice::<2>::default());
            let writer = {
                let notice = notice.clone();
                thread::spawn(move || {
                    for number in 1..=3u8 {
                        notice.leave(&[number; 16]);
                    }
                })
            };
            let reader = {
                let notice = notice.clone();
                thread::spawn(move || {
                    if let Some((version, bytes)) = notice.look(0) {
                        assert_eq!(bytes, [version as u8; 16]);
                    }
                })
            };
            reader.join().expect("ends");
            writer.join().expect("ends");
            assert_eq!(notice.look(0), Some((3, vec![3; 16])));
        });
    }
}
