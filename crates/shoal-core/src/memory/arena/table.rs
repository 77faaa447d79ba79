//! What an arena knows of one of its segments: what each line of its table describes, and which granules of its data have
//! pages.

use std::ops::Range as Span;
use std::sync::Arc;

use super::super::segment::{GRANULE, Segment};
use super::super::space::Range;

/// A segment of the arena.
pub(super) struct Table {
    pub(super) segment: Arc<Segment>,
    /// Lines of the segment's table that describe nothing.
    pub(super) free: Vec<u32>,
    /// What each line describes. Known here, as anybody may scribble over the table itself.
    pub(super) lines: Vec<Line>,
    /// The segment's count of marks when it was last looked through.
    pub(super) seen: u32,
    /// Of a segment of cells: bytes of the room that each has.
    pub(super) cells: Option<u64>,
    pub(super) granules: Vec<Granule>,
}

/// A block's offset and length; `NOTHING`, `CELL`, or `LEFT`.
pub(super) type Line = (u64, u64);
pub(super) const NOTHING: Line = (0, 0);
pub(super) const CELL: Line = (0, 1);
/// A cell with a room that is to be cleared.
pub(super) const LEFT: Line = (0, 2);

#[derive(Clone, Copy, Default)]
pub(super) struct Granule {
    pub(super) released: bool,
    /// The age of the arena when something of it was last handed out or freed.
    pub(super) used_at: u32,
}

impl Table {
    pub(super) fn new(segment: Arc<Segment>, entries: u32, cells: Option<u64>, age: u32) -> Table {
        let backed = segment.len() - segment.released();
        let granule = |index| Granule { released: segment.unit(index).start >= backed, used_at: age };
        let granules = (0..segment.granules()).map(granule).collect();
        Table {
            free: (0..entries).rev().collect(),
            lines: vec![NOTHING; entries as usize],
            seen: 0,
            cells,
            granules,
            segment,
        }
    }

    /// The runs of those among `range` that `which` says.
    pub(super) fn runs(&self, range: Span<usize>, which: impl Fn(&Granule) -> bool) -> Vec<Span<usize>> {
        let mut runs: Vec<Span<usize>> = vec![];
        for index in range.filter(|&index| which(&self.granules[index])) {
            match runs.last_mut() {
                Some(run) if run.end == index => run.end += 1,
                _ => runs.push(index..index + 1),
            }
        }
        runs
    }

    pub(super) fn range(&self, granules: &Span<usize>) -> Range {
        let (first, last) = (self.segment.unit(granules.start), self.segment.unit(granules.end - 1));
        Range { segment: self.segment.id(), start: first.start, end: last.end }
    }

    /// The granules whose data lies in these bytes whole.
    pub(super) fn whole(&self, start: u64, end: u64) -> Span<usize> {
        let mut inside = granules(start, end);
        while !inside.is_empty() && self.segment.unit(inside.start).start < start {
            inside.start += 1;
        }
        while !inside.is_empty() && self.segment.unit(inside.end - 1).end > end {
            inside.end -= 1;
        }
        inside
    }
}

/// Notes that something happens in these bytes.
pub(super) fn touch(all: &mut [Granule], start: u64, len: u64, age: u32) {
    for granule in &mut all[granules(start, start + len)] {
        granule.used_at = age;
    }
}

/// The granules that these bytes touch.
pub(super) fn granules(start: u64, end: u64) -> Span<usize> {
    (start / GRANULE) as usize..end.div_ceil(GRANULE) as usize
}
