//! Items of a stream on their way: gathered into batches, sent, and sent again where a worker gave them back.
//!
//! Items come one by one from somebody who may take any time over the next one. So what is held back for the sake of
//! others does not wait for it: a thread watches, and sends what there is after a moment. It also sends again what workers give
//! back meanwhile: the input may be waiting for just that.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::client::Pool;
use super::packed::Packed;
use super::tasks::{Function, Inbox, Outcome, Reply};
use crate::error::Error;
use crate::memory::heap::{BlockId, Lease};

/// How long what is held back waits for more.
const PATIENCE: Duration = Duration::from_millis(2);
/// How often the thread looks when nothing happens for long.
const PATROL: Duration = Duration::from_millis(50);
/// Bytes of a batch: beyond, one task more costs next to nothing.
const LARGE: usize = 256 << 10;

/// Cheap tasks published between two looks whether a worker should be woken.
const QUIET: usize = 32;

/// How an item is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// In a batch of so many.
    pub size: usize,
    /// Whether it is done sooner than a worker wakes up: then it may wait for others.
    pub cheap: bool,
    /// Whether the next item may take long to come.
    pub may_block: bool,
}

/// The callers' kinds of tasks and results.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    /// One item, as it is.
    pub one: u16,
    /// Several, as [`Packed::message`] writes them.
    pub batch: u16,
    /// Several that the caller has put into one message; never given back.
    pub whole: u16,
    /// Results of a batch, which the worker may not have done to its end.
    pub each: u16,
}

/// What a message costs as long as it is there: bytes of its own, and blocks that it names.
#[derive(Debug, Default)]
pub struct Weight {
    /// Bytes.
    pub bytes: u64,
    /// Blocks, with their lengths.
    pub blocks: Vec<(BlockId, u64)>,
}

impl Weight {
    /// Of a message with these leases.
    pub fn new<'a>(bytes: usize, leases: impl IntoIterator<Item = &'a Lease>) -> Weight {
        Weight { bytes: bytes as u64, blocks: leases.into_iter().map(|lease| (lease.id(), lease.len())).collect() }
    }
}

/// Items that were sent in one task.
#[derive(Debug)]
pub struct Piece {
    first: u64,
    count: usize,
    /// Where the items can be had again.
    again: Option<(Arc<Packed>, usize)>,
    weight: Weight,
}

impl Piece {
    /// The place of its first item in the stream.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Items in it.
    pub fn count(&self) -> usize {
        self.count
    }

    fn is_divisible(&self) -> bool {
        self.count > 1 && self.again.is_some()
    }

    fn packed(first: u64, packed: Arc<Packed>, items: Range<usize>) -> Piece {
        let weight = Weight::new(packed.bytes(items.clone()).len(), packed.leases(items.clone()));
        Piece { first, count: items.len(), again: Some((packed, items.start)), weight }
    }

    /// The first `count` items, and the rest if there is one.
    fn split(self, count: usize) -> (Piece, Option<Piece>) {
        match &self.again {
            Some((packed, start)) if count < self.count => {
                let (middle, end) = (start + count, start + self.count);
                let rest = Piece::packed(self.first + count as u64, packed.clone(), middle..end);
                (Piece::packed(self.first, packed.clone(), *start..middle), Some(rest))
            }
            _ => (self, None),
        }
    }

    /// What its arguments cost as long as it is under way.
    pub fn weight(&self) -> &Weight {
        &self.weight
    }
}

/// The items of one stream. Dropping it lets go of what has not been sent.
#[derive(Debug)]
pub struct Batches(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: Arc<Pool>,
    function: Arc<Function>,
    kinds: Kinds,
    inbox: Arc<Inbox>,
    out: Mutex<Out>,
    /// Told when something is held back while nobody watches, or the stream is over.
    held: Condvar,
}

#[derive(Debug, Default)]
struct Out {
    /// The batch that is being gathered, and the place of its first item.
    open: Option<(u64, Packed)>,
    /// Tasks in the ring of which no worker was told.
    quiet: usize,
    /// Counts how often something was held back.
    serial: u64,
    watch: Watch,
    /// Given back.
    back: VecDeque<Piece>,
    /// With their numbers in the pool.
    sent: HashMap<u64, (Piece, u64)>,
    /// Has ended, and was not asked for yet.
    ended: Vec<(Piece, Outcome)>,
    /// Whether nothing is sent any more: then nothing is taken back either.
    stopped: bool,
    /// Whether somebody waits for the input.
    reading: bool,
    /// How many of those that were sent may be given back in part.
    divisible: usize,
    tag: u64,
    /// Why nothing more can be sent.
    failed: Option<Error>,
    over: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Watch {
    /// There is no thread yet.
    #[default]
    None,
    /// It looks now and then.
    Awake,
    /// It has to be woken.
    Asleep,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, out: &mut Out, kind: u16, message: &[u8], leases: Vec<Lease>, piece: Piece) {
        let reply = Reply::Inbox(self.inbox.clone(), out.tag);
        match self.pool.submit_quietly(&self.function, kind, message, leases, reply) {
            Ok(number) => {
                out.divisible += usize::from(piece.is_divisible());
                out.sent.insert(out.tag, (piece, number));
                out.tag += 1;
                out.quiet += 1;
            }
            Err(error) => _ = out.failed.get_or_insert(error),
        }
    }

