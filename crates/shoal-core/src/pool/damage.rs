//! What becomes of a pool's memory and messages that somebody has written over, or goes on writing over while they are read:
//! an error, or nothing that makes sense; but no panic, no read beyond what there is, and no end of it that does not come.

#![allow(unsafe_code, reason = "bytes that others write over")]

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use proptest::prelude::*;

use super::account::Account;
use super::body::Body;
use super::completion_ring::{CompletionRing, Cursors, FILLER, Head, IN_BLOCK};
use super::current::Current;
use super::in_block;
use super::layout::{MAX_WORKERS, PoolMemory};
use super::messages::{FromHost, FromZygote, Place as Seat, ToHost, ToZygote};
use super::packed::unpack;
use super::task_ring::{Positions, Slot, TaskRing};
use crate::error::Error;
use crate::memory::lease::IN_QUEUE;
use crate::memory::place::Place;
use crate::memory::roster::Claim;
use crate::testing::{Exposed, damage, damages, heap};

const SLOTS: usize = 8;
const RING: usize = 2048;

/// The bytes of something that is made of atomics, or that its users take for such.
fn exposed<T>(thing: &T) -> Exposed<'_> {
    // SAFETY: the users of the thing expect that others write to it.
    unsafe { Exposed::new((&raw const *thing).cast_mut().cast(), size_of::<T>()) }
}

/// A task ring in use.
struct Ring {
    positions: Positions,
    slots: [Slot; SLOTS],
}

impl Ring {
    fn new(pushed: u64, taken: u64) -> Box<Ring> {
        let slots = std::array::from_fn(|index| Slot::new(index, SLOTS));
        let whole = Box::new(Ring { positions: Positions::default(), slots });
        let ring = whole.ring();
        (0..pushed).for_each(|task| assert!(ring.push(&Body { task, ..Body::EMPTY })));
        (0..taken.min(pushed)).filter_map(|_| ring.try_take(1, 0)).for_each(|taken| _ = ring.release(taken));
        whole
    }

    fn ring(&self) -> TaskRing<'_> {
        TaskRing::new(&self.positions, &self.slots)
    }

    /// What a worker does, what the client does, and the supervisor after a death.
    fn used(&self) {
        let ring = self.ring();
        for task in 0..2 * SLOTS as u64 {
            let _ = (ring.push(&Body { task, ..Body::EMPTY }), ring.has_room(), ring.queued());
            if let Some(taken) = ring.try_take(2, 0) {
                ring.release(taken);
            }
            let position = ring.next_position();
            let _ = (ring.holds(position, task), ring.retract(position), ring.retract(position.wrapping_sub(1)));
        }
        let mut found = 0;
        ring.recover(2, |_| found += 1);
        assert!(found <= SLOTS);
        ring.retract_all(|_| found += 1);
        assert!(found <= 2 * SLOTS, "no more than there are");
    }
}

/// A completion ring, and a worker that writes to it.
struct Completions {
    cursors: Cursors,
    bytes: [AtomicU64; RING / 8],
}

impl Completions {
    fn new(messages: &[(usize, usize)]) -> Box<Completions> {
        let bytes = std::array::from_fn(|_| AtomicU64::new(0));
        let whole = Box::new(Completions { cursors: Cursors::default(), bytes });
        for (leases, len) in messages {
            whole.write(*leases, *len);
        }
        whole
    }

    fn ring(&self) -> CompletionRing<'_> {
        // SAFETY: so many bytes, aligned, which may be written through a shared reference, and are used by one thread.
        unsafe { CompletionRing::new(&self.cursors, self.bytes.as_ptr().cast_mut().cast(), RING) }
    }

    fn write(&self, leases: usize, len: usize) -> bool {
        let places = vec![Place { segment: 1, offset: 2, len: 3 }; leases];
        let head = Head { task: 5, leases: leases as u16, len: len as u32, ..Head::default() };
        self.ring().try_write(&head, &places, &vec![7; len]).is_some()
    }

    /// What the client does, and what it does after a death. How many messages it found.
    fn read(&self) -> usize {
        let mut found = 0;
        let (start, end) = (self.bytes.as_ptr().addr(), self.bytes.as_ptr_range().end.addr());
        let drained = self.ring().drain(|message| {
            found += 1;
            assert!(message.head.task != FILLER);
            assert!(message.payload.is_empty() || (start..end).contains(&message.payload.as_ptr().addr()));
            assert!(
                message.payload.as_ptr_range().end.addr() <= end && message.leases.as_ptr_range().end.addr() <= end
            );
            assert!(message.head.len == IN_BLOCK || message.payload.len() == message.head.len as usize);
        });
        let _ = (drained, self.cursors.filled(), self.cursors.read());
        found
    }
}

