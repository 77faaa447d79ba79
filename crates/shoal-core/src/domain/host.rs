//! The host of a domain: the client. It owns the registry of segments, numbers the holders, starts the zygote and
//! runs the supervisor.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use shoal_sys::atfork;
use shoal_sys::oom;
use shoal_sys::pipe;
use shoal_sys::poll::Notifier;
use shoal_sys::process;
use shoal_sys::random;
use shoal_sys::socket::{Listener, Seqpacket};

use super::guest::broker_name;
use super::kills::Kills;
use super::registry::{Budget, Local, Registry};
use super::supervisor;
use super::voice::{PoolVoice, Speaker, Speakers, Stream, Voice};
use super::words::{Words, lock};
use crate::crash;
use crate::error::{Error, Result};
use crate::memory::handle::Address;
use crate::memory::heap::{HOST, Heap, Holder, Usage};
use crate::memory::roster::{Claim, Roster};
use crate::pool::client::Shared;
use crate::pool::layout::PoolMemory;
use crate::pool::messages::{Place, ToZygote};
use crate::sync::bits;

/// How often to try again when memory is short,
const TRIES: u32 = 10;
/// and after how long each time.
const MOMENT: Duration = Duration::from_millis(10);

/// Tells a worker to say where it is, on its standard error, and to end. The kernel does not send it, and nobody else
/// has a use for it. Who does not handle it just ends.
pub const LAST_WORD: process::Signal = process::Signal::STKFLT;

/// With more workers than these their standard streams are not listened to.
const MOST_HEARD: usize = 128;

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

/// What the supervisor watches.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) zygote: Option<ZygoteLink>,
    pub(super) launch: Option<Launch>,
    pub(super) preloaded: HashSet<Vec<u8>>,
    pub(super) failed_zygotes: u32,
    pub(super) listener: Option<Arc<Listener>>,
    pub(super) seats: HashMap<Place, SeatLink>,
    pub(super) by_pid: HashMap<u32, Place>,
    pub(super) guests: HashMap<u64, GuestLink>,
    pub(super) pools: HashMap<u32, PoolLink>,
    pub(super) watches: HashMap<u64, Watch>,
    /// Those that pools have for themselves.
    pub(super) voices: Vec<Weak<Voice>>,
    /// Numbers that this process holds for others: see `stand_in`.
    pub(super) stand_ins: HashSet<u16>,
}

/// A descriptor that the supervisor looks after for others, and what to do when it is readable.
pub(super) struct Watch {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) then: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("fd", &self.fd).finish_non_exhaustive()
    }
}

/// A pool as the host knows it.
#[derive(Debug)]
pub(super) struct PoolLink {
    shared: Weak<Shared>,
    /// Apart, for who is short of memory: should the pool have gone meanwhile, it must not be dropped there.
    memory: Weak<PoolMemory>,
}

/// The zygote as the host sees it.
#[derive(Debug)]
pub(super) struct ZygoteLink {
    pub(super) socket: Arc<Seqpacket>,
    pub(super) child: Child,
    pub(super) ready: bool,
}

/// A worker as the host sees it.
#[derive(Debug)]
pub(super) struct SeatLink {
    pub(super) holder: u16,
    /// `None` once the worker has closed its end.
    pub(super) control: Option<Arc<Seqpacket>>,
    pub(super) pidfd: Option<Arc<OwnedFd>>,
    pub(super) pid: u32,
    /// When it was forked.
    pub(super) since: Instant,
    /// Who passes on what it says.
    pub(super) voice: Arc<Voice>,
    /// What it writes to its standard streams.
    pub(super) words: Vec<Arc<Mutex<Words>>>,
}

/// A guest as the host sees it: a process that visits, or a fork.
#[derive(Debug)]
pub(super) struct GuestLink {
    /// `None` until it has shown the token.
    pub(super) holder: Option<u16>,
    pub(super) link: Link,
}

