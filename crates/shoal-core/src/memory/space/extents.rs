//! Runs of whole pages. Each page of a segment belongs to exactly one extent, which is free, a piece, or a span.
//!
//! A free extent coalesces with its free neighbours, but not at once: the [`RECENT`] ones that were freed last stay as
//! they are, since a program that frees a length mostly asks for the same again, and then gets the same warm pages for
//! two operations on an index and no split. Best fit finds it, as among equal lengths the most recently freed wins.
//!
//! A free extent may be *cold*: some of its pages were given back to the system. Warm ones are taken first, and a cold
//! neighbour is not coalesced with a warm one, unless nothing else is long enough.
//!
//! Each segment has a table that names the owner of a page. Only the entries that someone will look up are written: the
//! first page of a piece, the first and last page of a free extent, all pages of a span. All others may be stale, so an
//! entry counts only if the extent that it names does contain the page; such an extent is the owner in truth.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use slab::Slab;

use super::small::Span;

/// The granularity of extents, in bytes.
pub(super) const PAGE: u64 = 4096;

/// Offsets in segments stay below this (8 TiB), so that page numbers and their sums fit into 32 bits.
pub(super) const LIMIT: u64 = (1 << 31) * PAGE;

/// The pages of a huge page: 2 MiB.
const HUGE: u32 = 512;

/// How many freed extents are kept from coalescing.
const RECENT: usize = 8;

/// Where warm and cold extents are in the indices.
const WARM: usize = 0;
const COLD: usize = 1;

/// Names an extent for as long as it exists.
pub(super) type Id = u32;

/// Orders free extents by length, then the most recently freed first.
type Key = (u32, Reverse<u64>, Id);

/// A settled free extent: when it was freed, and whether it is cold.
type Settled = (Id, u64, bool);

/// What an extent is used for.
#[derive(Debug)]
pub(super) enum Use {
    /// Free since the tick `freed_at`. Two neighbours that are both `settled`, and both `cold` or both not, don't
    /// exist: they would be one.
    Free { freed_at: u64, settled: bool, cold: bool },
    /// One large piece.
    Piece,
    /// Slots for small pieces.
    Span(Span),
}

/// `pages` pages of a segment from page `first` on.
#[derive(Debug)]
pub(super) struct Extent {
    pub(super) segment: u32,
    pub(super) first: u32,
    pub(super) pages: u32,
    pub(super) usage: Use,
}

impl Extent {
    pub(super) fn end(&self) -> u32 {
        self.first + self.pages
    }

    /// The first page at a multiple of 2 MiB, if there are 2 MiB from there on, and the number of pages from there on.
    fn aligned(&self) -> Option<(u32, u32)> {
        let start = self.first.next_multiple_of(HUGE);
        let pages = self.end().checked_sub(start)?;
        (pages >= HUGE).then_some((start, pages))
    }
}

#[derive(Debug)]
struct Segment {
    first: u32,
    /// Extents with something in use: large pieces, and spans with live slots.
    busy: u32,
    /// Whether it takes no more pieces that can be leased.
    full: bool,
    /// The owner of each page, or a stale name. Starts as zeroes that cost no memory until they are written to.
    owners: Vec<Id>,
}

impl Segment {
    fn set_owner(&mut self, page: u32, id: Id) {
        self.owners[(page - self.first) as usize] = id;
    }
}

/// All extents of all segments.
#[derive(Debug, Default)]
pub(super) struct Extents {
    pub(super) all: Slab<Extent>,
    segments: BTreeMap<u32, Segment>,
    /// How many segments are full.
    full: usize,
    /// Every free extent by its length: the warm ones, the cold ones.
    by_len: [BTreeSet<Key>; 2],
    /// The free extents that contain aligned 2 MiB, by their length from the first multiple of 2 MiB on.
    by_aligned_len: [BTreeSet<Key>; 2],
    /// The last ones freed, oldest first: what may still be unsettled. Some may have been taken again since.
    recent: VecDeque<(Id, u64)>,
    clock: u64,
}

