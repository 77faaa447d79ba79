//! Pieces of up to 32 KiB: slots of spans, one size a span.
//!
//! Each class keeps a list of its spans that have a free slot, the one last freed into at the front, and each span a
//! list of its free slots, last freed first. So what was freed last is handed out next, at a cost that doesn't depend
//! on how many pieces or spans there are. A slot costs two bytes of bookkeeping.

use super::extents::{Id, PAGE, Use};
use super::{Piece, Space};
use crate::memory::size_class;

/// In a span's `links`: the slot is in use.
const IN_USE: u16 = u16::MAX;
/// In a span's `links` and `free`: no further free slot.
const LAST: u16 = u16::MAX - 1;
/// No span.
const NONE: Id = Id::MAX;

/// The slots of one span.
#[derive(Debug)]
pub(super) struct Span {
    class: u8,
    /// How many slots there are: 1024 at most.
    slots: u16,
    /// How many slots are in use.
    live: u16,
    /// The slot freed last, if there is one.
    free: u16,
    /// For each slot that was ever in use: `IN_USE`, or the slot freed before it.
    links: Vec<u16>,
    /// Neighbours in the class's list; meaningless while no slot is free.
    newer: Id,
    older: Id,
}

impl Span {
    fn new(class: usize, pages: u32) -> Span {
        let slots = (u64::from(pages) * PAGE / size_class::size(class)) as u16;
        let links = Vec::with_capacity(slots.into());
        Span { class: class as u8, slots, live: 0, free: LAST, links, newer: NONE, older: NONE }
    }

    /// The length of a slot in bytes.
    #[inline]
    pub(super) fn size(&self) -> u64 {
        size_class::size(self.class.into())
    }

    /// The slot in use that starts `offset` bytes into the span.
    #[inline]
    pub(super) fn slot_at(&self, offset: u64) -> Option<u16> {
        // A span is far shorter than 4 GiB, and a division of 32 bits takes half the time of one of 64.
        let (offset, size) = (offset as u32, self.size() as u32);
        let (slot, rest) = (offset / size, offset % size);
        (rest == 0 && self.links.get(slot as usize) == Some(&IN_USE)).then_some(slot as u16)
    }

    /// Takes a free slot, of which there is at least one.
    #[inline]
    fn take(&mut self) -> u16 {
        self.live += 1;
        if self.free == LAST {
            self.links.push(IN_USE);
            return self.links.len() as u16 - 1;
        }
        let slot = self.free;
        self.free = std::mem::replace(&mut self.links[slot as usize], IN_USE);
        slot
    }

    /// Gives back a slot that is in use; [`Space::freed_in_span`] has to follow.
    #[inline]
    pub(super) fn put(&mut self, slot: u16) {
        self.live -= 1;
        self.links[slot as usize] = self.free;
        self.free = slot;
    }

    /// How many slots are in use.
    #[cfg(test)]
    pub(super) fn live(&self) -> u64 {
        self.live.into()
    }

    /// The memory held besides the struct itself.
    #[cfg(test)]
    pub(super) fn private_bytes(&self) -> usize {
        self.links.capacity() * size_of::<u16>()
    }
}

/// What there is of one size class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    /// The front of the list of spans with a free slot.
    newest: Id,
    /// The span in that list of which no slot is in use. One is held back, so that a program which allocates and frees
    /// a single piece doesn't make and unmake a span each time.
    spare: Id,
}

impl Class {
    pub(super) const EMPTY: Class = Class { newest: NONE, spare: NONE };
}

impl Space {
    #[inline]
    pub(super) fn allocate_small(&mut self, class: usize) -> Option<Piece> {
        let id = match self.classes[class].newest {
            NONE => self.new_span(class)?,
            id => id,
        };
        let extent = self.extents.get_mut(id);
        let Use::Span(span) = &mut extent.usage else { unreachable!("a class lists spans only") };
        let slot = span.take();
        let len = size_class::size(class);
        let piece =
            Piece { segment: extent.segment, offset: u64::from(extent.first) * PAGE + u64::from(slot) * len, len };
        let (first, full) = (span.live == 1, span.live == span.slots);
        if full {
            self.unlink(id);
        }
        if first {
            self.classes[class].spare = NONE;
            self.extents.occupy(piece.segment);
        }
        Some(piece)
    }

    /// Puts in order what follows from a slot of the span having become free.
    #[inline]
    pub(super) fn freed_in_span(&mut self, id: Id) {
        let span = self.span(id);
        let (class, was_full, empty) = (usize::from(span.class), span.live + 1 == span.slots, span.live == 0);
        if was_full {
            self.link(id);
        } else if self.classes[class].newest != id {
            self.unlink(id);
            self.link(id);
        }
        if empty {
            self.extents.vacate(self.extents.get(id).segment);
            let before = std::mem::replace(&mut self.classes[class].spare, id);
            self.release(before);
        }
    }

    /// Gives the empty spans that were held back to the extents.
    pub(super) fn release_spares(&mut self) {
        for class in 0..size_class::COUNT {
            let spare = std::mem::replace(&mut self.classes[class].spare, NONE);
            self.release(spare);
        }
    }

    fn release(&mut self, spare: Id) {
        if spare != NONE {
            self.unlink(spare);
            self.extents.give_back(spare);
        }
    }

    /// A span of the usual length, or of what there is, if that is enough for one slot.
    fn new_span(&mut self, class: usize) -> Option<Id> {
        let usual = size_class::span_pages(class);
        let id = self.take_pages(usual, false).or_else(|| {
            self.trim();
            let pages = usual.min(self.extents.largest_free());
            if u64::from(pages) * PAGE < size_class::size(class) { None } else { self.take_pages(pages, false) }
        })?;
        let span = Span::new(class, self.extents.get(id).pages);
        self.extents.make_span(id, span);
        self.link(id);
        Some(id)
    }

    /// Puts a span at the front of its class's list.
    fn link(&mut self, id: Id) {
        let class = usize::from(self.span(id).class);
        let older = std::mem::replace(&mut self.classes[class].newest, id);
        let span = self.span(id);
        (span.newer, span.older) = (NONE, older);
        if older != NONE {
            self.span(older).newer = id;
        }
    }

    fn unlink(&mut self, id: Id) {
        let &mut Span { class, newer, older, .. } = self.span(id);
        if newer == NONE {
            self.classes[usize::from(class)].newest = older;
        } else {
            self.span(newer).older = older;
        }
        if older != NONE {
            self.span(older).newer = newer;
        }
    }

    #[inline]
    fn span(&mut self, id: Id) -> &mut Span {
        let Use::Span(span) = &mut self.extents.get_mut(id).usage else { unreachable!("a class lists spans only") };
        span
    }
}
