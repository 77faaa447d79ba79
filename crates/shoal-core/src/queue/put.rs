//! The putting side.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ring::{Chunk, Content, INLINE, LARGEST, SMALLEST};
use super::shared::{Queue, Until, id_of, name_of};
use crate::crash;
use crate::error::Result;
use crate::memory::heap::{Heap, Lease};
use crate::sync::futex::Wake;
use crate::sync::lock::Acquired;

/// What came of putting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It lies in the queue.
    Done,
    /// There was no room for it in time.
    Full,
    /// The queue was shut down.
    Shut,
    /// A signal came in. Nothing was put.
    Interrupted,
}

/// An item to be put.
#[derive(Debug)]
pub struct Item<'a>(Body<'a>);

#[derive(Debug)]
enum Body<'a> {
    Bytes(&'a [u8]),
    Envelope(Lease),
}

impl<'a> Item<'a> {
    /// Bytes, and leases on all the blocks that they name. Items that lie in the heap of their queue.
    pub fn new(heap: &Arc<Heap>, bytes: &'a [u8], leases: Vec<Lease>) -> Result<Item<'a>> {
        if leases.is_empty() && bytes.len() <= INLINE {
            return Ok(Item(Body::Bytes(bytes)));
        }
        Ok(Item(Body::Envelope(heap.envelope(bytes, leases)?)))
    }

    fn content(&self) -> Content<'_> {
        match &self.0 {
            Body::Bytes(bytes) => Content::Bytes(bytes),
            Body::Envelope(lease) => Content::Envelope(lease.id()),
        }
    }

    fn envelope(&self) -> Option<&Lease> {
        match &self.0 {
            Body::Bytes(_) => None,
            Body::Envelope(lease) => Some(lease),
        }
    }
}

/// What a try came to.
enum Tried {
    Put,
    Full,
    Shut,
    /// A new chunk of that many bytes is needed.
    Needs(u64),
}

impl Queue {
    /// Puts an item, waiting for room at most for `timeout`; `None`: for ever. An item that was put must not be put again.
    pub fn put(&self, item: &Item<'_>, timeout: Option<Duration>) -> Result<Put> {
        let mut rest = std::slice::from_ref(item);
        self.put_all(&mut rest, timeout)
    }

    /// Puts all items in their order, many in one go, waiting for room at most for `timeout`; `None`: for ever. `rest` is
    /// what has not been put: nothing, if it is done; also an error leaves it right.
    pub fn put_all(&self, rest: &mut &[Item<'_>], timeout: Option<Duration>) -> Result<Put> {
        self.check()?;
        let all = rest.len();
        let mut slept = false;
        let put = self.put_rest(rest, Until::new(timeout), &mut slept);
        if rest.len() < all {
            // One is enough: who was woken and finds more wakes the next.
            self.state.common.0.getters.wake_one();
            crash::point("put: woken");
        }
        if slept && !self.state.is_full() {
            self.state.common.0.putters.wake_one();
        }
        put
    }

    fn put_rest(&self, rest: &mut &[Item<'_>], until: Until, slept: &mut bool) -> Result<Put> {
        let mut spare = None;
        while !rest.is_empty() {
            let locked = match self.lock(&self.state.put, until) {
                Ok(locked) => locked,
                Err(Acquired::Interrupted) => return Ok(Put::Interrupted),
                Err(_) => return Ok(Put::Full),
            };
            crash::point("put: locked");
            let mut parting = Vec::new();
            let tried = self.put_what_fits(rest, &mut spare, &mut parting);
            drop(locked);
            crash::point("put: unlocked");
            drop(parting);
            match tried? {
                Tried::Put => {}
                Tried::Shut => return Ok(Put::Shut),
                // Outside of the lock: it may have to be asked for.
                Tried::Needs(len) => spare = Some(Chunk::new(self.heap().allocate(len)?)?),
                Tried::Full if until == Until::Now => return Ok(Put::Full),
                Tried::Full => {
                    *slept = true;
                    let ready = || !self.state.is_full() || self.state.is_shut();
                    match self.wait(&self.state.common.0.putters, ready, until) {
                        Wake::Woken => {}
                        Wake::TimedOut => return Ok(Put::Full),
                        Wake::Interrupted => return Ok(Put::Interrupted),
                    }
                }
            }
        }
        Ok(Put::Done)
    }

    /// Whoever has the putting side's lock. `parting` is to be dropped when it is free.
    fn put_what_fits(
        &self,
        rest: &mut &[Item<'_>],
        spare: &mut Option<Chunk>,
        parting: &mut Vec<Chunk>,
    ) -> Result<Tried> {
        while let Some((item, behind)) = rest.split_first() {
            let (tried, old) = self.try_put(item, spare)?;
            parting.extend(old);
            match tried {
                Tried::Put => *rest = behind,
                other => return Ok(other),
            }
        }
        Ok(Tried::Put)
    }

    /// Whoever has the putting side's lock. Returns also what is to be dropped when it is free.
    fn try_put(&self, item: &Item<'_>, spare: &mut Option<Chunk>) -> Result<(Tried, Option<Chunk>)> {
        if self.state.is_shut() {
            return Ok((Tried::Shut, None));
        }
        if self.state.is_full() {
            return Ok((Tried::Full, None));
        }
        let side = &self.state.put;
        let steps = side.steps();
        let (now, next) = (side.now(steps), side.next(steps));
        let at = id_of(now.chunk.get());
        let position = now.position.load(Ordering::Relaxed);
        Chunk::check(position)?;
        // Without a lock only in a fork, where its copy may be locked for ever: then it makes do with one of its own.
        let mut own = None;
        let mut guard = self.writing.try_lock();
        let writing = guard.as_deref_mut().unwrap_or(&mut own);
        let mut old = None;
        if let Some(at) = at
            && writing.as_ref().is_none_or(|chunk| chunk.id() != at)
        {
            old = writing.replace(Chunk::open(self.heap().take(at)?)?);
        }
        let content = item.content();
        let here = at.and(writing.as_ref());
        let written = here.and_then(|chunk| Some((chunk.id(), chunk.write(position, content)?)));
        let (chunk, end) = match written {
            Some(written) => written,
            None => {
                let Some(chunk) = spare.take() else {
                    let len = here.map_or(SMALLEST, |chunk| (chunk.len() * 2).min(LARGEST));
                    return Ok((Tried::Needs(len), old));
                };
                let id = chunk.id();
                let end = chunk.write(0, content).ok_or(crate::Error::Damaged("chunk"))?;
                match here {
                    Some(full) => full.link(position, id),
                    None => self.state.common.0.first.set(name_of(Some(id))),
                }
                old = writing.replace(chunk);
                (id, end)
            }
        };
        crash::point("put: written");
        next.chunk.set(name_of(Some(chunk)));
        next.position.store(end, Ordering::Relaxed);
        next.envelope.set(name_of(item.envelope().map(Lease::id)));
        crash::point("put: slot written");
        side.begin(steps);
        crash::point("put: begun");
        if let Some(envelope) = item.envelope() {
            envelope.set_in_queue(true);
            crash::point("put: envelope held");
        }
        if at != Some(chunk)
            && let Some(chunk) = writing.as_ref()
        {
            chunk.lease.set_in_queue(true);
            crash::point("put: chunk held");
        }
        side.commit(steps);
        crash::point("put: done");
        Ok((Tried::Put, old))
    }
}
