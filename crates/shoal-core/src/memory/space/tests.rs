//! The specification of [`Space`]: single behaviours, then random histories against a simple model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::extents::Extent;
use super::*;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

fn space_of(len: u64) -> Space {
    let mut space = Space::new();
    space.add_segment(0, 0, len);
    space
}

/// What the extents must always satisfy: they tile every segment, the indices hold the free ones and nothing else, and
/// a segment counts as busy by what is in use in it.
fn check(space: &Space) {
    let mut tiles: BTreeMap<(u32, u32), &Extent> = BTreeMap::new();
    let (mut free, mut pages, mut used, mut pieces) = (0, 0, 0, 0);
    for (id, extent) in &space.extents.all {
        assert!(tiles.insert((extent.segment, extent.first), extent).is_none());
        assert_eq!(space.extents.find(extent.segment, u64::from(extent.first) * PAGE), Some(id as u32));
        pages += u64::from(extent.pages);
        match &extent.usage {
            Use::Free { .. } => free += 1,
            Use::Piece => (used, pieces) = (used + u64::from(extent.pages) * PAGE, pieces + 1),
            Use::Span(span) => (used, pieces) = (used + span.live() * span.size(), pieces + span.live()),
        }
    }
    let stats = space.stats();
    assert_eq!((stats.free_extents, stats.capacity), (free, pages * PAGE));
    assert_eq!((stats.used, stats.pieces), (used, pieces));
    let settled = |extent: &Extent| match extent.usage {
        Use::Free { settled: true, cold, .. } => Some(cold),
        _ => None,
    };
    for ((_, left), (_, right)) in tiles.iter().zip(tiles.iter().skip(1)) {
        if left.segment == right.segment {
            assert_eq!(left.end(), right.first, "extents overlap or leave a gap");
            assert!(
                settled(left).is_none() || settled(left) != settled(right),
                "two settled neighbours: {left:?} {right:?}"
            );
        }
    }
    for segment in space.empty_segments() {
        let unused = |extent: &&Extent| match &extent.usage {
            Use::Free { .. } => true,
            Use::Piece => false,
            Use::Span(span) => span.live() == 0,
        };
        assert!(space.extents.all.iter().map(|(_, e)| e).filter(|e| e.segment == segment).all(|e| unused(&e)));
    }
}

#[test]
fn a_space_without_segments_hands_out_nothing() {
    let mut space = Space::new();
    assert_eq!(space.allocate(1), None);
    assert_eq!(space.allocate(u64::MAX), None);
    assert_eq!(space.stats(), SpaceStats::default());
    assert_eq!(space.empty_segments().count(), 0);
}

#[test]
fn nothing_is_handed_out_of_what_lies_before_start_or_after_end() {
    let mut space = Space::new();
    space.add_segment(7, 3 * PAGE, 5 * PAGE);
    let piece = space.allocate(2 * PAGE).unwrap();
    assert_eq!(piece, Piece { segment: 7, offset: 3 * PAGE, len: 2 * PAGE });
    assert_eq!(space.allocate(1), None);
    for offset in [0, 2 * PAGE, 5 * PAGE, u64::MAX] {
        assert_eq!(space.free(7, offset), Err(NotAllocated { segment: 7, offset }));
        assert_eq!(space.len_of(7, offset), None);
    }
}

#[test]
fn zero_bytes_count_as_one() {
    let mut space = space_of(MIB);
    let (none, one) = (space.allocate(0).unwrap(), space.allocate(1).unwrap());
    assert_eq!((none.len, one.len), (64, 64));
    assert_ne!(none.offset, one.offset);
}

#[test]
fn a_full_segment_can_be_used_to_its_last_byte_and_no_further() {
    for len in [64, 80, 4 * KIB, 32 * KIB, 64 * KIB, 16 * MIB] {
        let mut space = space_of(16 * MIB);
        let pieces: Vec<Piece> = std::iter::from_fn(|| space.allocate(len)).collect();
        let left = space.stats().capacity - space.stats().used;
        assert!(left < 16 * KIB, "{left} bytes could not be handed out in pieces of {len}");
        assert_eq!(pieces.len() as u64, space.stats().pieces);
        check(&space);
    }
}

