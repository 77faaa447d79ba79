//! How many items of a map go into one task.
//!
//! Each task costs a few microseconds, so cheap items are grouped; but what is grouped runs one after the other, so dear
//! items are not. Nobody says which they are: the first tasks are single items, and from the times that come back the
//! size is chosen such that a task takes about [`TARGET`]. Towards the end tasks get smaller, as in guided
//! self-scheduling (Polychronopoulos and Kuck, 1987): never more than a share of what is left. What a worker gives back,
//! because others are idle while it has many items before it, is cut again.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// What a task should take: hundreds of times its own cost, and too little for a worker at the end to wait for.
pub const TARGET: Duration = Duration::from_millis(1);

/// How long an item takes, and so how many make a task of [`TARGET`].
#[derive(Clone, Debug)]
pub struct Pace {
    /// Nanoseconds an item takes, lately.
    per_item: Option<f64>,
    last: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { per_item: None, last: 1 }
    }
}

impl Pace {
    /// How many items the next task should have, at most `most`; 1 as long as nothing is known.
    pub fn next_size(&mut self, most: usize) -> usize {
        // Growing step by step: the first items may not be like the others.
        self.last = self.target().min(self.last.saturating_mul(8)).clamp(1, most.max(1));
        self.last
    }

    /// How many items would take [`TARGET`]: at least 1, and 1 as long as nothing is known.
    pub fn target(&self) -> usize {
        self.per_item.map_or(1, |nanos| ((TARGET.as_nanos() as f64 / nanos.max(1.0)) as usize).max(1))
    }

    /// A worker has done so many items in `nanos` nanoseconds.
    pub fn measured(&mut self, items: usize, nanos: u64) {
        if items > 0 {
            let now = nanos as f64 / items as f64;
            self.per_item = Some(self.per_item.map_or(now, |before| (before + now) / 2.0));
        }
    }
}

/// The items of a map that are still to be sent, and how to cut them.
#[derive(Debug)]
pub struct Chunks {
    pending: VecDeque<Range<usize>>,
    left: usize,
    fixed: Option<usize>,
    workers: usize,
    pace: Pace,
    abandoned: bool,
}

impl Chunks {
    /// Cuts `items` items for so many workers: in pieces of `fixed`, or as it turns out best.
    pub fn new(items: usize, fixed: Option<usize>, workers: usize) -> Chunks {
        let all = 0..items;
        let pending = Some(all).filter(|all| all.end > 0).into_iter().collect();
        Chunks { pending, left: items, fixed, workers, pace: Pace::default(), abandoned: false }
    }

    /// Items still to be sent.
    pub fn left(&self) -> usize {
        self.left
    }

    /// The next piece.
    pub fn next_chunk(&mut self) -> Option<Range<usize>> {
        let first = self.pending.front_mut()?;
        let size = self.fixed.unwrap_or_else(|| self.pace.next_size(self.left / (2 * self.workers)));
        let chunk = first.start..first.end.min(first.start + size);
        first.start = chunk.end;
        if first.start == first.end {
            self.pending.pop_front();
        }
        self.left -= chunk.len();
        Some(chunk)
    }

    /// A worker has done `items` of a piece in `nanos` nanoseconds.
    pub fn measured(&mut self, items: usize, nanos: u64) {
        self.pace.measured(items, nanos);
    }

    /// Nothing more is to be sent, not even what workers give back.
    pub fn abandon(&mut self) {
        self.pending.clear();
        self.left = 0;
        self.abandoned = true;
    }

    /// Whether nothing more is to be sent.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    /// A worker has not got to these.
    pub fn give_back(&mut self, items: Range<usize>) {
        if items.start < items.end && !self.abandoned {
            self.left += items.len();
            self.pending.push_front(items);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever comes back when, every item is sent exactly once.
        #[test]
        fn every_item_is_sent_once(
            items in 0usize..5000, fixed in prop::option::of(1usize..100), workers in 1usize..8,
            steps in prop::collection::vec((0u64..10_000_000, 0usize..50), 0..50),
        ) {
            let mut chunks = Chunks::new(items, fixed, workers);
            let mut steps = steps.into_iter();
            let mut seen = vec![];
            while let Some(chunk) = chunks.next_chunk() {
                prop_assert!(!chunk.is_empty());
                let (nanos, back) = steps.next().unwrap_or((1000, 0));
                let middle = chunk.end - back.min(chunk.len() - 1);
                seen.extend(chunk.start..middle);
                chunks.measured(middle - chunk.start, nanos);
                chunks.give_back(middle..chunk.end);
            }
            prop_assert_eq!(chunks.left(), 0);
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..items).collect::<Vec<_>>());
        }
    }

    #[test]
    fn dear_items_travel_alone_and_cheap_ones_together() {
        let mut dear = Chunks::new(1000, None, 2);
        let mut cheap = Chunks::new(1_000_000, None, 2);
        let mut largest = (0, 0);
        for _ in 0..100 {
            let chunk = dear.next_chunk().expect("there are more");
            largest.0 = largest.0.max(chunk.len());
            dear.measured(chunk.len(), 20_000_000 * chunk.len() as u64);
            if let Some(chunk) = cheap.next_chunk() {
                largest.1 = largest.1.max(chunk.len());
                cheap.measured(chunk.len(), 50 * chunk.len() as u64);
            }
        }
        assert_eq!(largest.0, 1);
        assert!(largest.1 > 10_000, "{}", largest.1);
    }

    #[test]
    fn what_is_given_back_to_a_map_that_was_abandoned_is_not_sent_again() {
        let mut chunks = Chunks::new(100, Some(10), 2);
        let first = chunks.next_chunk().expect("there are more");
        chunks.abandon();
        chunks.give_back(first.start + 1..first.end);
        assert_eq!((chunks.left(), chunks.next_chunk()), (0, None));
    }

    #[test]
    fn the_last_pieces_are_small() {
        let mut chunks = Chunks::new(1000, None, 2);
        chunks.measured(1, 1);
        let mut sizes = vec![];
        while let Some(chunk) = chunks.next_chunk() {
            sizes.push(chunk.len());
        }
        assert_eq!(sizes.last(), Some(&1));
    }
}
