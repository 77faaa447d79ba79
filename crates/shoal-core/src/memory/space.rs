//! The bookkeeping of an arena: which bytes of which segment are in use. Pure arithmetic on offsets; it never touches
//! the memory that it hands out and knows no operating system, so its own state can lie where no one else can write.
//!
//! Two layers, each in a file of its own:
//!
//! - `extents`: runs of whole 4 KiB pages. Best fit, neighbours coalesce. Pieces of more than 32 KiB are extents.
//! - `small`: extents of about 64 KiB, *spans*, carved into equal slots of one size class (`size_class`).
//!
//! At both layers what was freed last is handed out first: its pages are resident, mapped and in the cache, and the
//! first touch of a page costs ten times a warm one.

mod extents;
mod small;
#[cfg(test)]
mod tests;

use self::extents::{Extents, PAGE, Use};
use self::small::Class;
use super::size_class;

/// A piece of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// The segment, as named in [`Space::add_segment`].
    pub segment: u32,
    /// Where the piece starts in its segment, in bytes. A multiple of 16 at least, of 4096 if `len` exceeds 32 KiB.
    pub offset: u64,
    /// The usable length in bytes, at least what was asked for.
    pub len: u64,
}

/// Whole pages of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The segment.
    pub segment: u32,
    /// The offset of the first byte.
    pub start: u64,
    /// The offset behind the last byte.
    pub end: u64,
}

/// Nothing is allocated at the place named: a double free, or an offset that was never handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no piece is allocated at offset {offset} of segment {segment}: it was freed before, or never handed out")]
pub struct NotAllocated {
    /// The segment named.
    pub segment: u32,
    /// The offset named.
    pub offset: u64,
}

/// The segment can't be removed while pieces of it are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("segment {segment} still has pieces in use: free them before removing it")]
pub struct InUse {
    /// The segment named.
    pub segment: u32,
}

/// What a [`Space`] holds at a moment. Lengths are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceStats {
    /// The number of segments.
    pub segments: u64,
    /// What all segments together can hold.
    pub capacity: u64,
    /// What is granted, the inner waste of pieces included.
    pub used: u64,
    /// The number of pieces in use.
    pub pieces: u64,
    /// The number of separate free runs of pages; the free slots inside spans are not among them.
    pub free_extents: u64,
    /// The longest free run of pages.
    pub largest_free: u64,
}

/// Hands out pieces of segments and takes them back.
///
/// ```
/// # use shoal_core::memory::space::Space;
/// let mut space = Space::new();
/// space.add_segment(0, 0, 64 << 20);
/// let piece = space.allocate(1_000_000).expect("an empty segment of 64 MiB has room for 1 MB");
/// assert!(piece.len >= 1_000_000);
/// assert_eq!(space.free(piece.segment, piece.offset), Ok(piece.len));
/// ```
#[derive(Debug)]
pub struct Space {
    extents: Extents,
    classes: [Class; size_class::COUNT],
    /// What the last piece was cut from, if that was cold: pages that may be missing.
    thawed: Option<Range>,
    used: u64,
    pieces: u64,
}

impl Default for Space {
    fn default() -> Space {
        Space::new()
    }
}

impl Space {
    /// A space without segments.
    pub fn new() -> Space {
        Space {
            extents: Extents::default(),
            classes: [Class::EMPTY; size_class::COUNT],
            thawed: None,
            used: 0,
            pieces: 0,
        }
    }

    /// Adds a segment, of which the bytes from `start` up to `end` may be handed out.
    ///
    /// # Panics
    ///
    /// If the segment is there already, if `start` or `end` is not a multiple of 4096, if they enclose nothing, or if
    /// `end` is beyond 8 TiB.
    pub fn add_segment(&mut self, segment: u32, start: u64, end: u64) {
        assert!(start.is_multiple_of(PAGE), "segment {segment}: start must be a multiple of 4096, not {start}");
        assert!(end.is_multiple_of(PAGE), "segment {segment}: end must be a multiple of 4096, not {end}");
        assert!(start < end, "segment {segment}: end must lie after start, not at {end} with start {start}");
        assert!(end <= extents::LIMIT, "segment {segment}: end must be at most {}, not {end}", extents::LIMIT);
        assert!(!self.extents.has_segment(segment), "segment {segment} was added before");
        self.extents.add_segment(segment, (start / PAGE) as u32, (end / PAGE) as u32);
    }

    /// Hands out a piece of at least `len` bytes; 0 counts as 1.
    ///
    /// Up to 32 KiB a piece has the length of its size class, beyond that of whole pages. From
    /// 2 MiB on it starts at a multiple of 2 MiB wherever one of the segments has room for that, so that its pages can
    /// be collapsed into huge ones.
    ///
    /// `None` if nothing fits: the caller adds a segment with `len`, in whole pages, to hand out, and tries again.
    #[inline]
    pub fn allocate(&mut self, len: u64) -> Option<Piece> {
        let piece = match size_class::of(len) {
            Some(class) => self.allocate_small(class)?,
            None => self.allocate_pages(len, false)?,
        };
        self.used += piece.len;
        self.pieces += 1;
        Some(piece)
    }