/// How a guest is watched.
#[derive(Debug)]
pub(super) enum Link {
    /// By its socket.
    Socket(Arc<Seqpacket>),
    /// By its process, as it has no socket to this host, or closed it.
    Process(Arc<OwnedFd>),
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
        let broker = Listener::bind_abstract(&broker_name(&address.domain))?;
        let host = Self::build(roster, registry, broker, address, |host| {
            Heap::new(HOST, address, Box::new(Local(host.clone())))
        })?;
        let watched = host.clone();
        std::thread::Builder::new().name("shoal-watch".into()).spawn(move || supervisor::run(&watched))?;
        Ok(host)
    }

    /// The holder of that heap follows the host of its domain, which has ended; the broker's name is its own already.
    /// Whoever gets this runs the supervisor.
    pub(super) fn take_over(heap: &Arc<Heap>, roster: &Arc<Roster>, broker: Listener) -> Result<Arc<Host>> {
        let registry = Registry::take_over(roster.clone(), heap)?;
        Self::build(roster.clone(), registry, broker, heap.address(), |_| heap.clone())
    }

    fn build(
        roster: Arc<Roster>,
        registry: Registry,
        broker: Listener,
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
            state: Mutex::new(State { listener: Some(Arc::new(broker)), ..State::default() }),
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
        self.roster.claim(self.pid).ok_or(Error::TooManyHolders(bits::CAPACITY))
    }

    /// Starts the zygote, if there is none yet, and asks it to get `preload` ready, if it has not yet.
    pub fn prepare(&self, launch: &Launch, preload: &[Vec<u8>]) -> Result<()> {
        let mut state = self.state();
        state.launch = Some(launch.clone());
        if state.zygote.is_none() {
            state.start_zygote()?;
            self.notifier.notify();
        }
        for what in preload {
            if state.preloaded.insert(what.clone()) {
                state.tell_zygote(&ToZygote::Preload(what.clone()), &[])?;
            }
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
    pub(crate) fn fork(&self, place: Place, pool: BorrowedFd<'_>, output: Output, voice: &PoolVoice) -> Result<()> {
        let mut state = self.state();
        let (ours, theirs) = Seqpacket::pair()?;
        let theirs = theirs.into_fd();
        let reports = voice.voice.expect_reports()?;
        let holder = self.claim()?.holder;
        crash::point("client: claimed");
        // With very many workers there are better uses for the descriptors: these keep the client's own standard error.
        let heard = if state.seats.len() < MOST_HEARD { streams(output) } else { vec![] };
        let (words, speakers): (Vec<_>, Vec<_>) = heard.into_iter().unzip();
        let link = SeatLink {
            holder,
            control: Some(Arc::new(ours)),
            pidfd: None,
            pid: 0,
            since: Instant::now(),
            voice: voice.voice.clone(),
            words: words.into_iter().map(|words| Arc::new(Mutex::new(words))).collect(),
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

    /// Calls `then`, once, when `fd` is readable: on the supervisor's thread, where it must not block.
    pub fn when_readable(&self, fd: OwnedFd, then: impl FnOnce() + Send + 'static) {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        self.state().watches.insert(number, Watch { fd: Arc::new(fd), then: Box::new(then) });
        self.notifier.notify();
    }

    /// Has what workers say spoken by `speaker`, which may wait. With `None` lines are written to this process's own
    /// streams, and reports are dropped.
    pub fn speak_through(&self, stream: Stream, speaker: Option<Speaker>) {
        self.voice.speak_through(stream, speaker);
    }

    /// The voice of a new pool: one of its own, if it has speakers of its own.
    pub(crate) fn voice_for(&self, speakers: Option<Speakers>) -> PoolVoice {
        let Some(speakers) = speakers else { return PoolVoice { voice: self.voice.clone(), own: false } };
        let voice = Arc::new(Voice::new(speakers));
        let mut state = self.state();
        state.voices.retain(|voice| voice.strong_count() > 0);
        state.voices.push(Arc::downgrade(&voice));
        PoolVoice { voice, own: true }
    }

    /// Says something as a worker would, on `stream`, without waiting until it is spoken.
    pub fn say(self: &Arc<Host>, stream: Stream, bytes: Vec<u8>) {
        self.voice.say(stream, bytes, self);
    }

    /// Writes a line to the standard error of a pool's workers, without waiting for it.
    pub(crate) fn complain(self: &Arc<Host>, voice: &PoolVoice, line: String) {
        voice.voice.say(Stream::Err, line.into_bytes(), self);
    }

    /// Passes on what workers have said so far, of pools without a voice of their own, and waits until it is spoken, for
    /// so long at most.
    pub fn pass_on(self: &Arc<Host>, timeout: Duration) {
        self.pass_on_by(&self.voice, timeout);
    }

    /// The same for a pool's workers.
    pub(crate) fn pass_on_of(self: &Arc<Host>, voice: &PoolVoice, timeout: Duration) {
        self.pass_on_by(&voice.voice, timeout);
    }

    fn pass_on_by(self: &Arc<Host>, voice: &Arc<Voice>, timeout: Duration) {
        if !self.is_mine() {
            // In a fork nobody is heard.
            return;
        }
        let words: Vec<_> = {
            let state = self.state();
            let seats = state.seats.values().filter(|seat| Arc::ptr_eq(&seat.voice, voice));
            seats.flat_map(|seat| seat.words.clone()).collect()
        };
        words.iter().for_each(|words| self.hear(words, voice));
        self.hear_reports(voice);
        voice.flush(timeout);
    }

    /// Reads what lies in a worker's pipe.
    pub(super) fn hear(self: &Arc<Host>, words: &Mutex<Words>, voice: &Arc<Voice>) {
        // Locked until it is queued: who reads next is to come behind.
        let mut words = lock(words);
        voice.say(words.stream, words.listen(), self);
    }

    /// Reads what those have reported who have this voice.
    pub(super) fn hear_reports(self: &Arc<Host>, voice: &Arc<Voice>) {
        if let Some(reports) = voice.reports() {
            reports.hear(voice, self);
        }
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

    /// Sends a signal to a worker, if it still is there.
    pub(crate) fn signal(&self, place: Place, signal: process::Signal) -> Result<()> {
        let pidfd = self.state().seats.get_mut(&place).and_then(|seat| {
            if seat.pidfd.is_none() && seat.pid != 0 {
                // There was none free when it was told of.
                seat.pidfd = process::pidfd_open(seat.pid).ok().map(Arc::new);
            }
            seat.pidfd.clone()
        });
        match pidfd {
            Some(pidfd) => Ok(process::pidfd_kill(pidfd.as_fd(), signal)?),
            None => Ok(()),
        }
    }
}

/// What is listened to of a worker, and the worker's ends.
fn streams(output: Output) -> Vec<(Words, OwnedFd)> {
    let wanted = [(Stream::Err, output != Output::Unheard)].into_iter();
    let wanted = wanted.chain((output == Output::Forwarded).then_some((Stream::Out, true)));
    let heard = wanted.map(|(stream, passed_on)| {
        let (ours, theirs) = pipe::pipe()?;
        Ok((Words::new(stream, ours, passed_on), theirs))
    });
    // All or none: a worker takes them in this order.
    heard.collect::<std::io::Result<_>>().unwrap_or_default()
}

impl State {
    /// In the child of a fork: closes its copies of all sockets, and forgets everything.
    pub(super) fn close_copies(&mut self) {
        let State { zygote, listener, seats, guests, .. } = std::mem::take(self);
        let sockets = zygote.into_iter().map(|zygote| zygote.socket);
        let sockets = sockets.chain(seats.into_values().filter_map(|seat| seat.control));
        let guests = guests.into_values().filter_map(|guest| match guest.link {
            Link::Socket(socket) => Some(socket),
            Link::Process(_) => None,
        });
        sockets.chain(guests).for_each(atfork::close_copy);
        listener.into_iter().for_each(atfork::close_copy);
    }

    pub(super) fn start_zygote(&mut self) -> Result<()> {
        let launch = self.launch.clone().ok_or(Error::CannotStart("no program for the zygote is known".into()))?;
        let (ours, theirs) = Seqpacket::pair()?;
        let child = process::spawn_with_stdin(&launch.program, &launch.args, &launch.envs, theirs.into_fd())
            .map_err(|error| Error::CannotStart(format!("{}: {error}", launch.program.to_string_lossy())))?;
        self.zygote = Some(ZygoteLink { socket: Arc::new(ours), child, ready: false });
        for what in self.preloaded.clone() {
            self.tell_zygote(&ToZygote::Preload(what), &[])?;
        }
        Ok(())
    }

    fn tell_zygote(&mut self, message: &ToZygote, fds: &[BorrowedFd<'_>]) -> Result<()> {
        if self.zygote.is_none() {
            self.start_zygote()?;
        }
        let zygote = self.zygote.as_ref().expect("just started");
        match zygote.socket.send(&message.encode(), fds) {
            // It has just died: the supervisor sees the end of its socket, and asks anew for all that it owed.
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset) =>
            {
                Ok(())
            }
            sent => Ok(sent?),
        }
    }
}
