//! The supervisor's side of guests and forks: who comes in, what they want, and their end.
//!
//! A guest connects to the broker and shows the token. A fork has its number from its parent, which tells the host of it and
//! makes its socket before it forks; if it can't, the fork is found on the roster.
//!
//! The end of a guest is the end of its process. The end of its socket comes first, and may come long before: whatever
//! closes all descriptors closes it, and the process goes on to use what it has mapped.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shoal_sys::process;
use shoal_sys::socket::Seqpacket;

use super::host::Host;
use super::state::{GuestLink, Link, State};
use super::supervisor::{answer, give_back, receive, send};
use crate::error::Result;
use crate::memory::lease::IN_QUEUE;
use crate::memory::roster::{self, Claim, Line};
use crate::pool::messages::{FromHost, ToHost};
use crate::sync::bits;

/// How long a claimed number waits for its bearer. It comes right after its birth, unless it is killed at once, could not
/// be born, or is stopped.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to look for those who are expected.
const LOOK: Duration = Duration::from_secs(1);

impl State {
    fn add_guest(&mut self, guest: GuestLink) {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        self.guests.insert(NUMBERS.fetch_add(1, Ordering::Relaxed), guest);
    }

    fn has_seat(&self, holder: u16) -> bool {
        self.seats.values().any(|seat| seat.holder == holder)
    }

    /// Whose end will be noticed.
    fn attended(&self) -> [bool; bits::CAPACITY] {
        let mut attended = [false; bits::CAPACITY];
        let guests = self.guests.values().filter_map(|guest| guest.holder);
        let stand_ins = self.stand_ins.iter().copied();
        self.seats.values().map(|seat| seat.holder).chain(guests).chain(stand_ins).for_each(|holder| {
            attended[usize::from(holder)] = true;
        });
        attended
    }
}

impl Host {
    /// A fork is about to be born, with that number and this end of its socket.
    pub(super) fn expect(&self, claim: Claim, socket: Seqpacket) {
        let line = self.roster.line(claim.holder);
        let its = line.epoch == claim.epoch && matches!(line.state, roster::State::Claimed | roster::State::Here);
        let mut state = self.state();
        if its && !state.attended()[usize::from(claim.holder)] {
            state.add_guest(GuestLink { holder: Some(claim.holder), link: Link::Socket(Arc::new(socket)) });
            drop(state);
            self.look_again();
        }
    }
}

/// Lets somebody in.
pub(super) fn welcome(host: &Arc<Host>) -> Result<()> {
    let Some(listener) = host.state().listener.clone() else { return Ok(()) };
    let socket = listener.accept()?;
    if socket.peer()?.uid != process::uid() {
        // Shown the door before it can say a word.
        return Ok(send(&socket, &FromHost::Refused, &[])?);
    }
    host.state().add_guest(GuestLink { holder: None, link: Link::Socket(Arc::new(socket)) });
    Ok(())
}

/// A guest, or who wants to be one, has said something or closed its socket.
pub(super) fn guest_spoke(host: &Arc<Host>, number: u64) -> Result<()> {
    let (socket, mut holder) = match host.state().guests.get(&number) {
        Some(GuestLink { link: Link::Socket(socket), holder }) => (socket.clone(), *holder),
        _ => return Ok(()),
    };
    // What is no packet of ours, or can't be received whole, ends the connection: it would not be known what is answered.
    let Ok(Some(packets)) = receive(&socket) else {
        guest_closed(host, number);
        return Ok(());
    };
    for packet in packets {
        let Some(holder) = holder else {
            let entered = match ToHost::decode(&packet.bytes) {
                Ok(ToHost::Hello { token }) if host.address().admits(&token) => enter(host, number, &socket),
                Ok(ToHost::Return { token, claim }) if host.address().admits(&token) => {
                    come_back(host, number, &socket, claim)
                }
                _ => send(&socket, &FromHost::Refused, &[]).map(|()| None),
            };
            // Who can't even be told so would wait for ever: it sees the end of the socket.
            let Ok(Some(its)) = entered else {
                guest_closed(host, number);
                return Ok(());
            };
            holder = Some(its);
            continue;
        };
        if answer(host, &socket, holder, None, packet).is_err() {
            // It asks and does not listen, or can't be answered: so it has no answer to wait for.
            guest_closed(host, number);
            return Ok(());
        }
    }
    Ok(())
}

/// Gives a guest a number.
fn enter(host: &Arc<Host>, number: u64, socket: &Seqpacket) -> io::Result<Option<u16>> {
    let pid = socket.peer()?.pid;
    let Ok(claim) = host.claim() else {
        return send(socket, &FromHost::Full, &[]).map(|()| None);
    };
    host.roster.settle(claim, pid);
    if let Err(error) = send(socket, &FromHost::Welcome { claim }, &host.roster.fds()) {
        // It has not heard of the number.
        host.roster.clear(claim.holder);
        return send(socket, &FromHost::failed(&error), &[]).map(|()| None);
    }
    if let Some(guest) = host.state().guests.get_mut(&number) {
        guest.holder = Some(claim.holder);
    }
    Ok(Some(claim.holder))
}

/// A fork is there.
fn come_back(host: &Arc<Host>, number: u64, socket: &Seqpacket, claim: Claim) -> io::Result<Option<u16>> {
    if !host.roster.is_here(claim) {
        return send(socket, &FromHost::Refused, &[]).map(|()| None);
    }
    {
        let mut state = host.state();
        // It may have been found on the roster before it was heard.
        state.guests.retain(|_, guest| guest.holder != Some(claim.holder));
        if let Some(guest) = state.guests.get_mut(&number) {
            guest.holder = Some(claim.holder);
        }
    }
    send(socket, &FromHost::Welcome { claim }, &[])?;
    Ok(Some(claim.holder))
}

