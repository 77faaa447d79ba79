//! Everybody but the host: workers, guests and forks ask the host for segments, over a socket.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_sys::poll::{Notifier, poll};
use shoal_sys::process;
use shoal_sys::socket::Seqpacket;

use super::host::Host;
use super::registry::Local;
use crate::error::{Error, Result};
use crate::memory::handle::Address;
use crate::memory::heap::{Branch, Heap, Source};
use crate::memory::lease::IN_QUEUE;
use crate::memory::roster::{Claim, Roster};
use crate::memory::segment::Segment;
use crate::pool::messages::{FromHost, ToHost};

/// How long who asks waits for a new host, if the old one has ended. It comes within milliseconds, unless there is no memory
/// for it or the old one is not quite dead.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a newcomer waits: where nobody is left, nobody comes.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);
/// The user who may do everything.
const ROOT: u32 = 0;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(2);

/// A process that is a holder in a domain, and was not its first host.
#[derive(Debug)]
pub(crate) struct Member {
    pub(super) address: Address,
    pub(super) claim: Claim,
    pid: u32,
    pub(super) roster: Arc<Roster>,
    /// Held by the thread that asks: one question at a time.
    turn: Mutex<()>,
    /// Never locked for longer than it takes to have a look.
    way: Mutex<Way>,
    /// The way is another.
    changed: Condvar,
    /// Whether a thread sees to it that there is a way: see `succession`. A worker has none, as it ends with the host.
    attended: AtomicBool,
}

/// The way to the host.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// There is none yet, or none any more.
    Unknown,
    /// A socket.
    Socket(Arc<Seqpacket>),
    /// This process is the host.
    Here(Arc<Host>),
    /// There will be none.
    Closed,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Member {
    /// This process, as the holder of that claim.
    fn new(address: Address, claim: Claim, roster: Arc<Roster>, socket: Option<Seqpacket>) -> Arc<Member> {
        let way = Mutex::new(socket.map_or(Way::Unknown, |socket| Way::Socket(Arc::new(socket))));
        Arc::new(Member {
            address,
            claim,
            pid: process::pid(),
            roster,
            turn: Mutex::default(),
            way,
            changed: Condvar::new(),
            attended: AtomicBool::new(false),
        })
    }

    /// A worker: the host knows it by the socket that it was born with.
    pub(crate) fn worker(address: Address, holder: u16, roster: Vec<OwnedFd>, socket: Seqpacket) -> Result<Arc<Heap>> {
        let roster = Arc::new(Roster::open(roster)?);
        let claim = Claim { holder, epoch: roster.line(holder).epoch };
        // Should the host end before it hears of this process, the next one finds it.
        if !roster.settle(claim, roster.pid()) && !roster.is_here(claim) {
            return Err(Error::Gone);
        }
        let heap = Heap::new(holder, address, Box::new(Member::new(address, claim, roster, Some(socket))));
        super::fork::watch(&heap);
        Ok(heap)
    }

    /// The child of a fork. `None`: it comes too late.
    pub(super) fn forked(address: Address, branch: Branch, roster: Arc<Roster>) -> Option<Box<dyn Source>> {
        let Branch { claim, socket } = branch;
        let settled = roster.settle(claim, roster.pid());
        settled.then(|| -> Box<dyn Source> { Box::new(Member::new(address, claim, roster, socket)) })
    }

    pub(super) fn back(&self) -> ToHost {
        ToHost::Return { token: self.address.token, claim: self.claim }
    }

    /// The way as it is.
    pub(super) fn way_now(&self) -> Way {
        lock(&self.way).clone()
    }

    /// This is the way from now on.
    pub(super) fn found(&self, way: Way) {
        *lock(&self.way) = way;
        self.changed.notify_all();
    }

    /// That socket leads nowhere any more.
    pub(super) fn leave(&self, socket: &Arc<Seqpacket>) {
        let mut way = lock(&self.way);
        if matches!(&*way, Way::Socket(now) if Arc::ptr_eq(now, socket)) {
            *way = Way::Unknown;
        }
    }

    /// A way, which is there or will be soon.
    fn way(&self) -> Result<Way> {
        if !self.attended.load(Ordering::Relaxed) {
            return self.way_alone();
        }
        let way = lock(&self.way);
        let unknown = |way: &mut Way| matches!(way, Way::Unknown);
        let (way, _) = self.changed.wait_timeout_while(way, PATIENCE, unknown).unwrap_or_else(PoisonError::into_inner);
        match &*way {
            Way::Unknown | Way::Closed => Err(Error::Gone),
            way => Ok(way.clone()),
        }
    }

    /// The way of who has nobody to look for one.
    fn way_alone(&self) -> Result<Way> {
        match self.way_now() {
            Way::Unknown => {
                let socket = connect(&self.address)?;
                match ask(&socket, &self.back())? {
                    (FromHost::Welcome { .. }, _) => {}
                    _ => return Err(Error::Gone),
                }
                self.found(Way::Socket(Arc::new(socket)));
                Ok(self.way_now())
            }
            way => Ok(way),
        }
    }

    /// Asks the host; or `here`, if that is this process.
    fn ask<T>(
        &self,
        question: &ToHost,
        here: impl FnOnce(Local) -> Result<T>,
        understand: impl FnOnce(FromHost, Vec<OwnedFd>) -> Result<T>,
    ) -> Result<T> {
        let turn = lock(&self.turn);
        let (answer, fds) = loop {
            match self.way()? {
                Way::Socket(socket) => match ask(&socket, question) {
                    // The host has ended, or closed it.
                    Err(error) if error.is_end_of_peer() => self.leave(&socket),
                    answer => break answer?,
                },
                Way::Here(host) => {
                    drop(turn);
                    return here(Local(Arc::downgrade(&host)));
                }
                Way::Unknown | Way::Closed => return Err(Error::Gone),
            }
        };
        match answer {
            FromHost::OutOfMemory { wanted, available, limit } => {
                Err(Error::OutOfSharedMemory { wanted, available, limit })
            }
            FromHost::Gone => Err(Error::Gone),
            FromHost::Refused => Err(Error::Refused),
            FromHost::Failed { errno } => Err(Error::Host(std::io::Error::from_raw_os_error(errno))),
            answer => understand(answer, fds),
        }
    }
}

