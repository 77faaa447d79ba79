//! The vault: where the host keeps a descriptor of every segment, so that it outlives the host.
//!
//! Descriptors that were sent and not received yet lie in the kernel, and keep what they name for as long as somebody has
//! the socket in whose queue they lie. So they take no descriptors of those who don't need them, and no process has to
//! receive anything: every member of a domain has the two ends of one socket, the top drawer. In its queue lies one message
//! with the ends of further drawers, and in each of these one message with the descriptors of some segments.
//!
//! ```text
//! top drawer: | drawer, drawer, … |      drawer: | segment, segment, … |
//! ```
//!
//! Only the host changes them: the new message first, then the old one goes. In between there are two, and the last one
//! counts. See `docs/design/succession.md`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_sys::socket::{MAX_FDS, Packet, Seqpacket};

use super::segment::Segment;
use crate::crash;
use crate::error::{Error, Result};

/// How many segments a drawer has room for: each change of it sends all of them.
const ROOM: usize = 64;
/// For how many more there has to be room when a drawer is given up: one segment that comes and goes is not to bring and
/// take a drawer each time.
const SPARE: usize = ROOM / 2;
/// How many drawers there can be, two descriptors each.
const DRAWERS: usize = MAX_FDS / 2;
/// A byte that every message begins with: none is empty.
const MARK: u8 = b'v';

/// A place for one message with descriptors.
#[derive(Debug)]
pub struct Drawer {
    inner: Seqpacket,
    outer: Seqpacket,
}

impl Drawer {
    /// An empty drawer.
    pub fn new() -> Result<Drawer> {
        let (inner, outer) = Seqpacket::pair()?;
        Ok(Drawer { inner, outer })
    }

    /// The drawer whose descriptors came from another process.
    pub fn from_fds(inner: OwnedFd, outer: OwnedFd) -> Drawer {
        Drawer { inner: Seqpacket::from_fd(inner), outer: Seqpacket::from_fd(outer) }
    }

    /// Its descriptors, for [`Drawer::from_fds`].
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.inner.as_fd(), self.outer.as_fd()]
    }

    /// Its descriptors, for [`Drawer::from_fds`].
    pub fn into_fds(self) -> [OwnedFd; 2] {
        [self.inner.into_fd(), self.outer.into_fd()]
    }

    /// Puts this in, in place of what was there.
    fn fill(&self, names: &[u32], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let bytes: Vec<u8> = std::iter::once(MARK).chain(names.iter().flat_map(|name| name.to_le_bytes())).collect();
        self.inner.try_send(&bytes, fds)?;
        crash::point("vault: sent");
        while self.outer.queued()? > bytes.len() {
            self.outer.skip()?;
        }
        crash::point("vault: changed");
        Ok(())
    }

    /// What lies in it.
    fn look(&self) -> Result<(Vec<u32>, Vec<OwnedFd>)> {
        loop {
            let Packet { bytes, fds } = match self.outer.peek() {
                Ok(packet) => packet.ok_or(Error::Damaged("vault"))?,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok((vec![], vec![])),
                Err(error) => return Err(error.into()),
            };
            if self.outer.queued()? > bytes.len() {
                // The host ended before it took out the old one.
                self.outer.skip()?;
                continue;
            }
            let (names, rest) = bytes[1..].as_chunks::<4>();
            if bytes[0] != MARK || !rest.is_empty() {
                return Err(Error::Damaged("vault"));
            }
            return Ok((names.iter().map(|name| u32::from_le_bytes(*name)).collect(), fds));
        }
    }
}

/// The vault as the host has it.
#[derive(Debug, Default)]
pub struct Vault(Mutex<Vec<Shelf>>);

/// A drawer and what lies in it.
#[derive(Debug)]
struct Shelf {
    drawer: Drawer,
    segments: BTreeMap<u32, Arc<Segment>>,
}

impl Shelf {
    fn fill(&self) -> Result<()> {
        let names: Vec<u32> = self.segments.keys().copied().collect();
        let fds: Vec<_> = self.segments.values().map(|segment| segment.fd()).collect();
        self.drawer.fill(&names, &fds)
    }
}

/// Puts the ends of all drawers into the top drawer.
fn tell(top: &Drawer, shelves: &[Shelf]) -> Result<()> {
    top.fill(&[], &shelves.iter().flat_map(|shelf| shelf.drawer.fds()).collect::<Vec<_>>())
}

/// The drawer with the fewest segments goes; they come to lie in others first, which have room for them.
fn give_up_one(top: &Drawer, shelves: &mut Vec<Shelf>) -> Result<()> {
    let Some(index) = (0..shelves.len()).min_by_key(|&index| shelves[index].segments.len()) else { return Ok(()) };
    let given_up = shelves.remove(index);
    let mut moving = given_up.segments.iter().map(|(id, segment)| (*id, segment.clone()));
    let mut moved = Ok(());
    for shelf in &mut *shelves {
        let more: Vec<_> = moving.by_ref().take(ROOM - shelf.segments.len()).collect();
        if !more.is_empty() {
            // Also if all of it is there already: what could not be sent the last time is sent now.
            shelf.segments.extend(more);
            moved = moved.and(shelf.fill());
        }
    }
    drop(moving);
    let told = moved.and_then(|()| tell(top, shelves));
    match &told {
        // Forks of the host have its ends, too, and would keep what lies in it. If it can't be emptied, they do.
        Ok(()) => _ = given_up.drawer.fill(&[], &[]),
        // What lies in two drawers is taken out of both.
        Err(_) => shelves.insert(index, given_up),
    }
    told
}

