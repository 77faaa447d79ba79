//! What becomes of locks and the like that somebody has written over, or goes on writing over while they are used: anything
//! they like, but nobody panics, and nobody who has no patience waits.

#![allow(unsafe_code, reason = "bytes that others write over")]

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::barrier::{Barrier, Inside};
use super::bits::CAPACITY;
use super::condition::{Condition, Plain, Reentrant, Waiters};
use super::event::{self, Event};
use super::gate::Gate;
use super::lock::{self, Lock};
use super::patience::Patience;
use super::rlock::{self, Owner, RLock};
use super::semaphore::{Held, Semaphore};
use super::tally::Tally;
use crate::memory::heap::{Heap, Lease};
use crate::memory::lease::{Cell, Kind};
use crate::memory::words::{Shared, Words};
use crate::testing::{Exposed, damages, heap};

/// Those who have numbers here: the first, some, the last.
const HOLDERS: [u16; 3] = [0, 77, CAPACITY as u16 - 1];
const OWNER: Owner = Owner { holder: 77, thread: 3 };

/// The words of a cell, and those beside it.
fn cell_of(lease: &Lease) -> Exposed<'_> {
    // SAFETY: a cell is made of atomics.
    unsafe { Exposed::new((&raw const *lease.cell()).cast_mut().cast(), size_of::<Cell>()) }
}

