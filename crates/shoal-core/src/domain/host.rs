//! The host of a domain: the client. It owns the registry of segments, numbers the holders, starts the zygote and
//! runs the supervisor.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use shoal_sys::oom;
use shoal_sys::poll::Notifier;
use shoal_sys::process::{self, Signal};
use shoal_sys::random;
use shoal_sys::socket::{Listener, Seqpacket};

use super::guest::broker_name;
use super::hearing::streams;
use super::kills::Kills;
use super::registry::{Budget, Local, Registry};
use super::state::{PoolLink, SeatLink, State, Watch};
use super::supervisor;
use super::voice::{PoolVoice, Stream, Voice};
use super::words::lock;
use crate::crash;
use crate::error::{Error, Result};
use crate::memory::handle::Address;
use crate::memory::heap::PlainBlock;
use crate::memory::heap::{HOST, Heap, Holder, Usage};
use crate::memory::lease::IN_QUEUE;
use crate::memory::roster::{Claim, Roster};
use crate::pool::client::Shared;
use crate::pool::layout::PoolMemory;
use crate::pool::messages::{Place, ToZygote};

/// How often to try again when memory is short,
const TRIES: u32 = 10;
/// and after how long each time.
const MOMENT: Duration = Duration::from_millis(10);

/// Tells a worker to say where it is, on its standard error, and to end. The kernel does not send it, and nobody else
/// has a use for it. Who does not handle it just ends.
pub const LAST_WORD: Signal = Signal::STKFLT;

/// With more workers than these their standard streams are not listened to.
const MOST_HEARD: usize = 128;

/// No more workers are asked for at once. A zygote that imports reads nothing meanwhile, and the descriptors that lie there for
/// it count against the user's limit of open files, mostly 1024: eight for each worker.
const MOST_ON_THEIR_WAY: usize = 64;

/// How to start a zygote: a program that calls `Zygote::new` on its standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables set on top of the client's own.
    pub envs: Vec<(OsString, OsString)>,
}

/// What becomes of what a pool's workers write to their standard streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Their standard output is this process's own; what they write to the standard error is passed on line by line.
    #[default]
    Shared,
    /// Both are passed on line by line.
    Forwarded,
    /// The standard error is not passed on, only kept for who wants to know how a worker died. The standard output is the
    /// worker's own affair.
    Unheard,
}

/// The host. One per process, started when first needed.
#[derive(Debug)]
pub struct Host {
    pid: u32,
    address: Address,
    heap: Arc<Heap>,
    pub(super) roster: Arc<Roster>,
    pub(super) registry: Arc<Registry>,
    pub(super) notifier: Notifier,
    /// Who passes on what workers say, of pools that have no voice of their own.
    pub(super) voice: Arc<Voice>,
    state: Mutex<State>,
    /// Of whom the kernel has killed for want of memory.
    kills: Mutex<Kills>,
    killed: oom::Counter,
    numbers: AtomicU32,
}

/// All that this process is the host of: its own domain, and those that it took over. For good, as their supervisors are.
pub(super) static HOSTS: Mutex<Vec<&'static Arc<Host>>> = Mutex::new(Vec::new());
/// The host of its own domain.
pub(super) static CURRENT: Mutex<Option<&'static Arc<Host>>> = Mutex::new(None);

impl Host {
    /// This process's host, if it has one already.
    pub fn existing() -> Option<Arc<Host>> {
        let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        current.filter(|host| host.is_mine()).cloned()
    }

