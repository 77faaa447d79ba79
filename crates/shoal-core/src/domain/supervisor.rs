//! The supervisor: the host's thread that watches the zygote, the workers and the guests.
//!
//! It knows of every death, by the zygote's word or by the end of a socket, and cleans up after it in one place:
//! first the pool settles the worker's tasks (reading its completion ring to the end), then everything the dead
//! process held is given back, then its number is free for another. Guests and forks have a file of their own: `guests`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use shoal_sys::poll;
use shoal_sys::process::{self, Signal};
use shoal_sys::socket::{Packet, Seqpacket};

use super::guests::{Attendance, guest_ended, guest_spoke, welcome};
use super::host::Host;
use super::registry::Budget;
use super::state::Link;
use super::voice::{Stream, Voice};
use super::words;
use crate::aside;
use crate::crash;
use crate::error::{Error, Result};
use crate::memory::roster::Claim;
use crate::pool::death::{Cause, Death};
use crate::pool::messages::{FromHost, FromZygote, Place, ToHost};
use crate::queue;
use crate::sync::deaths;

/// How often in a row zygotes may end before they are ready until the pools are given up: so often if they are killed,
const ZYGOTE_TRIES: u32 = 99;
/// and a 50th as often if they end by themselves.
const ZYGOTE_COST: u32 = 50;

/// How often to look whether segments of dead workers are still in use.
const BURY: Duration = Duration::from_secs(1);
/// How long after blocks of theirs were let go of idle workers are woken to see whether they can give memory back.
const TELL_OWNERS: Duration = Duration::from_secs(5);

/// Packets taken of one peer in a turn: whoever never stops talking is not to keep the others waiting.
const AT_A_TIME: usize = 256;

/// Who a packet came from.
#[derive(Clone, Debug)]
enum Peer {
    Notifier,
    Listener,
    Zygote,
    Seat(Place),
    Words(Place, usize),
    /// Those who have this voice.
    Reports(Arc<Voice>),
    /// What a guest says.
    Guest(u64),
    /// That its process has ended.
    End(u64),
    /// A descriptor that somebody else wants to hear of.
    Watched(u64),
}

