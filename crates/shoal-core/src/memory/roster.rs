//! The roster of a domain: who bears which number. A small segment that every member maps.
//!
//! A number is claimed by whoever brings a new holder in: the host for a worker or a guest, a process that forks for its
//! child, without a question to anybody. The new holder makes it its own; the host alone gives it up again, when the holder
//! is dead for sure and everything of it has been given back.
//!
//! ```text
//! FREE ──claim──▶ CLAIMED ──settle──▶ HERE ──leave──▶ LEFT ──clear──▶ FREE, one epoch later
//!                    │                  └───────────clear───────────────▲
//!                    └──revoke──▶ LEFT
//! ```
//!
//! Each step is one compare-and-swap of a word that also has the epoch, so a holder that comes to settle after its claim
//! was revoked finds out, even if the number is another's by then. See `docs/design/domain.md`.

use crate::memory::lease::IN_QUEUE;
use crate::sync::atomics::{AtomicU64, Ordering};
use crate::sync::bits::CAPACITY;

/// What has become of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Nobody's.
    Free = 0,
    /// Somebody is about to come.
    Claimed = 1,
    /// Somebody's.
    Here = 2,
    /// Nobody's any more, but what was its bearer's has not been given back yet.
    Left = 3,
}

/// A line of the roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// What has become of the number.
    pub state: State,
    /// How often it was claimed.
    pub epoch: u32,
    /// Whose it is, if it is `Here`; who claimed it, if it is `Claimed`.
    pub pid: u32,
}

/// A number and which bearer of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The number.
    pub holder: u16,
    /// Which one that bears it.
    pub epoch: u32,
}

const EPOCHS: u32 = 1 << 30;

impl Line {
    fn word(self) -> u64 {
        u64::from(self.pid) << 32 | u64::from(self.epoch) << 2 | self.state as u64
    }

    fn of(word: u64) -> Line {
        let state = match word & 3 {
            0 => State::Free,
            1 => State::Claimed,
            2 => State::Here,
            _ => State::Left,
        };
        Line { state, epoch: (word as u32) >> 2, pid: (word >> 32) as u32 }
    }
}

/// The lines, wherever they lie.
#[derive(Debug)]
#[repr(C)]
pub struct Lines([AtomicU64; CAPACITY]);

