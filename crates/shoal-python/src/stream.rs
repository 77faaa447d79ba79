//! A map over an input that is read on the way: `imap`, and `map` over what is no sequence.
//!
//! The thread that wants results also reads the input, a bounded way ahead of what was taken. Each item is encoded when
//! it is read, so that it is sent as it was then; cheap ones travel in batches, each still with a fate of its own.

mod arrived;
mod iterator;
mod job;
mod turn;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList};
use shoal_core::pool::ahead::Ahead;
use shoal_core::pool::batches::{Batches, Kinds, Manner, Weight};
use shoal_core::pool::chunks::Pace;
use shoal_core::pool::client::Pool;
use shoal_core::pool::tasks::{Inbox, Outcome};
use shoal_core::sync::bell::Tone;
use shoal_sys::clock;

use self::arrived::{Arrivals, Arrived};
use crate::errors::{OrRaise, exception, is_interrupt};
use crate::in_flight;
use crate::insight::Watch;
use crate::pool::{Named, PoolBase, cancelled, hear_first, wait};
use crate::wire::{self, Writer, call, result};

pub use self::iterator::IMapIterator;
pub use self::job::StreamJob;

/// How often a thread that is handed results sees to it that the workers have tasks.
const LOOK: Duration = Duration::from_micros(200);
/// How long a batch may take to read, and how long a thread reads that has a result at hand.
const READ: Duration = Duration::from_millis(1);

/// Items that an input which gives them at once is read for between two looks at the clock.
const LOOK_EVERY: usize = 16;
/// Items so cheap that this many of them make a task long enough: they take less than it takes to wake a worker.
const CHEAP: usize = 32;

/// Iterators that give the next item at once, or end.
const PROMPT: [&str; 4] = ["list_iterator", "tuple_iterator", "range_iterator", "longrange_iterator"];

/// A map under way: what is still to be read, what is out, and what has come.
struct State {
    pool: Arc<Pool>,
    named: Arc<Named>,
    /// Python's pool: kept as long as there is something to come.
    owner: Option<Py<PyAny>>,
    /// `None`: it has come to its end.
    input: Option<Py<PyIterator>>,
    may_block: bool,
    chunksize: Option<usize>,
    pace: Pace,
    /// A worker has died at a batch: no more of them, so that another death costs one item.
    alone: bool,
    batches: Batches,
    inbox: Arc<Inbox>,
    ahead: Ahead,
    arrivals: Arrivals,
    /// Raised behind all results: by the input, or because nothing more could be sent.
    last: Option<PyErr>,
    /// Ctrl-C that came in the middle of something, for whoever waits;
    interrupt: Option<PyErr>,
    /// and what was read and was to be sent just then: the place of the first item, and the item or chunk.
    again: Option<(u64, Py<PyAny>)>,
    /// Whether the pool was told that there is more to come.
    feeding: bool,
    looked: Instant,
    scratch: Vec<u8>,
    watch: Watch,
}

/// What is to be done, and how.
struct Plan<'a, 'py> {
    func: &'a Bound<'py, PyAny>,
    items: &'a Bound<'py, PyAny>,
    chunksize: Option<usize>,
    buffersize: Option<usize>,
    star: bool,
    ordered: bool,
    /// Whether all results are kept: then only what is under way counts as ahead.
    keep: bool,
}

impl State {
    fn new(base: &PoolBase, owner: Option<Py<PyAny>>, plan: &Plan<'_, '_>) -> PyResult<State> {
        let input = plan.items.try_iter()?;
        let kind = input.get_type().name()?;
        let may_block = !PROMPT.iter().any(|prompt| kind == *prompt);
        let named = base.named(plan.func)?;
        let (pool, inbox) = (base.pool.clone(), Inbox::new());
        let flags = named.flags;
        let kinds = Kinds {
            one: flags | if plan.star { call::STAR } else { call::ONE },
            batch: flags | if plan.star { call::STAR_BATCH } else { call::BATCH },
            whole: flags | if plan.star { call::FIXED_STAR_CHUNK } else { call::FIXED_CHUNK },
            each: result::EACH,
        };
        // Who keeps the results sleeps until the workers run out of tasks.
        let low = match (plan.keep, plan.chunksize) {
            (false, _) => 0,
            (true, None) => pool.size(),
            (true, Some(_)) => usize::MAX,
        };
        pool.feed(low).or_raise(plan.func.py())?;
        Ok(State {
            owner,
            input: Some(input.unbind()),
            may_block,
            chunksize: plan.chunksize,
            pace: Pace::default(),
            alone: false,
            batches: Batches::new(pool.clone(), named.function.clone(), kinds, inbox.clone()),
            ahead: Ahead::new(pool.size(), plan.chunksize, plan.buffersize, plan.keep),
            arrivals: Arrivals::new(plan.ordered),
            last: None,
            interrupt: None,
            again: None,
            feeding: true,
            looked: Instant::now(),
            scratch: Vec::new(),
            watch: Watch::new(named.label.clone(), base.last_map.clone()),
            pool,
            named,
            inbox,
        })
    }

