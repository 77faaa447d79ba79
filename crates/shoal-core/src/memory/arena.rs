//! The arena: a process's own segments, and which of their bytes are in use. Private bookkeeping.
//!
//! What is free for a while goes back to the system, granule by granule, and is fetched again before it is handed
//! out: see `docs/design/memory.md`. A granule in whose data nothing is in use is touched by nobody, as each process
//! faults in only the granules of blocks that it uses.

mod plan;
mod table;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

pub(super) use self::plan::entries_for;
use self::plan::{PAGE, Plan};
use self::table::{CELL, Granule, LEFT, Line, NOTHING, Table, granules, touch};
use super::block::Lease;
use super::heap::{Source, key};
use super::segment::Segment;
use super::size_class;
use super::space::{Piece, Range, Space};
use crate::error::{Error, Result};

/// The age that an arena never reaches.
pub(super) const ALWAYS: u32 = u32::MAX;
/// A segment of cells has as many as all others like it together, within these limits: a descriptor each.
const CELLS: std::ops::RangeInclusive<u32> = 128..=1 << 14;
/// How many freed pieces are kept at hand.
const QUICK: usize = 8;
/// How often to look for what was free all the time since the look before: it has been free for one to two of these.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// The arena.
#[derive(Default)]
pub(super) struct Arena {
    space: Space,
    tables: FxHashMap<u32, Table>,
    /// Pieces that were freed last, still allocated as `space` sees it: who frees a length mostly asks for the same
    /// again.
    quick: Vec<Piece>,
    /// What the heap is to do when the arena is unlocked.
    aftermath: Aftermath,
    /// What is held by each envelope, as long as it is open.
    enclosed: FxHashMap<u64, Vec<Lease>>,
    /// Counts the looks.
    age: u32,
    looked: Option<Instant>,
    /// Whether something may have become free since the last look, or was found then that may be given back.
    restless: bool,
    /// Whether somebody comes to look again by itself.
    expected: bool,
}

/// What follows from a change of the arena, to be done when it is unlocked.
#[derive(Default)]
pub(super) struct Aftermath {
    /// Segments that it has got.
    pub(super) added: Vec<Arc<Segment>>,
    /// Rooms that nobody holds any more. Their lines are free once they have been cleared: see [`Arena::vacate`].
    pub(super) left: Vec<(Arc<Segment>, u32)>,
    /// What closed envelopes have held.
    pub(super) parting: Vec<Lease>,
}

/// What an arena holds. Lengths are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    /// Handed out.
    pub(super) used: u64,
    /// Neither handed out nor given back.
    pub(super) free: u64,
}

impl Arena {
    /// Hands out a piece; a `leasable` one has whole pages and a line of its segment's table left for it.
    pub(super) fn cut(&mut self, source: &dyn Source, len: u64, leasable: bool) -> Result<Piece> {
        self.sweep();
        let piece = match self.at_hand(len, leasable) {
            Some(piece) => piece,
            None => self.look_for(source, len, leasable)?,
        };
        let age = self.age;
        touch(&mut self.table(piece.segment).granules, piece.offset, piece.len, age);
        Ok(piece)
    }

    /// A piece of just that length that was freed a moment ago.
    fn at_hand(&mut self, len: u64, leasable: bool) -> Option<Piece> {
        let len = len.checked_next_multiple_of(PAGE)?;
        let fits = |piece: &Piece| piece.len == len && !(leasable && self.tables[&piece.segment].free.is_empty());
        let index = self.quick.iter().rposition(fits)?;
        Some(self.quick.remove(index))
    }

    fn look_for(&mut self, source: &dyn Source, len: u64, leasable: bool) -> Result<Piece> {
        let mut found = self.find(len, leasable);
        let mut missing = self.space.thawed();
        if (found.is_none() || missing.is_some()) && !self.quick.is_empty() {
            // What is at hand may make room, or room that is resident.
            if let Some(piece) = found {
                self.take_back(piece, missing);
            }
            self.settle();
            found = self.find(len, leasable);
            missing = self.space.thawed();
        }
        if found.is_none() {
            self.grow(source, len)?;
            found = self.find(len, leasable);
            missing = self.space.thawed();
        }
        let piece = found.ok_or(Error::Damaged("arena"))?;
        if let Some(range) = missing {
            self.thaw(source, piece, range)?;
        }
        Ok(piece)
    }

