//! What becomes of segments, leases, envelopes and the roster that somebody has written over, or goes on writing over while they
//! are used, and of handles and descriptors that are something else: an error, or other bytes of the same segment.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use proptest::prelude::*;
use shoal_sys::memory::{Mapping, reserve};
use shoal_sys::socket::Seqpacket;

use super::envelope;
use super::handle::{Address, Handle, SIZE};
use super::heap::{BlockId, Heap, Lease};
use super::lease::{Cell, Kind};
use super::roster::{Claim, Roster};
use super::segment::{GRANULE, Segment};
use super::vault::{Drawer, Vault};
use super::view::Views;
use super::words::{Shared, Words};
use crate::error::Error;
use crate::queue;
use crate::sync::bits::CAPACITY;
use crate::testing::{Exposed, damages, heap};

fn dup(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().expect("a descriptor")
}

/// All bytes of a segment, as another process has them mapped.
fn whole(segment: &Segment) -> (Mapping, Exposed<'static>) {
    let map = Mapping::new(segment.fd(), segment.len() as usize).expect("mapped");
    // SAFETY: the test keeps the mapping as long as it writes there.
    let exposed = unsafe { Exposed::new(map.as_ptr(), map.len()) };
    (map, exposed)
}

/// The front of a segment: its header and table, and what lies between these and the data.
fn front(map: &Mapping, len: u64) -> Exposed<'static> {
    // SAFETY: as above.
    unsafe { Exposed::new(map.as_ptr(), len as usize) }
}

/// The bytes of a lease lie in its segment's data, and are as many as it says.
fn look_at(lease: &Lease, segment: &Segment, map: &Mapping) {
    let (len, start) = (lease.len(), map.as_ptr().addr());
    if let Ok(address) = lease.address() {
        let inside = || lease.offset() >= segment.data_at() && lease.offset() + len <= segment.len();
        assert!(len == 0 || inside(), "{} bytes at {} of {start:x}", len, lease.offset());
        // SAFETY: nobody cares for what is there, and that it changes.
        (0..len).step_by(4096).for_each(|at| _ = unsafe { address.wrapping_add(at as usize).read_volatile() });
    }
    let _ = (lease.kind(), lease.held_by_host(), envelope::bytes(lease).map(<[u8]>::len));
}

struct Many([std::sync::atomic::AtomicU64; 1000]);
// SAFETY: nothing but atomics.
unsafe impl Words for Many {}

/// What all processes of a domain do with a segment.
fn use_all(heap: &Arc<Heap>, segment: &Segment, map: &Mapping, ids: &[BlockId]) {
    let views = Views::default();
    for id in ids {
        let Ok(lease) = heap.take(*id) else { continue };
        look_at(&lease, segment, map);
        if !lease.is_empty()
            && let Ok(view) = views.open(lease.clone())
        {
            let last = view.address().wrapping_add(view.lease().len() as usize - 1);
            // SAFETY: within the view.
            let _ = unsafe { last.read_volatile() };
        }
        if let Ok(many) = Shared::<Many>::new(lease.clone()) {
            many.0[999].load(std::sync::atomic::Ordering::Relaxed);
        }
        let _ = queue::Queue::open(lease).map(|queue| queue.len());
    }
    for index in 0..segment.entries().len() as u32 {
        let _ = envelope::named(segment, index);
    }
}