    /// Sees what has ended, and sends more.
    fn pump(&mut self, py: Python<'_>) {
        let then = clock::nanos();
        self.collect();
        let then = self.watch.has_received(then);
        let read = self.watch.read();
        self.feed(py);
        self.watch.has_sent(then, read);
        self.looked = Instant::now();
        if self.is_over() {
            self.watch.tell();
        }
    }

    /// Reads and sends as much as may be, but not for long if there is a result at hand.
    fn feed(&mut self, py: Python<'_>) {
        self.send_back();
        let started = Instant::now();
        let mut looked = started;
        if self.may_block {
            self.batches.reading(true);
        }
        while (self.input.is_some() || self.again.is_some()) && self.interrupt.is_none() {
            let (sent, waiting) = (self.batches.sent(), self.arrivals.pieces());
            let room = self.ahead.room(&self.pace, sent, self.pool.room(), waiting);
            if room == 0 {
                break;
            }
            match self.chunksize {
                None => {
                    let size = if self.alone { 1 } else { self.pace.next_size(room) };
                    self.read_batch(py, size);
                }
                Some(1) => self.read_batch(py, 1),
                Some(size) => self.read_chunk(py, size),
            }
            if looked.elapsed() > READ {
                // A slow input, or much of it: what has ended meanwhile tells how to go on.
                py.detach(|| self.pool.collect());
                self.collect();
                self.send_back();
                looked = Instant::now();
            }
            if started.elapsed() > READ && self.arrivals.is_ready(true) {
                break;
            }
        }
        self.batches.flush();
        if self.may_block {
            self.batches.reading(false);
            self.collect();
            self.send_back();
        }
        if let Some(error) = self.batches.take_failure() {
            self.end(py, Some(exception(py, error)));
        }
        if self.feeding && self.input.is_none() && self.again.is_none() && !self.batches.may_send() {
            self.feeding = false;
            self.pool.fed();
        }
    }

    fn send_back(&mut self) {
        let (pace, alone, most) = (&mut self.pace, self.alone, self.ahead.tasks());
        self.batches.send_back(|| if alone { 1 } else { pace.next_size(usize::MAX) }, most);
    }

    /// Reads items, at most `size`, and sends them in a task.
    fn read_batch(&mut self, py: Python<'_>, size: usize) {
        let started = Instant::now();
        let manner = Manner { size, cheap: size > 1 || self.pace.target() >= CHEAP, may_block: self.may_block };
        for read in 1..=size {
            let (place, item) = match self.again.take() {
                Some((place, item)) => (place, item.into_bound(py)),
                None => {
                    let Some(item) = self.next_item(py) else { break };
                    (self.ahead.read(1), item)
                }
            };
            self.scratch.clear();
            let (scratch, name) = (&mut self.scratch, &self.named.label.name);
            let writer = Writer::Task(&self.pool);
            let what = || format!("item {place} of map({name})");
            let (encoded, leases) = in_flight::noting(|| wire::encode(&writer, &item, scratch, what));
            if let Err(error) = encoded {
                if is_interrupt(py, &error) {
                    (self.interrupt, self.again) = (Some(error), Some((place, item.unbind())));
                    break;
                }
                // What can't be sent fails in its place, and the others go on.
                self.ahead.arrived(1, &Weight::default(), &Weight::default());
                self.arrivals.insert(Arrived::refused(place, 1, error));
                break;
            }
            self.ahead.sent(&Weight::new(self.scratch.len(), &leases));
            self.watch.sent(1, self.scratch.len(), &leases);
            self.batches.put(place, &self.scratch, leases, manner);
            let look = self.may_block || read % LOOK_EVERY == 0;
            if read < size && (self.ahead.is_heavy() || (look && started.elapsed() > READ)) {
                break;
            }
        }
        if size > 1 {
            self.batches.flush();
        }
        if self.scratch.capacity() > 1 << 20 {
            self.scratch = Vec::new();
        }
    }

    /// Reads a chunk as the user wants them, and sends it.
    fn read_chunk(&mut self, py: Python<'_>, size: usize) {
        let (first, items) = match self.again.take().map(|(first, items)| (first, items.into_bound(py).cast_into())) {
            Some((first, Ok(items))) => (first, items),
            _ => {
                let items = PyList::empty(py);
                while items.len() < size {
                    let Some(item) = self.next_item(py) else { break };
                    if let Err(error) = items.append(item) {
                        return self.end(py, Some(error));
                    }
                }
                // As in the standard library: a chunk in which the input fails is not sent.
                if items.is_empty() || self.last.is_some() {
                    return;
                }
                (self.ahead.read(items.len()), items)
            }
        };
        self.scratch.clear();
        let (scratch, name) = (&mut self.scratch, &self.named.label.name);
        let writer = Writer::Task(&self.pool);
        let what = || format!("items of map({name})");
        let (pickled, leases) = in_flight::noting(|| writer.pickle(items.as_any(), scratch, what));
        match pickled {
            Ok(_) => {
                self.ahead.sent(&Weight::new(self.scratch.len(), &leases));
                self.watch.sent(items.len(), self.scratch.len(), &leases);
                self.batches.put_whole(first, items.len(), &self.scratch, leases);
            }
            Err(error) if is_interrupt(py, &error) => {
                (self.interrupt, self.again) = (Some(error), Some((first, items.into_any().unbind())));
            }
            Err(error) => {
                self.ahead.arrived(items.len(), &Weight::default(), &Weight::default());
                self.arrivals.insert(Arrived::refused(first, items.len(), error));
            }
        }
    }