    /// Takes back a piece just cut, for which some pages of `missing` would have to be fetched.
    fn take_back(&mut self, piece: Piece, missing: Option<Range>) {
        let freed = self.space.free(piece.segment, piece.offset);
        debug_assert!(freed.is_ok(), "just handed out: {piece:?}");
        if let Some(range) = missing {
            self.space.trim();
            self.space.cool(range.start, range);
        }
    }

    /// Frees what is kept at hand.
    fn settle(&mut self) {
        for piece in std::mem::take(&mut self.quick) {
            let freed = self.space.free(piece.segment, piece.offset);
            debug_assert!(freed.is_ok(), "kept at hand: {piece:?}");
        }
    }

    fn find(&mut self, len: u64, leasable: bool) -> Option<Piece> {
        if leasable { self.space.allocate_leasable(len) } else { self.space.allocate(len) }
    }

    fn table(&mut self, segment: u32) -> &mut Table {
        self.tables.get_mut(&segment).expect("pieces come from segments with tables")
    }

    /// What follows from all that was done since this was asked last.
    pub(super) fn aftermath(&mut self) -> Aftermath {
        std::mem::take(&mut self.aftermath)
    }

    /// The segment of that number, one of its own.
    pub(super) fn segment(&mut self, id: u32) -> Arc<Segment> {
        self.table(id).segment.clone()
    }

    /// A line for a leasable piece just cut from the segment.
    pub(super) fn line(&mut self, piece: Piece) -> (Arc<Segment>, u32) {
        self.take_line(piece.segment, (piece.offset, piece.len))
    }

    fn take_line(&mut self, segment: u32, line: Line) -> (Arc<Segment>, u32) {
        let Arena { tables, space, .. } = self;
        let table = tables.get_mut(&segment).expect("pieces come from segments with tables");
        let index = table.free.pop().expect("a segment without lines is full, and takes no leasable pieces");
        if table.free.is_empty() && table.cells.is_none() {
            space.set_full(segment, true);
        }
        table.lines[index as usize] = line;
        table.segment.use_entry(index);
        (table.segment.clone(), index)
    }

    /// A line for a cell with a room of so many bytes, and where that lies.
    pub(super) fn cell(&mut self, source: &dyn Source, room: u64) -> Result<(Arc<Segment>, u32, u64)> {
        self.sweep();
        let alike = || self.tables.values().filter(|table| table.cells == Some(room));
        let id = match alike().find(|table| !table.free.is_empty()) {
            Some(table) => table.segment.id(),
            None => {
                let count = alike().map(|table| table.lines.len() as u32).sum::<u32>();
                let count = count.clamp(*CELLS.start(), *CELLS.end());
                self.add(source, Plan::rooms(u64::from(count) * room), count, Some(room), true)?
            }
        };
        let (segment, index) = self.take_line(id, CELL);
        let offset = segment.data_at() + u64::from(index) * room;
        Ok((segment, index, offset))
    }

    /// The room of a cell that was left has been cleared: its line is free.
    pub(super) fn vacate(&mut self, segment: u32, index: u32) {
        let table = self.table(segment);
        table.segment.entries()[index as usize].retire();
        table.lines[index as usize] = NOTHING;
        table.free.push(index);
    }

    /// Rooms that were left and could not be cleared.
    pub(super) fn clear_later(&mut self, left: Vec<(Arc<Segment>, u32)>) {
        self.aftermath.left.extend(left);
    }

    /// An envelope just written holds these as long as it is open.
    pub(super) fn enclose(&mut self, segment: u32, index: u32, leases: Vec<Lease>) {
        self.enclosed.insert(key(segment, index), leases);
    }

    /// A fork of the process that holds what envelopes name: it does not.
    pub(super) fn let_go_of_enclosed(&mut self) -> impl Sized + use<> {
        std::mem::take(&mut self.enclosed)
    }