impl Vault {
    fn lock(&self) -> MutexGuard<'_, Vec<Shelf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a segment in.
    pub fn add(&self, top: &Drawer, segment: &Arc<Segment>) -> Result<()> {
        let mut shelves = self.lock();
        let index = match shelves.iter().position(|shelf| shelf.segments.len() < ROOM) {
            Some(index) => index,
            None if shelves.len() == DRAWERS => return Err(Error::Damaged("vault")),
            None => {
                shelves.push(Shelf { drawer: Drawer::new()?, segments: BTreeMap::new() });
                if let Err(error) = tell(top, &shelves) {
                    shelves.pop();
                    return Err(error);
                }
                shelves.len() - 1
            }
        };
        let shelf = &mut shelves[index];
        shelf.segments.insert(segment.id(), segment.clone());
        // If it fails now, it is put in with the next one.
        shelf.fill()
    }

    /// Takes segments out, and gives up drawers that are not needed any more, nor soon.
    pub fn remove(&self, top: &Drawer, ids: &[u32]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut outcome = Ok(());
        let mut shelves = self.lock();
        for shelf in &mut *shelves {
            let before = shelf.segments.len();
            shelf.segments.retain(|id, _| !ids.contains(id));
            if shelf.segments.len() < before {
                outcome = outcome.and(shelf.fill());
            }
        }
        loop {
            let taken: usize = shelves.iter().map(|shelf| shelf.segments.len()).sum();
            let is_spare = shelves.len() > 1 && (shelves.len() - 1) * ROOM >= taken + SPARE;
            // Nothing is lost if it can't be given up now: the next removal tries again.
            if !is_spare || give_up_one(top, &mut shelves).is_err() {
                return outcome;
            }
        }
    }

    /// Who follows the host: what lies in the vault. `known` are segments that are mapped here already.
    pub fn take_over(top: &Drawer, known: impl Fn(u32) -> Option<Arc<Segment>>) -> Result<Vault> {
        let (_, ends) = top.look()?;
        let mut shelves = vec![];
        let mut ends = ends.into_iter();
        while let (Some(inner), Some(outer)) = (ends.next(), ends.next()) {
            let drawer = Drawer::from_fds(inner, outer);
            let (names, fds) = drawer.look()?;
            if names.len() != fds.len() {
                return Err(Error::Damaged("vault"));
            }
            let mut segments = BTreeMap::new();
            for (name, fd) in names.into_iter().zip(fds) {
                let segment = match known(name) {
                    Some(segment) => segment,
                    None => Arc::new(Segment::open(name, fd)?),
                };
                segments.insert(name, segment);
            }
            shelves.push(Shelf { drawer, segments });
        }
        Ok(Vault(Mutex::new(shelves)))
    }