/// What the host does when a process has ended, with what that has left.
fn clean_up(heap: &Arc<Heap>) {
    let _ = (queue::recover(heap, 5), heap.usage(|_| None));
    heap.give_back_all(5, |lease, kind| crate::sync::deaths::tell(lease, kind, 5));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_segment_whose_header_was_written_over_is_refused_or_used_within_its_bounds(
        words in damages(12), data in 1u64..20_000, entries in 1u32..40,
    ) {
        let mine = Segment::create(7, data, data, entries).expect("memory");
        let (map, _) = whole(&mine);
        front(&map, 128).write(&words);
        if let Ok(theirs) = Segment::open(7, dup(mine.fd())) {
            prop_assert_eq!(theirs.len(), mine.len());
            prop_assert!(theirs.used_entries().len() <= theirs.entries().len() && theirs.released() < theirs.len());
            prop_assert!(theirs.address(theirs.data_at(), data).is_ok());
            let _ = theirs.owner();
        }
        // Read once: a header that changes while it is looked at is sound or refused.
        front(&map, 128).while_written(&words, || {
            if let Ok(theirs) = Segment::open(7, dup(mine.fd())) {
                assert_eq!(theirs.len(), mine.len());
                assert!(theirs.entries().len() as u64 * 128 < theirs.data_at());
            }
        });
    }

    #[test]
    fn a_lease_on_a_line_that_was_written_over_is_refused_or_lies_in_the_data(table in damages(60), all in damages(60)) {
        let heap = heap();
        let mut kept: Vec<Lease> = (1..6).map(|pages| heap.allocate(pages * 3000).expect("memory")).collect();
        kept.push(heap.allocate_words::<Many>(Kind::Semaphore).expect("memory").lease().clone());
        kept.push(heap.envelope(&[7; 100], vec![kept[0].clone()]).expect("memory"));
        let segment = heap.segment(kept[0].id().segment).expect("mapped");
        let (map, everything) = whole(&segment);
        let ids: Vec<BlockId> = kept.iter().map(Lease::id).collect();
        // Taken anew by another process: what this one has it knows already.
        let other = Heap::new(5, heap.address(), Box::new(crate::testing::Alone::default()));
        other.know(&segment);
        let table_end = 4096 + 128 * 16;
        front(&map, table_end).write(&table);
        use_all(&other, &segment, &map, &ids);
        front(&map, table_end).while_written(&table, || use_all(&other, &segment, &map, &ids));
        everything.while_written(&all, || use_all(&other, &segment, &map, &ids));
        kept.iter().for_each(|lease| look_at(lease, &segment, &map));
        clean_up(&heap);
        everything.write(&all);
        use_all(&other, &segment, &map, &ids);
        clean_up(&heap);
        // Its owner goes on: its own books are elsewhere.
        drop(kept);
        let again = heap.allocate(100_000).expect("memory");
        prop_assert_eq!(again.len(), 100_000);
    }

    #[test]
    fn granules_are_released_and_restored_whatever_their_states_say(all in damages(40), first: u32, count: u32) {
        let segment = Segment::create(3, 3 * GRANULE, 3 * GRANULE, 8).expect("memory");
        let (map, _) = whole(&segment);
        front(&map, segment.data_at()).write(&all);
        let (first, last) = (first as usize % 8, first as usize % 8 + count as usize % 8);
        let restored = segment.restore(first..last);
        prop_assert!(restored.is_ok() || last > segment.granules() || first >= last);
        let _ = (segment.release(1..2), segment.address(segment.data_at(), 2 * GRANULE));
        prop_assert!(segment.released() <= segment.len());
    }

    #[test]
    fn a_handle_of_which_any_bit_is_other_than_it_was_is_refused(
        kinds in prop::sample::select(vec![0usize, 1, 2]), bit in 0usize..(SIZE - 36) * 8,
    ) {
        let heap = heap();
        let kept = [
            heap.allocate(100).expect("memory"),
            heap.allocate_cell(Kind::Lock).expect("memory"),
            heap.allocate_words::<Many>(Kind::Barrier).expect("memory").lease().clone(),
        ];
        let handle = Handle { address: Address { domain: [1; 16], token: [2; 16] }, block: kept[kinds].id() };
        let mut bytes = handle.to_bytes();
        bytes[36 + bit / 8] ^= 1 << (bit % 8);
        let other = Handle::from_bytes(&bytes).expect("as long");
        match heap.take(other.block) {
            // Another block that is there: which it is, is seen by its kind.
            Ok(lease) => prop_assert!(kept.iter().any(|kept| kept.id() == lease.id())),
            Err(error) => prop_assert!(matches!(error, Error::Gone | Error::Damaged(_)), "{error}"),
        }
    }

    #[test]
    fn a_roster_that_was_written_over_says_something_of_every_number(words in damages(60), changing in damages(60)) {
        let roster = Roster::create().expect("memory");
        let map = Mapping::new(roster.fds()[0], 4096).expect("mapped");
        let exposed = front(&map, 4096);
        let used = || {
            for holder in 0..CAPACITY as u16 {
                let line = roster.line(holder);
                let claim = Claim { holder, epoch: line.epoch };
                let _ = (roster.settle(claim, 7), roster.is_here(claim), roster.revoke(holder, line));
                roster.leave(claim);
                roster.clear(holder);
            }
            let _ = (roster.claim(7), roster.is_readable(), roster.line(roster.host()), roster.next_segment());
        };
        exposed.write(&words);
        used();
        exposed.while_written(&changing, used);
        let fds = roster.fds().iter().map(dup).collect();
        let _ = Roster::open(fds).map(|roster| roster.line(roster.host()));
    }

    #[test]
    fn a_vault_with_anything_in_it_is_refused_or_sound(
        bytes in prop::collection::vec(any::<u8>(), 1..40), sound: bool, fds in 0usize..6, kind in 0usize..3,
    ) {
        let top = Drawer::new().expect("sockets");
        let [inner, _] = top.fds();
        let segment = Segment::create(1, 4096, 4096, 1).expect("memory");
        let blank = reserve("blank", 4096).expect("memory");
        let socket = Seqpacket::from_fd(dup(inner));
        let thrown = [segment.fd(), blank.as_fd(), inner][kind];
        let bytes = if sound { vec![b'v'] } else { bytes };
        socket.try_send(&bytes, &vec![thrown; fds]).expect("sent");
        if let Ok(vault) = Vault::take_over(&top, |_| None) {
            prop_assert!(vault.segments().is_empty());
        }
    }
}

#[test]
fn a_cell_is_made_of_atomics_only() {
    assert_eq!(size_of::<Cell>(), 40);
}

#[test]
fn what_is_no_sealed_memory_is_no_segment() {
    let file = std::fs::File::open("/dev/null").expect("there is one").into();
    let (socket, _) = Seqpacket::pair().expect("sockets");
    for fd in [file, socket.into_fd()] {
        assert!(Segment::open(1, fd).is_err());
    }
}