    fn grow(&mut self, source: &dyn Source, len: u64) -> Result<()> {
        let (plan, exact) = (Plan::new(self.space.stats().used, len), Plan::exact(len));
        let plans = [(plan, false), (exact, false), (exact, true)];
        let mut added = Ok(());
        for (plan, patient) in plans {
            added = self.add(source, plan, entries_for(plan.data), None, patient).map(drop);
            match added {
                // Each time with less to ask for, or more pressure: the own memory first.
                Err(Error::OutOfSharedMemory { .. }) => _ = self.release(ALWAYS),
                _ => break,
            }
        }
        added
    }

    fn add(&mut self, source: &dyn Source, plan: Plan, entries: u32, cells: Option<u64>, patient: bool) -> Result<u32> {
        let segment = source.create(plan.data, plan.backed, entries, patient)?;
        segment.own();
        let id = segment.id();
        let table = Table::new(segment.clone(), entries, cells, self.age);
        if cells.is_none() {
            let whole = Range { segment: id, start: segment.data_at(), end: segment.len() };
            self.space.add_segment(id, whole.start, whole.end);
            for run in table.runs(0..segment.granules(), |granule| granule.released) {
                self.space.cool(whole.start, table.range(&run));
            }
        }
        self.tables.insert(id, table);
        self.aftermath.added.push(segment);
        self.restless = true;
        Ok(id)
    }

