//! The client's side of a pool: submits tasks, collects what became of them, settles what the dead leave.
//!
//! A task goes from the table (private) into the task ring, or into the backlog while the ring is full. Its end comes
//! out of a completion ring. The thread that waits for a result collects it itself: whoever gets the `collector`
//! lock reads all rings, for everybody; the others sleep until it has found something or leaves. When nobody waits,
//! the pool's own thread collects, but only when a ring fills up or the backlog can move (and once a second, to be sure):
//! until somebody asks, a result may as well lie where it is.

mod backlog;
mod collect;
mod config;
mod end;
mod fate;
mod lost;
mod rest;
mod start;
mod submit;
mod watch;
mod workers;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::backlog::Backlog;
use self::watch::Watched;
use super::crew::Crew;
use super::layout::{MAX_WORKERS, PoolMemory};
use super::messages::Place as Seat;
use super::table::Table;
use super::tasks::{Function, Remains};
use super::trace::{Recorder, Trace};
use crate::domain::host::{Host, Output};
use crate::domain::registry::Budget;
use crate::domain::voice::PoolVoice;
use crate::error::{Error, Result};
use crate::memory::heap::{Heap, Lease, PlainBlock};

pub use self::collect::Waited;
pub use self::config::{Config, Limits};
pub use self::workers::{WorkerInfo, WorkerState};

/// What a pool is up to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// No more tasks; the workers end when all are done.
    Closed,
    Terminated,
    /// Nobody will ever run a task.
    Broken(Box<str>),
}

/// A pool as client and supervisor share it.
#[derive(Debug)]
pub struct Shared {
    number: u32,
    host: Arc<Host>,
    memory: Arc<PoolMemory>,
    limits: Limits,
    output: Output,
    pub(super) voice: PoolVoice,
    /// What of `Control::said` was passed on.
    heard: AtomicU64,
    /// Held by who leaves a notice.
    noticing: Mutex<()>,
    /// Workers that rest.
    resting: AtomicUsize,
    /// What workers read first.
    setup: Arc<PlainBlock>,
    /// What its limit of memory is counted against.
    pub(super) budget: Option<Arc<Budget>>,
    core: Mutex<Core>,
    /// Held by the one who reads the completion rings.
    collector: Mutex<()>,
    /// Where those sleep who wait while somebody else collects.
    followers: (Mutex<u64>, Condvar),
    following: AtomicUsize,
    /// How many want the collector lock at once, as the supervisor does to settle a death: whoever has it lets go.
    wanted: AtomicU32,
    /// Set, with the collector lock held, until what a dead worker was at has another place.
    settling: AtomicBool,
    /// Followers that want to hear of every completion.
    keen: AtomicUsize,
    /// How often in a row an answer came only after a yield.
    yields: AtomicU32,
    /// How many tasks wait for room in the ring.
    backlogged: AtomicUsize,
    /// Jobs that want to hear when the ring runs low.
    feeders: AtomicU32,
    feed_at: AtomicUsize,
    functions: AtomicU32,
    /// When the first of the tasks was submitted of which no worker was told yet, if that was recorded; else 0.
    quiet_since: AtomicU64,
    /// Set once nothing will happen in this pool any more.
    ended: AtomicBool,
}