#[test]
fn a_segment_as_long_as_the_piece_is_enough() {
    for len in [1, 5000, 28 * KIB, 33 * KIB, 3 * MIB] {
        let mut space = space_of(len.next_multiple_of(PAGE));
        assert!(space.allocate(len).is_some(), "{len}");
    }
}

#[test]
fn extents_of_two_mebibytes_or_more_are_aligned_if_there_is_room_for_that() {
    let mut space = Space::new();
    space.add_segment(0, PAGE, 8 * MIB);
    let aligned: Vec<u64> = (0..3).map(|_| space.allocate(2 * MIB).unwrap().offset).collect();
    assert_eq!(aligned, [2 * MIB, 4 * MIB, 6 * MIB]);
    assert_eq!(space.allocate(2 * MIB), None);

    let mut space = Space::new();
    space.add_segment(0, PAGE, 3 * MIB);
    assert_eq!(space.allocate(2 * MIB).unwrap().offset, PAGE, "unaligned rather than not at all");
}

#[test]
fn an_aligned_place_that_only_coalescing_makes_is_preferred_to_an_unaligned_one() {
    let mut space = space_of(12 * MIB);
    for _ in 0..12 {
        space.allocate(MIB).unwrap();
    }
    for settled in [9, 10] {
        space.free(0, settled * MIB).unwrap();
    }
    space.trim();
    for recent in [4, 5] {
        space.free(0, recent * MIB).unwrap();
    }
    assert_eq!(space.allocate(2 * MIB).unwrap().offset, 4 * MIB);
    assert_eq!(space.allocate(2 * MIB).unwrap().offset, 9 * MIB);
}

#[test]
fn the_tightest_hole_is_used_and_among_equal_ones_the_last_freed() {
    let mut space = space_of(16 * MIB);
    let mut hole = |len: u64| {
        let hole = space.allocate(len).unwrap();
        space.allocate(64 * KIB).unwrap();
        hole
    };
    let (large, first, second) = (hole(400 * KIB), hole(200 * KIB), hole(200 * KIB));
    for piece in [second, first, large] {
        space.free(0, piece.offset).unwrap();
    }
    space.trim();
    assert_eq!(space.allocate(150 * KIB).unwrap().offset, first.offset);
    assert_eq!(space.allocate(200 * KIB), Some(second));
    assert_eq!(space.allocate(300 * KIB).unwrap().offset, large.offset);
}

#[test]
fn pieces_freed_one_after_the_other_come_back_in_reverse_order() {
    // Small enough for one span, few enough for what is kept from coalescing.
    for len in [64, 1000, 8 * KIB, 100 * KIB, 2 * MIB, 3 * MIB] {
        let mut space = space_of(64 * MIB);
        let pieces: Vec<Piece> = (0..8).map(|_| space.allocate(len).unwrap()).collect();
        for piece in &pieces {
            space.free(0, piece.offset).unwrap();
        }
        let again: Vec<Piece> = (0..8).map(|_| space.allocate(len).unwrap()).collect();
        assert!(again.iter().eq(pieces.iter().rev()), "pieces of {len}");
    }
}

#[test]
fn a_hole_is_as_recent_as_its_most_recently_freed_part() {
    let mut space = space_of(4 * MIB);
    let pieces: Vec<Piece> = (0..8).map(|_| space.allocate(100 * KIB).unwrap()).collect();
    for at in [1, 2, 5, 4] {
        space.free(0, pieces[at].offset).unwrap();
    }
    space.trim();
    assert_eq!(space.allocate(200 * KIB).unwrap().offset, pieces[4].offset);
    assert_eq!(space.allocate(200 * KIB).unwrap().offset, pieces[1].offset);
}