    fn submit_piece(&self, out: &mut Out, piece: Piece) {
        let Some((packed, start)) = piece.again.clone() else { return };
        let items = start..start + piece.count;
        let leases = packed.leases(items.clone()).cloned().collect();
        if piece.count == 1 {
            self.submit(out, self.kinds.one, packed.bytes(items), leases, piece);
        } else {
            self.submit(out, self.kinds.batch, &packed.message(items), leases, piece);
        }
    }

    /// Sends what is gathered.
    fn flush(&self, out: &mut Out) {
        if let Some((first, packed)) = out.open.take() {
            let count = packed.len();
            self.submit_piece(out, Piece::packed(first, Arc::new(packed), 0..count));
        }
    }

    /// Tells the workers what was sent.
    fn publish(&self, out: &mut Out) {
        if std::mem::take(&mut out.quiet) > 0 {
            self.pool.publish();
        }
    }

    /// Something is held back: sees to it that it is not for long.
    fn hold(self: &Arc<Shared>, out: &mut Out) {
        out.serial += 1;
        match out.watch {
            Watch::Awake => {}
            Watch::Asleep => self.held.notify_one(),
            Watch::None => {
                let shared = self.clone();
                let watch = move || shared.watch();
                match std::thread::Builder::new().name("shoal-stream".into()).spawn(watch) {
                    Ok(_) => out.watch = Watch::Awake,
                    // Nobody would see to it.
                    Err(_) => {
                        self.flush(out);
                        self.publish(out);
                    }
                }
            }
        }
    }

    /// Sees what has ended, and what of it was not done.
    fn settle(&self, out: &mut Out) {
        for (tag, outcome) in self.inbox.take_all() {
            let Some((piece, _)) = out.sent.remove(&tag) else { continue };
            out.divisible -= usize::from(piece.is_divisible());
            let (done, rest) = match &outcome {
                // A worker that does nothing would go on for ever.
                Outcome::Done { kind, units, .. } if *kind == self.kinds.each => piece.split((*units as usize).max(1)),
                _ => (piece, None),
            };
            if let Some(rest) = rest.filter(|_| !out.stopped) {
                // In the order of the stream: what comes first is waited for first.
                let place = out.back.partition_point(|other| other.first < rest.first);
                out.back.insert(place, rest);
            }
            out.ended.push((done, outcome));
        }
    }

    /// Sends what was given back, as long as fewer than `most` tasks are under way.
    fn send_back(&self, out: &mut Out, mut size: impl FnMut(&Piece) -> usize, most: usize) {
        while out.sent.len() < most.max(1) && out.failed.is_none() {
            let Some(piece) = out.back.pop_front() else { break };
            let size = size(&piece).max(1);
            let (now, rest) = piece.split(size);
            if let Some(rest) = rest {
                out.back.push_front(rest);
            }
            self.submit_piece(out, now);
        }
        self.publish(out);
    }

    /// Sends what is held back too long, or given back while the input is waited for.
    fn watch(&self) {
        let mut out = self.lock();
        let mut pause = PATIENCE;
        while !out.over {
            let serial = out.serial;
            out = self.held.wait_timeout(out, pause).unwrap_or_else(PoisonError::into_inner).0;
            if out.serial != serial {
                pause = PATIENCE;
                continue;
            }
            self.flush(&mut out);
            self.publish(&mut out);
            if out.waits_for_input() {
                drop(out);
                self.pool.collect();
                out = self.lock();
                if out.reading {
                    self.settle(&mut out);
                    let workers = self.pool.size();
                    self.send_back(&mut out, |piece| piece.count / (2 * workers), usize::MAX);
                }
                pause = (pause * 2).min(PATROL);
                continue;
            }
            out.watch = Watch::Asleep;
            while out.serial == serial && !out.over {
                out = self.held.wait(out).unwrap_or_else(PoisonError::into_inner);
            }
            out.watch = Watch::Awake;
            pause = PATIENCE;
        }
    }
}

impl Out {
    /// What was still to be sent is forgotten.
    fn let_go(&mut self) {
        self.stopped = true;
        self.back.clear();
        self.open = None;
    }

    /// Whether something may be given back while nobody else would see it.
    fn waits_for_input(&self) -> bool {
        self.reading && (self.divisible > 0 || !self.back.is_empty())
    }
}

impl Batches {
    /// Sends to `pool`, for `function`; what becomes of the tasks comes to `inbox`.
    pub fn new(pool: Arc<Pool>, function: Arc<Function>, kinds: Kinds, inbox: Arc<Inbox>) -> Batches {
        let held = Condvar::new();
        Batches(Arc::new(Shared { pool, function, kinds, inbox, out: Mutex::default(), held }))
    }

