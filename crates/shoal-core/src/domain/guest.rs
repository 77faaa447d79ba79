//! Everybody but the host: workers and guests ask the host for segments, over a socket.

use std::ops::Range;
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

    fn ask(&self, question: &ToHost) -> Result<(FromHost, Option<OwnedFd>)> {
        let answer = ask(&self.0.lock().unwrap_or_else(PoisonError::into_inner), question)?;
        match answer.0 {
            FromHost::OutOfMemory { wanted, available, limit } => {
                Err(Error::OutOfSharedMemory { wanted, available, limit })
            }
            FromHost::Gone => Err(Error::Gone),
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