    /// This process's host. A process that was forked from one with a host gets a new one of its own.
    pub fn current() -> Result<Arc<Host>> {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(host) if host.is_mine() => Ok((*host).clone()),
            _ => {
                let host = Self::start()?;
                // For good: the supervisor has it. A parent's is left alone: its threads do not exist here.
                *current = Some(Box::leak(Box::new(host.clone())));
                super::fork::watch(&host.heap);
                Ok(host)
            }
        }
    }

    fn start() -> Result<Arc<Host>> {
        let roster = Arc::new(Roster::create()?);
        let registry = Registry::new(roster.clone());
        let address = Address { domain: random::token(), token: random::token() };
        // From the start: handles of what will lie here may go to anybody, also from a fork.
        let broker = Arc::new(Listener::bind_abstract(&broker_name(&address.domain))?);
        let host = Self::build(roster, registry, broker, address, |host| {
            Heap::new(HOST, address, Box::new(Local(host.clone())))
        })?;
        let watched = host.clone();
        std::thread::Builder::new().name("shoal-watch".into()).spawn(move || supervisor::run(&watched))?;
        Ok(host)
    }

    /// The holder of that heap follows the host of its domain, which has ended; the broker's name is its own already.
    /// Whoever gets this runs the supervisor.
    pub(super) fn take_over(heap: &Arc<Heap>, roster: &Arc<Roster>, broker: Arc<Listener>) -> Result<Arc<Host>> {
        let registry = Registry::take_over(roster.clone(), heap)?;
        Self::build(roster.clone(), registry, broker, heap.address(), |_| heap.clone())
    }

    fn build(
        roster: Arc<Roster>,
        registry: Registry,
        broker: Arc<Listener>,
        address: Address,
        heap: impl FnOnce(&Weak<Host>) -> Arc<Heap>,
    ) -> Result<Arc<Host>> {
        let notifier = Notifier::new()?;
        let killed = oom::Counter::find();
        let host = Arc::new_cyclic(|host| Host {
            pid: process::pid(),
            address,
            heap: heap(host),
            roster,
            registry: Arc::new(registry),
            notifier,
            voice: Arc::default(),
            state: Mutex::new(State { listener: Some(broker), ..State::default() }),
            kills: Mutex::new(Kills::new(killed.read().unwrap_or(0), Instant::now())),
            killed,
            numbers: AtomicU32::new(1),
        });
        HOSTS.lock().unwrap_or_else(PoisonError::into_inner).push(Box::leak(Box::new(host.clone())));
        Ok(host)
    }

    /// In the child of a fork: what it holds as the host, its parent holds.
    pub(super) fn forked(&self) {
        self.registry.forked();
    }

    /// Whether this process is the one that started it, not a fork of it.
    pub fn is_mine(&self) -> bool {
        self.pid == process::pid()
    }

    /// Where this domain is to be found.
    pub fn address(&self) -> Address {
        self.address
    }

    /// The number of the domain, told to who looks at it from outside.
    pub fn domain(&self) -> u64 {
        self.roster.domain()
    }

    /// The heap.
    pub fn heap(&self) -> &Arc<Heap> {
        &self.heap
    }

    /// What is mapped and in use in the whole domain.
    pub fn usage(&self) -> Usage {
        self.registry.bury(&self.heap);
        let names: HashMap<u16, Holder> = {
            let state = self.state();
            let workers = state.seats.values().map(|seat| (seat.holder, Holder::Worker(seat.pid)));
            let guests = state.guests.values().filter_map(|guest| Some((guest.holder?, Holder::Guest)));
            workers.chain(guests).chain([(HOST, Holder::Host)]).collect()
        };
        let mut usage = self.heap.usage(|holder| names.get(&holder).copied());
        usage.limit = self.registry.limit();
        usage
    }

    /// Whether a process that has just died of SIGKILL was killed by the kernel, for want of memory.
    pub(super) fn has_been_out_of_memory(&self) -> bool {
        self.killed.read().is_some_and(|count| self.kills().explain_one(count, Instant::now()))
    }

    /// Looks whether the kernel has killed somebody for want of memory. To be called now and then while tasks run.
    pub(crate) fn look_for_kills(&self) {
        if let Some(count) = self.killed.read() {
            self.kills().see(count, Instant::now());
        }
    }

    fn kills(&self) -> MutexGuard<'_, Kills> {
        self.kills.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Limits the memory of all segments of the domain, in bytes. The limit before.
    pub fn limit_memory(&self, limit: Option<u64>) -> Option<u64> {
        self.registry.set_limit(limit)
    }

    /// What a pool's limit is counted against.
    pub(crate) fn budget(&self, limit: u64) -> Arc<Budget> {
        self.registry.budget(limit)
    }

    /// Tries something that takes memory. If there is not enough, workers are asked to give back what they have free,
    /// and it is tried again for a moment.
    pub(super) fn pressing<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let mut result = attempt();
        for _ in 0..TRIES {
            let pools = self.pool_memories();
            if !matches!(result, Err(Error::OutOfSharedMemory { .. })) || pools.is_empty() {
                break;
            }
            // Each time: a worker may have got back some more since.
            pools.iter().for_each(|pool| pool.ask_for_memory(true));
            std::thread::sleep(MOMENT);
            result = attempt();
        }
        result
    }

    /// The pools that are there. Not for who has an arena locked: it may be left with the last reference.
    pub(super) fn pools(&self) -> Vec<Arc<Shared>> {
        let mut state = self.state();
        state.pools.retain(|_, pool| pool.shared.strong_count() > 0);
        state.pools.values().filter_map(|pool| pool.shared.upgrade()).collect()
    }

    /// What they coordinate by.
    pub(super) fn pool_memories(&self) -> Vec<Arc<PoolMemory>> {
        self.state().pools.values().filter_map(|pool| pool.memory.upgrade()).collect()
    }

    pub(super) fn pool(&self, number: u32) -> Option<Arc<Shared>> {
        self.state().pools.get(&number).and_then(|pool| pool.shared.upgrade())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a new holder.
    pub(super) fn claim(&self) -> Result<Claim> {
        self.roster.claim(self.pid).ok_or(Error::TooManyHolders(IN_QUEUE.into()))
    }

    /// Starts the zygote, if there is none yet, and asks it to get `preload` ready, if it has not yet.
    pub fn prepare(&self, launch: &Launch, preload: &[Vec<u8>]) -> Result<()> {
        let mut state = self.state();
        state.launch = Some(launch.clone());
        if state.zygote.is_none() {
            state.start_zygote()?;
            self.notifier.notify();
        }
        drop(state);
        for what in preload {
            while let Err(error) = self.tell_to_preload(what) {
                match error {
                    Error::Os(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(MOMENT),
                    error => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn tell_to_preload(&self, what: &[u8]) -> Result<()> {
        let mut state = self.state();
        if !state.preloaded.contains(what) {
            state.tell_zygote(&ToZygote::Preload(what.to_vec()), &[])?;
            state.preloaded.insert(what.to_vec());
        }
        Ok(())
    }

    /// A number for a new pool.
    pub(crate) fn add_pool(&self, memory: &Arc<PoolMemory>, pool: impl FnOnce(u32) -> Arc<Shared>) -> Arc<Shared> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let pool = pool(number);
        let link = PoolLink { shared: Arc::downgrade(&pool), memory: Arc::downgrade(memory) };
        self.state().pools.insert(number, link);
        pool
    }

    /// Asks for a worker. The answer comes to the pool, by the supervisor.
    pub(crate) fn fork(
        &self,
        place: Place,
        pool: BorrowedFd<'_>,
        setup: Arc<PlainBlock>,
        output: Output,
        voice: &PoolVoice,
    ) -> Result<()> {
        let mut state = self.state();
        if state.on_their_way() >= MOST_ON_THEIR_WAY {
            return Err(io::Error::from(io::ErrorKind::WouldBlock).into());
        }
        let (ours, theirs) = Seqpacket::pair()?;
        let theirs = theirs.into_fd();
        let reports = voice.voice.expect_reports()?;
        let holder = self.claim()?.holder;
        crash::point("client: claimed");
        // With very many workers there are better uses for the descriptors: these keep the client's own standard error.
        let heard = if state.seats.len() < MOST_HEARD { streams(output) } else { vec![] };
        let (words, speakers): (Vec<_>, Vec<_>) = heard.into_iter().unzip();
        let link = SeatLink {
            control: Some(Arc::new(ours)),
            voice: voice.voice.clone(),
            words: words.into_iter().map(|words| Arc::new(Mutex::new(words))).collect(),
            ..SeatLink::new(holder, setup)
        };
        state.seats.insert(place, link);
        let told = state.tell_zygote(
            &ToZygote::Fork { place, holder, domain: self.address.domain, token: self.address.token },
            &[theirs.as_fd(), pool, reports.theirs()]
                .into_iter()
                .chain(self.roster.fds())
                .chain(speakers.iter().map(OwnedFd::as_fd))
                .collect::<Vec<_>>(),
        );
        if let Err(error) = told {
            state.seats.remove(&place);
            self.roster.clear(holder);
            return Err(error);
        }
        crash::point("client: asked");
        self.notifier.notify();
        Ok(())
    }

    /// Whether workers are on their way, which take what is short now and give it back when they are there.
    pub(crate) fn is_forking(&self) -> bool {
        self.state().on_their_way() > 0
    }

    /// Calls `then`, once, when `fd` is readable: on the supervisor's thread, where it must not block.
    pub fn when_readable(&self, fd: OwnedFd, then: impl FnOnce() + Send + 'static) {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        self.state().watches.insert(number, Watch { fd: Arc::new(fd), then: Box::new(then) });
        self.notifier.notify();
    }

    /// The supervisor's plans may have changed: it looks again.
    pub(crate) fn look_again(&self) {
        self.notifier.notify();
    }

    /// Tells a worker to end, and to say before where it is, by [`LAST_WORD`]. `false`: nobody would hear it.
    pub(crate) fn ask_where(self: &Arc<Host>, place: Place) -> bool {
        // The standard error is the first of them.
        let seat = self.state().seats.get(&place).map(|seat| (seat.words.first().cloned(), seat.voice.clone()));
        let Some((Some(words), voice)) = seat else { return false };
        voice.say(Stream::Err, lock(&words).expect_answer(), self);
        self.signal(place, LAST_WORD).is_ok()
    }

    /// Sends a signal to a worker, if it still is there; a little later, if there is no descriptor for that now.
    pub(crate) fn signal(&self, place: Place, signal: Signal) -> Result<()> {
        if !self.send(place, signal)? {
            self.notifier.notify();
        }
        Ok(())
    }

    /// Sends what could not be sent before. When to try again, if it still can't be.
    pub(super) fn send_owed(&self) -> Option<Duration> {
        let owed: Vec<_> = {
            let mut state = self.state();
            state.seats.iter_mut().filter_map(|(place, seat)| Some((*place, seat.owed.take()?))).collect()
        };
        // An error says that the process is not ours to signal, and then there is nothing else to be done.
        let sent = |&(place, signal): &(Place, Signal)| self.send(place, signal).unwrap_or(true);
        // All are tried.
        (owed.iter().filter(|one| !sent(one)).count() > 0).then_some(MOMENT)
    }

    /// `false`: there is no descriptor for that now. It is still owed.
    fn send(&self, place: Place, signal: Signal) -> Result<bool> {
        let mut state = self.state();
        let Some(seat) = state.seats.get_mut(&place) else { return Ok(true) };
        seat.killed |= signal == Signal::KILL;
        if seat.pidfd.is_none() && seat.pid != 0 {
            // There was none free when it was told of.
            seat.pidfd = process::pidfd_open(seat.pid).ok().map(Arc::new);
            if seat.pidfd.is_none() {
                seat.owed = Some(if seat.killed { Signal::KILL } else { signal });
                return Ok(false);
            }
        }
        let pidfd = seat.pidfd.clone();
        drop(state);
        if let Some(pidfd) = pidfd {
            process::pidfd_kill(pidfd.as_fd(), signal)?;
        }
        Ok(true)
    }
}
