//! Everybody but the host: workers, guests and forks ask the host for segments, over a socket.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_sys::process;
use shoal_sys::socket::Seqpacket;

use crate::error::{Error, Result};
use crate::memory::handle::Address;
use crate::memory::heap::{Branch, Heap, Source};
use crate::memory::roster::{Claim, Roster};
use crate::memory::segment::Segment;
use crate::pool::messages::{FromHost, ToHost};
use crate::sync::bits;

/// A process that is a holder in a domain that it does not host.
#[derive(Debug)]
pub(crate) struct Member {
    address: Address,
    claim: Claim,
    pid: u32,
    roster: Arc<Roster>,
    /// Held by the thread that asks: one question at a time.
    turn: Mutex<()>,
    /// The socket to the host, once there is one. Never locked for longer than it takes to have a look.
    socket: Mutex<Option<Arc<Seqpacket>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Member {
    /// This process, as the holder of that claim.
    pub(crate) fn new(address: Address, claim: Claim, roster: Arc<Roster>, socket: Option<Seqpacket>) -> Member {
        let socket = Mutex::new(socket.map(Arc::new));
        Member { address, claim, pid: process::pid(), roster, turn: Mutex::default(), socket }
    }

    /// A worker: the host knows it by the socket that it was born with.
    pub(crate) fn worker(address: Address, holder: u16, roster: OwnedFd, socket: Seqpacket) -> Result<Arc<Heap>> {
        let roster = Arc::new(Roster::open(roster)?);
        let claim = Claim { holder, epoch: roster.line(holder).epoch };
        let heap = Member::new(address, claim, roster, Some(socket)).heap();
        super::fork::watch(&heap);
        Ok(heap)
    }

    /// The child of a fork. `None`: it comes too late.
    pub(super) fn forked(address: Address, branch: Branch, roster: Arc<Roster>) -> Option<Member> {
        let Branch { claim, socket } = branch;
        let settled = roster.settle(claim, process::pid());
        settled.then(|| Member::new(address, claim, roster, socket))
    }

    fn heap(self) -> Arc<Heap> {
        Heap::new(self.claim.holder, self.address, Box::new(self))
    }

    fn back(&self) -> ToHost {
        ToHost::Return { token: self.address.token, claim: self.claim }
    }

    fn socket(&self) -> Result<Arc<Seqpacket>> {
        if let Some(socket) = &*lock(&self.socket) {
            return Ok(socket.clone());
        }
        let socket = Arc::new(connect(&self.address)?);
        socket.send(&self.back().encode(), &[])?;
        Ok(lock(&self.socket).insert(socket).clone())
    }

    fn ask(&self, question: &ToHost) -> Result<(FromHost, Option<OwnedFd>)> {
        let _turn = lock(&self.turn);
        let answer = ask(&*self.socket()?, question).or_else(|error| {
            // The host has closed it, or is another process by now.
            *lock(&self.socket) = None;
            if error.is_end_of_peer() { ask(&*self.socket()?, question) } else { Err(error) }
        })?;
        match answer.0 {
            FromHost::OutOfMemory { wanted, available, limit } => {
                Err(Error::OutOfSharedMemory { wanted, available, limit })
            }
            FromHost::Gone => Err(Error::Gone),
            FromHost::Refused => Err(Error::Refused),
            _ => Ok(answer),
        }
    }

    fn segment(&self, question: &ToHost) -> Result<Arc<Segment>> {
        match self.ask(question)? {
            (FromHost::Segment { id }, Some(fd)) => Ok(Arc::new(Segment::open(id, fd)?)),
            _ => Err(Error::Damaged("message")),
        }
    }
}

fn ask(socket: &Seqpacket, question: &ToHost) -> Result<(FromHost, Option<OwnedFd>)> {
    socket.send(&question.encode(), &[])?;
    hear(socket)
}

fn hear(socket: &Seqpacket) -> Result<(FromHost, Option<OwnedFd>)> {
    let packet = socket.recv()?.ok_or_else(|| Error::Os(std::io::ErrorKind::BrokenPipe.into()))?;
    Ok((FromHost::decode(&packet.bytes)?, packet.fds.into_iter().next()))
}

impl Source for Member {
    fn create(&self, data: u64, backed: u64, entries: u32, patient: bool) -> Result<Arc<Segment>> {
        self.segment(&ToHost::Create { data, backed, entries, patient })
    }

    fn restore(&self, segment: &Arc<Segment>, granules: Range<usize>) -> Result<()> {
        let (start, end) = (granules.start as u32, granules.end as u32);
        match self.ask(&ToHost::Restore { segment: segment.id(), start, end })? {
            (FromHost::Restored, _) => Ok(()),
            _ => Err(Error::Damaged("message")),
        }
    }

    fn open(&self, id: u32) -> Result<Arc<Segment>> {
        self.segment(&ToHost::Open { segment: id })
    }

    // A worker looks by itself before it sleeps; a guest when it needs more.
    fn freed(&self) {}

    fn branch(&self) -> Option<Branch> {
        let claim = self.roster.claim(self.pid)?;
        // Nothing is to wait here. If the host can't be told now, it finds the child on the roster.
        let told = lock(&self.socket).clone().and_then(|socket| {
            let (ours, theirs) = Seqpacket::pair().ok()?;
            socket.try_send(&ToHost::Forked { claim }.encode(), &[ours.as_fd()]).ok()?;
            Some(theirs)
        });
        Some(Branch { claim, socket: told })
    }

    fn inherit(&self, branch: Branch) -> Option<Box<dyn Source>> {
        Some(Box::new(Member::forked(self.address, branch, self.roster.clone())?))
    }

    fn close_copies(&self) {
        // Locked only if another thread was just having a look: then the copy stays, and does little harm.
        let socket = self.socket.try_lock().ok().and_then(|mut socket| socket.take());
        socket.into_iter().for_each(shoal_sys::atfork::close_copy);
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

fn connect(address: &Address) -> Result<Seqpacket> {
    // Nobody there: the host has ended, and its memory with it.
    Seqpacket::connect_abstract(&broker_name(&address.domain)).map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => Error::Gone,
        _ => Error::Os(error),
    })
}

fn greet(socket: &Seqpacket, address: &Address) -> Result<(FromHost, Option<OwnedFd>)> {
    match ask(socket, &ToHost::Hello { token: address.token }) {
        // Whoever is shown the door is told so before it has said a word.
        Err(error) if error.is_end_of_peer() => hear(socket),
        answer => answer,
    }
}

/// Becomes a guest of another domain.
pub(super) fn visit(address: &Address) -> Result<Arc<Heap>> {
    let socket = connect(address)?;
    match greet(&socket, address)? {
        (FromHost::Welcome { claim }, Some(roster)) => {
            Ok(Member::new(*address, claim, Arc::new(Roster::open(roster)?), Some(socket)).heap())
        }
        (FromHost::Refused, _) => Err(Error::Refused),
        (FromHost::Full, _) => Err(Error::TooManyHolders(bits::CAPACITY)),
        _ => Err(Error::Gone),
    }
}
