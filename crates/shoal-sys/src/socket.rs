//! Packets with file descriptors between processes: Unix sockets of type SEQPACKET.
//!
//! A packet arrives whole or not at all, in order, and the end of the peer is seen as the end of the stream.
//! Every descriptor, made or received, is close-on-exec.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, recv,
    recvmsg, sendmsg, socket_with, socketpair,
};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The most bytes a packet can have.
pub const MAX_BYTES: usize = 64 * 1024;

/// The most descriptors a packet can carry: the kernel's own limit (`SCM_MAX_FD`).
pub const MAX_FDS: usize = 253;

/// The error's number when a packet can't be sent as too many descriptors of this user are on their way already.
pub const TOO_MANY_UNDER_WAY: i32 = libc::ETOOMANYREFS;

/// The longest name of an abstract socket, in bytes.
pub const MAX_NAME: usize = 107;

/// Connections that wait to be accepted; the kernel lowers it to its own limit (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// What one [`Seqpacket::send`] sent.
#[derive(Debug)]
pub struct Packet {
    /// The bytes, at least one.
    pub bytes: Vec<u8>,
    /// The descriptors, in the order in which they were sent, now this process's own.
    pub fds: Vec<OwnedFd>,
}

/// The process at the other end, as it was when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process id; 0 if it is in a PID namespace that this process can't see.
    pub pid: u32,
    /// Its effective user id.
    pub uid: u32,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Seqpacket(OwnedFd);

