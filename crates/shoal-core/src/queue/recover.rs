//! After a death: what the dead process has left half done in a queue is done, or undone, before its locks pass on. And
//! when nobody has a queue any more: what lies in it is let go of.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::get::take;
use super::ring::{Chunk, MOST, Mapped};
use super::shared::id_of;
use super::state::{Slot, State};
use crate::crash;
use crate::error::{Error, Result};
use crate::memory::heap::Heap;
use crate::memory::lease::Kind;
use crate::memory::segment::Segment;
use crate::sync::lock::Lock;

/// The queue that holds a block does so no more. Done twice it does no harm: the block is known by its generation.
fn release(heap: &Arc<Heap>, name: [u32; 3]) -> Result<()> {
    let Some(id) = id_of(name) else { return Ok(()) };
    match heap.take(id) {
        Ok(lease) => {
            lease.set_in_queue(false);
            Ok(())
        }
        Err(Error::Gone) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Frees the locks that the dead process `dead` held in all queues of the domain, and wakes who may have relied on it. Must
/// come before anything else of `dead` is given back.
pub fn recover(heap: &Arc<Heap>, dead: u16) -> Result<()> {
    let mut outcome = Ok(());
    for segment in heap.segments() {
        for (index, entry) in segment.used_entries().iter().enumerate() {
            if entry.kind() == Some(Kind::Queue) {
                // What goes wrong with one is no reason to leave the others as they are.
                let state = Mapped::in_segment(&segment, index as u32);
                outcome = outcome.and(state.and_then(|state| recover_one(heap, &state, dead)));
            }
        }
    }
    outcome
}

fn recover_one(heap: &Arc<Heap>, state: &State, dead: u16) -> Result<()> {
    let mut outcome = Ok(());
    let lock = Lock::over(state.put.lock());
    if lock.is_held_by(dead) {
        outcome = undo_put(heap, state);
        crash::point("recover: put undone");
    }
    lock.abandon(dead);
    crash::point("recover: put side free");
    let lock = Lock::over(state.get.lock());
    if lock.is_held_by(dead) {
        outcome = outcome.and(tidy(heap, state.get.now(state.get.steps())));
        crash::point("recover: got tidied");
    }
    lock.abandon(dead);
    crash::point("recover: get side free");
    // The dead one may have been woken for something that it has not taken.
    let common = &state.common.0;
    [&common.getters, &common.putters, &common.joiners].into_iter().for_each(|sleepers| sleepers.wake_all());
    outcome
}

/// In the place of who died in the putting side's lock: nothing comes of a step that was not taken.
fn undo_put(heap: &Arc<Heap>, state: &State) -> Result<()> {
    let steps = state.put.steps();
    let Some(begun) = state.put.begun(steps) else { return Ok(()) };
    release(heap, begun.envelope.get())?;
    crash::point("recover: envelope let go");
    let chunk = begun.chunk.get();
    if chunk != state.put.now(steps).chunk.get() {
        release(heap, chunk)?;
        crash::point("recover: chunk let go");
    }
    state.put.withdraw(steps);
    Ok(())
}

/// In the place of who died in the getting side's lock: what the last step left to be tidied up.
fn tidy(heap: &Arc<Heap>, now: &Slot) -> Result<()> {
    if let Some(id) = id_of(now.chunk.get()) {
        Chunk::open(heap.take(id)?)?.free(now.position.load(Ordering::Relaxed));
    }
    crash::point("recover: freed");
    release(heap, now.left.get())?;
    crash::point("recover: left chunk let go");
    release(heap, now.envelope.get())
}

/// Whoever owns the room of a queue that nobody holds any more, or the host if that is dead: lets go of all that lies in it,
/// and leaves the room as it was before. `false`: somebody else is about it.
pub fn clear(heap: &Arc<Heap>, segment: &Arc<Segment>, index: u32) -> Result<bool> {
    let state = Mapped::in_segment(segment, index)?;
    let (put, get) = (Lock::over(state.put.lock()), Lock::over(state.get.lock()));
    if !put.try_acquire(heap.me()) {
        return Ok(false);
    }
    if !get.try_acquire(heap.me()) {
        put.release();
        return Ok(false);
    }
    crash::point("clear: locked");
    match empty(heap, &state) {
        Ok(()) => {
            crash::point("clear: emptied");
            state.reset();
            crash::point("clear: as new");
            Ok(true)
        }
        Err(error) => {
            get.release();
            put.release();
            Err(error)
        }
    }
}

fn empty(heap: &Arc<Heap>, state: &State) -> Result<()> {
    let mut reading = None;
    // One that was written over may say that it has any number of items, in chunks that lead in a circle.
    let (mut items, mut chunks) = (0, HashSet::new());
    while take(state, heap, &mut reading, None)?.0.is_some() {
        items += 1;
        chunks.extend(reading.as_ref().map(Chunk::id));
        if items > chunks.len() * MOST {
            return Err(Error::Damaged("queue"));
        }
    }
    release(heap, state.put.now(state.put.steps()).chunk.get())
}