/// Does `act` with somebody who is asked soon, and says that it is enough.
fn impatient<T>(act: impl FnOnce(&mut Patience<'_>) -> T) -> T {
    act(&mut Patience::within(Some(Duration::ZERO)).hasty())
}

fn words<T: Words>(heap: &Arc<Heap>, kind: Kind) -> Shared<T> {
    heap.allocate_words::<T>(kind).expect("memory")
}

fn use_locks(cell: &Cell) {
    for holder in HOLDERS {
        let lock = Lock::new(cell);
        let _ = (lock.try_acquire(holder), lock.is_held_by(holder), lock.is_abandoned(), lock.is_spoilt());
        let _ = (lock.acquire(holder, Some(Duration::ZERO)), lock.release());
        let _ = impatient(|patience| lock.repair(holder, patience));
        lock::abandon(cell, holder);
        let (lock, owner) = (RLock::new(cell), Owner { holder, ..OWNER });
        let _ = (impatient(|patience| lock.acquire(owner, patience)), lock.times(owner), lock.release(owner));
        rlock::abandon(cell, holder);
    }
}

fn use_event(cell: &Cell) {
    let event = Event::new(cell);
    let _ = impatient(|patience| event.wait(patience));
    event.set();
    event.clear();
    event::stir(cell);
}

fn use_tally(cell: &Cell) {
    let tally = Tally::new(cell);
    let _ = (tally.add(7), tally.add(i64::MIN), tally.amount());
    tally.add_real(0.5);
    let _ = tally.amount();
}

fn use_semaphore(semaphore: &Semaphore<'_>) {
    for holder in HOLDERS {
        let _ = (semaphore.try_acquire(holder), semaphore.release(holder), semaphore.held_by(holder));
        let _ = impatient(|patience| semaphore.acquire(holder, patience));
        let _ = (semaphore.permits(), semaphore.is_signal(), semaphore.recovered());
        semaphore.abandon(holder);
    }
}

fn use_condition(condition: &Condition<'_>, guard: &Cell) {
    for holder in HOLDERS {
        let plain = Plain { cell: guard, holder };
        Lock::new(guard).try_acquire(holder);
        let _ = impatient(|patience| impatient(|back| condition.wait(holder, &plain, patience, back)));
        Lock::new(guard).release();
        let reentrant = Reentrant { cell: guard, owner: Owner { holder, ..OWNER } };
        let _ = RLock::new(guard).acquire_now(reentrant.owner);
        let _ = impatient(|patience| impatient(|back| condition.wait(holder, &reentrant, patience, back)));
        let _ = (condition.waiting(), condition.notify(3), condition.notify(u32::MAX));
        condition.abandon(holder);
    }
}

fn use_barrier(barrier: &Barrier<'_>) {
    for holder in HOLDERS {
        if let Ok((party, last)) = impatient(|patience| barrier.arrive(holder, patience)) {
            let _ = if last { barrier.open(party, true) } else { impatient(|patience| barrier.wait(party, patience)) };
        }
        let _ = (barrier.waiting(), barrier.is_broken(), barrier.parties());
        barrier.reset();
        let _ = impatient(|patience| barrier.arrive(holder, patience));
        barrier.abandon(holder);
        barrier.abort();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn cells_that_were_written_over_keep_nobody(damage in damages(8)) {
        let lease = heap().allocate_cell(Kind::Lock).expect("memory");
        let (cell, exposed) = (lease.cell(), cell_of(&lease));
        for used in [use_locks, use_event, use_tally] {
            exposed.write(&damage);
            used(cell);
            exposed.while_written(&damage, || used(cell));
        }
    }

    #[test]
    fn semaphores_that_were_written_over_keep_nobody(cell in damages(8), table in damages(20), permits in 0u32..4) {
        let shared = words::<Held>(&heap(), Kind::Semaphore);
        let semaphore = Semaphore::new(shared.lease().cell(), &shared);
        semaphore.make(permits, 3.max(permits));
        Exposed::of(shared.lease()).write(&table);
        use_semaphore(&semaphore);
        cell_of(shared.lease()).write(&cell);
        use_semaphore(&semaphore);
        Exposed::of(shared.lease()).while_written(&table, || {
            cell_of(shared.lease()).while_written(&cell, || use_semaphore(&semaphore))
        });
    }

    #[test]
    fn conditions_that_were_written_over_keep_nobody(cell in damages(8), table in damages(20)) {
        let heap = heap();
        let (shared, guard) = (words::<Waiters>(&heap, Kind::Condition), heap.allocate_cell(Kind::Lock).expect("memory"));
        let condition = Condition::new(shared.lease().cell(), &shared);
        Exposed::of(shared.lease()).write(&table);
        use_condition(&condition, guard.cell());
        cell_of(shared.lease()).write(&cell);
        use_condition(&condition, guard.cell());
        cell_of(&guard).while_written(&cell, || {
            Exposed::of(shared.lease()).while_written(&table, || use_condition(&condition, guard.cell()))
        });
    }

    #[test]
    fn barriers_that_were_written_over_keep_nobody(cell in damages(8), table in damages(20), parties in 1u32..4) {
        let shared = words::<Inside>(&heap(), Kind::Barrier);
        let barrier = Barrier::new(shared.lease().cell(), &shared);
        barrier.make(parties);
        Exposed::of(shared.lease()).write(&table);
        use_barrier(&barrier);
        cell_of(shared.lease()).write(&cell);
        use_barrier(&barrier);
        Exposed::of(shared.lease()).while_written(&table, || {
            cell_of(shared.lease()).while_written(&cell, || use_barrier(&barrier))
        });
    }

    #[test]
    fn a_gate_that_was_written_over_wakes_whom_it_likes(damage in damages(20)) {
        let (gate, park) = (Gate::default(), super::futex::Futex::default());
        // SAFETY: a gate is made of atomics.
        let exposed = unsafe { Exposed::new((&raw const gate).cast_mut().cast(), size_of::<Gate>()) };
        let used = || {
            for worker in [0, 3, 499] {
                gate.add(worker);
                gate.search(worker);
                gate.sleep(worker, &park, || false, Some(Duration::ZERO));
                gate.published(|_| &park);
                gate.found(worker, || true, |_| &park);
                let _ = (gate.running(), gate.spinning(), gate.idle(), gate.has_idle());
                gate.remove(worker, |_| &park);
            }
        };
        exposed.write(&damage);
        used();
        exposed.while_written(&damage, used);
    }
}