impl Seqpacket {
    /// Two ends connected to each other.
    pub fn pair() -> io::Result<(Seqpacket, Seqpacket)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Seqpacket(a), Seqpacket(b)))
    }

    /// Takes over a descriptor that is an end of such a connection (inherited as stdin, say).
    pub fn from_fd(fd: OwnedFd) -> Seqpacket {
        Seqpacket(fd)
    }

    /// The descriptor, for someone else to own.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Connects to the [`Listener`] of that name in this network namespace.
    ///
    /// Waits while the listener's backlog is full. Fails with `ConnectionRefused` if nobody listens.
    pub fn connect_abstract(name: &[u8]) -> io::Result<Seqpacket> {
        let address = abstract_address(name)?;
        let socket = new_socket()?;
        retry(|| connect(&socket, &address))?;
        Ok(Seqpacket(socket))
    }

    /// Sends one packet, waiting while the peer's queue is full.
    ///
    /// Fails with `InvalidInput` if `bytes` is empty (it would look like the end of the stream) or longer than
    /// [`MAX_BYTES`], or if there are more than [`MAX_FDS`] descriptors; with `BrokenPipe` or `ConnectionReset`
    /// if the peer is gone. Raises no SIGPIPE. A signal does not end the wait.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(bytes, fds, SendFlags::NOSIGNAL)
    }

    /// As [`Seqpacket::send`], but fails with `WouldBlock` if it had to wait.
    pub fn try_send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(bytes, fds, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    fn send_with(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
        if bytes.is_empty() || bytes.len() > MAX_BYTES {
            return Err(invalid_input(format!("bytes: a packet has 1 to {MAX_BYTES} bytes, not {}", bytes.len())));
        }
        if fds.len() > MAX_FDS {
            return Err(invalid_input(format!("fds: a packet carries at most {MAX_FDS}, not {}", fds.len())));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let fits = control.push(SendAncillaryMessage::ScmRights(fds));
            assert!(fits, "there is room for MAX_FDS descriptors");
        }
        let sent = retry(|| sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, flags))?;
        debug_assert_eq!(sent, bytes.len(), "a packet is sent whole");
        Ok(())
    }

    /// Waits for the next packet; `None` once the peer is gone and everything it sent has been received.
    ///
    /// Fails with `InvalidData` if a packet or its descriptors did not arrive whole (it was longer than
    /// [`MAX_BYTES`], or this process can't open more descriptors); what did arrive is dropped. A signal does not
    /// end the wait: who has to see signals waits in [`crate::poll::poll`] first.
    pub fn recv(&self) -> io::Result<Option<Packet>> {
        self.receive(RecvFlags::empty(), true)
    }

    /// As [`Seqpacket::recv`], but fails with `WouldBlock` if no packet is there; and a packet that this process can't open
    /// all descriptors of is returned with those that it could, as what it says would be lost with it.
    pub fn try_recv(&self) -> io::Result<Option<Packet>> {
        self.receive(RecvFlags::DONTWAIT, false)
    }

    /// As [`Seqpacket::recv`], but fails with `WouldBlock` if no packet is there, and what it returns stays in the queue: the
    /// descriptors are further copies.
    pub fn peek(&self) -> io::Result<Option<Packet>> {
        self.receive(RecvFlags::DONTWAIT | RecvFlags::PEEK, true)
    }

    /// Takes the first packet out of the queue, if there is one. Its descriptors are closed, and take no numbers here.
    pub fn skip(&self) -> io::Result<()> {
        match retry(|| recv(&self.0, &mut [0u8; 1], RecvFlags::DONTWAIT)) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes of all packets in the queue.
    pub fn queued(&self) -> io::Result<usize> {
        Ok(rustix::io::ioctl_fionread(&self.0)? as usize)
    }

    fn receive(&self, flags: RecvFlags, whole: bool) -> io::Result<Option<Packet>> {
        // On the stack: a buffer of this size that comes and goes among blocks of a few bytes leaves a hole in the heap
        // for every packet that is kept for a while, and nothing fits into those but small ones.
        let mut bytes = [0; MAX_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        // Dropping it closes the descriptors that nobody took.
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let message = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
                // The peer closed its end with packets of ours unread. The kernel says so once, ahead of what the
                // peer itself sent before: that is still in the queue, and the next answers are those packets, then
                // the end of the stream.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                answer => break answer?,
            }
        };
        let problem = if message.flags.contains(ReturnFlags::TRUNC) {
            Some("a packet was longer than any sender may send")
        } else if whole && message.flags.contains(ReturnFlags::CTRUNC) {
            Some("descriptors of a packet could not be received: this process's limit of open files is reached")
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
        if message.bytes == 0 {
            return Ok(None);
        }
        let bytes = bytes[..message.bytes].to_vec();
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        Ok(Some(Packet { bytes, fds }))
    }

    /// Who is at the other end (for a pair: who made it).
    pub fn peer(&self) -> io::Result<Peer> {
        // By libc: rustix has a type for it that can't hold the pid 0 of an unseen process.
        let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        let out = (&raw mut credentials).cast();
        // SAFETY: `out` and `len` are the address and size of a live `ucred`, which any bytes are valid for.
        let code = unsafe { libc::getsockopt(self.0.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, out, &mut len) };
        if code != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Peer { pid: credentials.pid.cast_unsigned(), uid: credentials.uid })
    }
}

impl AsFd for Seqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Seqpacket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl From<Seqpacket> for OwnedFd {
    fn from(socket: Seqpacket) -> OwnedFd {
        socket.0
    }
}

/// A name in this network namespace that others can connect to. The name is gone when the listener is.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Listens under an abstract name of 1 to [`MAX_NAME`] bytes (`InvalidInput` otherwise); `AddrInUse` if it is
    /// taken.
    ///
    /// Anyone on the machine can connect, whatever the user: check [`Seqpacket::peer`].
    pub fn bind_abstract(name: &[u8]) -> io::Result<Listener> {
        let address = abstract_address(name)?;
        let socket = new_socket()?;
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        Ok(Listener(socket))
    }

    /// Waits for the next connection. A signal does not end the wait.
    pub fn accept(&self) -> io::Result<Seqpacket> {
        Ok(Seqpacket(retry(|| accept_with(&self.0, SocketFlags::CLOEXEC))?))
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> OwnedFd {
        listener.0
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn abstract_address(name: &[u8]) -> io::Result<SocketAddrUnix> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(invalid_input(format!("name: an abstract name has 1 to {MAX_NAME} bytes, not {}", name.len())));
    }
    Ok(SocketAddrUnix::new_abstract_name(name)?)
}