/// Runs as long as the process.
pub(super) fn run(host: &Arc<Host>) {
    let mut chores = Chores::default();
    loop {
        if let Err(error) = turn(host, &mut chores) {
            // Only the exhaustion of descriptors or memory gets here. What was asked for stays in the sockets: again,
            // a little later.
            aside::say(format_args!("supervisor: {error}"));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What is done now and then.
#[derive(Default)]
struct Chores {
    attendance: Attendance,
    /// When to wake idle workers, as this process has let go of blocks of theirs: they may have some to give back.
    tell_owners: Option<Instant>,
}

impl Chores {
    /// Does what is due. When to come back.
    fn look(&mut self, host: &Arc<Host>) -> Option<Duration> {
        let expected = self.attendance.look(host);
        let now = Instant::now();
        if host.heap().has_let_go() && self.tell_owners.is_none() {
            self.tell_owners = Some(now + TELL_OWNERS);
        }
        if self.tell_owners.is_some_and(|at| at <= now) {
            self.tell_owners = None;
            host.pool_memories().iter().for_each(|pool| pool.ask_for_memory(false));
        }
        // What dead workers have left in use is looked at until it can be let go of.
        let bury = host.registry.bury(host.heap()).then_some(BURY);
        let tell = self.tell_owners.map(|at| at - now);
        let owed = host.send_owed();
        expected.into_iter().chain(bury).chain(tell).chain(host.heap().tick()).chain(owed).min()
    }
}

fn turn(host: &Arc<Host>, chores: &mut Chores) -> Result<()> {
    // Before the times are looked at: who wants an earlier look after that finds the notifier watched.
    let watched = watched(host);
    let pools = host.pools();
    let overdue = pools.iter().filter_map(|pool| pool.overdue(Instant::now()));
    let timeout = overdue.chain(pools.iter().filter_map(|pool| pool.watch())).chain(chores.look(host)).min();
    drop(pools);
    let fds: Vec<BorrowedFd<'_>> =
        std::iter::once(host.notifier.as_fd()).chain(watched.iter().map(|(_, fd)| fd.as_fd())).collect();
    let ready = poll::poll(&fds, timeout)?;
    let peers = std::iter::once(Peer::Notifier).chain(watched.iter().map(|(peer, _)| peer.clone()));
    let mut outcome = Ok(());
    for (peer, _) in peers.zip(ready).filter(|(_, ready)| *ready) {
        let heard = match peer {
            Peer::Notifier => {
                host.notifier.drain();
                Ok(())
            }
            Peer::Listener => welcome(host),
            Peer::Zygote => zygote_spoke(host),
            Peer::Seat(place) => seat_spoke(host, place),
            Peer::Words(place, stream) => {
                hear(host, place, stream);
                Ok(())
            }
            Peer::Reports(voice) => {
                host.hear_reports(&voice);
                Ok(())
            }
            Peer::Guest(number) => guest_spoke(host, number),
            Peer::Watched(number) => {
                call(host, number);
                Ok(())
            }
            Peer::End(number) => {
                guest_ended(host, number);
                Ok(())
            }
        };
        // What goes wrong with one is no reason to leave the others unheard.
        outcome = outcome.and(heard);
    }
    outcome
}

type Watched = Vec<(Peer, Arc<dyn AsFd>)>;

fn watched(host: &Host) -> Watched {
    let state = host.state();
    let mut watched: Watched = vec![];
    if let Some(listener) = &state.listener {
        watched.push((Peer::Listener, listener.clone()));
    }
    if let Some(zygote) = &state.zygote {
        watched.push((Peer::Zygote, zygote.socket.clone()));
    }
    for (place, seat) in &state.seats {
        if let Some(control) = &seat.control {
            watched.push((Peer::Seat(*place), control.clone()));
        }
        let listens = !seat.voice.is_behind();
        for (stream, words) in seat.words.iter().enumerate().filter(|_| listens) {
            if let Some(pipe) = words::lock(words).pipe() {
                watched.push((Peer::Words(*place, stream), pipe));
            }
        }
    }
    let voices = state.voices.iter().filter_map(Weak::upgrade).chain([host.voice.clone()]);
    for voice in voices.filter(|voice| !voice.is_behind()) {
        if let Some(reports) = voice.reports() {
            watched.push((Peer::Reports(voice), reports.ours()));
        }
    }
    for (number, guest) in &state.guests {
        watched.push(match &guest.link {
            Link::Socket(socket) => (Peer::Guest(*number), socket.clone()),
            Link::Process(pidfd) => (Peer::End(*number), pidfd.clone()),
        });
    }
    watched.extend(
        state
            .watches
            .iter()
            .map(|(number, watch)| -> (Peer, Arc<dyn AsFd>) { (Peer::Watched(*number), watch.fd.clone()) }),
    );
    watched
}

/// Something has come that somebody wanted to hear of, once.
fn call(host: &Host, number: u64) {
    let watch = host.state().watches.remove(&number);
    if let Some(watch) = watch {
        (watch.then)();
    }
}

fn hear(host: &Arc<Host>, place: Place, stream: usize) {
    let seat = host.state().seats.get(&place).map(|seat| (seat.words.get(stream).cloned(), seat.voice.clone()));
    if let Some((Some(words), voice)) = seat {
        host.hear(&words, &voice);
    }
}

/// What lies in a socket: `None` at its end, an empty list when nothing does.
pub(super) fn receive(socket: &Seqpacket) -> Result<Option<Vec<Packet>>> {
    let mut packets = vec![];
    loop {
        if packets.len() == AT_A_TIME {
            return Ok(Some(packets));
        }
        match socket.try_recv() {
            Ok(Some(packet)) => packets.push(packet),
            Ok(None) if packets.is_empty() => return Ok(None),
            // The end is still there at the next turn.
            Ok(None) => return Ok(Some(packets)),
            // What has been read counts, whatever comes next.
            Err(_) if !packets.is_empty() => return Ok(Some(packets)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(packets)),
            Err(error) => return Err(error.into()),
        }
    }
}

fn zygote_spoke(host: &Arc<Host>) -> Result<()> {
    let Some(socket) = host.state().zygote.as_ref().map(|zygote| zygote.socket.clone()) else { return Ok(()) };
    let Some(packets) = receive(&socket)? else { return zygote_died(host) };
    for packet in packets {
        // What it says next is not to be relied on either: another one is started.
        let Ok(said) = FromZygote::decode(&packet.bytes) else { return zygote_died(host) };
        match said {
            // Good is a zygote only once it has forked: what it imports before that may be its end.
            FromZygote::Ready { .. } => {}
            FromZygote::Forked { place, pid } => {
                let mut guard = host.state();
                let state = &mut *guard;
                let Some(seat) = state.seats.get_mut(&place) else { continue };
                seat.pid = pid;
                let epoch = host.roster.line(seat.holder).epoch;
                host.roster.settle(Claim { holder: seat.holder, epoch }, pid);
                seat.since = Instant::now();
                // The descriptor is lost if there was none free to receive it: then by number, which still is its own,
                // as it is only reaped by the zygote, which says so.
                let pidfd = packet.fds.into_iter().next().or_else(|| process::pidfd_open(pid).ok());
                seat.pidfd = pidfd.map(Arc::new);
                state.failed_zygotes = 0;
                if let Some(zygote) = &mut state.zygote {
                    zygote.ready = true;
                }
                state.by_pid.insert(pid, place);
                drop(guard);
                if let Some(pool) = host.pool(place.pool) {
                    pool.forked(place, pid);
                }
            }
            FromZygote::Failed { place, errno } => {
                let why = format!("fork: {}", io::Error::from_raw_os_error(errno));
                vacate(host, place, Ended::NotStarted(why));
            }
            FromZygote::Exited { pid, code } => {
                let place = host.state().by_pid.remove(&pid);
                if let Some(place) = place {
                    vacate(host, place, Ended::Exited(Death::of(pid, code)));
                }
            }
        }
    }
    Ok(())
}

/// How a worker ended.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// It has died.
    Exited(Death),
    /// It could not be started.
    NotStarted(String),
    /// The zygote ended before it was started.
    Lost,
}

/// The one way that every dead worker goes.
fn vacate(host: &Arc<Host>, place: Place, mut ended: Ended) {
    if !host.state().seats.contains_key(&place) {
        return;
    }
    if let Ended::Exited(death) = &mut ended {
        inquire(host, place, death);
    }
    let pool = host.pool(place.pool);
    if let Some(pool) = &pool {
        // First: completions that lie in the ring carry leases that the client still has to take.
        pool.settle(place, &ended);
    }
    crash::point("client: settled");
    let seat = host.state().seats.remove(&place);
    if let Some(seat) = seat {
        // It may have come back by a socket of its own: the end of that is not to be taken for another's of its number.
        host.state().guests.retain(|_, guest| guest.holder != Some(seat.holder));
        give_back(host, seat.holder);
    }
    if let Some(pool) = pool {
        pool.refill(place, &ended);
    }
}

/// Finds out what can be known of a death.
fn inquire(host: &Arc<Host>, place: Place, death: &mut Death) {
    let seat =
        host.state().seats.get(&place).map(|seat| (seat.since, seat.words.clone(), seat.voice.clone(), seat.killed));
    let Some((since, words, voice, killed)) = seat else { return };
    death.uptime = since.elapsed();
    // What it reported before its end, too, is passed on before anybody hears of that.
    host.hear_reports(&voice);
    if let Some(reports) = voice.reports() {
        reports.forget(death.pid);
    }
    for words in words {
        let mut words = words::lock(&words);
        let left = words.end();
        voice.say(words.stream, left.said, host);
        if words.stream == Stream::Err {
            (death.words, death.answer) = (left.last, left.answer);
        }
    }
    // One that was killed from here must not pass for the one that the kernel has killed meanwhile.
    if death.code == -Signal::KILL.as_raw() && !killed && host.has_been_out_of_memory() {
        death.cause = Cause::OutOfMemory;
    }
}

/// Everything a dead process held is given back; its number is free.
pub(super) fn give_back(host: &Arc<Host>, holder: u16) {
    // First what others rely on: queues, and what lies in them.
    let recovered = queue::recover(host.heap(), holder);
    crash::point("death: recovered");
    let recovered = recovered.and(host.registry.orphan(host.heap(), holder));
    crash::point("death: orphaned");
    if let Err(error) = recovered {
        // It keeps memory; nothing else is lost by it.
        aside::say(format_args!("supervisor: what lies in queues of holder {holder}: {error}"));
    }
    host.heap().give_back_all(holder, |lease, kind| deaths::tell(lease, kind, holder));
    crash::point("death: given back");
    host.registry.bury(host.heap());
    crash::point("death: buried");
    host.roster.clear(holder);
    crash::point("death: cleared");
}

fn zygote_died(host: &Arc<Host>) -> Result<()> {
    let (places, hopeless) = {
        let mut state = host.state();
        let Some(mut zygote) = state.zygote.take() else { return Ok(()) };
        // Its socket is closed, so it is dead or about to be; its workers go with it.
        let _ = zygote.child.kill();
        // No status if the client leaves its children to nobody (SIGCHLD ignored) or has waited for it itself.
        let status = zygote.child.wait();
        // Killed from outside, it says little about whether the next one will get ready.
        let killed = status.as_ref().is_ok_and(|status| matches!(status.signal(), Some(9 | 15)));
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        if !zygote.ready {
            state.failed_zygotes += if killed { 1 } else { ZYGOTE_COST };
        }
        let hopeless =
            (state.failed_zygotes >= ZYGOTE_TRIES).then(|| format!("the zygote ended before it was ready ({status})"));
        if hopeless.is_some() {
            state.failed_zygotes = 0;
        }
        (state.seats.iter().map(|(place, seat)| (*place, seat.pidfd.clone(), seat.pid)).collect::<Vec<_>>(), hopeless)
    };
    if let Some(why) = &hopeless {
        host.pools().iter().for_each(|pool| pool.give_up(why));
    }
    for (place, pidfd, pid) in places {
        let ended = match pidfd {
            Some(pidfd) => {
                end_for_sure(&pidfd);
                Ended::Exited(Death::of(pid, -9))
            }
            None => Ended::Lost,
        };
        host.state().by_pid.remove(&pid);
        vacate(host, place, ended);
    }
    Ok(())
}

/// Kills a process and waits until it is really gone: only then may others use what it held.
fn end_for_sure(pidfd: &OwnedFd) {
    let mut gone = false;
    while !gone {
        // Neither can fail for a process of this user that the descriptor names; an interrupted look is repeated.
        gone = process::pidfd_kill(pidfd.as_fd(), Signal::KILL)
            .and_then(|()| poll::poll(&[pidfd.as_fd()], Some(Duration::from_millis(100))))
            .map_or(true, |ready| ready[0]);
    }
}

fn seat_spoke(host: &Arc<Host>, place: Place) -> Result<()> {
    let seat = host.state().seats.get(&place).map(|seat| (seat.control.clone(), seat.holder));
    let Some((Some(control), holder)) = seat else { return Ok(()) };
    match receive(&control)? {
        // The worker has ended or is about to: the zygote will say how.
        None => {
            if let Some(seat) = host.state().seats.get_mut(&place) {
                seat.control = None;
            }
            Ok(())
        }
        Some(packets) => {
            let pool = host.pool(place.pool);
            let budget = pool.as_ref().and_then(|pool| pool.budget());
            // All of them, whatever becomes of one.
            let answered = packets.into_iter().map(|packet| answer(host, &control, holder, budget, packet));
            if answered.fold(Ok(()), Result::and).is_err()
                && let Some(seat) = host.state().seats.get_mut(&place)
            {
                // It asks and does not listen, or can't be answered. It would wait for ever: the end of the socket it
                // sees, and comes back by another.
                seat.control = None;
            }
            Ok(())
        }
    }
}

/// Does what a member asks for and tells it. An error: it can't be told anything.
pub(super) fn answer(
    host: &Arc<Host>,
    socket: &Seqpacket,
    holder: u16,
    budget: Option<&Arc<Budget>>,
    packet: Packet,
) -> Result<()> {
    let mut made = None;
    let segment = match ToHost::decode(&packet.bytes) {
        Ok(ToHost::Forked { claim }) => {
            // It takes the descriptor itself: nothing of the packet is needed again.
            if let Some(socket) = packet.fds.into_iter().next() {
                host.expect(claim, Seqpacket::from_fd(socket));
            }
            return Ok(());
        }
        Ok(ToHost::Create { data, backed, entries, patient }) => {
            let attempt = || host.registry.create((data, backed, entries), holder, budget);
            if patient { pressing(host, attempt) } else { attempt() }.map(Some).inspect(|segment| {
                // The host maps it at once: it will read results in it.
                segment.iter().for_each(|segment| host.heap().know(segment));
                made.clone_from(segment);
            })
        }
        Ok(ToHost::Restore { segment, start, end }) => {
            let attempt = || host.registry.restore(segment, start as usize..end as usize, holder);
            pressing(host, attempt).map(|()| None)
        }
        Ok(ToHost::Open { segment }) => host.registry.open(segment).map(Some),
        _ => Err(Error::Damaged("message")),
    };
    let (reply, segment) = match segment {
        Ok(Some(segment)) => (FromHost::Segment { id: segment.id() }, Some(segment)),
        Ok(None) => (FromHost::Restored, None),
        Err(Error::OutOfSharedMemory { wanted, available, limit }) => {
            (FromHost::OutOfMemory { wanted, available, limit }, None)
        }
        Err(Error::Gone) => (FromHost::Gone, None),
        Err(Error::Os(error)) => (FromHost::failed(&error), None),
        Err(_) => (FromHost::Refused, None),
    };
    let fds: Vec<_> = segment.iter().map(|segment| segment.fd()).collect();
    let Err(error) = send(socket, &reply, &fds) else { return Ok(()) };
    // It will hear of another when it asks again.
    made.iter().for_each(|segment| host.registry.discard(host.heap(), segment.id()));
    send(socket, &FromHost::failed(&error), &[]).map_err(Error::Os)
}

/// Never waits: who asks without reading the answers would make everybody wait. That the peer has ended will be noticed.
pub(super) fn send(socket: &Seqpacket, message: &FromHost, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    match socket.try_send(&message.encode(), fds) {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
        sent => sent,
    }
}

/// Tries something that takes memory for somebody else, with what the host itself and the workers can spare.
fn pressing<T>(host: &Host, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    match attempt() {
        Err(Error::OutOfSharedMemory { .. }) => {
            host.heap().release_free();
            host.pressing(attempt)
        }
        done => done,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::domain::state::SeatLink;

    #[test]
    fn who_can_not_be_answered_sees_the_end_of_its_socket_and_leaves_no_segment() {
        const LONG: Duration = Duration::from_secs(60);
        let host = Host::current().expect("a host");
        let setup = Arc::new(host.heap().allocate_plain(1).expect("memory"));
        let claim = host.claim().expect("a number");
        let (ours, theirs) = Seqpacket::pair().expect("sockets");
        // It asks and does not listen.
        while ours.try_send(b"full", &[]).is_ok() {}
        let question = ToHost::Create { data: 4096, backed: 4096, entries: 1, patient: false }.encode();
        (0..3).for_each(|_| theirs.send(&question, &[]).expect("sent"));
        let place = Place { pool: u32::MAX, worker: 1, epoch: 0 };
        let seat = SeatLink { control: Some(Arc::new(ours)), ..SeatLink::new(claim.holder, setup) };
        host.state().seats.insert(place, seat);
        // Or the supervisor itself does it, which is a thread of this process.
        seat_spoke(&host, place).expect("no descriptors or memory are short");
        let asked = Instant::now();
        while host.state().seats[&place].control.is_some() {
            assert!(asked.elapsed() < LONG, "it would wait for ever");
            std::thread::sleep(Duration::from_millis(1));
        }
        // Nor does anybody watch it any more.
        host.look_again();
        while let Some(packet) = theirs.recv().expect("the end") {
            assert_eq!(packet.bytes, b"full");
        }
        assert_eq!(host.registry.count_of(claim.holder), 0);
        let seat = host.state().seats.remove(&place);
        drop(seat);
        host.roster.clear(claim.holder);
    }
}