#[test]
fn the_small_piece_freed_last_comes_back_first_whichever_span_it_is_in() {
    let mut space = space_of(4 * MIB);
    // Four pieces of 16 KiB make a span.
    let pieces: Vec<Piece> = (0..12).map(|_| space.allocate(16 * KIB).unwrap()).collect();
    for at in [0, 4, 8, 5, 1] {
        space.free(0, pieces[at].offset).unwrap();
        check(&space);
    }
    assert_eq!(space.allocate(16 * KIB), Some(pieces[1]));
}

#[test]
fn a_double_free_is_refused_and_changes_nothing() {
    for len in [1, 20 * KIB, 100 * KIB] {
        let mut space = space_of(4 * MIB);
        let (kept, freed) = (space.allocate(len).unwrap(), space.allocate(len).unwrap());
        assert_eq!(space.free(0, freed.offset), Ok(freed.len));
        let before = space.stats();
        let error = space.free(0, freed.offset).unwrap_err();
        assert_eq!(error, NotAllocated { segment: 0, offset: freed.offset });
        assert!(error.to_string().contains("freed before"), "{error}");
        assert_eq!(space.stats(), before);
        assert_eq!(space.len_of(0, kept.offset), Some(kept.len));
        check(&space);
    }
}

#[test]
fn freeing_inside_a_piece_is_refused() {
    for len in [64, 20 * KIB, 100 * KIB] {
        let mut space = space_of(4 * MIB);
        let piece = space.allocate(len).unwrap();
        for inside in [1, 16, 63, len / 2, len - 1] {
            assert!(space.free(0, piece.offset + inside).is_err());
            assert_eq!(space.len_of(0, piece.offset + inside), None);
        }
        assert_eq!(space.free(0, piece.offset), Ok(piece.len));
    }
}

#[test]
fn a_segment_in_use_is_neither_empty_nor_removable() {
    for len in [64, 100 * KIB] {
        let mut space = space_of(MIB);
        space.add_segment(1, 0, PAGE);
        let piece = space.allocate(len).unwrap();
        assert_eq!(space.empty_segments().collect::<Vec<_>>(), [1 - piece.segment]);
        assert_eq!(space.remove_segment(piece.segment), Err(InUse { segment: piece.segment }));
        space.free(piece.segment, piece.offset).unwrap();
        assert_eq!(space.empty_segments().collect::<Vec<_>>(), [0, 1]);
        assert_eq!((space.remove_segment(0), space.remove_segment(1)), (Ok(()), Ok(())));
        assert_eq!(space.stats(), SpaceStats::default());
        assert_eq!(
            space.free(piece.segment, piece.offset),
            Err(NotAllocated { segment: piece.segment, offset: piece.offset })
        );
    }
}

#[test]
fn a_segment_name_can_be_used_again_after_removal() {
    let mut space = space_of(MIB);
    space.remove_segment(0).unwrap();
    space.add_segment(0, PAGE, 2 * PAGE);
    assert_eq!(space.allocate(PAGE).unwrap().offset, PAGE);
}

#[test]
#[should_panic(expected = "segment 3: start must be a multiple of 4096, not 100")]
fn a_start_within_a_page_is_a_mistake() {
    Space::new().add_segment(3, 100, PAGE);
}

#[test]
#[should_panic(expected = "segment 3: end must be a multiple of 4096, not 5000")]
fn an_end_within_a_page_is_a_mistake() {
    Space::new().add_segment(3, 0, 5000);
}

#[test]
#[should_panic(expected = "end must lie after start")]
fn a_segment_of_no_bytes_is_a_mistake() {
    Space::new().add_segment(3, PAGE, PAGE);
}

#[test]
#[should_panic(expected = "segment 0 was added before")]
fn adding_a_segment_twice_is_a_mistake() {
    space_of(PAGE).add_segment(0, 0, PAGE);
}

