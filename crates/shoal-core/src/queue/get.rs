//! The getting side.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ring::{self, Chunk, Found};
use super::shared::{Queue, Until, id_of, name_of};
use super::state::State;
use crate::crash;
use crate::error::{Error, Result};
use crate::memory::envelope;
use crate::memory::heap::{Heap, Lease};
use crate::sync::futex::Wake;
use crate::sync::lock::Acquired;

/// What came of getting.
#[derive(Debug)]
pub enum Got {
    /// An item.
    Item(Content),
    /// There was none in time.
    Empty,
    /// There is none and the queue was shut down.
    Shut,
    /// A signal came in. Nothing was taken.
    Interrupted,
}

/// The bytes of an item that was taken.
#[derive(Debug)]
pub struct Content(Body);

const SHORT: usize = 64;

#[derive(Debug)]
enum Body {
    Short([u8; SHORT], usize),
    Long(Vec<u8>),
    Envelope(Lease),
}

impl Content {
    fn copy(bytes: &[u8]) -> Content {
        if bytes.len() > SHORT {
            return Content(Body::Long(bytes.to_vec()));
        }
        let mut short = [0; SHORT];
        short[..bytes.len()].copy_from_slice(bytes);
        Content(Body::Short(short, bytes.len()))
    }

    /// The bytes. The blocks they name are held until this is dropped.
    pub fn bytes(&self) -> Result<&[u8]> {
        match &self.0 {
            Body::Short(bytes, len) => Ok(&bytes[..*len]),
            Body::Long(bytes) => Ok(bytes),
            Body::Envelope(lease) => envelope::bytes(lease),
        }
    }
}

impl Queue {
    /// Takes an item, waiting for one at most for `timeout`; `None`: for ever.
    pub fn get(&self, timeout: Option<Duration>) -> Result<Got> {
        self.check()?;
        let mut slept = false;
        let got = self.get_one(Until::new(timeout), &mut slept);
        if matches!(got, Ok(Got::Item(_))) && self.state.capacity() > 0 {
            self.state.common.0.putters.wake_one();
            crash::point("get: woken");
        }
        if slept {
            self.wake_next();
        }
        got
    }

    #[inline]
    fn get_one(&self, until: Until, slept: &mut bool) -> Result<Got> {
        loop {
            if !self.state.is_empty() {
                let locked = match self.lock(&self.state.get, until) {
                    Ok(locked) => locked,
                    Err(Acquired::Interrupted) => return Ok(Got::Interrupted),
                    Err(_) => return Ok(Got::Empty),
                };
                crash::point("get: locked");
                let tried = self.try_get();
                drop(locked);
                crash::point("get: unlocked");
                let (content, _old) = tried?;
                if let Some(content) = content {
                    return Ok(Got::Item(content));
                }
            } else if self.state.is_shut() && self.state.is_empty() {
                // Looked at again: what was put before the queue was shut is there by now.
                return Ok(Got::Shut);
            } else if until.is_over() {
                return Ok(Got::Empty);
            } else {
                *slept = true;
                match self.wait_for_item(until) {
                    Wake::Woken => {}
                    Wake::TimedOut => return Ok(Got::Empty),
                    Wake::Interrupted => return Ok(Got::Interrupted),
                }
            }
        }
    }

    /// Waits for an item at most for `timeout` and takes none: `false` if there still is none, and the queue is not shut.
    ///
    /// For whoever wants to take one at a moment of their own choice. Who has waited here takes one and calls
    /// `wake_next`, or those who wait behind them are not told of the rest.
    pub fn await_item(&self, timeout: Duration) -> Result<bool> {
        self.check()?;
        Ok(self.wait_for_item(Until::new(Some(timeout))) == Wake::Woken)
    }

    /// Wakes the next who waits, if there is something for them.
    pub fn wake_next(&self) {
        if !self.state.is_empty() {
            self.state.common.0.getters.wake_one();
        }
    }

