//! Succession: when the host ends, in whatever way, one of those who share its memory takes its place.
//!
//! Every guest has a thread that waits for the end of the host. When that has ended for sure, whoever gets the broker's name
//! is the host; the others come back to it. All that a host needs to know lies where it outlives the host: who there is on
//! the roster, the segments in the vault, whose they are in themselves. See `docs/design/succession.md`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use shoal_sys::poll;
use shoal_sys::process;
use shoal_sys::socket::{Listener, Seqpacket};

use super::guest::{Member, Way, broker_name, connect, hear};
use super::host::Host;
use super::supervisor;
use crate::aside;
use crate::crash;
use crate::error::{Error, Result};
use crate::memory::heap::Heap;
use crate::memory::roster::{Claim, State};
use crate::pool::messages::FromHost;

/// How long to wait for an answer of the new host, which comes when it has mapped all there is. If it is none (somebody has
/// a copy of the old one's socket), there is another try.
const ANSWER: Duration = Duration::from_secs(5);
/// How long to wait between two tries: this at first,
const SOON: Duration = Duration::from_millis(1);
/// and at most this.
const LATER: Duration = Duration::from_millis(200);

/// Starts the thread. `false`: it could not be, so this process does not follow.
pub(super) fn watch(member: &Arc<Member>, heap: &'static Arc<Heap>) -> bool {
    let member = member.clone();
    // It ends with the process, and nobody waits for it.
    std::thread::Builder::new().name("shoal-heir".into()).spawn(move || run(&member, heap)).is_ok()
}

fn run(member: &Member, heap: &'static Arc<Heap>) {
    let mut host = None;
    loop {
        match member.way_now() {
            Way::Socket(socket) => {
                host = watched(member);
                wait_for_end(&socket, host.as_ref());
                member.leave(&socket);
            }
            Way::Unknown => seek(member, heap, host.as_ref()),
            Way::Here(host) => supervisor::run(&host),
            Way::Closed => return,
        }
    }
}

/// A host and its process, as long as that was there when it was looked for.
struct Watched {
    claim: Claim,
    pidfd: OwnedFd,
}

fn watched(member: &Member) -> Option<Watched> {
    let holder = member.roster.host();
    let line = member.roster.line(holder);
    let seen = member.roster.is_readable() && line.state == State::Here && line.pid != 0;
    let pidfd = if seen { process::pidfd_open(line.pid).ok() } else { None };
    pidfd.map(|pidfd| Watched { claim: Claim { holder, epoch: line.epoch }, pidfd })
}

/// Waits until the host has closed the socket, or has ended: of a socket there may be copies.
fn wait_for_end(socket: &Seqpacket, host: Option<&Watched>) {
    let process = host.map(|host| host.pidfd.as_fd());
    // Not even that can be waited for: then it is found out by another try.
    while let Ok((false, false)) = poll::ended(socket.as_fd(), process, None) {}
}

/// Comes back to whoever is the host now, or becomes it.
fn seek(member: &Member, heap: &'static Arc<Heap>, before: Option<&Watched>) {
    let mut pause = SOON;
    loop {
        match come_back(member) {
            Ok(socket) => return member.found(Way::Socket(Arc::new(socket))),
            // The number is another's by now: nothing that was held is left.
            Err(Error::Refused) => return member.found(Way::Closed),
            Err(_) => {}
        }
        if is_gone(member, before)
            && let Ok(broker) = Listener::bind_abstract(&broker_name(&member.address.domain))
        {
            let broker = Arc::new(broker);
            let former = member.roster.host();
            // Before it does anything: should it end in the middle, it is known who.
            crash::point("follow: bound");
            member.roster.set_host(member.claim.holder);
            crash::point("follow: named");
            match Host::take_over(heap, &member.roster, broker.clone()) {
                Ok(host) => return member.found(Way::Here(host)),
                // No descriptors, no memory. Somebody else may have some.
                Err(error) => aside::say(format_args!("can't take over from the host that has ended: {error}")),
            }
            // Before the name is free: nobody follows a host that is alive.
            member.roster.set_host(former);
            drop(broker);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LATER);
    }
}

fn come_back(member: &Member) -> Result<Seqpacket> {
    // Also who is not believed is nobody: the name may be free again later.
    let socket = connect(&member.address).map_err(|_| Error::Gone)?;
    socket.send(&member.back().encode(), &[])?;
    if !poll::poll(&[socket.as_fd()], Some(ANSWER))?[0] {
        return Err(Error::Os(io::ErrorKind::TimedOut.into()));
    }
    match hear(&socket)? {
        (FromHost::Welcome { claim }, _) if claim == member.claim => Ok(socket),
        (FromHost::Refused, _) => Err(Error::Refused),
        _ => Err(Error::Damaged("message")),
    }
}

/// Whether the process of the last host is gone. Only then may another do what it did: two hosts at once would give numbers
/// away that are still in use.
fn is_gone(member: &Member, before: Option<&Watched>) -> bool {
    if !member.roster.is_readable() {
        // It is not known here who is who: another must do it.
        return false;
    }
    let holder = member.roster.host();
    let line = member.roster.line(holder);
    // This process is none, whatever it once began.
    if line.state != State::Here || holder == member.claim.holder {
        return true;
    }
    match before {
        // Not by its number, which may be another's by now.
        Some(before) if before.claim == (Claim { holder, epoch: line.epoch }) => has_ended(&before.pidfd),
        _ => match process::pidfd_open(line.pid) {
            Ok(pidfd) => has_ended(&pidfd),
            Err(error) => error.raw_os_error() == Some(process::NO_SUCH_PROCESS),
        },
    }
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    poll::poll(&[pidfd.as_fd()], Some(Duration::ZERO)).is_ok_and(|ready| ready[0])
}