#[test]
#[should_panic(expected = "segment 9 can't be removed: it was never added")]
fn removing_an_unknown_segment_is_a_mistake() {
    let _ = Space::new().remove_segment(9);
}

#[test]
fn a_million_small_pieces_cost_at_most_sixteen_private_bytes_each() {
    for len in [64, 200, 1024] {
        let mut space = space_of(2048 * MIB);
        for _ in 0..1_000_000 {
            space.allocate(len).unwrap();
        }
        let links = |extent: &Extent| if let Use::Span(span) = &extent.usage { span.private_bytes() } else { 0 };
        let spans: usize = space.extents.all.iter().map(|(_, extent)| links(extent)).sum();
        let slab = space.extents.all.capacity() * size_of::<Extent>();
        let table = space.stats().used.div_ceil(PAGE) as usize * size_of::<u32>();
        let each = (spans + slab + table) as f64 / 1e6;
        assert!(each <= 16.0, "{each} bytes for each piece of {len}");
    }
}

/// What can happen to a space. Numbers that choose among what is there are taken modulo how much there is.
#[derive(Clone, Debug)]
enum Step {
    Allocate(u64),
    AllocateLeasable(u64),
    Free(usize),
    FreeAndAllocate(usize),
    FreeTwice(usize),
    FreeNonsense(u32, u64),
    AddSegment(u64, u64),
    RemoveSegment(u32),
    Trim,
    SetFull(u32, bool),
    /// Of a free range some pages from the n-th on.
    Cool(usize, u64, u64),
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![0..=200u64, 0..=40 * KIB, 30 * KIB..=300 * KIB, MIB..=5 * MIB, (0..=22u32).prop_map(|bits| 1 << bits)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => length().prop_map(Step::Allocate),
        4 => length().prop_map(Step::AllocateLeasable),
        8 => any::<usize>().prop_map(Step::Free),
        2 => any::<usize>().prop_map(Step::FreeAndAllocate),
        1 => any::<usize>().prop_map(Step::FreeTwice),
        1 => (0..9u32, 0..8 * MIB).prop_map(|(segment, offset)| Step::FreeNonsense(segment, offset)),
        1 => (0..4u64, 1..2500u64).prop_map(|(first, pages)| Step::AddSegment(first, pages)),
        1 => (0..9u32).prop_map(Step::RemoveSegment),
        1 => Just(Step::Trim),
        1 => (0..9u32, any::<bool>()).prop_map(|(segment, full)| Step::SetFull(segment, full)),
        3 => (any::<usize>(), 0..600u64, 1..600u64).prop_map(|(choice, first, pages)| Step::Cool(choice, first, pages)),
    ]
}

/// The plain truth: which pieces are in use, and what the segments' bounds are.
#[derive(Default)]
struct Model {
    space: Space,
    pieces: BTreeMap<(u32, u64), u64>,
    segments: BTreeMap<u32, (u64, u64)>,
    full: BTreeSet<u32>,
    /// Pages that are missing.
    cold: BTreeSet<(u32, u64)>,
    named: u32,
}

impl Model {
    fn add_segment(&mut self, start: u64, end: u64) {
        self.space.add_segment(self.named, start, end);
        self.segments.insert(self.named, (start, end));
        self.named += 1;
    }

    fn allocate(&mut self, len: u64) -> Option<Piece> {
        let Some(piece) = self.space.allocate(len) else {
            assert!(self.space.stats().largest_free < len.max(1), "{len} bytes would have fitted");
            return None;
        };
        assert!(piece.len <= 64 || piece.len * 4 <= len * 5, "{} bytes granted for {len}", piece.len);
        self.take(len, piece);
        Some(piece)
    }

    fn allocate_leasable(&mut self, len: u64) {
        let Some(piece) = self.space.allocate_leasable(len) else {
            let fits = |range: Range| range.end - range.start >= len.max(1) && !self.full.contains(&range.segment);
            assert!(!self.space.free_ranges().any(fits), "{len} bytes would have fitted");
            return;
        };
        assert!(!self.full.contains(&piece.segment), "{piece:?} is in a segment that is full");
        assert_eq!((piece.offset % PAGE, piece.len), (0, len.max(1).next_multiple_of(PAGE)));
        self.take(len, piece);
    }

