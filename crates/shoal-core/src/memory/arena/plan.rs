//! How large a segment is made that is needed for a piece.

use super::super::segment::GRANULE;

pub(super) const PAGE: u64 = 4096;
const FIRST_SEGMENT: u64 = 1 << 20;
/// Segments are no larger than this unless a single piece is.
const LARGEST_STEP: u64 = 64 << 20;

/// What the segment should be like that is made for a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Bytes of data.
    pub(super) data: u64,
    /// Bytes of those that have pages from the start.
    pub(super) backed: u64,
}

impl Plan {
    /// As much again as is in use, so that a program with a small need starts quickly and one with a large need asks
    /// rarely; and a power of two, so that most of the pieces that follow, longer or shorter ones, fit in segments that
    /// are there. A large piece has a segment of its own, with pages for the piece only.
    pub(super) fn new(used: u64, len: u64) -> Plan {
        let need = Self::exact(len).data;
        if need <= LARGEST_STEP / 2 {
            let data = need.max(used.clamp(FIRST_SEGMENT, LARGEST_STEP)).next_power_of_two();
            return Plan { data, backed: data };
        }
        // Room to align it to a huge page.
        let backed = need.saturating_add(GRANULE);
        Plan { data: backed.checked_next_power_of_two().unwrap_or(need), backed }
    }

    /// Nothing but the rooms of cells, if they have any.
    pub(super) fn rooms(len: u64) -> Plan {
        if len == 0 { Plan { data: 0, backed: 0 } } else { Self::exact(len) }
    }

    /// Just what the piece needs.
    pub(super) fn exact(len: u64) -> Plan {
        let data = len.max(1).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX - PAGE + 1);
        Plan { data, backed: data }
    }
}

/// Lines of the table of a segment: one a page, but few for what lies beyond 64 MiB. A line costs 128 bytes, and what
/// long segments are made for are long blocks.
pub(in crate::memory) fn entries_for(data: u64) -> u32 {
    let (pages, dense) = (data / PAGE, LARGEST_STEP / PAGE);
    u32::try_from(pages.min(dense) + pages.saturating_sub(dense) / 32).unwrap_or(u32::MAX)
}
