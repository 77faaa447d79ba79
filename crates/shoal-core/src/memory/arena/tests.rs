//! Whether the arena stays in proportion to what is in use: histories of calls against a model of its growth.

use proptest::prelude::*;

use super::*;
use crate::memory::segment::GRANULE;

const MIB: u64 = 1 << 20;

/// An arena without memory: segments as it would make them. Nothing is ever given back.
#[derive(Default)]
struct Model {
    space: Space,
    /// The part of each segment that has pages.
    backed: Vec<Vec<bool>>,
}

impl Model {
    fn allocate(&mut self, len: u64) -> Piece {
        let piece = self.space.allocate_leasable(len).unwrap_or_else(|| {
            let (plan, id) = (Plan::new(self.space.stats().used, len), self.backed.len() as u32);
            self.space.add_segment(id, 0, plan.data);
            let backed = plan.backed.next_multiple_of(GRANULE).min(plan.data);
            if backed < plan.data {
                self.space.cool(0, Range { segment: id, start: backed, end: plan.data });
            }
            self.backed.push((0..plan.data.div_ceil(GRANULE)).map(|granule| granule * GRANULE < backed).collect());
            self.space.allocate_leasable(len).expect("made for it")
        });
        if let Some(range) = self.space.thawed() {
            self.backed[range.segment as usize][granules(range.start, range.end)].fill(true);
        }
        piece
    }

    fn resident(&self) -> u64 {
        self.backed.iter().flatten().filter(|backed| **backed).count() as u64 * GRANULE
    }
}

/// Calls with random lengths, of which so many are under way at a time, in any order of their ends.
fn calls(mut random: impl FnMut(u64) -> u64, calls: usize, at_a_time: usize, most: u64) -> (u64, u64, u64) {
    let (mut model, mut held): (Model, Vec<Piece>) = Default::default();
    let (mut after_some, mut peak, mut in_use) = (0, 0, 0);
    for call in 0..calls {
        if held.len() == at_a_time {
            let piece = held.swap_remove(random(at_a_time as u64) as usize);
            in_use -= model.space.free(piece.segment, piece.offset).expect("in use");
        }
        let piece = model.allocate(1 + random(most));
        in_use += piece.len;
        peak = peak.max(in_use);
        held.push(piece);
        if call == calls / 100 {
            after_some = model.resident();
        }
    }
    (after_some, model.resident(), peak)
}

fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed | 1;
    move |end| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % end
    }
}

#[test]
fn a_hundred_thousand_calls_take_what_the_first_thousand_took() {
    for (at_a_time, most) in [(1, 200 * MIB), (2, 200 * MIB), (8, 200 * MIB), (50, 10 * MIB), (100, 100_000)] {
        // Many at a time are slow in a build for tests, and quick to become what they will be.
        let (after_some, end, peak) = calls(random(9), 100_000 / at_a_time.min(8), at_a_time, most);
        assert!(end <= after_some + after_some / 4 + 4 * MIB, "{at_a_time} of {most}: {after_some}, then {end}");
        assert!(end <= 2 * peak + 4 * MIB, "{at_a_time} of {most}: {end} for {peak} in use at most");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn memory_stays_in_proportion_to_what_was_in_use(seed: u64, at_a_time in 1..20_usize, bits in 16..28_u32) {
        let (_, end, peak) = calls(random(seed), 5_000, at_a_time, 1 << bits);
        prop_assert!(end <= 3 * peak + 8 * MIB, "{end} for {peak} in use at most");
    }

    #[test]
    fn every_plan_has_room_for_its_piece(used: u64, len in prop_oneof![1..1_u64 << 30, any::<u64>()]) {
        let (plan, exact) = (Plan::new(used, len), Plan::exact(len));
        prop_assume!(len < 1 << 62);
        prop_assert!(plan.data >= plan.backed && plan.backed >= exact.data && exact.data >= len);
    }
}

#[test]
fn tables_are_dense_for_small_segments_and_sparse_for_long_ones() {
    assert_eq!(entries_for(4096), 1);
    assert_eq!(entries_for(64 * MIB), 16_384);
    assert_eq!(entries_for(1024 * MIB), 16_384 + 960 * 256 / 32);
}