    fn take(&mut self, len: u64, piece: Piece) {
        let Piece { segment, offset, len: granted } = piece;
        if let Some(thawed) = self.space.thawed() {
            assert!(thawed.segment == segment && thawed.start <= offset && offset + granted <= thawed.end);
            self.cold.retain(|(of, page)| *of != segment || !(thawed.start..thawed.end).contains(page));
        }
        assert!(granted >= len);
        let missing = self.cold.range((segment, offset / PAGE * PAGE)..(segment, offset + granted)).next();
        assert_eq!(missing, None, "{piece:?} lies where pages are missing, and nobody was told");
        assert_eq!(offset % 16, 0);
        assert!(granted % 64 != 0 || offset % 64 == 0, "{piece:?} is not aligned to a cache line");
        assert!(granted <= 32 * KIB || (granted % PAGE == 0 && offset % PAGE == 0), "{piece:?} is not whole pages");
        let (start, end) = self.segments[&segment];
        assert!(start <= offset && offset + granted <= end, "{piece:?} is not within {start}..{end}");
        if let Some((&(_, before), len)) = self.pieces.range((segment, 0)..(segment, offset)).next_back() {
            assert!(before + len <= offset, "{piece:?} overlaps the piece at {before}");
        }
        if let Some((&(_, after), _)) = self.pieces.range((segment, offset)..=(segment, u64::MAX)).next() {
            assert!(offset + granted <= after, "{piece:?} overlaps the piece at {after}");
        }
        self.pieces.insert((segment, offset), granted);
    }

    fn cool(&mut self, choice: usize, first: u64, pages: u64) {
        self.space.trim();
        let ranges: Vec<Range> = self.space.free_ranges().collect();
        let Some(&Range { segment, start, end }) = ranges.get(choice % ranges.len().max(1)) else { return };
        let from = start + first * PAGE;
        let to = (from + pages * PAGE).min(end);
        if from < to {
            self.space.cool(start, Range { segment, start: from, end: to });
            self.cold.extend((from..to).step_by(PAGE as usize).map(|page| (segment, page)));
        }
    }

    fn chosen(&self, choice: usize) -> Option<Piece> {
        let (&(segment, offset), &len) = self.pieces.iter().nth(choice % self.pieces.len().max(1))?;
        Some(Piece { segment, offset, len })
    }

    fn free(&mut self, piece: Piece) {
        assert_eq!(self.space.len_of(piece.segment, piece.offset), Some(piece.len));
        assert_eq!(self.space.free(piece.segment, piece.offset), Ok(piece.len));
        assert_eq!(self.space.len_of(piece.segment, piece.offset), None);
        self.pieces.remove(&(piece.segment, piece.offset));
    }

    fn free_what_is_not_allocated(&mut self, segment: u32, offset: u64) {
        let before = self.space.stats();
        assert_eq!(self.space.free(segment, offset), Err(NotAllocated { segment, offset }));
        assert_eq!(self.space.stats(), before);
    }