impl Extents {
    pub(super) fn add_segment(&mut self, segment: u32, first: u32, end: u32) {
        let owners = vec![0; (end - first) as usize];
        self.segments.insert(segment, Segment { first, busy: 0, full: false, owners });
        self.put(segment, first, end, 0, false);
    }

    /// Forgets a segment that is one free extent.
    pub(super) fn remove_segment(&mut self, segment: u32) {
        self.set_full(segment, false);
        let Segment { first, owners, .. } = self.segments.remove(&segment).expect("the caller has looked");
        let id = owners[0];
        self.unindex(id);
        let extent = self.all.remove(id as usize);
        assert!(
            (extent.segment, extent.first, extent.pages) == (segment, first, owners.len() as u32),
            "a segment without pieces in use is one free extent"
        );
    }

    /// Takes `pages` pages, aligned to 2 MiB if there are that many and there is such a place. They become a piece.
    /// `leased`: not in a segment that is full. With the piece comes whether it was cold.
    pub(super) fn take(&mut self, pages: u32, leased: bool) -> Option<(Id, bool)> {
        let (id, aligned) = self.find_fit(pages, leased, WARM).or_else(|| self.find_fit(pages, leased, COLD))?;
        self.unindex(id);

        let extent = &mut self.all[id as usize];
        let Use::Free { freed_at, cold, .. } = mem::replace(&mut extent.usage, Use::Piece) else {
            unreachable!("only free extents are in the indices")
        };
        let (segment, first, end) = (extent.segment, extent.first, extent.end());
        let start = if aligned { first.next_multiple_of(HUGE) } else { first };
        (extent.first, extent.pages) = (start, pages);
        self.segment_mut(segment).set_owner(start, id);

        if first < start {
            self.put(segment, first, start, freed_at, cold);
        }
        if start + pages < end {
            self.put(segment, start + pages, end, freed_at, cold);
        }
        Some((id, cold))
    }

    /// The extent to take `pages` pages from, and whether they are to be aligned in it.
    fn find_fit(&mut self, pages: u32, leased: bool, heat: usize) -> Option<(Id, bool)> {
        let mut aligned = None;
        if pages >= HUGE {
            aligned = self.best_fit(&self.by_aligned_len[heat], pages, leased);
            if aligned.is_none() && heat == WARM {
                self.settle_all();
                aligned = self.best_fit(&self.by_aligned_len[heat], pages, leased);
            }
        }
        let any = || self.best_fit(&self.by_len[heat], pages, leased).map(|id| (id, false));
        aligned.map(|id| (id, true)).or_else(any)
    }

    /// The most recently freed one of the shortest that have `pages` pages.
    fn best_fit(&self, index: &BTreeSet<Key>, pages: u32, leased: bool) -> Option<Id> {
        let mut fitting = index.range((pages, Reverse(u64::MAX), 0)..).map(|&(_, _, id)| id);
        if leased && self.full > 0 {
            return fitting.find(|&id| !self.segments[&self.all[id as usize].segment].full);
        }
        fitting.next()
    }

    /// Makes the piece `id` a span.
    pub(super) fn make_span(&mut self, id: Id, span: Span) {
        let extent = &mut self.all[id as usize];
        extent.usage = Use::Span(span);
        let (segment, pages) = (extent.segment, extent.first..extent.end());
        let segment = self.segment_mut(segment);
        for page in pages {
            segment.set_owner(page, id);
        }
    }

    /// Makes the piece or span `id` free.
    pub(super) fn give_back(&mut self, id: Id) {
        self.clock += 1;
        let freed_at = self.clock;
        let extent = &mut self.all[id as usize];
        extent.usage = Use::Free { freed_at, settled: false, cold: false };
        self.index(id);
        self.recent.push_back((id, freed_at));
        if self.recent.len() > RECENT {
            self.settle_oldest();
        }
    }

    /// Coalesces whatever is left to coalesce.
    pub(super) fn settle_all(&mut self) {
        while !self.recent.is_empty() {
            self.settle_oldest();
        }
    }