    /// Takes back the piece at `offset` of `segment`, and returns its length in bytes.
    ///
    /// # Errors
    ///
    /// [`NotAllocated`] if no piece that is in use starts there; nothing changes then.
    #[inline]
    pub fn free(&mut self, segment: u32, offset: u64) -> Result<u64, NotAllocated> {
        let id = self.extents.find(segment, offset).ok_or(NotAllocated { segment, offset })?;
        let extent = self.extents.get_mut(id);
        let start = u64::from(extent.first) * PAGE;
        let len = match &mut extent.usage {
            Use::Span(span) => {
                let slot = span.slot_at(offset - start).ok_or(NotAllocated { segment, offset })?;
                span.put(slot);
                let len = span.size();
                self.freed_in_span(id);
                len
            }
            Use::Piece if offset == start => {
                let len = u64::from(extent.pages) * PAGE;
                self.extents.vacate(segment);
                self.extents.give_back(id);
                len
            }
            Use::Piece | Use::Free { .. } => return Err(NotAllocated { segment, offset }),
        };
        self.used -= len;
        self.pieces -= 1;
        Ok(len)
    }

    /// The length in bytes of the piece at `offset` of `segment`; `None` if no piece that is in use starts there.
    pub fn len_of(&self, segment: u32, offset: u64) -> Option<u64> {
        let extent = self.extents.get(self.extents.find(segment, offset)?);
        let start = u64::from(extent.first) * PAGE;
        match &extent.usage {
            Use::Span(span) => span.slot_at(offset - start).map(|_| span.size()),
            Use::Piece if offset == start => Some(u64::from(extent.pages) * PAGE),
            Use::Piece | Use::Free { .. } => None,
        }
    }

    /// The segments nothing of which is in use, in ascending order.
    pub fn empty_segments(&self) -> impl Iterator<Item = u32> {
        self.extents.idle_segments()
    }

    /// Takes out a segment that nothing of is in use.
    ///
    /// # Errors
    ///
    /// [`InUse`] if there are pieces of it in use; nothing changes then.
    ///
    /// # Panics
    ///
    /// If there is no such segment.
    pub fn remove_segment(&mut self, segment: u32) -> Result<(), InUse> {
        assert!(self.extents.has_segment(segment), "segment {segment} can't be removed: it was never added");
        if self.extents.is_busy(segment) {
            return Err(InUse { segment });
        }
        self.trim();
        self.extents.mix();
        self.extents.remove_segment(segment);
        Ok(())
    }

    /// Gives up what is kept for speed: the empty span that each size class holds back, and the separateness of what
    /// was freed most recently. All free pages that are neighbours are one extent then. Happens by itself before
    /// [`allocate`](Space::allocate) returns `None`.
    pub fn trim(&mut self) {
        self.release_spares();
        self.extents.settle_all();
    }

    /// What the space holds now.
    pub fn stats(&self) -> SpaceStats {
        SpaceStats {
            segments: self.extents.segments_len() as u64,
            capacity: self.extents.total_pages() * PAGE,
            used: self.used,
            pieces: self.pieces,
            free_extents: self.extents.free_len() as u64,
            largest_free: u64::from(self.extents.largest_free()) * PAGE,
        }
    }

    /// As [`allocate`](Space::allocate), but always whole pages, so that there are no more pieces than pages, and never
    /// in a segment that is full.
    pub fn allocate_leasable(&mut self, len: u64) -> Option<Piece> {
        let piece = self.allocate_pages(len.max(1), true)?;
        self.used += piece.len;
        self.pieces += 1;
        Some(piece)
    }

    /// A full segment takes no more pieces that can be leased.
    pub fn set_full(&mut self, segment: u32, full: bool) {
        self.extents.set_full(segment, full);
    }

    /// The pages that the piece allocated last has used up, if some of them may be missing: it was cut from what is
    /// [`cool`](Space::cool). Told once.
    #[inline]
    pub fn thawed(&mut self) -> Option<Range> {
        self.thawed.take()
    }

    /// All that is free. What lies side by side, as warm or as cold, is one range after a [`trim`](Space::trim).
    pub fn free_ranges(&self) -> impl Iterator<Item = Range> {
        self.extents.free().map(|extent| Range {
            segment: extent.segment,
            start: u64::from(extent.first) * PAGE,
            end: u64::from(extent.end()) * PAGE,
        })
    }

    /// Some pages of this range, free since before the last [`trim`](Space::trim), are missing from now on: it is
    /// handed out after all others. It lies in the free range that starts at `within`, or has to be looked for.
    pub fn cool(&mut self, within: u64, range: Range) {
        let page = |offset: u64| (offset / PAGE) as u32;
        self.extents.cool(range.segment, page(within), page(range.start), page(range.end));
    }

    fn allocate_pages(&mut self, len: u64, leased: bool) -> Option<Piece> {
        let pages = u32::try_from(len.div_ceil(PAGE)).ok()?;
        let id = self.take_pages(pages, leased).or_else(|| {
            self.trim();
            self.take_pages(pages, leased)
        });
        let id = match id {
            Some(id) => id,
            None if self.extents.mix() => self.take_pages(pages, leased)?,
            None => return None,
        };
        let extent = self.extents.get(id);
        let piece = Piece {
            segment: extent.segment,
            offset: u64::from(extent.first) * PAGE,
            len: u64::from(extent.pages) * PAGE,
        };
        self.extents.occupy(piece.segment);
        Some(piece)
    }

    fn take_pages(&mut self, pages: u32, leased: bool) -> Option<extents::Id> {
        let (id, cold) = self.extents.take(pages, leased)?;
        if cold {
            let extent = self.extents.get(id);
            let (start, end) = (u64::from(extent.first) * PAGE, u64::from(extent.end()) * PAGE);
            self.thawed = Some(Range { segment: extent.segment, start, end });
        }
        Some(id)
    }
}
