//! The zygote's side: a fresh process with one thread that forks workers when the client asks.
//!
//! The client is never forked; it may have threads, locks and gigabytes. The zygote is started once by exec, gets
//! ready what workers need, and then each worker is a fork of it, some milliseconds away. It reaps its children and
//! tells the client how they ended. When the client's end of the socket closes or its process ends, in whatever way, it
//! ends all workers and itself; should the zygote die first, the kernel ends the workers (`PR_SET_PDEATHSIG`).
//!
//! How to fork is left to the caller, as an interpreter has its own duties before and after:
//!
//! ```text
//! loop { match zygote.next_request()? {
//!     Request::Fork(seat) => match fork() { child => return Worker::new(seat), parent(pid) => zygote.forked(seat, pid) }
//!     Request::Preload(what) => …
//!     Request::End => exit
//! } }
//! ```

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use shoal_sys::poll;
use shoal_sys::process::{self, Exit, Signal};
use shoal_sys::socket::{Seqpacket, TOO_MANY_UNDER_WAY};

use super::messages::{FromZygote, Place, ToZygote};
use super::worker::Seat;
use crate::crash;
use crate::error::{Error, Result};
use crate::memory::handle::Address;
use crate::memory::roster::Roster;

/// The zygote.
#[derive(Debug)]
pub struct Zygote {
    socket: Seqpacket,
    /// The client. Its end of the socket may live on in a process that it forked.
    client: OwnedFd,
    pid: u32,
    children: HashMap<u32, OwnedFd>,
}

/// What the client wants.
#[derive(Debug)]
pub enum Request {
    /// Fork a worker for this seat.
    Fork(Seat),
    /// Get something ready.
    Preload(Vec<u8>),
    /// The client is gone, and so are all workers now: end.
    End,
}

impl Zygote {
    /// Takes over the socket to the client.
    pub fn new(socket: Seqpacket) -> Result<Zygote> {
        process::keep_dead_children()?;
        let client = process::pidfd_open(socket.peer()?.pid)?;
        Ok(Zygote { socket, client, pid: process::pid(), children: HashMap::new() })
    }

    /// Tells the client that everything is imported.
    pub fn ready(&self) -> Result<()> {
        self.tell(&FromZygote::Ready { threads: process::thread_count() as u32 }, None)?;
        crash::point("zygote: ready");
        Ok(())
    }

    fn tell(&self, message: &FromZygote, fd: Option<&OwnedFd>) -> Result<()> {
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
        match self.socket.send(&message.encode(), &fds) {
            // The client has gone; `next_request` will see the end of the socket.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
            // The client opens one by the process's number.
            Err(error) if fd.is_some() && error.raw_os_error() == Some(TOO_MANY_UNDER_WAY) => self.tell(message, None),
            sent => Ok(sent?),
        }
    }

    /// Waits for the client's next wish and meanwhile reports the workers that end.
    pub fn next_request(&mut self) -> Result<Request> {
        loop {
            let ready = {
                let mut fds = vec![self.socket.as_fd(), self.client.as_fd()];
                fds.extend(self.children.values().map(AsFd::as_fd));
                poll::poll(&fds, None)?
            };
            if ready[2..].contains(&true) {
                self.reap()?;
            }
            if ready[1] {
                self.end_all();
                return Ok(Request::End);
            }
            if !ready[0] {
                continue;
            }
            let Some(packet) = self.socket.recv()? else {
                self.end_all();
                return Ok(Request::End);
            };
            return match ToZygote::decode(&packet.bytes)? {
                ToZygote::Preload(what) => Ok(Request::Preload(what)),
                ToZygote::Fork { place, holder, domain, token } => {
                    let address = Address { domain, token };
                    let mut fds = packet.fds.into_iter();
                    let (Some(control), Some(pool), Some(reports)) = (fds.next(), fds.next(), fds.next()) else {
                        return Err(Error::Damaged("message"));
                    };
                    let roster = fds.by_ref().take(Roster::FDS).collect();
                    let (stderr, stdout) = (fds.next(), fds.next());
                    let zygote = self.pid;
                    crash::point("zygote: asked");
                    Ok(Request::Fork(Seat {
                        place,
                        holder,
                        address,
                        zygote,
                        control,
                        pool,
                        reports,
                        roster,
                        stderr,
                        stdout,
                    }))
                }
            };
        }
    }

    fn reap(&mut self) -> Result<()> {
        while let Some((pid, exit)) = process::reap()? {
            if self.children.remove(&pid).is_some() {
                crash::point("zygote: reaped");
                let code = match exit {
                    Exit::Code(code) => code,
                    Exit::Signal(signal) => -signal,
                };
                self.tell(&FromZygote::Exited { pid, code }, None)?;
                crash::point("zygote: told of an end");
            }
        }
        Ok(())
    }

    /// In the parent, after a fork: tells the client.
    pub fn forked(&mut self, seat: Seat, pid: u32) -> Result<()> {
        crash::point("zygote: forked");
        let pidfd = process::pidfd_open(pid)?;
        self.tell(&FromZygote::Forked { place: seat.place, pid }, Some(&pidfd))?;
        crash::point("zygote: told of a fork");
        self.children.insert(pid, pidfd);
        Ok(())
    }

    /// In the parent, if the fork failed: tells the client.
    pub fn failed(&self, place: Place, error: &io::Error) -> Result<()> {
        self.tell(&FromZygote::Failed { place, errno: error.raw_os_error().unwrap_or(0) }, None)
    }

    fn end_all(&self) {
        for pidfd in self.children.values() {
            // Nothing to be done if it fails: the kernel will end them when this process ends.
            let _ = process::pidfd_kill(pidfd.as_fd(), Signal::KILL);
        }
    }
}