fn seat() -> impl Strategy<Value = Seat> {
    (any::<u32>(), 0..MAX_WORKERS as u16, any::<u32>()).prop_map(|(pool, worker, epoch)| Seat { pool, worker, epoch })
}

/// Sound packets of every kind.
fn packets() -> impl Strategy<Value = Vec<Vec<u8>>> {
    (seat(), 0..IN_QUEUE, any::<[u8; 16]>(), any::<u64>()).prop_map(|(place, holder, token, number)| {
        let claim = Claim { holder, epoch: place.epoch };
        let part = number as u32;
        vec![
            ToZygote::Fork { place, holder, domain: token, token }.encode(),
            ToZygote::Preload(token.to_vec()).encode(),
            FromZygote::Forked { place, pid: part }.encode(),
            FromZygote::Failed { place, errno: 1 }.encode(),
            FromZygote::Exited { pid: part, code: -9 }.encode(),
            ToHost::Hello { token }.encode(),
            ToHost::Return { token, claim }.encode(),
            ToHost::Forked { claim }.encode(),
            ToHost::Create { data: number, backed: number, entries: part, patient: true }.encode(),
            ToHost::Restore { segment: part, start: 0, end: part }.encode(),
            ToHost::Open { segment: part }.encode(),
            FromHost::Welcome { claim }.encode(),
            FromHost::Segment { id: part }.encode(),
            FromHost::OutOfMemory { wanted: number, available: 0, limit: crate::error::Limit::Pool(number) }.encode(),
            FromHost::Gone.encode(),
        ]
    })
}

/// Decodes a packet in every way, and looks that all numbers in it that the reader uses as an index are ones.
fn decode(packet: &[u8]) {
    let is_seat = |place: Seat| assert!(usize::from(place.worker) < MAX_WORKERS);
    let is_holder = |holder: u16| assert!(holder < IN_QUEUE);
    match ToZygote::decode(packet) {
        Ok(ToZygote::Fork { place, holder, .. }) => (is_seat(place), is_holder(holder)).0,
        Ok(ToZygote::Preload(what)) => assert!(what.len() < packet.len()),
        Err(error) => assert!(matches!(error, Error::Damaged(_))),
    }
    match FromZygote::decode(packet) {
        Ok(FromZygote::Forked { place, .. } | FromZygote::Failed { place, .. }) => is_seat(place),
        Ok(FromZygote::Ready { .. } | FromZygote::Exited { .. }) => {}
        Err(error) => assert!(matches!(error, Error::Damaged(_))),
    }
    match ToHost::decode(packet) {
        Ok(ToHost::Return { claim, .. } | ToHost::Forked { claim }) => is_holder(claim.holder),
        Ok(_) => {}
        Err(error) => assert!(matches!(error, Error::Damaged(_))),
    }
    match FromHost::decode(packet) {
        Ok(FromHost::Welcome { claim }) => is_holder(claim.holder),
        Ok(_) => {}
        Err(error) => assert!(matches!(error, Error::Damaged(_))),
    }
}