#[derive(Debug)]
struct Core {
    state: State,
    tasks: Table,
    /// Tasks that were put into the ring, so far.
    pushed: u64,
    backlog: Backlog,
    /// The lowest priority of what was put into the ring since that was empty, or a lower one.
    floor: i32,
    /// Whether tasks of several priorities wait: then the ring is kept shallow.
    mixed: bool,
    /// Tasks that are to be tried again, and when.
    later: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Tasks that are to be stopped.
    stopping: Vec<u64>,
    /// Workers that were told to end and to say where they are, and until when they may.
    parting: Vec<(Instant, Seat)>,
    /// When the supervisor looks at the tasks' times next: nothing has to be told before.
    look_at: Option<Instant>,
    watched: Vec<Watched>,
    /// When the workers' memory was looked at last.
    weighed: Option<Instant>,
    /// From one look to the next it takes no longer, while there are tasks with a limit.
    look_every: Option<Duration>,
    crew: Vec<Crew>,
    failed_starts: u32,
    /// When one was last counted that could not be had.
    failed_at: Option<Instant>,
    /// Workers that could not be had, and when they are asked for again.
    put_off: Vec<(Instant, Seat)>,
    /// What tasks that were cut off by `terminate` consisted of: workers may read it until they have ended.
    remains: Vec<Remains>,
    kill_at: Option<Instant>,
    /// While a record of the tasks is wanted.
    recorder: Option<Box<Recorder>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pool of worker processes. Dropping it terminates it.
#[derive(Debug)]
pub struct Pool(Arc<Shared>);

impl Pool {
    /// Starts a pool. Returns at once: the workers are on their way, tasks may be submitted.
    pub fn new(config: &Config) -> Result<Pool> {
        if !(1..=MAX_WORKERS).contains(&config.workers) {
            return Err(Error::Workers { asked: config.workers, most: MAX_WORKERS });
        }
        let host = Host::current()?;
        host.prepare(&config.launch, &config.preload)?;
        let slots = if config.workers <= 16 { 1024 } else { 4096 };
        let completion_bytes = if config.workers <= 16 { 128 << 10 } else { 32 << 10 };
        let cpus = shoal_sys::cpu::cpu_count() as u32;
        let mut setup = host.heap().allocate_plain(config.setup.len() as u64)?;
        setup.write(&config.setup);
        let setup_at = setup.place(config.setup.len() as u64);
        let memory =
            Arc::new(PoolMemory::create(config.workers, slots, completion_bytes, cpus, setup_at, host.domain())?);
        let idle = config.limits.idle.map_or(u64::MAX, |idle| u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX));
        memory.control().idle.store(idle, Ordering::Relaxed);
        let shared = host.add_pool(&memory.clone(), |number| {
            Arc::new(Shared {
                number,
                host: host.clone(),
                memory,
                limits: config.limits,
                output: config.output,
                voice: host.voice_for(config.speakers.clone()),
                heard: AtomicU64::new(0),
                noticing: Mutex::default(),
                resting: AtomicUsize::new(0),
                setup: Arc::new(setup),
                budget: config.memory_limit.map(|limit| host.budget(limit)),
                core: Mutex::new(Core {
                    state: State::Open,
                    tasks: Table::default(),
                    pushed: 0,
                    backlog: Backlog::default(),
                    floor: 0,
                    mixed: false,
                    later: BinaryHeap::new(),
                    stopping: Vec::new(),
                    parting: Vec::new(),
                    look_at: None,
                    look_every: None,
                    watched: vec![Watched::default(); config.workers],
                    weighed: None,
                    crew: vec![Crew::Starting { epoch: 0 }; config.workers],
                    failed_starts: 0,
                    failed_at: None,
                    put_off: Vec::new(),
                    remains: Vec::new(),
                    kill_at: None,
                    recorder: None,
                }),
                collector: Mutex::default(),
                followers: Default::default(),
                following: AtomicUsize::new(0),
                wanted: AtomicU32::new(0),
                settling: AtomicBool::new(false),
                keen: AtomicUsize::new(0),
                yields: AtomicU32::new(0),
                backlogged: AtomicUsize::new(0),
                feeders: AtomicU32::new(0),
                feed_at: AtomicUsize::new(0),
                functions: AtomicU32::new(1),
                quiet_since: AtomicU64::new(0),
                ended: AtomicBool::new(false),
            })
        });
        let pool = Pool(shared);
        let shared = pool.0.clone();
        // First: should a worker not be had, this thread holds the pool until those before it have ended.
        std::thread::Builder::new().name("shoal-collect".into()).spawn(move || shared.collect_for_nobody())?;
        for worker in 0..config.workers as u16 {
            let place = Seat { pool: pool.0.number, worker, epoch: 0 };
            pool.0.ask_at_first(place).inspect_err(|_| pool.0.expect_only(worker))?;
        }
        Ok(pool)
    }