    fn settle_oldest(&mut self) {
        let Some((id, at)) = self.recent.pop_front() else { return };
        let unchanged =
            |extent: &Extent| matches!(extent.usage, Use::Free { freed_at, settled: false, .. } if freed_at == at);
        if self.all.get(id as usize).is_some_and(unchanged) {
            self.unindex(id);
            let extent = self.all.remove(id as usize);
            self.put(extent.segment, extent.first, extent.end(), at, false);
        }
    }

    /// Makes a part of a settled free extent cold; the one that starts at page `within`, if it contains the part.
    pub(super) fn cool(&mut self, segment: u32, within: u32, first: u32, end: u32) {
        let fits = |extent: &Extent| extent.segment == segment && extent.first <= first && end <= extent.end();
        let id = self
            .owner(segment, within)
            .filter(|&id| fits(&self.all[id as usize]))
            .or_else(|| self.all.iter().find(|(_, extent)| fits(extent)).map(|(id, _)| id as Id));
        let Some(id) = id else { return };
        let Use::Free { freed_at, settled: true, cold: false } = self.all[id as usize].usage else { return };
        self.unindex(id);
        let whole = self.all.remove(id as usize);
        if whole.first < first {
            self.put(segment, whole.first, first, freed_at, false);
        }
        self.put(segment, first, end, freed_at, true);
        if end < whole.end() {
            self.put(segment, end, whole.end(), freed_at, false);
        }
    }

    /// Coalesces cold extents with their warm neighbours: cold ones. Whether there were any.
    pub(super) fn mix(&mut self) -> bool {
        let mut mixed = false;
        // Each turn leaves fewer extents.
        while let Some((id, neighbours)) = self.cold_beside_warm() {
            mixed = true;
            self.unindex(id);
            let Extent { segment, first, pages, usage } = self.all.remove(id as usize);
            let Use::Free { mut freed_at, .. } = usage else { unreachable!("only free extents are in the indices") };
            let (mut first, mut end) = (first, first + pages);
            for (id, at, _) in neighbours.into_iter().flatten() {
                self.unindex(id);
                let neighbour = self.all.remove(id as usize);
                (first, end, freed_at) = (first.min(neighbour.first), end.max(neighbour.end()), freed_at.max(at));
            }
            self.put(segment, first, end, freed_at, true);
        }
        mixed
    }

    /// A cold extent with its settled neighbours, if it has any: those are warm.
    fn cold_beside_warm(&self) -> Option<(Id, [Option<Settled>; 2])> {
        self.by_len[COLD].iter().find_map(|&(_, _, id)| {
            let extent = &self.all[id as usize];
            let pages = [extent.first.checked_sub(1), Some(extent.end())];
            let neighbours = pages.map(|page| self.settled_at(extent.segment, page?));
            neighbours.iter().any(Option::is_some).then_some((id, neighbours))
        })
    }

    /// The free extents.
    pub(super) fn free(&self) -> impl Iterator<Item = &Extent> {
        self.by_len.iter().flatten().map(|&(_, _, id)| &self.all[id as usize])
    }

    /// Whether the segment takes no more pieces that can be leased.
    pub(super) fn set_full(&mut self, segment: u32, full: bool) {
        let before = mem::replace(&mut self.segment_mut(segment).full, full);
        self.full = self.full + usize::from(full) - usize::from(before);
    }

    /// Adds free pages that no extent contains, coalesced with the settled neighbours that are as warm or cold.
    fn put(&mut self, segment: u32, mut first: u32, mut end: u32, mut freed_at: u64, cold: bool) {
        let before = first.checked_sub(1).and_then(|page| self.settled_at(segment, page));
        let after = self.settled_at(segment, end);
        for (id, at, _) in [before, after].into_iter().flatten().filter(|&(_, _, of)| of == cold) {
            self.unindex(id);
            let neighbour = self.all.remove(id as usize);
            first = first.min(neighbour.first);
            end = end.max(neighbour.end());
            freed_at = freed_at.max(at);
        }
        let usage = Use::Free { freed_at, settled: true, cold };
        let id = self.all.insert(Extent { segment, first, pages: end - first, usage });
        self.index(Id::try_from(id).expect("fewer extents than 2^32"));
    }

