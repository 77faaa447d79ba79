//! Marks: which entries of a segment its owner should look at, as somebody has let go of them.
//!
//! One bit for each entry, one bit for each word of those, and a count of changes that tells the owner at a glance
//! whether there is anything new. See `docs/design/leases.md`.
//!
//! ```text
//! who let go                                owner
//! M1  words[i / 64] |= bit                  O1  changes as last time? nothing to do
//! M2  summary[i / 4096] |= bit              O2  take summary words, leaving 0
//! M3  changes += 1                          O3  take the words they name, leaving 0
//! ```
//!
//! If O3 misses M1, it comes before it; then M2 comes after O2 and M3 after O1, so the owner finds another count of
//! changes at its next look and the bit in the summary. Who dies between M1 and M3 is made up for by whoever cleans up
//! after it: that marks anew everything in use that has no holder.

use crate::sync::atomics::{AtomicU32, AtomicU64, Ordering};

/// The marks of one segment.
#[derive(Clone, Copy, Debug)]
pub struct Marks<'a> {
    /// How often something was marked.
    pub changes: &'a AtomicU32,
    /// A bit for each word of `words`.
    pub summary: &'a [AtomicU64],
    /// A bit for each entry.
    pub words: &'a [AtomicU64],
}

/// Words that hold a bit for each of `count` things.
pub const fn words_for(count: u64) -> u64 {
    count.div_ceil(64)
}

impl Marks<'_> {
    /// The owner should look at entry `index`.
    pub fn set(&self, index: u32) {
        let word = index as usize / 64;
        // All three, whatever was set before: who set it may die before the next step.
        self.words[word].fetch_or(1 << (index % 64), Ordering::SeqCst);
        self.summary[word / 64].fetch_or(1 << (word % 64), Ordering::SeqCst);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// How often something was marked: if as often as before the last [`take`](Self::take), nothing is new.
    pub fn changes(&self) -> u32 {
        self.changes.load(Ordering::SeqCst)
    }

    /// The owner: takes all marks, and looks.
    pub fn take(&self, mut look: impl FnMut(u32)) {
        for (index, summary) in self.summary.iter().enumerate() {
            for word in bits(take(summary)) {
                let word = index * 64 + word as usize;
                // Shared memory may hold anything: a bit beyond the last word means nothing.
                let Some(marks) = self.words.get(word) else { continue };
                bits(take(marks)).for_each(|bit| look(word as u32 * 64 + bit));
            }
        }
    }
}

fn take(word: &AtomicU64) -> u64 {
    // A look first: mostly there is nothing, and a swap takes the line from everybody else.
    if word.load(Ordering::SeqCst) == 0 { 0 } else { word.swap(0, Ordering::SeqCst) }
}

fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros())?;
        word &= word - 1;
        Some(bit)
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_was_marked_is_found_once() {
        let changes = AtomicU32::new(0);
        let words: Vec<_> = (0..words_for(10_000)).map(|_| AtomicU64::new(0)).collect();
        let summary: Vec<_> = (0..words_for(words.len() as u64)).map(|_| AtomicU64::new(0)).collect();
        let marks = Marks { changes: &changes, summary: &summary, words: &words };
        for index in [9_999, 0, 63, 64, 4_096, 64] {
            marks.set(index);
        }
        assert_eq!(marks.changes(), 6);
        let mut found = vec![];
        marks.take(|index| found.push(index));
        assert_eq!(found, [0, 63, 64, 4_096, 9_999]);
        marks.take(|index| panic!("{index} was taken before"));
    }

    #[test]
    fn a_summary_that_somebody_scribbled_over_harms_nobody() {
        let (changes, words, summary) = (AtomicU32::new(0), [AtomicU64::new(1)], [AtomicU64::new(u64::MAX)]);
        let mut found = vec![];
        Marks { changes: &changes, summary: &summary, words: &words }.take(|index| found.push(index));
        assert_eq!(found, [0]);
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn loom_no_mark_is_lost() {
        loom::model(|| {
            let shared = Arc::new((AtomicU32::new(0), [AtomicU64::new(0)], [AtomicU64::new(0)]));
            fn marks(shared: &(AtomicU32, [AtomicU64; 1], [AtomicU64; 1])) -> Marks<'_> {
                Marks { changes: &shared.0, summary: &shared.1, words: &shared.2 }
            }
            let markers = [3, 5].map(|index| {
                let shared = shared.clone();
                thread::spawn(move || marks(&shared).set(index))
            });
            let (mut seen, mut found) = (0, vec![]);
            let mut look = || {
                let changes = marks(&shared).changes();
                if changes != seen {
                    seen = changes;
                    marks(&shared).take(|index| found.push(index));
                }
            };
            look();
            for marker in markers {
                marker.join().expect("ends");
            }
            look();
            found.sort_unstable();
            assert_eq!(found, [3, 5]);
        });
    }
}
