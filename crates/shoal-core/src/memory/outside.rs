//! The shared memory of another process's domain, looked at from outside: what there is, and who holds it.
//!
//! Everything is mapped for reading only, and for as long as the look takes. Whoever owns it does not notice.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use shoal_sys::memory;

use super::roster::Roster;
use super::segment::Segment;
use crate::error::{Error, Result};

/// The memory of a domain at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Which domain's.
    pub domain: u64,
    /// Segments of that domain among those that were looked at.
    pub segments: usize,
    /// Their bytes, apart from what was given back to the system.
    pub bytes: u64,
    /// Bytes that were given back to the system.
    pub released: u64,
    /// Blocks and cells that somebody holds.
    pub blocks: usize,
    /// Leases on those: one for each block and process.
    pub leases: usize,
    /// What each process holds, by its number in the namespace of the host.
    pub holders: BTreeMap<u32, Held>,
}

/// What a process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Leases.
    pub leases: usize,
    /// Bytes of the blocks: one that two hold counts for both.
    pub bytes: u64,
}

/// The length of what another process has under a descriptor, once it is sure that it is a segment of at least `least` bytes.
pub(crate) fn len_of(fd: BorrowedFd<'_>, least: usize, what: &'static str) -> Result<usize> {
    match memory::sealed_len(fd) {
        Ok(len) if len >= least => Ok(len),
        Ok(_) => Err(Error::Damaged(what)),
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(Error::Damaged(what)),
        Err(error) => Err(error.into()),
    }
}

/// Looks at the memory of the domain of a roster: at those of the segments that belong to it. The descriptors need not be
/// open for writing.
///
/// # Errors
/// [`Error::Damaged`] if a descriptor is of something else, or of another version of shoal.
pub fn look(roster: &OwnedFd, segments: impl IntoIterator<Item = OwnedFd>) -> Result<Look> {
    let (domain, lines) = Roster::lines_outside(roster.as_fd())?;
    let pids: BTreeMap<u16, u32> = lines.into_iter().map(|(holder, line)| (holder, line.pid)).collect();
    let mut look = Look { domain, ..Look::default() };
    look.holders = pids.values().map(|pid| (*pid, Held::default())).collect();
    for fd in segments {
        let segment = Segment::open_to_read(fd)?;
        if segment.domain() != domain {
            continue;
        }
        look.segments += 1;
        look.bytes += segment.len() - segment.released();
        look.released += segment.released();
        for entry in segment.used_entries().iter().filter(|entry| entry.kind().is_some()) {
            let before = look.leases;
            for holder in entry.holders() {
                look.leases += 1;
                let Some(held) = pids.get(&holder).and_then(|pid| look.holders.get_mut(pid)) else { continue };
                held.leases += 1;
                held.bytes = held.bytes.saturating_add(entry.len());
            }
            look.blocks += usize::from(look.leases > before);
        }
    }
    Ok(look)
}

#[cfg(test)]
mod tests {
    use shoal_sys::process;

    use super::*;
    use crate::memory::lease::Kind;
    use crate::memory::segment::GRANULE;

    fn fd_of(roster: &Roster) -> OwnedFd {
        roster.fds()[0].try_clone_to_owned().expect("a descriptor")
    }

    fn segment(id: u32, domain: u64) -> (Segment, OwnedFd) {
        let segment = Segment::create(id, 2 * GRANULE, GRANULE, 8).expect("memory");
        segment.set_domain(domain);
        let fd = segment.fd().try_clone_to_owned().expect("a descriptor");
        (segment, fd)
    }

    #[test]
    fn who_holds_what_is_seen_and_other_domains_are_left_out() {
        let roster = Roster::create().expect("memory");
        let claim = roster.claim(1).expect("free");
        assert!(roster.settle(claim, 4711));
        let (mine, fd) = segment(1, roster.domain());
        let (other, other_fd) = segment(2, roster.domain() + 1);
        let entry = &mine.entries()[0];
        entry.open(Kind::Block, mine.data_at(), 1000, 0);
        entry.share(claim.holder);
        mine.use_entry(0);
        other.entries()[0].open(Kind::Block, other.data_at(), 1000, 0);
        other.use_entry(0);

        let look = look(&fd_of(&roster), [fd, other_fd]).expect("sound");
        assert_eq!((look.domain, look.segments, look.blocks, look.leases), (roster.domain(), 1, 1, 2));
        assert_eq!((look.bytes, look.released), (mine.len() - mine.released(), mine.released()));
        let held = Held { leases: 1, bytes: 1000 };
        assert_eq!(look.holders, BTreeMap::from([(4711, held), (process::pid(), held)]));
    }

    #[test]
    fn what_is_neither_roster_nor_segment_is_refused() {
        let blank = || memory::reserve("blank", 1 << 20).expect("memory");
        let roster = Roster::create().expect("memory");
        assert!(matches!(look(&blank(), []), Err(Error::Damaged(_))));
        assert!(matches!(look(&fd_of(&roster), [blank()]), Err(Error::Damaged(_))));
    }
}
