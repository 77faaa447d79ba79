//! Everybody but the host: workers and guests ask the host for segments, over a socket.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use shoal_sys::socket::Seqpacket;

use crate::error::{Error, Result};
use crate::memory::handle::Address;
use crate::memory::heap::{Heap, Source};
use crate::memory::segment::Segment;
use crate::pool::messages::{FromHost, ToHost};

/// The socket to the host. One question at a time.
#[derive(Debug)]
pub struct Member(Mutex<Seqpacket>);

impl Member {
    /// The heap of a member that the host knows as `holder`.
    pub fn heap(socket: Seqpacket, holder: u16, address: Address) -> Arc<Heap> {
        Heap::new(holder, address, Box::new(Member(Mutex::new(socket))))
    }

    fn ask(&self, question: &ToHost) -> Result<Arc<Segment>> {
        let (answer, fd) = ask(&self.0.lock().unwrap_or_else(PoisonError::into_inner), question)?;
        match (answer, fd) {
            (FromHost::Segment { id }, Some(fd)) => Ok(Arc::new(Segment::open(id, fd)?)),
            (FromHost::OutOfMemory { wanted, available }, _) => Err(Error::OutOfSharedMemory { wanted, available }),
            (FromHost::Gone, _) => Err(Error::Gone),
            _ => Err(Error::Damaged("message")),
        }
    }
}

fn ask(socket: &Seqpacket, question: &ToHost) -> Result<(FromHost, Option<OwnedFd>)> {
    socket.send(&question.encode(), &[])?;
    let packet = socket.recv()?.ok_or_else(|| Error::Os(std::io::ErrorKind::BrokenPipe.into()))?;
    Ok((FromHost::decode(&packet.bytes)?, packet.fds.into_iter().next()))
}

impl Source for Member {
    fn create(&self, data: u64, entries: u32) -> Result<Arc<Segment>> {
        self.ask(&ToHost::Create { data, entries })
    }

    fn open(&self, id: u32) -> Result<Arc<Segment>> {
        self.ask(&ToHost::Open { segment: id })
    }
}

/// The name of a domain's broker among the abstract sockets.
pub(super) fn broker_name(domain: &[u8; 16]) -> Vec<u8> {
    let hex: String = domain.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("shoal-{hex}").into_bytes()
}

/// Becomes a guest of another domain.
pub(super) fn visit(address: &Address) -> Result<Arc<Heap>> {
    // Nobody there: the host has ended, and its memory with it.
    let socket = Seqpacket::connect_abstract(&broker_name(&address.domain)).map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => Error::Gone,
        _ => Error::Os(error),
    })?;
    match ask(&socket, &ToHost::Hello { token: address.token })?.0 {
        FromHost::Welcome { holder } => Ok(Member::heap(socket, holder, *address)),
        FromHost::Refused => Err(Error::TooManyHolders(crate::sync::bits::CAPACITY)),
        _ => Err(Error::Gone),
    }
}