fn segment(answer: FromHost, fds: Vec<OwnedFd>) -> Result<Arc<Segment>> {
    match (answer, fds.into_iter().next()) {
        (FromHost::Segment { id }, Some(fd)) => Ok(Arc::new(Segment::open(id, fd)?)),
        _ => Err(Error::Damaged("message")),
    }
}

fn ask(socket: &Seqpacket, question: &ToHost) -> Result<(FromHost, Vec<OwnedFd>)> {
    // Room for the descriptors of the answer, kept until that is there: what can't be received would stay with the host all
    // the same, as long as this process is there.
    let room: Vec<_> = (0..question.answer_brings()).map(|_| Notifier::new()).collect::<std::io::Result<_>>()?;
    socket.send(&question.encode(), &[])?;
    while !poll(&[socket.as_fd()], None)?[0] {}
    drop(room);
    hear(socket)
}

pub(super) fn hear(socket: &Seqpacket) -> Result<(FromHost, Vec<OwnedFd>)> {
    let packet = socket.recv()?.ok_or_else(|| Error::Os(std::io::ErrorKind::BrokenPipe.into()))?;
    Ok((FromHost::decode(&packet.bytes)?, packet.fds))
}

impl Source for Arc<Member> {
    fn create(&self, data: u64, backed: u64, entries: u32, patient: bool) -> Result<Arc<Segment>> {
        let question = ToHost::Create { data, backed, entries, patient };
        self.ask(&question, |host| host.create(data, backed, entries, patient), segment)
    }

    fn restore(&self, segment: &Arc<Segment>, granules: Range<usize>) -> Result<()> {
        let (start, end) = (granules.start as u32, granules.end as u32);
        let question = ToHost::Restore { segment: segment.id(), start, end };
        self.ask(
            &question,
            |host| host.restore(segment, granules),
            |answer, _| match answer {
                FromHost::Restored => Ok(()),
                _ => Err(Error::Damaged("message")),
            },
        )
    }

    fn open(&self, id: u32) -> Result<Arc<Segment>> {
        self.ask(&ToHost::Open { segment: id }, |host| host.open(id), segment)
    }

