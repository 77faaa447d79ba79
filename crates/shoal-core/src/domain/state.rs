//! What a host knows of those that share its memory: how it reaches them, and by what it sees them end.

use std::collections::{HashMap, HashSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::Child;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use shoal_sys::atfork;
use shoal_sys::process::{self, Signal};
use shoal_sys::socket::{Listener, Seqpacket};

use super::host::Launch;
use super::voice::Voice;
use super::words::Words;
use crate::error::{Error, Result};
use crate::memory::heap::PlainBlock;
use crate::pool::client::Shared;
use crate::pool::layout::PoolMemory;
use crate::pool::messages::{Place, ToZygote};

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
    pub(super) shared: Weak<Shared>,
    /// Apart, for who is short of memory: should the pool have gone meanwhile, it must not be dropped there.
    pub(super) memory: Weak<PoolMemory>,
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
    /// Whether it was sent SIGKILL from here.
    pub(super) killed: bool,
    /// What it is still to be sent, for want of a descriptor until now.
    pub(super) owed: Option<Signal>,
    /// What it reads first, which it may come to only when its pool has already failed to start.
    pub(super) _setup: Arc<PlainBlock>,
    /// When it was forked.
    pub(super) since: Instant,
    /// Who passes on what it says.
    pub(super) voice: Arc<Voice>,
    /// What it writes to its standard streams.
    pub(super) words: Vec<Arc<Mutex<Words>>>,
}

impl SeatLink {
    /// Of a worker that has been asked for, and nothing is known of it yet.
    pub(super) fn new(holder: u16, setup: Arc<PlainBlock>) -> SeatLink {
        SeatLink {
            holder,
            control: None,
            pidfd: None,
            pid: 0,
            killed: false,
            owed: None,
            _setup: setup,
            since: Instant::now(),
            voice: Arc::default(),
            words: vec![],
        }
    }
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
        let socket = Arc::new(ours);
        self.zygote = Some(ZygoteLink { socket: socket.clone(), child, ready: false });
        for what in &self.preloaded {
            // The queue is empty: nobody waits for what a zygote is at.
            heard(socket.send(&ToZygote::Preload(what.clone()).encode(), &[]))?;
        }
        Ok(())
    }

    /// Never waits, as everybody would wait for the lock on this: a zygote may be stopped, or import for minutes. If too much
    /// lies there that it has not read, that is `WouldBlock`.
    pub(super) fn tell_zygote(&mut self, message: &ToZygote, fds: &[BorrowedFd<'_>]) -> Result<()> {
        if self.zygote.is_none() {
            self.start_zygote()?;
        }
        let zygote = self.zygote.as_ref().expect("just started");
        heard(zygote.socket.try_send(&message.encode(), fds))
    }

    /// Workers that were asked for, and are not there yet.
    pub(super) fn on_their_way(&self) -> usize {
        self.seats.values().filter(|seat| seat.pid == 0).count()
    }
}

fn heard(sent: std::io::Result<()>) -> Result<()> {
    match sent {
        // It has just died: the supervisor sees the end of its socket, and asks anew for all that it owed.
        Err(error) if matches!(error.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset) => {
            Ok(())
        }
        sent => Ok(sent?),
    }
}