proptest! {
    #[test]
    fn a_packet_in_which_something_is_other_than_it_was_is_sound_or_refused(
        packets in packets(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        more in prop::collection::vec(any::<u8>(), 0..4),
    ) {
        for mut packet in packets {
            for (place, byte) in &changes {
                *place.get_mut(&mut packet) = *byte;
            }
            if let Some(cut) = cut {
                packet.truncate(cut.index(packet.len()));
            }
            packet.extend(&more);
            decode(&packet);
        }
    }

    #[test]
    fn a_task_ring_that_was_written_over_has_an_end(
        pushed in 0u64..=8, taken in 0u64..=8, positions in damages(6), slots in damages(30),
    ) {
        let ring = Ring::new(pushed, taken);
        exposed(&ring.slots).write(&slots);
        ring.used();
        exposed(&ring.positions).write(&positions);
        ring.used();
        exposed(&ring.slots).write(&slots);
        ring.used();
    }

    #[test]
    fn a_task_ring_that_is_being_written_over_has_an_end(positions in damages(6), slots in damages(30)) {
        let ring = Ring::new(4, 1);
        exposed(&ring.slots).while_written(&slots, || {
            exposed(&ring.positions).while_written(&positions, || ring.used());
        });
    }

    #[test]
    fn a_completion_ring_that_was_written_over_is_read_within_its_bounds(
        messages in prop::collection::vec((0usize..3, 0usize..200), 0..20),
        cursors in damages(6),
        bytes in damages(30),
    ) {
        let whole = Completions::new(&messages);
        exposed(&whole.bytes).write(&bytes);
        prop_assert!(whole.read() <= RING / size_of::<Head>());
        exposed(&whole.cursors).write(&cursors);
        prop_assert!(whole.read() <= RING / size_of::<Head>());
        whole.write(1, 100);
        whole.read();
        // The worker is dead, and another one comes.
        whole.cursors.reset();
        prop_assert!(whole.write(1, 100), "there is room");
        prop_assert_eq!(whole.read(), 1);
    }

    #[test]
    fn a_completion_ring_that_is_being_written_over_is_read_within_its_bounds(
        messages in prop::collection::vec((0usize..3, 0usize..200), 0..20),
        cursors in damages(6),
        bytes in damages(30),
    ) {
        let whole = Completions::new(&messages);
        exposed(&whole.bytes).while_written(&bytes, || {
            exposed(&whole.cursors).while_written(&cursors, || {
                for _ in 0..10 {
                    assert!(whole.read() <= RING / size_of::<Head>());
                    whole.write(1, 100);
                }
            });
        });
    }

    #[test]
    fn a_result_block_of_any_bytes_is_read_within_them(words in prop::collection::vec(damage(), 0..20), more in 0usize..8) {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(bytes.len().saturating_sub(more));
        if let Ok((places, payload_at)) = in_block::read(&bytes) {
            prop_assert!(payload_at <= bytes.len() && places.len() * 24 < bytes.len());
        }
        let _ = in_block::count(&bytes).map(in_block::front);
    }

    #[test]
    fn items_of_which_a_length_is_other_than_it_was_are_sound_or_refused(
        items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..9),
        place: prop::sample::Index,
        byte: u8,
    ) {
        let mut packed = super::packed::Packed::default();
        items.iter().for_each(|item| packed.push(item, vec![]));
        let mut message = packed.message(0..items.len());
        *place.get_mut(&mut message) = byte;
        if let Ok(found) = unpack(&message) {
            prop_assert!(found.map(<[u8]>::len).sum::<usize>() <= message.len());
        }
    }

    #[test]
    fn counters_of_any_value_add_up_to_something(damage in damages(9)) {
        let account = Account::default();
        exposed(&account).write(&damage);
        let before = account.read();
        account.begin(5);
        account.search(true);
        account.taken(7);
        account.ended(9, 2, (u64::MAX, u64::MAX));
        let _ = account.read().since(&before);
        account.died();
        let _ = account.read();
    }

    #[test]
    fn what_a_worker_is_at_may_be_anything(damage in damages(2), task: u64) {
        let current = Current::default();
        exposed(&current).write(&damage);
        let _ = (current.running(), current.is_idle(), current.is_stopped(), current.stop(task), current.end(task));
        let _ = current.take();
        prop_assert!(current.is_idle());
    }
}

proptest! {
    // Each makes a segment.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_pools_memory_that_was_written_over_is_refused_or_used_within_its_bounds(
        front in damages(12), all in damages(60),
    ) {
        let mine = PoolMemory::create(3, 8, 4096, 2, Place::default(), 0).expect("memory");
        // SAFETY: the front of the pool's own mapping, in which all but what never changes is made of atomics.
        let whole = unsafe { Exposed::new(mine.completion_bytes(0).0.wrapping_sub(mine.rings_at()), mine.rings_at()) };
        whole.write(&all);
        let used = |memory: &PoolMemory| {
            let control = memory.control();
            control.gate.wake_all(|worker| memory.park(worker));
            control.gate.published(|worker| memory.park(worker));
            memory.ask_for_memory(true);
            let _ = (memory.tasks().queued(), memory.tasks().try_take(0, 0));
            memory.tasks().recover(1, |_| ());
            memory.tasks().retract_all(|_| ());
            control.gate.sleep(0, memory.park(0), || false, Some(Duration::ZERO));
            for worker in 0..memory.workers() as u16 {
                let (bytes, capacity) = memory.completion_bytes(worker);
                // SAFETY: the ring's own bytes.
                let ring = unsafe { CompletionRing::new(&memory.record(worker).cursors, bytes, capacity) };
                let _ = ring.drain(|message| assert!(message.payload.len() <= capacity));
            }
        };
        used(&mine);
        // SAFETY: as above, its first words.
        unsafe { Exposed::new(mine.completion_bytes(0).0.wrapping_sub(mine.rings_at()), 64) }.write(&front);
        if let Ok(theirs) = PoolMemory::open(mine.fd().try_clone_to_owned().expect("descriptor")) {
            used(&theirs);
            whole.while_written(&all, || used(&theirs));
        }
    }

    #[test]
    fn a_place_that_is_none_is_refused(segment in damage(), offset in damage(), len in damage()) {
        let heap = heap();
        let lease = heap.allocate(5000).expect("memory");
        let known = heap.segment(lease.id().segment).expect("mapped");
        let found = heap.segment(segment as u32).and_then(|segment| segment.address(offset, len).map(|_| segment));
        if let Ok(found) = found {
            prop_assert!(Arc::ptr_eq(&found, &known) && offset >= known.data_at() && offset + len <= known.len());
        }
    }
}