    /// The next item.
    pub fn put(&self, first: u64, item: &[u8], leases: Vec<Lease>, manner: Manner) {
        let mut out = self.0.lock();
        let held = out.open.is_some() || out.quiet > 0;
        if item.len() > LARGE || (manner.size <= 1 && out.open.is_none()) {
            self.0.flush(&mut out);
            let piece = Piece { first, count: 1, again: None, weight: Weight::new(item.len(), &leases) };
            self.0.submit(&mut out, self.0.kinds.one, item, leases, piece);
        } else {
            let (_, packed) = out.open.get_or_insert_with(|| (first, Packed::default()));
            packed.push(item, leases);
            if packed.len() >= manner.size || packed.bytes(0..packed.len()).len() > LARGE {
                self.0.flush(&mut out);
            }
        }
        if out.quiet >= QUIET || !manner.cheap {
            self.0.publish(&mut out);
        }
        if !held && manner.may_block && (out.open.is_some() || out.quiet > 0) {
            self.0.hold(&mut out);
        }
    }

    /// Sends what the caller has put into one message.
    pub fn put_whole(&self, first: u64, count: usize, message: &[u8], leases: Vec<Lease>) {
        let mut out = self.0.lock();
        let piece = Piece { first, count, again: None, weight: Weight::new(message.len(), &leases) };
        self.0.submit(&mut out, self.0.kinds.whole, message, leases, piece);
        self.0.publish(&mut out);
    }

    /// Sends what is gathered.
    pub fn flush(&self) {
        let mut out = self.0.lock();
        self.0.flush(&mut out);
        self.0.publish(&mut out);
    }

    /// Sends what was given back, in batches of `size`, as long as fewer than `most` tasks are under way.
    pub fn send_back(&self, mut size: impl FnMut() -> usize, most: usize) {
        self.0.send_back(&mut self.0.lock(), |_| size(), most);
    }

    /// What has ended, and how. What workers did not do of it will be sent again.
    pub fn ended(&self) -> Vec<(Piece, Outcome)> {
        let mut out = self.0.lock();
        self.0.settle(&mut out);
        std::mem::take(&mut out.ended)
    }

    /// The caller begins to wait for an input that may block, or has done so. Before it waits for anything else, it asks
    /// what has [`ended`](Self::ended).
    pub fn reading(&self, now: bool) {
        let mut out = self.0.lock();
        out.reading = now;
        if out.waits_for_input() {
            self.0.hold(&mut out);
        }
    }

    /// Tasks under way.
    pub fn sent(&self) -> usize {
        self.0.lock().sent.len()
    }

    /// Whether nothing is gathered, given back or under way.
    pub fn is_empty(&self) -> bool {
        let out = self.0.lock();
        out.sent.is_empty() && out.back.is_empty() && out.open.is_none()
    }

    /// Whether something that is under way may yet be given back, or something is to be sent.
    pub fn may_send(&self) -> bool {
        let out = self.0.lock();
        !out.back.is_empty() || out.open.is_some() || out.divisible > 0
    }

    /// Why nothing more can be sent, once; what was still to be sent is let go of.
    pub fn take_failure(&self) -> Option<Error> {
        let mut out = self.0.lock();
        let error = out.failed.take()?;
        out.let_go();
        Some(error)
    }

    /// Sends no more, and takes back what no worker has taken; if `running`, stops what workers are at as well.
    pub fn stop(&self, running: bool) {
        let numbers: Vec<u64> = {
            let mut out = self.0.lock();
            out.let_go();
            out.sent.values().map(|(_, number)| *number).collect()
        };
        // Told to the inbox: whoever asks what has ended must not be waited for here.
        self.0.pool.stop_all(numbers, running);
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // In a fork nobody watches, but who did may have held the lock when it was made: then all of it is left as it is.
        let out = if self.0.pool.is_mine() { Some(self.0.lock()) } else { self.0.out.try_lock().ok() };
        let Some(mut out) = out else { return };
        out.over = true;
        out.open = None;
        let rest = (std::mem::take(&mut out.back), std::mem::take(&mut out.sent), std::mem::take(&mut out.ended));
        drop(out);
        drop(rest);
        self.0.held.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However a batch is cut, and whatever of it comes back, each item stays in its place.
        #[test]
        fn pieces_keep_their_items(count in 1usize..50, cuts in prop::collection::vec(1usize..20, 0..20)) {
            let mut packed = Packed::default();
            (0..count).for_each(|item| packed.push(&[item as u8], vec![]));
            let mut left = Some(Piece::packed(100, Arc::new(packed), 0..count));
            let mut seen = vec![];
            let mut cuts = cuts.into_iter();
            while let Some(piece) = left.take() {
                let (now, rest) = piece.split(cuts.next().unwrap_or(usize::MAX));
                let (packed, start) = now.again.clone().expect("packed");
                prop_assert_eq!(now.first, 100 + seen.len() as u64);
                prop_assert_eq!(now.weight.bytes, now.count as u64);
                seen.extend_from_slice(packed.bytes(start..start + now.count));
                left = rest;
            }
            prop_assert_eq!(seen, (0..count as u8).collect::<Vec<_>>());
        }
    }
}