    fn next_item<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let mut input = self.input.as_ref()?.bind(py).clone();
        match self.watch.reading(|| input.next()) {
            Some(Ok(item)) => Some(item),
            end => {
                self.end(py, end.and_then(Result::err));
                None
            }
        }
    }

    /// There are no more items to read.
    fn end(&mut self, py: Python<'_>, error: Option<PyErr>) {
        self.input = None;
        if let Some(error) = error.as_ref().filter(|error| is_interrupt(py, error)) {
            self.interrupt = Some(error.clone_ref(py));
        }
        self.last = self.last.take().or(error);
    }

    /// Reads no more, and takes back what no worker has taken; if `running`, stops what workers are at as well.
    fn stop(&mut self, py: Python<'_>, running: bool) {
        // The item that an interrupt came in the way of is not to be sent either.
        self.again = None;
        self.end(py, Some(cancelled(py, &self.named.label.name)));
        py.detach(|| self.batches.stop(running));
    }

    fn collect(&mut self) {
        for (piece, outcome) in self.batches.ended() {
            let nanos = if let Outcome::Done { nanos, .. } = outcome { Some(nanos) } else { None };
            let died = matches!(outcome, Outcome::Died(_));
            match nanos {
                Some(nanos) => {
                    self.pace.measured(piece.count(), nanos);
                    self.watch.ended(nanos, piece.count() as u64);
                }
                None => self.alone |= died && piece.count() > 1,
            }
            let whole = self.chunksize.is_some_and(|size| size > 1);
            let arrived = Arrived::new(piece.first(), piece.count(), outcome, whole);
            self.ahead.arrived(piece.count(), piece.weight(), arrived.weight());
            self.arrivals.insert(arrived);
        }
    }

    /// The next result that is there.
    fn take(&mut self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        let coming = || !self.batches.is_empty() || !self.inbox.is_empty();
        let coming = !self.arrivals.is_ready(true) && coming();
        let weight = self.watch.takes();
        let then = if weight > 0 { clock::nanos() } else { 0 };
        let (value, items, spent) = self.arrivals.take(py, coming, &self.named.label)?;
        if weight > 0 {
            self.watch.took(then, weight);
        }
        self.ahead.taken(items);
        if let Some(spent) = spent {
            self.ahead.let_go(spent.weight());
        }
        Some(value)
    }

    /// Raises an interrupt that has come.
    fn interrupted(&mut self) -> PyResult<()> {
        self.interrupt.take().map_or(Ok(()), Err)
    }

    fn is_over(&self) -> bool {
        self.input.is_none() && self.again.is_none() && self.batches.is_empty() && self.inbox.is_empty()
    }

    /// The next result, when it is there; `None` after `timeout` seconds.
    fn next(&mut self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        let started = Instant::now();
        loop {
            let ready = self.arrivals.is_ready(true);
            if !ready || started - self.looked > LOOK {
                if ready {
                    py.detach(|| self.pool.collect());
                }
                self.pump(py);
                self.interrupted()?;
            }
            if let Some(value) = self.take(py) {
                hear_first(py, &self.pool);
                return value.map(Some);
            }
            if self.is_over() {
                self.owner = None;
                return Err(self.last.take().unwrap_or_else(|| PyStopIteration::new_err(())));
            }
            if !self.wait(py, Tone::Completion, timeout, started, || false)? {
                return Ok(None);
            }
        }
    }

    /// Waits until something has ended, or that was `enough`; `false`: the time is up.
    fn wait(
        &mut self,
        py: Python<'_>,
        tone: Tone,
        timeout: Option<f64>,
        started: Instant,
        enough: impl Fn() -> bool + Send,
    ) -> PyResult<bool> {
        if self.batches.sent() == 0 || !self.inbox.is_empty() {
            return Ok(true);
        }
        let left = timeout.map(|timeout| timeout - started.elapsed().as_secs_f64());
        let inbox = self.inbox.clone();
        let then = clock::nanos();
        let waited = wait(py, &self.pool, tone, move || !inbox.is_empty() || enough(), left);
        self.watch.has_waited(then);
        waited
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.feeding {
            self.pool.fed();
        }
    }
}
