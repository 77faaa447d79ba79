//! The host of a domain: the client. It owns the registry of segments, numbers the holders, starts the zygote and
//! runs the supervisor.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use shoal_sys::poll::Notifier;
use shoal_sys::process;
use shoal_sys::random;
use shoal_sys::socket::{Listener, Seqpacket};

use super::guest::broker_name;
use super::registry::{Budget, Local, Registry};
use super::supervisor;
use crate::error::{Error, Result};
use crate::memory::handle::Address;
use crate::memory::heap::{HOST, Heap, Holder, Usage};
use crate::memory::lease::IN_QUEUE;
use crate::pool::client::Shared;
use crate::pool::messages::{Place, ToZygote};
use crate::sync::bits;

/// How often to try again when memory is short,
const TRIES: u32 = 10;
/// and after how long each time.
const MOMENT: Duration = Duration::from_millis(10);

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

/// The host. One per process, started when first needed.
#[derive(Debug)]
pub struct Host {
    pid: u32,
    address: Address,
    heap: Arc<Heap>,
    pub(super) registry: Arc<Registry>,
    pub(super) notifier: Notifier,
    state: Mutex<State>,
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
    pub(super) pools: HashMap<u32, Weak<Shared>>,
    pub(super) holders: HashSet<u16>,
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
}

/// A guest as the host sees it.
#[derive(Debug)]
pub(super) struct GuestLink {
    pub(super) socket: Arc<Seqpacket>,
    /// `None` until it has shown the token.
    pub(super) holder: Option<u16>,
}

static CURRENT: Mutex<Option<Arc<Host>>> = Mutex::new(None);

impl Host {
    /// This process's host. A process that was forked from one with a host gets a new one of its own.
    pub fn current() -> Result<Arc<Host>> {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(host) if host.pid == process::pid() => Ok(host.clone()),
            _ => {
                let host = Self::start()?;
                // The parent's, if there is one, is left alone: its threads do not exist here, its locks may be held.
                std::mem::forget(current.replace(host.clone()));
                Ok(host)
            }
        }
    }

    fn start() -> Result<Arc<Host>> {
        let registry = Arc::new(Registry::default());
        let address = Address { domain: random::token(), token: random::token() };
        let host = Arc::new(Host {
            pid: process::pid(),
            address,
            heap: Heap::new(HOST, address, Box::new(Local(registry.clone()))),
            registry,
            notifier: Notifier::new()?,
            state: Mutex::default(),
            numbers: AtomicU32::new(1),
        });
        let watched = host.clone();
        std::thread::Builder::new().name("shoal-watch".into()).spawn(move || supervisor::run(&watched))?;
        Ok(host)
    }

    /// Whether this process is the one that started it, not a fork of it.
    pub fn is_mine(&self) -> bool {
        self.pid == process::pid()
    }

    /// Where this domain is to be found.
    pub fn address(&self) -> Address {
        self.address
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
            let pools = self.pools();
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

    /// The pools that are there.
    pub(super) fn pools(&self) -> Vec<Arc<Shared>> {
        let mut state = self.state();
        state.pools.retain(|_, pool| pool.strong_count() > 0);
        state.pools.values().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn pool(&self, number: u32) -> Option<Arc<Shared>> {
        self.state().pools.get(&number).and_then(Weak::upgrade)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets guests in from now on.
    pub fn open_broker(&self) -> Result<()> {
        let mut state = self.state();
        if state.listener.is_none() {
            state.listener = Some(Arc::new(Listener::bind_abstract(&broker_name(&self.address.domain))?));
            self.notifier.notify();
        }
        Ok(())
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
    pub(crate) fn add_pool(&self, pool: impl FnOnce(u32) -> Arc<Shared>) -> Arc<Shared> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let pool = pool(number);
        self.state().pools.insert(number, Arc::downgrade(&pool));
        pool
    }

    /// Asks for a worker. The answer comes to the pool, by the supervisor.
    pub(crate) fn fork(&self, place: Place, pool: std::os::fd::BorrowedFd<'_>) -> Result<()> {
        let mut state = self.state();
        let holder = state.new_holder()?;
        let (ours, theirs) = Seqpacket::pair()?;
        let theirs = theirs.into_fd();
        let link = SeatLink { holder, control: Some(Arc::new(ours)), pidfd: None, pid: 0 };
        state.seats.insert(place, link);
        state.tell_zygote(
            &ToZygote::Fork { place, holder, domain: self.address.domain, token: self.address.token },
            &[theirs.as_fd(), pool],
        )?;
        self.notifier.notify();
        Ok(())
    }

    /// The supervisor's plans may have changed: it looks again.
    pub(crate) fn look_again(&self) {
        self.notifier.notify();
    }

    /// Sends a signal to a worker, if it still is there.
    pub(crate) fn signal(&self, place: Place, signal: process::Signal) -> Result<()> {
        let pidfd = self.state().seats.get(&place).and_then(|seat| seat.pidfd.clone());
        match pidfd {
            Some(pidfd) => Ok(process::pidfd_kill(pidfd.as_fd(), signal)?),
            None => Ok(()),
        }
    }
}

impl State {
    pub(super) fn new_holder(&mut self) -> Result<u16> {
        let holder = (1..IN_QUEUE).find(|holder| !self.holders.contains(holder));
        let holder = holder.ok_or(Error::TooManyHolders(bits::CAPACITY))?;
        self.holders.insert(holder);
        Ok(holder)
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

    fn tell_zygote(&mut self, message: &ToZygote, fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<()> {
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