/// The socket of a guest is closed: mostly because its process has ended.
fn guest_closed(host: &Arc<Host>, number: u64) {
    let Some(Some(holder)) = host.state().guests.remove(&number).map(|guest| guest.holder) else { return };
    let line = host.roster.line(holder);
    match line.state {
        // It never came, and never will.
        roster::State::Claimed if host.roster.revoke(holder, line) => give_back(host, holder),
        roster::State::Left => give_back(host, holder),
        // Whoever is not seen to have ended now is found on the roster, at the next look.
        _ => _ = attend(host, holder, host.roster.line(holder)),
    }
}

/// A guest is gone.
pub(super) fn guest_ended(host: &Arc<Host>, number: u64) {
    let guest = host.state().guests.remove(&number);
    if let Some(holder) = guest.and_then(|guest| guest.holder) {
        give_back(host, holder);
    }
}

/// Who is on the roster and has not been heard of.
#[derive(Debug, Default)]
pub(super) struct Attendance {
    expected: HashMap<Claim, Instant>,
}

impl Attendance {
    /// Looks at the roster. When to look again.
    pub(super) fn look(&mut self, host: &Arc<Host>) -> Option<Duration> {
        let mut attended = host.state().attended();
        attended[usize::from(host.heap().me())] = true;
        let mut expected = HashMap::new();
        let mut again = None;
        for holder in 0..IN_QUEUE {
            let line = host.roster.line(holder);
            let claim = Claim { holder, epoch: line.epoch };
            match line.state {
                _ if attended[usize::from(holder)] && line.state != roster::State::Left => {}
                roster::State::Here if line.pid != 0 && attend(host, holder, line) => {}
                roster::State::Here if line.pid != 0 => again = Some(LOOK),
                roster::State::Claimed | roster::State::Here => {
                    let since = *self.expected.get(&claim).unwrap_or(&Instant::now());
                    let claimed = line.state == roster::State::Claimed;
                    if since.elapsed() < PATIENCE || (claimed && !host.roster.revoke(holder, line)) {
                        expected.insert(claim, since);
                        again = Some(LOOK);
                    } else {
                        give_back(host, holder);
                    }
                }
                // What a worker holds is given back when its completions have been read.
                roster::State::Left if !host.state().has_seat(holder) => {
                    host.state().guests.retain(|_, guest| guest.holder != Some(holder));
                    give_back(host, holder);
                }
                _ => {}
            }
        }
        self.expected = expected;
        again
    }
}

/// Watches the process of that line, which there is no socket to. `false`: it can't be watched now.
fn attend(host: &Arc<Host>, holder: u16, line: Line) -> bool {
    let mut state = host.state();
    // Locked, as whoever asks for a worker claims its number and gives it a seat under this lock: a worker that came since
    // the lines were read must not be watched twice, or its number would be given back twice.
    if state.attended()[usize::from(holder)] {
        return true;
    }
    if host.roster.line(holder) != line {
        return false;
    }
    match process::pidfd_open(line.pid) {
        Ok(pidfd) => {
            state.add_guest(GuestLink { holder: Some(holder), link: Link::Process(Arc::new(pidfd)) });
            drop(state);
            // What this turn watches has been settled already.
            host.look_again();
            true
        }
        // It was there, so it is there no more. Or it can't be seen from here (0), and nothing else is left to go by.
        Err(error) if line.pid == 0 || error.raw_os_error() == Some(process::NO_SUCH_PROCESS) => {
            drop(state);
            give_back(host, holder);
            true
        }
        Err(_) => false,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::domain::state::SeatLink;
    use crate::pool::messages::Place;

    fn is_watched(host: &Host, holder: u16) -> bool {
        host.state().guests.values().any(|guest| guest.holder == Some(holder))
    }

    #[test]
    fn a_worker_that_got_its_seat_since_the_lines_were_read_is_not_watched_once_more() {
        let host = Host::current().expect("a host");
        let place = Place { pool: u32::MAX, worker: 0, epoch: 0 };
        let setup = Arc::new(host.heap().allocate_plain(1).expect("memory"));
        let claim = host.claim().expect("a number");
        host.state().seats.insert(place, SeatLink::new(claim.holder, setup));
        assert!(host.roster.settle(claim, process::pid()));
        let line = host.roster.line(claim.holder);
        assert!(attend(&host, claim.holder, line) && !is_watched(&host, claim.holder));
        let seat = host.state().seats.remove(&place);
        drop(seat);
        assert!(attend(&host, claim.holder, line) && is_watched(&host, claim.holder), "one without a seat is");
        // At once, or it would be watched again, or another bearer's guest be forgotten.
        let mut state = host.state();
        state.guests.retain(|_, guest| guest.holder != Some(claim.holder));
        host.roster.clear(claim.holder);
    }

    #[test]
    fn nobody_is_watched_for_what_stood_in_a_line_before() {
        let host = Host::current().expect("a host");
        let claim = host.claim().expect("a number");
        let before = Line { state: roster::State::Here, ..host.roster.line(claim.holder) };
        assert!(!attend(&host, claim.holder, before) && !is_watched(&host, claim.holder));
        host.roster.clear(claim.holder);
    }
}
