//! What a pool's functions are called: for who looks from outside and has only their numbers.
//!
//! A place is written by the client, one thread at a time, when it registers a function, and read by anybody at any
//! moment. The head of a place is one word, with the function and the length of its name; it is 0 while the place is
//! written. A reader looks at it before and after it has copied the name:
//!
//! ```text
//! writer                                   reader
//! W1  head = 0                             R1  head (Acquire)
//! W2  fence (Release)                      R2  the words
//! W3  the words                            R3  fence (Acquire)
//! W4  head = (function, length), Release   R4  head: the same? then the words belong to it
//! ```
//!
//! If R2 has read a word of W3, then R4 sees W1 or something later, as the fences pair; if R1 has read W4, R2 has all of that name.
//! A later function takes the place of one 128 before: that has no name any more. A writer that dies at any step leaves
//! a place without a name, and nobody waits for anybody.

use crate::sync::atomics::{AtomicU64, Ordering, fence};

/// Words of a name.
const WORDS: usize = if cfg!(loom) { 2 } else { 15 };
/// Names that are kept.
const PLACES: usize = if cfg!(loom) { 1 } else { 128 };

/// The table.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Names([Name; PLACES]);

#[repr(C)]
#[derive(Debug)]
struct Name {
    head: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Default for Names {
    fn default() -> Self {
        let name = || Name { head: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) };
        Names(std::array::from_fn(|_| name()))
    }
}

impl Names {
    fn place(&self, function: u32) -> &Name {
        &self.0[function as usize % PLACES]
    }

    /// The client: that is what a function is called. A long name is cut.
    pub fn set(&self, function: u32, name: &str) {
        let mut len = name.len().min(WORDS * 8);
        while !name.is_char_boundary(len) {
            len -= 1;
        }
        let name = &name.as_bytes()[..len];
        let place = self.place(function);
        place.head.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, bytes) in place.words.iter().zip(name.chunks(8)) {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(eight), Ordering::Relaxed);
        }
        place.head.store(u64::from(function) << 32 | name.len() as u64, Ordering::Release);
    }

    /// What a function is called; `None`: nobody said, or its place is another's by now. Whatever is written there, what
    /// comes back is text.
    pub fn get(&self, function: u32) -> Option<String> {
        let place = self.place(function);
        let head = place.head.load(Ordering::Acquire);
        let len = head as u32 as usize;
        if (head >> 32) as u32 != function || len == 0 || len > WORDS * 8 {
            return None;
        }
        let words = &place.words[..len.div_ceil(8)];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        fence(Ordering::Acquire);
        if place.head.load(Ordering::Relaxed) != head {
            return None;
        }
        bytes.truncate(len);
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_is_found_by_its_function_and_long_ones_are_cut(function in 1u32.., name in ".{1,200}") {
            let names = Names::default();
            names.set(function, &name);
            let found = names.get(function).expect("was just set");
            prop_assert!(name.starts_with(&found));
            prop_assert!(found == name || found.len() > WORDS * 8 - 4);
            prop_assert_eq!(names.get(function.wrapping_add(1)), None);
        }

        #[test]
        fn no_words_make_the_reader_panic(head in any::<u64>(), word in any::<u64>()) {
            let names = Names::default();
            let function = (head >> 32) as u32;
            let place = names.place(function);
            place.head.store(head, Ordering::Relaxed);
            place.words.iter().for_each(|each| each.store(word, Ordering::Relaxed));
            let _ = names.get(function);
        }
    }

    #[test]
    fn a_later_function_takes_the_place_of_an_earlier_one() {
        let names = Names::default();
        names.set(3, "early");
        names.set(3 + PLACES as u32, "late");
        assert_eq!(names.get(3), None);
        assert_eq!(names.get(3 + PLACES as u32).as_deref(), Some("late"));
    }

    #[test]
    fn who_has_no_name_is_not_found() {
        let names = Names::default();
        names.set(3, "");
        assert_eq!(names.get(3), None);
        assert_eq!(names.get(0), None);
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn loom_a_name_is_whole_and_its_own_functions() {
        loom::model(|| {
            let names = Arc::new(Names::default());
            names.set(1, "aaaaaaaaaaaaaaaa");
            let writer = {
                let names = names.clone();
                thread::spawn(move || names.set(2, "bbbbbbbbbbbbbbbb"))
            };
            let (one, two) = (names.get(1), names.get(2));
            assert!(one.is_none_or(|name| name == "aaaaaaaaaaaaaaaa"));
            assert!(two.is_none_or(|name| name == "bbbbbbbbbbbbbbbb"));
            writer.join().expect("ends");
            assert_eq!(names.get(2).as_deref(), Some("bbbbbbbbbbbbbbbb"));
        });
    }
}
