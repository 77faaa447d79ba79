//! The client's side of a pool: submits tasks, collects what became of them, settles what the dead leave.
//!
//! A task goes from the table (private) into the task ring, or into the backlog while the ring is full. Its end comes
//! out of a completion ring. The thread that waits for a result collects it itself: whoever gets the `collector`
//! lock reads all rings, for everybody; the others sleep until it has found something or leaves. When nobody waits,
//! the pool's own thread collects, but only when a ring fills up or the backlog can move (and once a second, to be sure):
//! until somebody asks, a result may as well lie where it is.

mod backlog;
mod collect;
mod end;
mod fate;
mod lost;
mod rest;
mod start;
mod submit;
mod watch;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use self::backlog::Backlog;
use self::watch::Watched;
use shoal_sys::process::Signal;
use shoal_sys::{clock, procfs};

use super::account::Spent;
use super::crew::Crew;
use super::current::AtTask;
use super::layout::{MAX_WORKERS, PoolMemory};
use super::messages::Place as Seat;
use super::table::Table;
use super::tasks::{Function, Remains, Reply, Task};
use super::trace::{Recorder, Trace};
use crate::domain::host::{Host, Launch, Output};
use crate::domain::registry::Budget;
use crate::error::{Error, Result};
use crate::memory::heap::{Heap, Lease, PlainBlock};
use crate::sync::bell::Tone;

/// How a pool is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many workers.
    pub workers: usize,
    /// How to start the zygote, if it is not up yet.
    pub launch: Launch,
    /// What the zygote should get ready before it forks.
    pub preload: Vec<Vec<u8>>,
    /// What every worker of the pool reads before it starts.
    pub setup: Vec<u8>,
    /// The most shared memory that its workers' segments, and the arguments and functions on their way to them, may
    /// take together, in bytes. `None`: as much as there is.
    pub memory_limit: Option<u64>,
    /// What each worker may take.
    pub limits: Limits,
    /// What becomes of what they print.
    pub output: Output,
}

/// What a worker may take. The default: as much as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory that it may have to itself; with more it is ended, and the task that it is at.
    pub private_memory: Option<u64>,
    /// How long it may be idle; then it ends, and comes back when there is work.
    pub idle: Option<Duration>,
    /// How long it may be at a task until it is asked for a sign of life, by SIGURG: its process has to call what
    /// [`Worker::answerer`](super::worker::Worker::answerer) gave it.
    pub answer: Option<Duration>,
}

/// The longest a wait goes without a look at signals and the clock.
const SLICE: Duration = Duration::from_millis(50);

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
    /// What of `Control::said` was passed on.
    heard: AtomicU64,
    /// Held by who leaves a notice.
    noticing: Mutex<()>,
    /// Workers that rest.
    resting: AtomicUsize,
    _setup: PlainBlock,
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
    /// Workers that could not be had, and when they are asked for again.
    put_off: Vec<(Instant, Seat)>,
    /// What tasks that were cut off by `terminate` consisted of: workers may read it until they have ended.
    remains: Vec<Remains>,
    kill_at: Option<Instant>,
    /// While a record of the tasks is wanted.
    recorder: Option<Box<Recorder>>,
}

