//! A set of small numbers in shared memory, one bit each: who holds, who sleeps, who is alive.
//!
//! Counters would drift when a process dies between its `+1` and its `-1`. A bit belongs to one process, so
//! whoever cleans up after a death clears that process's bits and is done.

use super::atomics::{AtomicU64, Ordering};

/// Words of a set.
#[cfg(not(loom))]
pub const WORDS: usize = 8;
/// Words of a set; loom's models need only one.
#[cfg(loom)]
pub const WORDS: usize = 1;

/// Numbers that fit: `0..CAPACITY`.
pub const CAPACITY: usize = WORDS * 64;

/// The set. All operations are sequentially consistent: the protocols that use it rest on a total order.
#[repr(C)]
#[derive(Debug)]
pub struct BitSet([AtomicU64; WORDS]);

impl Default for BitSet {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl BitSet {
    /// Puts `member` in; `true` if it was not there.
    pub fn insert(&self, member: u16) -> bool {
        let (word, bit) = self.place(member);
        word.fetch_or(bit, Ordering::SeqCst) & bit == 0
    }

    /// Takes `member` out; `true` if it was there. Of several that try, one is told so.
    pub fn remove(&self, member: u16) -> bool {
        let (word, bit) = self.place(member);
        // A look first: a write to a line that others read is dear, and mostly there is nothing to remove.
        word.load(Ordering::SeqCst) & bit != 0 && word.fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }

    /// Whether `member` is in.
    pub fn contains(&self, member: u16) -> bool {
        let (word, bit) = self.place(member);
        word.load(Ordering::SeqCst) & bit != 0
    }

    /// Whether nobody is in.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| word.load(Ordering::SeqCst) == 0)
    }

    /// How many are in.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.load(Ordering::SeqCst).count_ones()).sum()
    }

    /// Who is in.
    pub fn members(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            let word = word.load(Ordering::SeqCst);
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| index as u16 * 64 + bit)
        })
    }

    fn place(&self, member: u16) -> (&AtomicU64, u64) {
        (&self.0[usize::from(member) / 64], 1 << (member % 64))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn members_come_and_go() {
        let set = BitSet::default();
        assert!(set.is_empty());
        for member in [0, 63, 64, 511] {
            assert!(set.insert(member));
            assert!(!set.insert(member), "already in");
        }
        assert_eq!(set.len(), 4);
        assert_eq!(set.members().collect::<Vec<_>>(), [0, 63, 64, 511]);
        assert!(set.remove(0));
        assert!(!set.remove(0), "already out");
        assert!(!set.contains(0) && set.contains(63));
        for member in [63, 64, 511] {
            assert!(set.remove(member));
        }
        assert!(set.is_empty());
    }
}