    // A worker looks by itself before it sleeps; a guest when it needs more.
    fn freed(&self) {
        if let Way::Here(host) = self.way_now() {
            host.look_again();
        }
    }

    fn branch(&self) -> Option<Branch> {
        // Nothing is to wait here. If the host can't be told now, it finds the child on the roster.
        let socket = match self.way_now() {
            Way::Here(host) => return Local(Arc::downgrade(&host)).branch(),
            Way::Socket(socket) => Some(socket),
            Way::Unknown | Way::Closed => None,
        };
        let claim = self.roster.claim(self.roster.pid())?;
        let told = socket.and_then(|socket| {
            let (ours, theirs) = Seqpacket::pair().ok()?;
            socket.try_send(&ToHost::Forked { claim }.encode(), &[ours.as_fd()]).ok()?;
            Some(theirs)
        });
        Some(Branch { claim, socket: told })
    }

    fn inherit(&self, branch: Branch) -> Option<Box<dyn Source>> {
        // Locked only if another thread was just having a look: then what the host has adopted is held by its child too.
        if let Ok(way) = self.way.try_lock()
            && let Way::Here(host) = &*way
        {
            host.forked();
        }
        Member::forked(self.address, branch, self.roster.clone())
    }

    fn attend(&self, heap: &'static Arc<Heap>) {
        self.attended.store(super::succession::watch(self, heap), Ordering::Relaxed);
    }

    fn close_copies(&self) {
        // Locked only if another thread was just having a look: then the copy stays, and does little harm.
        let Ok(mut way) = self.way.try_lock() else { return };
        if let Way::Socket(socket) = &*way {
            let socket = socket.clone();
            *way = Way::Closed;
            drop(way);
            shoal_sys::atfork::close_copy(socket);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Nothing is held in a heap that is dropped. But what a fork drops is its parent's.
        if self.pid == process::pid() {
            self.roster.leave(self.claim);
        }
    }
}

/// The name of a domain's broker among the abstract sockets.
pub(super) fn broker_name(domain: &[u8; 16]) -> Vec<u8> {
    let hex: String = domain.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("shoal-{hex}").into_bytes()
}

/// The broker of a domain. Nobody there: the host has ended.
pub(super) fn connect(address: &Address) -> Result<Seqpacket> {
    let socket = Seqpacket::connect_abstract(&broker_name(&address.domain)).map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => Error::Gone,
        _ => Error::Os(error),
    })?;
    // Everybody sees the names of abstract sockets, and anybody may take one that is free: another user is neither told the
    // token nor believed. But root, which could read the token anyway, and may have been this user's before it was this one.
    if [process::uid(), ROOT].contains(&socket.peer()?.uid) { Ok(socket) } else { Err(Error::Refused) }
}

/// Becomes a guest of another domain.
pub(super) fn visit(address: &Address) -> Result<Arc<Heap>> {
    let limit = Instant::now() + SHORT_PATIENCE;
    loop {
        match greet(address) {
            // Somebody may be about to follow the host that has ended.
            Err(error) if Instant::now() < limit && (matches!(error, Error::Gone) || error.is_end_of_peer()) => {
                std::thread::sleep(PAUSE);
            }
            Err(error) if error.is_end_of_peer() => return Err(Error::Gone),
            greeted => return greeted,
        }
    }
}

fn greet(address: &Address) -> Result<Arc<Heap>> {
    let socket = connect(address)?;
    let answer = match ask(&socket, &ToHost::Hello { token: address.token }) {
        // Whoever is shown the door is told so before it has said a word.
        Err(error) if error.is_end_of_peer() => hear(&socket),
        answer => answer,
    };
    match answer? {
        (FromHost::Welcome { claim }, roster) => {
            let member = Member::new(*address, claim, Arc::new(Roster::open(roster)?), Some(socket));
            Ok(Heap::new(claim.holder, *address, Box::new(member)))
        }
        (FromHost::Refused, _) => Err(Error::Refused),
        (FromHost::Full, _) => Err(Error::TooManyHolders(IN_QUEUE.into())),
        (FromHost::Failed { errno }, _) => Err(Error::Host(std::io::Error::from_raw_os_error(errno))),
        _ => Err(Error::Damaged("message")),
    }
}