/// A worker, as told to users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its number in the pool.
    pub number: u16,
    /// Its process, once it is there.
    pub pid: Option<u32>,
    /// What it does.
    pub state: WorkerState,
    /// What it is at.
    pub task: Option<AtTask>,
    /// What workers of this number have done, and where their time went.
    pub spent: Spent,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// On its way.
    Starting,
    /// Waiting for a task.
    Idle,
    /// At a task.
    Busy,
    /// Stopped by a signal.
    Stopped,
    /// At a task, and gives no sign of life.
    Silent,
    /// Not there for want of work.
    Resting,
    /// Not there any more.
    Gone,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// What was waited for is there.
    Done,
    /// The time was up.
    TimedOut,
    /// The caller said so.
    Interrupted,
    /// This process is a fork of the client: what is waited for will never come here.
    Forked,
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
                heard: AtomicU64::new(0),
                noticing: Mutex::default(),
                resting: AtomicUsize::new(0),
                _setup: setup,
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
        for worker in 0..config.workers as u16 {
            pool.0.host.fork(Seat { pool: pool.0.number, worker, epoch: 0 }, pool.0.memory.fd(), config.output)?;
        }
        let shared = pool.0.clone();
        std::thread::Builder::new().name("shoal-collect".into()).spawn(move || shared.collect_for_nobody())?;
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

    /// Passes it on, so that a result comes after what its task has said. Waits no longer than `timeout` for it.
    pub fn hear(&self, timeout: Duration) {
        // Read first: what is said from now on is the affair of whoever asks next.
        let said = self.0.memory.control().said.load(Ordering::Acquire);
        self.0.host.pass_on(timeout);
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

    fn check(&self) -> Result<()> {
        if self.0.host.is_mine() { Ok(()) } else { Err(Error::Forked) }
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

    /// Submits a task: `function`, on its terms, on `arguments`, which may name shared things, whose `leases` are kept until the
    /// task has ended. `kind` is the caller's own tag. Returns the task's number, by which it can be cancelled.
    pub fn submit(
        &self,
        function: &Arc<Function>,
        kind: u16,
        arguments: &[u8],
        leases: Vec<Lease>,
        reply: Reply,
    ) -> Result<u64> {
        let number = self.submit_quietly(function, kind, arguments, leases, reply)?;
        self.publish();
        Ok(number)
    }

    /// As [`submit`](Self::submit), but no worker is woken until [`publish`](Self::publish): for several at once.
    pub fn submit_quietly(
        &self,
        function: &Arc<Function>,
        kind: u16,
        arguments: &[u8],
        leases: Vec<Lease>,
        reply: Reply,
    ) -> Result<u64> {
        self.check()?;
        let task = Task::new(function, kind, arguments, leases, reply);
        // A single call has no business in a pool that closes.
        let late = matches!(task.reply, Reply::Inbox(..));
        let mut core = lock(&self.0.core);
        match &core.state {
            State::Open => {}
            // A map that was begun before goes on, as all of it counts as submitted.
            State::Closed if late && self.0.feeders.load(Ordering::Relaxed) > 0 => {}
            State::Broken(why) => return Err(Error::CannotStart(why.to_string())),
            State::Closed | State::Terminated => return Err(Error::PoolClosed),
        }
        Ok(self.0.enter(&mut core, task))
    }

    /// Wakes a worker for what was submitted quietly, if none is awake.
    pub fn publish(&self) {
        self.0.quiet_since.store(0, Ordering::Relaxed);
        self.0.announce();
    }

    /// Takes a task back, unless a worker has taken it or it has ended: then `false`. Its outcome is
    /// [`Outcome::Cancelled`](super::tasks::Outcome::Cancelled).
    pub fn cancel(&self, number: u64) -> bool {
        if !self.0.host.is_mine() {
            return false;
        }
        let task = self.0.take_back(&mut lock(&self.0.core), number);
        let cancelled = task.is_some();
        self.0.cancelled(task);
        cancelled
    }

    /// Takes back all tasks that no worker has taken yet.
    pub fn cancel_queued(&self) {
        if self.0.host.is_mine() {
            let tasks = self.0.take_all_back(&mut lock(&self.0.core));
            self.0.cancelled(tasks);
        }
    }

    /// Whether no worker has taken the task yet.
    pub fn is_queued(&self, number: u64) -> bool {
        self.0.host.is_mine() && self.0.is_queued(&mut lock(&self.0.core), number)
    }

    /// Tasks the ring can take at once.
    pub fn room(&self) -> usize {
        let waiting = self.0.memory.tasks().queued() as usize + self.0.backlogged.load(Ordering::Relaxed);
        self.0.memory.slots().saturating_sub(waiting)
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

    /// Tasks that have not ended.
    pub fn outstanding(&self) -> usize {
        if !self.0.host.is_mine() {
            return 0;
        }
        lock(&self.0.core).tasks.len()
    }

    /// How many workers it has.
    pub fn size(&self) -> usize {
        self.0.memory.workers()
    }

    /// Counts a job that has more to send: who feeds it is woken when no more than `low` tasks are queued, and
    /// `close` leaves the workers until it has sent everything.
    pub fn feed(&self, low: usize) {
        if !self.0.host.is_mine() {
            return;
        }
        let core = lock(&self.0.core);
        self.0.feeders.fetch_add(1, Ordering::Relaxed);
        self.0.feed_at.fetch_max(low, Ordering::Relaxed);
        self.0.set_low_water(&core);
    }

    /// A job has sent everything: undoes one [`feed`](Self::feed).
    pub fn fed(&self) {
        if !self.0.host.is_mine() {
            return;
        }
        let core = lock(&self.0.core);
        if self.0.feeders.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.feed_at.store(0, Ordering::Relaxed);
        }
        self.0.set_low_water(&core);
        self.0.end_if_done(&core);
    }

    /// Collects what lies there, without waiting.
    pub fn collect(&self) {
        if !self.0.host.is_mine() {
            return;
        }
        if let Ok(_collecting) = self.0.collector.try_lock() {
            self.0.drain();
        }
        self.0.tell_followers();
    }

    /// Waits until `done`, collecting results meanwhile. `interrupted` is asked now and then, with no lock held.
    pub fn wait(
        &self,
        tone: Tone,
        mut done: impl FnMut() -> bool,
        timeout: Option<Duration>,
        mut interrupted: impl FnMut() -> bool,
    ) -> Waited {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if done() {
                return Waited::Done;
            }
            if !self.0.host.is_mine() {
                return Waited::Forked;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.collect();
                return if done() { Waited::Done } else { Waited::TimedOut };
            }
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            while self.0.wanted.load(Ordering::SeqCst) > 0 {
                std::thread::sleep(Duration::from_micros(20));
            }
            let ended = match self.0.collector.try_lock() {
                Ok(collecting) => {
                    let ended = self.0.lead(tone, &mut done, slice);
                    drop(collecting);
                    self.0.tell_followers();
                    ended
                }
                Err(TryLockError::WouldBlock) => self.0.follow(tone, &mut done, slice),
                Err(TryLockError::Poisoned(_)) => {
                    self.0.collector.clear_poison();
                    false
                }
            };
            if ended {
                return Waited::Done;
            }
            if interrupted() {
                return Waited::Interrupted;
            }
            // All this time, and tasks are still queued: a worker that others rely on to take them may have been stopped.
            if self.0.memory.tasks().queued() > 0 {
                self.0.memory.control().gate.wake_all(|worker| self.0.memory.park(worker));
            }
        }
    }

    /// Wakes all who wait, to look again.
    pub fn wake(&self) {
        if self.0.host.is_mine() {
            self.0.changed();
        }
    }

    /// No more tasks: the workers end when all submitted ones are done.
    pub fn close(&self) {
        if !self.0.host.is_mine() {
            return;
        }
        let mut core = lock(&self.0.core);
        if core.state == State::Open {
            core.state = State::Closed;
            self.0.set_low_water(&core);
        }
        self.0.end_if_done(&core);
        drop(core);
        // What lies in the rings uncollected counts as not done. The fence is the bell's: either a worker that ends its
        // last task sees the low water that was just set, or its completion is seen here.
        std::sync::atomic::fence(Ordering::SeqCst);
        self.collect();
    }

    /// Ends the workers now. Tasks that have not ended get [`Outcome::Terminated`](super::tasks::Outcome::Terminated).
    /// Workers that don't heed SIGTERM are killed half a second later.
    pub fn terminate(&self) {
        self.end(Signal::TERM);
    }

    /// As [`terminate`](Self::terminate), by SIGKILL.
    pub fn kill(&self) {
        self.end(Signal::KILL);
    }

    fn end(&self, how: Signal) {
        if self.0.host.is_mine() {
            self.0.terminate(State::Terminated, how);
        }
    }

    /// Whether all workers of a closed or terminated pool have ended.
    pub fn is_over(&self) -> bool {
        !self.0.host.is_mine() || self.0.is_over(&lock(&self.0.core))
    }

    /// Tasks that no worker has taken yet, about.
    pub fn queued(&self) -> usize {
        if !self.0.host.is_mine() {
            return 0;
        }
        self.0.memory.tasks().queued() as usize + self.0.backlogged.load(Ordering::Relaxed)
    }

    /// Whether tasks may be submitted.
    pub fn is_open(&self) -> bool {
        // Nothing of a pool is locked in a fork: another thread may have held the lock when it was made.
        self.0.host.is_mine() && lock(&self.0.core).state == State::Open
    }

    /// Whether some worker is on its way.
    pub fn is_starting(&self) -> bool {
        self.0.host.is_mine() && lock(&self.0.core).crew.iter().any(|crew| matches!(crew, Crew::Starting { .. }))
    }

    /// What the workers have done, and where their time went, by their numbers.
    pub fn spent(&self) -> Vec<Spent> {
        (0..self.size() as u16).map(|worker| self.0.memory.record(worker).account.read()).collect()
    }

    /// The workers.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        if !self.0.host.is_mine() {
            return Vec::new();
        }
        let (crew, watched, tasks) = {
            let mut core = lock(&self.0.core);
            let tasks = self.0.tasks_of_workers(&mut core);
            (core.crew.clone(), core.watched.clone(), tasks)
        };
        let info = |((number, crew), task): ((usize, Crew), Option<AtTask>)| {
            let silent = watched[number].silent;
            let number = number as u16;
            let record = self.0.memory.record(number);
            let (pid, state) = match crew {
                Crew::Gone => (None, WorkerState::Gone),
                Crew::Starting { .. } => (None, WorkerState::Starting),
                Crew::Resting { .. } => (None, WorkerState::Resting),
                Crew::Running { pid, .. } if procfs::is_stopped(pid) == Some(true) => (Some(pid), WorkerState::Stopped),
                Crew::Running { pid, .. } if silent => (Some(pid), WorkerState::Silent),
                Crew::Running { pid, .. } if task.is_some() => (Some(pid), WorkerState::Busy),
                Crew::Running { pid, .. } => (Some(pid), WorkerState::Idle),
            };
            // One that has died may not be settled yet.
            let task = task.filter(|_| pid.is_some());
            WorkerInfo { number, pid, state, task, spent: record.account.read() }
        };
        crew.into_iter().enumerate().zip(tasks).map(info).collect()
    }

    /// What each worker is at, by their numbers; without a look at their processes.
    pub fn running(&self) -> Vec<Option<AtTask>> {
        if !self.0.host.is_mine() {
            return Vec::new();
        }
        self.0.tasks_of_workers(&mut lock(&self.0.core))
    }
}

impl Shared {
    /// What each worker is at. Workers write only numbers: what these mean is looked up when somebody asks.
    fn tasks_of_workers(&self, core: &mut Core) -> Vec<Option<AtTask>> {
        let at = |worker| {
            let record = self.memory.record(worker);
            let task = record.current.task()?;
            let nanos = clock::nanos().saturating_sub(record.started.load(Ordering::Relaxed));
            let name = core.tasks.get_mut(task).map(|task| task.function.code.name.to_string());
            Some(AtTask { function: name.filter(|name| !name.is_empty()), nanos })
        };
        (0..self.memory.workers() as u16).map(at).collect()
    }

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