    /// The settled free extent that starts or ends with `page`.
    fn settled_at(&self, segment: u32, page: u32) -> Option<Settled> {
        let id = self.owner(segment, page)?;
        match self.all[id as usize].usage {
            Use::Free { freed_at, settled: true, cold } => Some((id, freed_at, cold)),
            _ => None,
        }
    }

    /// Enters a free extent into the indices and the table.
    fn index(&mut self, id: Id) {
        let extent = &self.all[id as usize];
        let (segment, first, last) = (extent.segment, extent.first, extent.end() - 1);
        let (key, aligned_key, heat) = keys(id, extent);
        self.by_len[heat].insert(key);
        if let Some(key) = aligned_key {
            self.by_aligned_len[heat].insert(key);
        }
        let segment = self.segment_mut(segment);
        segment.set_owner(first, id);
        segment.set_owner(last, id);
    }

    fn unindex(&mut self, id: Id) {
        let (key, aligned_key, heat) = keys(id, &self.all[id as usize]);
        self.by_len[heat].remove(&key);
        if let Some(key) = aligned_key {
            self.by_aligned_len[heat].remove(&key);
        }
    }

    /// The extent that the byte at `offset` belongs to, as far as the table knows: any byte of a span, or of the first
    /// page of a piece.
    #[inline]
    pub(super) fn find(&self, segment: u32, offset: u64) -> Option<Id> {
        self.owner(segment, u32::try_from(offset / PAGE).ok()?)
    }

    #[inline]
    fn owner(&self, segment: u32, page: u32) -> Option<Id> {
        let table = self.segments.get(&segment)?;
        let id = *table.owners.get(page.checked_sub(table.first)? as usize)?;
        let extent = self.all.get(id as usize)?;
        (extent.segment == segment && extent.first <= page && page < extent.end()).then_some(id)
    }

    #[inline]
    pub(super) fn get(&self, id: Id) -> &Extent {
        &self.all[id as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: Id) -> &mut Extent {
        &mut self.all[id as usize]
    }

    /// Notes that one more extent of the segment has something in use.
    pub(super) fn occupy(&mut self, segment: u32) {
        self.segment_mut(segment).busy += 1;
    }

    /// Notes that one less extent of the segment has something in use.
    pub(super) fn vacate(&mut self, segment: u32) {
        self.segment_mut(segment).busy -= 1;
    }

    fn segment_mut(&mut self, segment: u32) -> &mut Segment {
        self.segments.get_mut(&segment).expect("an extent's segment is there as long as the extent")
    }

    pub(super) fn has_segment(&self, segment: u32) -> bool {
        self.segments.contains_key(&segment)
    }

    pub(super) fn is_busy(&self, segment: u32) -> bool {
        self.segments[&segment].busy > 0
    }

    pub(super) fn idle_segments(&self) -> impl Iterator<Item = u32> {
        self.segments.iter().filter(|(_, segment)| segment.busy == 0).map(|(&name, _)| name)
    }

    pub(super) fn segments_len(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn total_pages(&self) -> u64 {
        self.segments.values().map(|segment| segment.owners.len() as u64).sum()
    }

    pub(super) fn free_len(&self) -> usize {
        self.by_len.iter().map(BTreeSet::len).sum()
    }

    /// The pages of the longest free extent.
    pub(super) fn largest_free(&self) -> u32 {
        self.by_len.iter().filter_map(BTreeSet::last).map(|&(pages, ..)| pages).max().unwrap_or(0)
    }
}

/// A free extent's keys in `by_len` and in `by_aligned_len`, and in which of the two of each.
fn keys(id: Id, extent: &Extent) -> (Key, Option<Key>, usize) {
    let Use::Free { freed_at, cold, .. } = extent.usage else { unreachable!("only free extents are in the indices") };
    let key = |pages| (pages, Reverse(freed_at), id);
    (key(extent.pages), extent.aligned().map(|(_, pages)| key(pages)), if cold { COLD } else { WARM })
}
