//! How far ahead of its consumer a stream may be: enough to keep the workers busy, little to keep.

use std::collections::HashMap;

use super::batches::Weight;
use super::chunks::Pace;
use crate::memory::heap::BlockId;

/// Tasks for each worker, each of them about as long as [`TARGET`](super::chunks::TARGET), or longer if it is one item.
const TASKS: usize = 16;
/// Bytes of arguments and results that have not been taken, but always a task for each worker.
pub const BYTES: u64 = 256 << 20;

/// Bytes of several messages. A block that more than one of them names is shared anyway, and weighs nothing.
#[derive(Debug, Default)]
struct Weights {
    bytes: u64,
    blocks: HashMap<BlockId, (usize, bool)>,
}

impl Weights {
    fn add(&mut self, weight: &Weight) {
        self.bytes += weight.bytes;
        for (id, len) in &weight.blocks {
            let (messages, shared) = self.blocks.entry(*id).or_insert((0, false));
            *messages += 1;
            match *messages {
                1 => self.bytes += len,
                2 if !*shared => {
                    *shared = true;
                    self.bytes -= len;
                }
                _ => {}
            }
        }
    }

    fn remove(&mut self, weight: &Weight) {
        self.bytes -= weight.bytes;
        for (id, len) in &weight.blocks {
            let Some((messages, shared)) = self.blocks.get_mut(id) else { continue };
            *messages -= 1;
            if *messages == 0 {
                if !*shared {
                    self.bytes -= len;
                }
                self.blocks.remove(id);
            }
        }
    }
}

/// Counts what was read, what has arrived, what was taken.
#[derive(Debug)]
pub struct Ahead {
    workers: usize,
    chunksize: Option<usize>,
    /// Items, as the user wishes: then bytes don't matter.
    buffersize: Option<usize>,
    /// What has arrived is kept anyway and does not count.
    keep: bool,
    unlimited: bool,
    read: u64,
    arrived: u64,
    taken: u64,
    weights: Weights,
    /// Bytes a result has, lately.
    per_result: Option<f64>,
}

impl Ahead {
    /// Of a stream with tasks of `chunksize` items, or as many as it turns out best.
    pub fn new(workers: usize, chunksize: Option<usize>, buffersize: Option<usize>, keep: bool) -> Ahead {
        Ahead {
            workers,
            chunksize,
            buffersize,
            keep,
            unlimited: false,
            read: 0,
            arrived: 0,
            taken: 0,
            weights: Weights::default(),
            per_result: None,
        }
    }

    /// From now on everything may be read.
    pub fn unlimit(&mut self) {
        self.unlimited = true;
    }

    /// So many items were read; returns the place of the first.
    pub fn read(&mut self, items: usize) -> u64 {
        let first = self.read;
        self.read += items as u64;
        first
    }

    /// Arguments are on their way.
    pub fn sent(&mut self, arguments: &Weight) {
        self.weights.add(arguments);
    }

    /// Results have come for them.
    pub fn arrived(&mut self, items: usize, arguments: &Weight, results: &Weight) {
        self.arrived += items as u64;
        self.weights.remove(arguments);
        let before = self.weights.bytes;
        self.weights.add(results);
        let each = self.weights.bytes.saturating_sub(before) as f64 / items.max(1) as f64;
        self.per_result = Some(self.per_result.map_or(each, |before| (before + each) / 2.0));
    }

    /// Results were taken, or are kept by somebody else from now on.
    pub fn taken(&mut self, items: usize) {
        self.taken += items as u64;
    }

    /// And nothing of their message is left.
    pub fn let_go(&mut self, results: &Weight) {
        self.weights.remove(results);
    }

    /// Whether no more bytes should come in.
    pub fn is_heavy(&self) -> bool {
        let under_way = (self.read - self.arrived) as f64;
        self.buffersize.is_none()
            && self.weights.bytes as f64 + under_way * self.per_result.unwrap_or(0.0) > BYTES as f64
    }

    /// Tasks that may be under way while nothing is known of their results, or their size is still being found out.
    pub fn tasks(&self) -> usize {
        2 * self.workers + 2
    }