    /// Leaves some bytes for workers: each looks at them before its next task, the latest only. `false`: they are too many.
    pub fn leave_notice(&self, bytes: &[u8]) -> bool {
        let _one_at_a_time = lock(&self.0.noticing);
        self.0.memory.control().notice.leave(bytes)
    }

    /// Whether workers have said something that is not passed on yet. A look at two words.
    pub fn has_news(&self) -> bool {
        self.0.memory.control().said.load(Ordering::Acquire) != self.0.heard.load(Ordering::Relaxed)
    }

    /// Passes it on, so that a result comes after what its task has said. Does not wait for what goes
    /// unspoken for `timeout`.
    pub fn hear(&self, timeout: Duration) {
        // Read first: what is said from now on is the affair of whoever asks next.
        let said = self.0.memory.control().said.load(Ordering::Acquire);
        self.0.host.pass_on_of(&self.0.voice, timeout);
        self.0.heard.fetch_max(said, Ordering::Relaxed);
    }

    /// The heap of this process, where arguments lie and results are read.
    pub fn heap(&self) -> &Arc<Heap> {
        self.0.host.heap()
    }

    /// Allocates a block for arguments of tasks. It counts for the pool's limit of memory until it is given back here.
    pub fn allocate(&self, len: u64) -> Result<Lease> {
        let charge = self.0.budget.as_ref().map(|budget| budget.charge(len)).transpose()?;
        let lease = self.heap().allocate(len)?;
        lease.stay();
        if let Some(charge) = charge {
            lease.carry(charge);
        }
        Ok(lease)
    }

    /// Whether this process is the pool's client, not a fork of it.
    pub(super) fn is_mine(&self) -> bool {
        self.0.host.is_mine()
    }

    fn check(&self) -> Result<()> {
        if self.is_mine() { Ok(()) } else { Err(Error::Forked) }
    }

    /// Registers a function by its serialized form. It may name shared things, whose `leases` it keeps.
    pub fn function(&self, bytes: &[u8], leases: Vec<Lease>) -> Result<Arc<Function>> {
        self.function_named("", bytes, leases)
    }

    /// As [`function`](Self::function), with a name for the record of its tasks.
    pub fn function_named(&self, name: &str, bytes: &[u8], leases: Vec<Lease>) -> Result<Arc<Function>> {
        self.check()?;
        let id = self.0.functions.fetch_add(1, Ordering::Relaxed);
        let budget = self.0.budget.as_ref();
        {
            // One writer at a time.
            let _core = lock(&self.0.core);
            self.0.memory.control().names.set(id, name);
        }
        Ok(Arc::new(Function::new(self.0.host.heap(), id, name, bytes, leases, budget)?))
    }

    /// Begins a record of the tasks that are submitted from now on, of the first `most` that end. `false`: there is one
    /// under way.
    pub fn start_trace(&self, most: usize) -> Result<bool> {
        self.check()?;
        let mut core = lock(&self.0.core);
        let free = core.recorder.is_none();
        if free {
            core.recorder = Some(Box::new(Recorder::new(most)));
        }
        Ok(free)
    }

    /// Ends the record, with all that has ended so far; `None`: there is none.
    pub fn stop_trace(&self) -> Option<Trace> {
        if !self.0.host.is_mine() {
            return None;
        }
        self.collect();
        let recorder = lock(&self.0.core).recorder.take()?;
        Some(recorder.into_trace())
    }
}

impl Shared {
    /// What its limit of memory is counted against, if it has one.
    pub(crate) fn budget(&self) -> Option<&Arc<Budget>> {
        self.budget.as_ref()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.terminate();
    }
}