    /// Fetches what is missing of pages that were just handed out; takes the piece back if that can't be had.
    fn thaw(&mut self, source: &dyn Source, piece: Piece, range: Range) -> Result<()> {
        let table = self.table(range.segment);
        let segment = table.segment.clone();
        for run in table.runs(granules(range.start, range.end), |granule| granule.released) {
            let mut restored = source.restore(&segment, run.clone());
            if matches!(restored, Err(Error::OutOfSharedMemory { .. })) && self.release(ALWAYS) > 0 {
                restored = source.restore(&segment, run.clone());
            }
            let table = self.table(range.segment);
            match restored {
                Ok(()) => {
                    table.granules[run].iter_mut().for_each(|granule| granule.released = false);
                }
                Err(error) => {
                    self.take_back(piece, Some(range));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Takes back what others let go of since the last look.
    pub(super) fn sweep(&mut self) {
        let Arena { tables, space, quick, age, restless, aftermath, enclosed, .. } = self;
        for Table { segment, free, lines, seen, cells, granules } in tables.values_mut() {
            let changes = segment.marks().changes();
            if changes != *seen {
                *seen = changes;
                let (age, cells) = (*age, *cells);
                let mut books = Books { segment, free, lines, cells, granules, space, quick, age, aftermath, enclosed };
                segment.marks().take(|index| *restless |= books.close(index));
            }
        }
    }

    /// Takes back one block or cell, unless somebody holds it.
    pub(super) fn close(&mut self, segment: u32, index: u32) {
        let Arena { tables, space, quick, age, restless, aftermath, enclosed, .. } = self;
        if let Some(Table { segment, free, lines, cells, granules, .. }) = tables.get_mut(&segment) {
            let (age, cells) = (*age, *cells);
            let mut books = Books { segment, free, lines, cells, granules, space, quick, age, aftermath, enclosed };
            *restless |= books.close(index);
        }
    }

    /// Takes back a piece that never had a line.
    pub(super) fn free(&mut self, piece: Piece) {
        let age = self.age;
        free_piece(&mut self.space, &mut self.quick, piece);
        touch(&mut self.table(piece.segment).granules, piece.offset, piece.len, age);
        self.restless = true;
    }

    /// Whether somebody is to be told that there may be something to give back: nobody was told, and nobody comes by itself.
    pub(super) fn has_news(&mut self) -> bool {
        self.restless && !std::mem::replace(&mut self.expected, true)
    }

    /// Gives back to the system what has been free for a while, if it is time for a look. When to look again; `None`:
    /// there is nothing to give back.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Duration> {
        self.sweep();
        let next = if self.restless { self.look(now) } else { None };
        self.expected = next.is_some();
        next
    }

    fn look(&mut self, now: Instant) -> Option<Duration> {
        let next = *self.looked.get_or_insert(now) + LOOK;
        if now < next {
            return Some(next - now);
        }
        self.looked = Some(now);
        self.age += 1;
        let age = self.age;
        // Last used before the look before this one.
        self.release(age - 1);
        self.restless = self.has_granules_to_release();
        self.restless.then_some(LOOK)
    }

    fn has_granules_to_release(&self) -> bool {
        self.space.free_ranges().any(|range| {
            let table = &self.tables[&range.segment];
            table.whole(range.start, range.end).any(|index| !table.granules[index].released)
        })
    }

    /// Gives free granules back to the system that were not used since the arena was of that age. How many bytes.
    pub(super) fn release(&mut self, since: u32) -> u64 {
        self.settle();
        self.space.trim();
        let free: Vec<Range> = self.space.free_ranges().filter(|range| range.end - range.start >= PAGE).collect();
        let mut bytes = 0;
        for range in free {
            let Some(table) = self.tables.get_mut(&range.segment) else { continue };
            let mut within = range.start;
            let whole = table.whole(range.start, range.end);
            for run in table.runs(whole, |granule| !granule.released && granule.used_at < since) {
                // What the system does not take stays as it is.
                let Ok(len) = table.segment.release(run.clone()) else { continue };
                bytes += len;
                let part = table.range(&run);
                table.granules[run].iter_mut().for_each(|granule| granule.released = true);
                self.space.cool(within, part);
                within = part.end;
            }
        }
        bytes
    }

    /// What it holds.
    pub(super) fn holdings(&self) -> Holdings {
        let stats = self.space.stats();
        let used = stats.used - self.quick.iter().map(|piece| piece.len).sum::<u64>();
        let released: u64 = self.tables.values().map(|table| table.segment.released()).sum();
        Holdings { used, free: stats.capacity.saturating_sub(used + released) }
    }
}

/// What closing a line changes.
struct Books<'a> {
    segment: &'a Arc<Segment>,
    free: &'a mut Vec<u32>,
    lines: &'a mut [Line],
    cells: Option<u64>,
    granules: &'a mut [Granule],
    space: &'a mut Space,
    quick: &'a mut Vec<Piece>,
    age: u32,
    aftermath: &'a mut Aftermath,
    enclosed: &'a mut FxHashMap<u64, Vec<Lease>>,
}

impl Books<'_> {
    /// Frees a line and what it describes if nobody holds it. Whether it did.
    fn close(&mut self, index: u32) -> bool {
        let (Some(entry), Some(line)) =
            (self.segment.entries().get(index as usize), self.lines.get_mut(index as usize))
        else {
            return false;
        };
        if *line == NOTHING || *line == LEFT || !entry.close() {
            return false;
        }
        if self.cells.is_some_and(|room| room > 0) {
            *line = LEFT;
            self.aftermath.left.push((self.segment.clone(), index));
            return false;
        }
        if !self.enclosed.is_empty()
            && let Some(leases) = self.enclosed.remove(&key(self.segment.id(), index))
        {
            self.aftermath.parting.extend(leases);
        }
        let (offset, len) = std::mem::replace(line, NOTHING);
        if (offset, len) != CELL {
            free_piece(self.space, self.quick, Piece { segment: self.segment.id(), offset, len });
            touch(self.granules, offset, len, self.age);
            if self.free.is_empty() {
                self.space.set_full(self.segment.id(), false);
            }
        }
        entry.retire();
        self.free.push(index);
        true
    }
}

/// Frees a piece, or keeps it at hand.
fn free_piece(space: &mut Space, quick: &mut Vec<Piece>, piece: Piece) {
    debug_assert!(!quick.contains(&piece), "freed twice: {piece:?}");
    // Shorter ones may be slots of a span, which is as quick itself.
    let gone = if piece.len <= size_class::LARGEST {
        Some(piece)
    } else {
        let oldest = (quick.len() == QUICK).then(|| quick.remove(0));
        quick.push(piece);
        oldest
    };
    if let Some(piece) = gone {
        let freed = space.free(piece.segment, piece.offset);
        debug_assert!(freed.is_ok(), "freed twice: {piece:?}");
    }
}

#[cfg(test)]
mod tests;