    fn wait_for_item(&self, until: Until) -> Wake {
        self.wait(&self.state.common.0.getters, || !self.state.is_empty() || self.state.is_shut(), until)
    }

    /// Takes up to `most` more items that lie there, in one go. An item that can't be taken is left where it is, with those
    /// behind it: who asks for it next gets the error, and these items here are not lost for it.
    pub fn get_more(&self, most: usize, items: &mut Vec<Content>) {
        let before = items.len();
        if most == 0 || self.state.is_empty() {
            return;
        }
        let Ok(locked) = self.lock(&self.state.get, Until::Now) else { return };
        let mut parting = Vec::new();
        while items.len() - before < most
            && let Ok((Some(content), old)) = self.try_get()
        {
            items.push(content);
            parting.extend(old);
        }
        drop(locked);
        drop(parting);
        if self.state.capacity() > 0 && items.len() > before {
            // There may be room for many.
            self.state.common.0.putters.wake_all();
        }
    }

    /// Whoever has the getting side's lock.
    fn try_get(&self) -> Result<(Option<Content>, Option<Chunk>)> {
        let mut own = None;
        let mut guard = self.reading.try_lock();
        let reading = guard.as_deref_mut().unwrap_or(&mut own);
        take(&self.state, self.heap(), reading, Some(&self.seen))
    }
}

/// Whoever has the getting side's lock: takes the next item, if there is one. `reading` is the chunk it was in last; if it is
/// another now, the old one is returned, to be dropped when the lock is free.
pub(super) fn take(
    state: &State,
    heap: &Arc<Heap>,
    reading: &mut Option<Chunk>,
    seen: Option<&std::sync::atomic::AtomicU64>,
) -> Result<(Option<Content>, Option<Chunk>)> {
    let side = &state.get;
    let steps = side.steps();
    if seen.is_none_or(|seen| seen.load(Ordering::Relaxed) <= steps) {
        let put = state.put.steps();
        if put <= steps {
            return Ok((None, None));
        }
        if let Some(seen) = seen {
            seen.store(put, Ordering::Relaxed);
        }
    }
    let (now, next) = (side.now(steps), side.next(steps));
    let at = id_of(now.chunk.get()).or_else(|| id_of(state.common.0.first.get())).ok_or(Error::Damaged("queue"))?;
    let mut position = now.position.load(Ordering::Relaxed);
    let mut old = None;
    if reading.as_ref().is_none_or(|chunk| chunk.id() != at) {
        old = reading.replace(Chunk::open(heap.take(at)?)?);
    }
    let mut linked = None;
    let damaged = || Error::Damaged("queue");
    if let Found::Link(id) = reading.as_ref().ok_or_else(damaged)?.read(position)? {
        linked = reading.replace(Chunk::open(heap.take(id)?)?);
        position = 0;
    }
    let chunk = reading.as_ref().ok_or_else(damaged)?;
    let Found::Item(found, end) = chunk.read(position)? else { return Err(damaged()) };
    let content = match found {
        ring::Content::Bytes(bytes) => Content::copy(bytes),
        ring::Content::Envelope(id) => Content(Body::Envelope(heap.take(id)?)),
    };
    crash::point("get: read");
    next.chunk.set(name_of(Some(chunk.id())));
    next.position.store(end, Ordering::Relaxed);
    next.left.set(name_of(linked.as_ref().map(Chunk::id)));
    let envelope = if let Body::Envelope(lease) = &content.0 { Some(lease) } else { None };
    next.envelope.set(name_of(envelope.map(Lease::id)));
    crash::point("get: slot written");
    side.commit(steps);
    crash::point("get: taken");
    // What the step leaves to be tidied up: `recover` does the same after a death.
    chunk.free(end);
    crash::point("get: freed");
    if let Some(linked) = &linked {
        linked.lease.set_in_queue(false);
        crash::point("get: chunk let go");
    }
    if let Some(envelope) = envelope {
        envelope.set_in_queue(false);
        crash::point("get: envelope let go");
    }
    Ok((Some(content), linked.or(old)))
}
