//! The sizes that small pieces come in: four classes per doubling from 64 bytes to 32 KiB, so that a piece is never
//! more than a quarter larger than what was asked for (or 64 bytes). Arithmetic only, no state.
//!
//! Class `c` has the size `(4 + c % 4) << (4 + c / 4)`: 64, 80, 96, 112, 128, 160, …

/// The number of size classes.
pub const COUNT: usize = 37;

/// The largest size that a class serves, in bytes; more than this is a matter of whole pages.
pub const LARGEST: u64 = 32 * 1024;

/// A run of 4 KiB pages is carved into pieces of class `c` without a rest when it has `SPAN_PAGES[c % 4]` pages, as the
/// sizes of that class are 4, 5, 6 or 7 times a power of two. All of them are near 64 KiB.
const SPAN_PAGES: [u32; 4] = [16, 20, 18, 21];

/// The class that serves `len` bytes; `None` if that is more than [`LARGEST`].
#[inline]
pub fn of(len: u64) -> Option<usize> {
    if len <= 64 {
        return Some(0);
    }
    if len > LARGEST {
        return None;
    }
    // The two bits below the leading one say which quarter of its doubling the size lies in.
    let last = len - 1;
    let doubling = last.ilog2() as usize;
    let quarter = (last >> (doubling - 2)) as usize & 3;
    Some((doubling - 6) * 4 + quarter + 1)
}

/// The size in bytes of the pieces of a class.
#[inline]
pub const fn size(class: usize) -> u64 {
    (4 + class as u64 % 4) << (4 + class / 4)
}

/// How many 4 KiB pages a span of this class has, where there is a choice.
pub const fn span_pages(class: usize) -> u32 {
    SPAN_PAGES[class % 4]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_are_four_per_doubling() {
        let sizes: Vec<u64> = (0..9).map(size).collect();
        assert_eq!(sizes, [64, 80, 96, 112, 128, 160, 192, 224, 256]);
        assert_eq!(size(COUNT - 1), LARGEST);
    }

    #[test]
    fn every_length_gets_the_smallest_class_that_holds_it() {
        for len in 0..=LARGEST {
            let class = of(len).unwrap();
            assert!(size(class) >= len, "{len} bytes do not fit in class {class}");
            assert!(class == 0 || size(class - 1) < len, "{len} bytes would fit in a class below {class}");
        }
    }

    #[test]
    fn a_piece_is_at_most_a_quarter_larger_than_asked() {
        for len in 64..=LARGEST {
            assert!(size(of(len).unwrap()) * 4 <= len * 5, "{len}");
        }
    }

    #[test]
    fn more_than_the_largest_class_has_none() {
        assert_eq!(of(LARGEST), Some(COUNT - 1));
        assert_eq!(of(LARGEST + 1), None);
        assert_eq!(of(u64::MAX), None);
    }

    #[test]
    fn every_span_is_carved_without_a_rest() {
        for class in 0..COUNT {
            assert_eq!(u64::from(span_pages(class)) * 4096 % size(class), 0, "class {class}");
        }
    }
}