impl Default for Lines {
    fn default() -> Self {
        Lines(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Lines {
    /// What stands there for a number.
    pub fn line(&self, holder: u16) -> Line {
        Line::of(self.0[usize::from(holder)].load(Ordering::SeqCst))
    }

    fn step(&self, holder: u16, from: Line, to: Line) -> bool {
        let word = &self.0[usize::from(holder)];
        word.compare_exchange(from.word(), to.word(), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Claims the lowest free number, but 0, which is the host's; `None` if there is none. `pid` does it.
    pub fn claim(&self, pid: u32) -> Option<Claim> {
        (1..IN_QUEUE).find_map(|holder| self.claim_number(holder, pid))
    }

    fn claim_number(&self, holder: u16, pid: u32) -> Option<Claim> {
        let line = self.line(holder);
        let epoch = (line.epoch + 1) % EPOCHS;
        let claimed = Line { state: State::Claimed, epoch, pid };
        (line.state == State::Free && self.step(holder, line, claimed)).then_some(Claim { holder, epoch })
    }

    /// A claimed number is process `pid`'s from now on. `false`: the claim was revoked.
    pub fn settle(&self, claim: Claim, pid: u32) -> bool {
        let line = self.line(claim.holder);
        let here = Line { state: State::Here, pid, ..line };
        line.state == State::Claimed && line.epoch == claim.epoch && self.step(claim.holder, line, here)
    }

    /// Whether the number is still that bearer's.
    pub fn is_here(&self, claim: Claim) -> bool {
        let line = self.line(claim.holder);
        line.state == State::Here && line.epoch == claim.epoch
    }

    /// Its bearer goes before its process does: it holds nothing any more.
    pub fn leave(&self, claim: Claim) {
        let line = self.line(claim.holder);
        if line.state == State::Here && line.epoch == claim.epoch {
            self.step(claim.holder, line, Line { state: State::Left, ..line });
        }
    }

    /// The host: nobody has come for a claimed number, and from now on nobody can. `false`: somebody just did.
    pub fn revoke(&self, holder: u16, seen: Line) -> bool {
        seen.state == State::Claimed && self.step(holder, seen, Line { state: State::Left, ..seen })
    }

    /// The host: everything of a number's bearer, who is gone, has been given back.
    pub fn clear(&self, holder: u16) {
        let line = self.line(holder);
        // Whatever stands there: the number is given up by nobody else.
        self.step(holder, line, Line { state: State::Free, pid: 0, ..line });
    }
}

#[cfg(not(loom))]
mod shared {
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::os::unix::fs::MetadataExt;
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use shoal_sys::memory::{self, Mapping};
    use shoal_sys::process;
    use shoal_sys::random;

    use super::{Claim, Line, Lines, Roster};
    use crate::error::{Error, Result};
    use crate::memory::outside;
    use crate::memory::vault::Drawer;
    use crate::sync::bits::CAPACITY;

    const MAGIC: u64 = u64::from_le_bytes(*b"shoalros");

    #[repr(C)]
    struct Page {
        magic: u64,
        /// Where the numbers of processes in the lines, and the broker's name, mean what they mean to the first host.
        namespaces: AtomicU64,
        /// Whoever is the host.
        host: AtomicU32,
        /// Segments made so far.
        segments: AtomicU32,
        lines: Lines,
        /// Tells this domain from others.
        domain: u64,
    }

    /// Names the namespaces of processes and of sockets that this process is in; `None` if it can't be told.
    fn namespaces() -> Option<u64> {
        let inode = |path| std::fs::metadata(path).ok().map(|namespace| namespace.ino());
        Some(inode("/proc/self/ns/pid")? << 32 ^ inode("/proc/self/ns/net")?)
    }

    impl Roster {
        /// How many descriptors go with it.
        pub const FDS: usize = 3;

        /// A new roster, on which everything is free.
        pub fn create() -> Result<Roster> {
            let fd = memory::reserve("shoal-roster", size_of::<Page>())?;
            let map = Mapping::new(fd.as_fd(), memory::sealed_len(fd.as_fd())?)?;
            // SAFETY: the mapping is long enough, page-aligned, and nobody else has it yet.
            unsafe {
                map.as_ptr().cast::<Page>().write(Page {
                    magic: MAGIC,
                    namespaces: AtomicU64::new(namespaces().unwrap_or(0)),
                    host: AtomicU32::new(0),
                    segments: AtomicU32::new(0),
                    lines: Lines::default(),
                    domain: u64::from_ne_bytes(*random::token().first_chunk().expect("eight of sixteen bytes")),
                });
            };
            let roster = Roster { fd, map, vault: Drawer::new()? };
            roster.install(process::pid());
            Ok(roster)
        }

        /// The roster and the vault whose descriptors came from another process.
        pub fn open(fds: Vec<OwnedFd>) -> Result<Roster> {
            let [fd, inner, outer]: [OwnedFd; Self::FDS] = fds.try_into().map_err(|_| Error::Damaged("roster"))?;
            let len = memory::sealed_len(fd.as_fd())?;
            if len < size_of::<Page>() {
                return Err(Error::Damaged("roster"));
            }
            let (map, vault) = (Mapping::new(fd.as_fd(), len)?, Drawer::from_fds(inner, outer));
            let roster = Roster { map, fd, vault };
            if roster.page().magic == MAGIC { Ok(roster) } else { Err(Error::Damaged("roster")) }
        }

        /// The domain's number, and who bears which number in it, of the roster of another process's domain. Reads only.
        pub fn lines_outside(fd: BorrowedFd<'_>) -> Result<(u64, Vec<(u16, Line)>)> {
            let map = Mapping::read_only(fd, outside::len_of(fd, size_of::<Page>(), "roster")?)?;
            // SAFETY: long enough and page-aligned; any bytes are a valid Page, and what others write to is made of atomics,
            // which here are only loaded.
            let page = unsafe { &*map.as_ptr().cast::<Page>() };
            if page.magic != MAGIC {
                return Err(Error::Damaged("roster"));
            }
            let lines = (0..CAPACITY as u16).map(|holder| (holder, page.lines.line(holder)));
            Ok((page.domain, lines.filter(|(_, line)| line.state == super::State::Here).collect()))
        }

        /// Its descriptors, for [`Roster::open`].
        pub fn fds(&self) -> [BorrowedFd<'_>; Self::FDS] {
            let [inner, outer] = self.vault.fds();
            [self.fd.as_fd(), inner, outer]
        }

        /// Where the host keeps the descriptors of all segments.
        pub fn vault(&self) -> &Drawer {
            &self.vault
        }

        /// Whether numbers of processes and the broker's name mean to this process what they mean to the others.
        pub fn is_readable(&self) -> bool {
            // Looked at each time: a process may move.
            namespaces() == Some(self.page().namespaces.load(Ordering::Relaxed))
        }

        /// What this process is called in the lines; 0 if others would take it for somebody else.
        pub fn pid(&self) -> u32 {
            if self.is_readable() { process::pid() } else { 0 }
        }

        /// The first host: its number is not claimed.
        fn install(&self, pid: u32) {
            let free = self.line(0);
            let claimed = Line { state: super::State::Claimed, epoch: 1, pid };
            let claim = Claim { holder: 0, epoch: 1 };
            let installed = self.step(0, free, claimed) && self.settle(claim, pid);
            debug_assert!(installed, "a roster without a host");
        }

        /// Who is the host, or was the last one.
        pub fn host(&self) -> u16 {
            (self.page().host.load(Ordering::SeqCst) as u16).min(crate::memory::lease::IN_QUEUE)
        }

        /// That holder is the host from now on.
        pub fn set_host(&self, holder: u16) {
            self.page().host.store(holder.into(), Ordering::SeqCst);
        }

        /// The host: the number of the next segment, from 1 on, as 0 means nowhere.
        pub fn next_segment(&self) -> u32 {
            // Whatever others have written there.
            self.page().segments.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1)
        }

        /// A number that tells this domain from others. No secret.
        pub fn domain(&self) -> u64 {
            self.page().domain
        }

        fn page(&self) -> &Page {
            // SAFETY: the mapping is long enough, page-aligned and lives as long as `self`; any bytes are a valid Page,
            // and what others write to is made of atomics.
            unsafe { &*self.map.as_ptr().cast::<Page>() }
        }
    }

    impl std::ops::Deref for Roster {
        type Target = Lines;

        fn deref(&self) -> &Lines {
            &self.page().lines
        }
    }
}

/// The roster as one process has it mapped.
#[cfg(not(loom))]
#[derive(Debug)]
pub struct Roster {
    fd: std::os::fd::OwnedFd,
    map: shoal_sys::memory::Mapping,
    vault: super::vault::Drawer,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_bearer_at_a_time_and_the_lowest_is_given_first() {
        let roster = Lines::default();
        let (one, two) = (roster.claim(7).expect("free"), roster.claim(7).expect("free"));
        assert_eq!((one.holder, two.holder), (1, 2));
        assert!(roster.settle(one, 50) && !roster.settle(one, 51), "once");
        assert_eq!(roster.line(1), Line { state: State::Here, epoch: 1, pid: 50 });
        roster.clear(1);
        let again = roster.claim(7).expect("free");
        assert_eq!((again.holder, again.epoch), (1, 2));
        assert!(!roster.is_here(one));
    }

    #[test]
    fn who_comes_after_its_claim_was_revoked_finds_out() {
        let roster = Lines::default();
        let late = roster.claim(7).expect("free");
        assert!(roster.revoke(1, roster.line(1)));
        assert!(!roster.settle(late, 50));
        assert_eq!(roster.claim(7).expect("free").holder, 2, "until it is cleared, the number is nobody's");
        roster.clear(1);
        let next = roster.claim(7).expect("free");
        assert!(!roster.settle(late, 50) && roster.settle(next, 51));
    }

    #[test]
    fn all_numbers_but_the_first_can_be_claimed() {
        let roster = Lines::default();
        assert_eq!(std::iter::from_fn(|| roster.claim(7)).count(), usize::from(IN_QUEUE) - 1);
    }

    #[test]
    fn who_leaves_is_not_there_any_more() {
        let roster = Lines::default();
        let claim = roster.claim(7).expect("free");
        assert!(roster.settle(claim, 50) && roster.is_here(claim));
        roster.leave(claim);
        assert_eq!(roster.line(1).state, State::Left);
    }

    #[test]
    fn another_mapping_shows_the_same_lines() {
        let mine = Roster::create().expect("memory");
        let fds = mine.fds().iter().map(|fd| fd.try_clone_to_owned().expect("descriptor")).collect();
        let theirs = Roster::open(fds).expect("a roster");
        let claim = mine.claim(7).expect("free");
        assert!(theirs.settle(claim, 50) && mine.is_here(claim));
    }

    #[test]
    fn what_is_no_roster_is_refused() {
        let blank = shoal_sys::memory::reserve("blank", 8192).expect("memory");
        let [inner, outer] = crate::memory::vault::Drawer::new().expect("sockets").into_fds();
        assert!(Roster::open(vec![blank, inner, outer]).is_err());
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn loom_a_number_is_settled_or_revoked_but_not_both() {
        loom::model(|| {
            let roster = Arc::new(Lines::default());
            let late = roster.claim(1).expect("free");
            let child = {
                let roster = roster.clone();
                thread::spawn(move || roster.settle(late, 2))
            };
            // The host gives up on the child, and the number is another's at once.
            let host = {
                let roster = roster.clone();
                thread::spawn(move || {
                    let revoked = roster.revoke(late.holder, roster.line(late.holder));
                    if revoked {
                        roster.clear(late.holder);
                        let next = roster.claim_number(late.holder, 3).expect("just cleared");
                        assert!(roster.settle(next, 4));
                    }
                    revoked
                })
            };
            let (settled, revoked) = (child.join().expect("ends"), host.join().expect("ends"));
            assert!(settled != revoked);
            assert_eq!(roster.line(late.holder).pid, if settled { 2 } else { 4 });
        });
    }
}