    /// All that lies in it.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.lock().iter().flat_map(|shelf| shelf.segments.values().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(id: u32) -> Arc<Segment> {
        Arc::new(Segment::create(id, 4096, 4096, 1).expect("memory"))
    }

    fn found(top: &Drawer) -> Vec<u32> {
        let segments = Vault::take_over(top, |_| None).expect("sound").segments();
        let mut ids: Vec<u32> = segments.iter().map(|segment| segment.id()).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn what_was_put_in_is_found_by_whoever_follows() {
        let (top, vault) = (Drawer::new().expect("sockets"), Vault::default());
        assert_eq!(found(&top), []);
        // More than one drawer has room for.
        let ids: Vec<u32> = (1..150).collect();
        ids.iter().for_each(|&id| vault.add(&top, &segment(id)).expect("room"));
        drop(vault);
        assert_eq!(found(&top), ids);
        assert_eq!(found(&top), ids, "and by the next");
    }

    #[test]
    fn what_was_taken_out_is_not_there_and_its_place_is_used_again() {
        let (top, vault) = (Drawer::new().expect("sockets"), Vault::default());
        (1..100).for_each(|id| vault.add(&top, &segment(id)).expect("room"));
        vault.remove(&top, &[3, 70]).expect("taken out");
        let follower = Vault::take_over(&top, |_| None).expect("sound");
        follower.add(&top, &segment(200)).expect("room");
        let now = found(&top);
        assert!(now.contains(&200) && !now.contains(&3) && !now.contains(&70));
        assert_eq!(now.len(), 98);
    }

    #[test]
    fn drawers_that_are_not_needed_soon_are_given_up() {
        let (top, vault) = (Drawer::new().expect("sockets"), Vault::default());
        let drawers = |vault: &Vault| vault.lock().len();
        (0..200).for_each(|id| vault.add(&top, &segment(id)).expect("room"));
        assert_eq!(drawers(&vault), 4);
        // Whichever of them it is that empties.
        (0..100).for_each(|id| vault.remove(&top, &[id]).expect("taken out"));
        assert_eq!(drawers(&vault), 3);
        assert_eq!(found(&top), (100..200).collect::<Vec<_>>());
        let most: Vec<u32> = (100..199).collect();
        vault.remove(&top, &most).expect("taken out");
        assert_eq!((drawers(&vault), found(&top)), (1, vec![199]));
        vault.remove(&top, &[199]).expect("taken out");
        assert_eq!((drawers(&vault), found(&top)), (1, vec![]));
        vault.add(&top, &segment(7)).expect("room");
        assert_eq!(found(&top), [7]);
    }

    #[test]
    fn what_lies_in_a_drawer_that_is_given_up_comes_to_lie_in_another() {
        let (top, vault) = (Drawer::new().expect("sockets"), Vault::default());
        (0..190).for_each(|id| vault.add(&top, &segment(id)).expect("room"));
        let most: Vec<u32> = (0..190).filter(|id| id % 10 != 0).collect();
        vault.remove(&top, &most).expect("taken out");
        assert_eq!(vault.lock().len(), 1);
        assert_eq!(found(&top), (0..190).step_by(10).collect::<Vec<_>>());
    }

    #[test]
    fn what_could_not_be_sent_into_another_drawer_is_sent_when_its_own_is_given_up() {
        let (top, vault) = (Drawer::new().expect("sockets"), Vault::default());
        (0..70).for_each(|id| vault.add(&top, &segment(id)).expect("room"));
        {
            // As after an attempt that failed: known to be there, and not there.
            let mut shelves = vault.lock();
            let others = shelves[1].segments.clone();
            shelves[0].segments.retain(|id, _| *id < 5);
            shelves[0].segments.extend(others);
        }
        vault.remove(&top, &[0]).expect("taken out");
        assert_eq!((vault.lock().len(), found(&top)), (1, vec![1, 2, 3, 4, 64, 65, 66, 67, 68, 69]));
    }

    #[test]
    fn a_drawer_that_is_given_up_is_empty_for_whoever_has_its_ends() {
        let (top, vault) = (Drawer::new().expect("sockets"), Vault::default());
        (0..65).for_each(|id| vault.add(&top, &segment(id)).expect("room"));
        let kept = {
            let shelves = vault.lock();
            let [inner, outer] = shelves[1].drawer.fds().map(|end| end.try_clone_to_owned().expect("a descriptor"));
            Drawer::from_fds(inner, outer)
        };
        assert_eq!(kept.look().expect("sound").0, [64]);
        vault.remove(&top, &(0..60).collect::<Vec<_>>()).expect("taken out");
        assert_eq!((vault.lock().len(), found(&top)), (1, vec![60, 61, 62, 63, 64]));
        assert!(kept.look().expect("sound").1.is_empty());
    }

    #[test]
    fn what_lies_in_two_drawers_as_the_host_ended_before_it_gave_one_up_is_found_and_taken_out_of_both() {
        let (top, vault) = (Drawer::new().expect("sockets"), Vault::default());
        (0..65).for_each(|id| vault.add(&top, &segment(id)).expect("room"));
        {
            let mut shelves = vault.lock();
            shelves[0].segments.retain(|id, _| *id < 3);
            let others = shelves[1].segments.clone();
            shelves[0].segments.extend(others);
            shelves[0].fill().expect("sent");
        }
        drop(vault);
        assert_eq!(found(&top), [0, 1, 2, 64, 64]);
        let follower = Vault::take_over(&top, |_| None).expect("sound");
        follower.remove(&top, &[64]).expect("taken out");
        assert_eq!((follower.lock().len(), found(&top)), (1, vec![0, 1, 2]));
    }

    #[test]
    fn one_that_comes_and_goes_does_not_bring_and_take_a_drawer_each_time() {
        let (top, vault) = (Drawer::new().expect("sockets"), Vault::default());
        (0..=ROOM as u32).for_each(|id| vault.add(&top, &segment(id)).expect("room"));
        vault.remove(&top, &[ROOM as u32]).expect("taken out");
        assert_eq!(vault.lock().len(), 2);
    }

    #[test]
    fn the_last_message_counts_when_a_host_ended_before_it_took_out_the_old_one() {
        let drawer = Drawer::new().expect("sockets");
        drawer.fill(&[1], &[drawer.inner.as_fd()]).expect("sent");
        drawer.inner.try_send(&[MARK, 2, 0, 0, 0, 3, 0, 0, 0], &[drawer.inner.as_fd(); 2]).expect("sent");
        for _ in 0..2 {
            let (names, fds) = drawer.look().expect("sound");
            assert_eq!((names, fds.len()), (vec![2, 3], 2));
        }
    }
}