fn invalid_input(message: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, message)
}

/// Calls again as long as a signal interrupts. On Unix sockets that is right for `connect` too.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::testing::{alone, in_child};
    use crate::random::token;
    use rustix::io::{FdFlags, fcntl_getfd};
    use rustix::pipe::pipe;

    fn close_on_exec(fd: impl AsFd) -> bool {
        fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC)
    }

    #[test]
    fn packets_arrive_whole_and_in_order() {
        let (a, b) = Seqpacket::pair().unwrap();
        let long = vec![7; MAX_BYTES];
        for bytes in [&b"one"[..], b"2", &long] {
            a.send(bytes, &[]).unwrap();
        }
        for bytes in [&b"one"[..], b"2", &long] {
            let packet = b.recv().unwrap().unwrap();
            assert_eq!((&packet.bytes[..], packet.fds.len()), (bytes, 0));
        }
    }

    #[test]
    fn descriptors_travel_in_order_and_are_close_on_exec() {
        let (a, b) = Seqpacket::pair().unwrap();
        // Made without the flag: it has to come from the receiver.
        let (reader, writer) = pipe().unwrap();
        assert!(!close_on_exec(&reader));
        a.send(b"pipe", &[reader.as_fd(), writer.as_fd()]).unwrap();
        drop((reader, writer));
        let packet = b.recv().unwrap().unwrap();
        let [reader, writer] = &packet.fds[..] else { panic!("two were sent, {} arrived", packet.fds.len()) };
        assert!(close_on_exec(reader) && close_on_exec(writer));
        rustix::io::write(writer, b"x").unwrap();
        let mut read = [0; 2];
        assert_eq!((rustix::io::read(reader, &mut read).unwrap(), read[0]), (1, b'x'));
    }

    #[test]
    fn a_packet_carries_253_descriptors_and_not_one_more() {
        let (a, b) = Seqpacket::pair().unwrap();
        let fds = vec![a.as_fd(); MAX_FDS + 1];
        a.send(b"full", &fds[1..]).unwrap();
        assert_eq!(b.recv().unwrap().unwrap().fds.len(), MAX_FDS);
        assert_eq!(a.send(b"over", &fds).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(b.try_recv().unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn what_was_only_looked_at_is_still_there_with_its_descriptors() {
        let (a, b) = Seqpacket::pair().unwrap();
        a.send(b"first", &[a.as_fd(), a.as_fd()]).unwrap();
        a.send(b"second", &[]).unwrap();
        for _ in 0..2 {
            let packet = b.peek().unwrap().unwrap();
            assert_eq!((&packet.bytes[..], packet.fds.len()), (&b"first"[..], 2));
        }
        assert_eq!(b.queued().unwrap(), 11);
        b.skip().unwrap();
        assert_eq!(b.recv().unwrap().unwrap().bytes, b"second");
        b.skip().unwrap();
        assert_eq!(b.peek().unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn a_packet_of_no_bytes_or_too_many_is_refused() {
        let (a, _b) = Seqpacket::pair().unwrap();
        for len in [0, MAX_BYTES + 1] {
            assert_eq!(a.send(&vec![0; len], &[]).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_packet_that_does_not_fit_is_an_error_and_the_next_one_arrives() {
        let (a, b) = Seqpacket::pair().unwrap();
        rustix::net::send(&a, &vec![0; MAX_BYTES + 1], SendFlags::empty()).unwrap();
        a.send(b"next", &[]).unwrap();
        assert_eq!(b.recv().unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(b.recv().unwrap().unwrap().bytes, b"next");
    }

    #[test]
    fn descriptors_beyond_the_limit_of_open_files_are_an_error() {
        let (a, b) = Seqpacket::pair().unwrap();
        // In a child, for the limit is the whole process's.
        in_child(|| {
            (0..2).for_each(|_| a.send(b"fds", &[a.as_fd(), a.as_fd()]).unwrap());
            let lowest_free = rustix::io::dup(&a).unwrap();
            let room_for_one = lowest_free.as_raw_fd() as u64 + 1;
            drop(lowest_free);
            let limit = libc::rlimit { rlim_cur: room_for_one, rlim_max: room_for_one };
            // SAFETY: a live rlimit.
            let code = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
            let refused = b.recv().is_err_and(|error| error.kind() == ErrorKind::InvalidData);
            // Who only tries gets what there is room for.
            let packet = b.try_recv().unwrap().unwrap();
            code == 0 && refused && packet.bytes == b"fds" && packet.fds.len() == 1
        })
        .assert_ok();
    }

    #[test]
    fn trying_does_not_wait() {
        let _alone = alone();
        let (a, b) = Seqpacket::pair().unwrap();
        assert_eq!(b.try_recv().unwrap_err().kind(), ErrorKind::WouldBlock);
        a.send(b"now", &[]).unwrap();
        assert_eq!(b.try_recv().unwrap().unwrap().bytes, b"now");
        let full = std::iter::repeat_with(|| a.try_send(b"more", &[])).find_map(Result::err);
        assert_eq!(full.unwrap().kind(), ErrorKind::WouldBlock);
        drop(a);
        while let Some(packet) = b.try_recv().unwrap() {
            assert_eq!(packet.bytes, b"more");
        }
    }

    #[test]
    fn the_last_words_of_a_peer_that_left_are_heard_though_it_did_not_listen() {
        let _alone = alone();
        let (a, b) = Seqpacket::pair().unwrap();
        a.send(b"unread", &[]).unwrap();
        b.send(b"last words", &[]).unwrap();
        drop(b);
        assert_eq!(a.recv().unwrap().unwrap().bytes, b"last words");
        assert!(a.recv().unwrap().is_none());
        assert!(a.try_recv().unwrap().is_none());
    }

    #[test]
    fn sending_to_a_peer_that_left_is_an_error_and_no_signal() {
        let _alone = alone();
        let (a, b) = Seqpacket::pair().unwrap();
        drop(b);
        assert_eq!(a.send(b"hello?", &[]).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn the_peer_is_the_process_that_connected() {
        let name = token();
        let listener = Listener::bind_abstract(&name).unwrap();
        let child = in_child(|| {
            let socket = Seqpacket::connect_abstract(&name).unwrap();
            socket.send(b"hi", &[]).unwrap();
            socket.recv().unwrap().is_none()
        });
        let socket = listener.accept().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(socket.peer().unwrap(), Peer { pid: child.pid, uid });
        assert_eq!(socket.recv().unwrap().unwrap().bytes, b"hi");
        drop(socket);
        child.assert_ok();
    }

    #[test]
    fn every_descriptor_made_here_is_close_on_exec() {
        let name = token();
        let (a, b) = Seqpacket::pair().unwrap();
        let listener = Listener::bind_abstract(&name).unwrap();
        let client = Seqpacket::connect_abstract(&name).unwrap();
        let server = listener.accept().unwrap();
        for socket in [a, b, client, server] {
            assert!(close_on_exec(Seqpacket::from_fd(socket.into_fd())));
        }
        assert!(close_on_exec(listener));
    }

    #[test]
    fn a_name_belongs_to_one_listener_as_long_as_it_lives() {
        let _alone = alone();
        let name = token();
        let listener = Listener::bind_abstract(&name).unwrap();
        assert_eq!(Listener::bind_abstract(&name).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(listener);
        assert_eq!(Seqpacket::connect_abstract(&name).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        Listener::bind_abstract(&name).unwrap();
    }

    #[test]
    fn a_name_is_neither_empty_nor_too_long() {
        for len in [0, MAX_NAME + 1] {
            let name = vec![b'n'; len];
            assert_eq!(Listener::bind_abstract(&name).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(Seqpacket::connect_abstract(&name).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let mut longest = vec![b'n'; MAX_NAME];
        longest[..16].copy_from_slice(&token());
        Listener::bind_abstract(&longest).unwrap();
    }
}