    /// How many items the next task may have, 0 if there is to be none yet. There are `sent` tasks under way, room for
    /// `ring` more, and `waiting` have ended and not been taken.
    pub fn room(&self, pace: &Pace, sent: usize, ring: usize, waiting: usize) -> usize {
        let grouped = self.chunksize.is_none() && pace.target() > 1;
        let new = self.buffersize.is_none() && self.per_result.is_none();
        let crowded = if grouped || new { sent >= self.tasks() } else { sent >= TASKS * self.workers && ring == 0 };
        let untaken = (self.read - if self.keep { self.arrived } else { self.taken }) as usize;
        let tasks = sent + if self.keep { 0 } else { waiting };
        if crowded || (tasks >= self.workers && !self.unlimited && self.is_heavy()) {
            return 0;
        }
        let chunk = self.chunksize.unwrap_or(1);
        let window = if self.unlimited { usize::MAX } else { self.buffersize.unwrap_or_else(|| self.window(pace)) };
        let left = window.saturating_sub(untaken);
        match self.chunksize {
            Some(_) => {
                if untaken == 0 || left >= chunk {
                    chunk
                } else {
                    0
                }
            }
            // Some for every worker.
            None => left.min((window / (2 * self.workers)).max(1)),
        }
    }

    /// Never much further than the consumer has come: who takes a few results does not make the workers do thousands.
    fn window(&self, pace: &Pace) -> usize {
        let chunk = self.chunksize.unwrap_or(1);
        let tasks = TASKS * self.workers;
        tasks
            .saturating_mul(chunk.max(pace.target()))
            .min(tasks.saturating_mul(chunk).saturating_add(self.taken as usize))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(number: u32) -> BlockId {
        BlockId { segment: 1, entry: number, generation: 2 }
    }

    proptest! {
        /// What was added and removed again leaves nothing, in whatever order.
        #[test]
        fn weights_balance(messages in prop::collection::vec((0u64..1000, prop::collection::vec(0u32..6, 0..4)), 0..30)) {
            let mut weights = Weights::default();
            let messages: Vec<Weight> = messages
                .into_iter()
                .map(|(bytes, mut ids)| {
                    ids.dedup();
                    Weight { bytes, blocks: ids.into_iter().map(|id| (block(id), 100 + u64::from(id))).collect() }
                })
                .collect();
            messages.iter().for_each(|message| weights.add(message));
            messages.iter().rev().for_each(|message| weights.remove(message));
            prop_assert_eq!(weights.bytes, 0);
            prop_assert!(weights.blocks.is_empty());
        }

        /// A consumer that always takes what has arrived gets through any input, whatever the limits.
        #[test]
        fn nothing_untaken_means_room(
            workers in 1usize..9, chunk in prop::option::of(1usize..50), most in prop::option::of(1usize..50), nanos in 0u64..10_000_000,
        ) {
            let mut ahead = Ahead::new(workers, chunk, most, false);
            let mut pace = Pace::default();
            for _ in 0..20 {
                let room = ahead.room(&pace, 0, 0, 0);
                prop_assert!(room > 0);
                ahead.read(room);
                prop_assert!(most.is_none_or(|most| room <= most.max(chunk.unwrap_or(1))));
                pace.measured(room, nanos * room as u64);
                ahead.arrived(room, &Weight::default(), &Weight { bytes: 1 << 30, blocks: vec![] });
                ahead.taken(room);
                ahead.let_go(&Weight { bytes: 1 << 30, blocks: vec![] });
            }
        }
    }

    #[test]
    fn a_block_in_many_messages_weighs_nothing() {
        let mut ahead = Ahead::new(2, None, None, false);
        for _ in 0..10 {
            ahead.read(1);
            ahead.sent(&Weight { bytes: 10, blocks: vec![(block(1), BYTES * 2)] });
        }
        assert!(!ahead.is_heavy());
        ahead.read(1);
        ahead.sent(&Weight { bytes: 10, blocks: vec![(block(2), BYTES)] });
        assert!(ahead.is_heavy());
    }

    #[test]
    fn heavy_results_leave_a_task_for_each_worker() {
        let mut ahead = Ahead::new(2, None, None, false);
        let pace = Pace::default();
        for waiting in 0..2 {
            assert!(ahead.room(&pace, 0, 100, waiting) > 0);
            ahead.read(1);
            ahead.arrived(1, &Weight::default(), &Weight { bytes: BYTES, blocks: vec![] });
        }
        assert_eq!(ahead.room(&pace, 0, 100, 2), 0);
    }
}