    fn remove_segment(&mut self, segment: u32) {
        let busy = self.pieces.range((segment, 0)..=(segment, u64::MAX)).next().is_some();
        if busy {
            assert_eq!(self.space.remove_segment(segment), Err(InUse { segment }));
        } else {
            assert_eq!(self.space.remove_segment(segment), Ok(()));
            self.segments.remove(&segment);
            self.full.remove(&segment);
            self.cold.retain(|(of, _)| *of != segment);
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Allocate(len) => drop(self.allocate(len)),
            Step::Free(choice) => {
                if let Some(piece) = self.chosen(choice) {
                    self.free(piece);
                }
            }
            Step::FreeAndAllocate(choice) => {
                if let Some(piece) = self.chosen(choice) {
                    self.free(piece);
                    let again = self.allocate(piece.len);
                    // An unaligned large place is left for an aligned one, if there is one by now. A short piece of
                    // whole pages may have been made to be leased, and the next of its length is a slot of a span.
                    let aligned = piece.len < 2 * MIB || piece.offset % (2 * MIB) == 0;
                    if aligned && (piece.len > 32 * KIB || piece.len % PAGE != 0) {
                        assert_eq!(again, Some(piece), "the last one freed is the first one reused");
                    }
                }
            }
            Step::FreeTwice(choice) => {
                if let Some(piece) = self.chosen(choice) {
                    self.free(piece);
                    self.free_what_is_not_allocated(piece.segment, piece.offset);
                }
            }
            Step::FreeNonsense(segment, offset) => {
                if !self.pieces.contains_key(&(segment, offset)) {
                    self.free_what_is_not_allocated(segment, offset);
                }
            }
            Step::AddSegment(first, pages) => self.add_segment(first * PAGE, (first + pages) * PAGE),
            Step::RemoveSegment(segment) if self.segments.contains_key(&segment) => self.remove_segment(segment),
            Step::RemoveSegment(_) => {}
            Step::Trim => self.space.trim(),
            Step::AllocateLeasable(len) => self.allocate_leasable(len),
            Step::SetFull(segment, full) if self.segments.contains_key(&segment) => {
                self.space.set_full(segment, full);
                if full {
                    self.full.insert(segment)
                } else {
                    self.full.remove(&segment)
                };
            }
            Step::SetFull(..) => {}
            Step::Cool(choice, first, pages) => self.cool(choice, first, pages),
        }
        self.check();
    }

    fn check(&self) {
        check(&self.space);
        let stats = self.space.stats();
        assert_eq!(stats.segments, self.segments.len() as u64);
        assert_eq!(stats.capacity, self.segments.values().map(|(start, end)| end - start).sum::<u64>());
        assert_eq!(stats.used, self.pieces.values().sum::<u64>());
        assert_eq!(stats.pieces, self.pieces.len() as u64);
        let busy = |segment: u32| self.pieces.range((segment, 0)..=(segment, u64::MAX)).next().is_some();
        assert!(self.space.empty_segments().eq(self.segments.keys().copied().filter(|&segment| !busy(segment))));
    }

    /// Frees everything that is left, and looks whether the space is as if nothing had ever been.
    fn finish(mut self, choices: &[usize]) {
        for &choice in choices.iter().cycle() {
            let Some(piece) = self.chosen(choice) else { break };
            self.free(piece);
        }
        self.space.trim();
        self.space.extents.mix();
        self.check();
        let longest = self.segments.values().map(|(start, end)| end - start).max();
        let stats = self.space.stats();
        assert_eq!((stats.used, stats.pieces), (0, 0));
        assert_eq!((stats.free_extents, stats.largest_free), (stats.segments, longest.unwrap_or(0)));
        for segment in self.segments.keys().copied().collect::<Vec<_>>() {
            self.remove_segment(segment);
        }
        assert_eq!(self.space.stats(), SpaceStats::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_history_agrees_with_the_model(steps in vec(step(), 1..200), choices in vec(any::<usize>(), 16)) {
        let mut model = Model::default();
        model.add_segment(PAGE, 12 * MIB);
        for step in steps {
            model.apply(step);
        }
        model.finish(&choices);
    }

    #[test]
    fn any_history_of_one_size_agrees_with_the_model(
        len in length(),
        // Mostly allocations, so that spans and segments fill up.
        choices in vec((any::<usize>(), 0..3u8), 1..300),
    ) {
        let mut model = Model::default();
        model.add_segment(0, 4 * MIB);
        for &(choice, kind) in &choices {
            model.apply(if kind == 0 { Step::Free(choice) } else { Step::Allocate(len) });
        }
        model.finish(&[choices[0].0]);
    }
}
