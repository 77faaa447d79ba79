//! What client, zygote, workers and guests say to each other over their sockets: small packets, one enum each way.
//!
//! Every packet is a tag byte and little-endian numbers; whatever does not decode exactly is [`Error::Damaged`].

use super::layout::MAX_WORKERS;
use crate::error::{Error, Limit, Result};
use crate::memory::lease::IN_QUEUE;
use crate::memory::roster::{Claim, Roster};

/// Who is to be forked: a worker's place in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The pool's number.
    pub pool: u32,
    /// The worker's number in the pool.
    pub worker: u16,
    /// Which process of that number.
    pub epoch: u32,
}

/// Client to zygote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToZygote {
    /// Fork a worker. With it come its control socket, the pool's segment, where it reports, the domain's roster, mostly what
    /// becomes its standard error, and sometimes what becomes its standard output.
    Fork {
        /// Its place.
        place: Place,
        /// Its number in the domain.
        holder: u16,
        /// The domain's name, for handles.
        domain: [u8; 16],
        /// The domain's secret.
        token: [u8; 16],
    },
    /// Get something ready that workers will need; what it means is the zygote's own affair.
    Preload(Vec<u8>),
}

/// Zygote to client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromZygote {
    /// It is up and has that many threads: should be one.
    Ready {
        /// Threads of the zygote.
        threads: u32,
    },
    /// A worker was forked. With it comes its pidfd.
    Forked {
        /// Its place.
        place: Place,
        /// Its process.
        pid: u32,
    },
    /// A worker could not be forked.
    Failed {
        /// Its place.
        place: Place,
        /// The error number.
        errno: i32,
    },
    /// A worker has ended.
    Exited {
        /// Its process.
        pid: u32,
        /// Its exit code, or the signal's number, negative.
        code: i32,
    },
}

/// Worker or guest to host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToHost {
    /// A guest shows its token.
    Hello {
        /// The domain's secret.
        token: [u8; 16],
    },
    /// A process that has its number already: from the one it was forked from, or the host before.
    Return {
        /// The domain's secret.
        token: [u8; 16],
        /// Its number.
        claim: Claim,
    },
    /// I am about to fork: here is my child's number, and with it the host's end of its socket. Not answered.
    Forked {
        /// The child's number.
        claim: Claim,
    },
    /// Make a segment for me.
    Create {
        /// Bytes of data.
        data: u64,
        /// How many of them are to have pages from the start.
        backed: u64,
        /// Lines of its table.
        entries: u32,
        /// Whether it is worth to press others for memory.
        patient: bool,
    },
    /// Give released granules of my segment pages again.
    Restore {
        /// Its number.
        segment: u32,
        /// The first.
        start: u32,
        /// The one behind the last.
        end: u32,
    },
    /// Let me have that segment.
    Open {
        /// Its number.
        segment: u32,
    },
}

/// Host to worker or guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromHost {
    /// Welcome: your number in the domain. With it comes the roster.
    Welcome {
        /// The number.
        claim: Claim,
    },
    /// Here is the segment; its descriptor comes along.
    Segment {
        /// Its number.
        id: u32,
    },
    /// Not enough memory.
    OutOfMemory {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes available.
        available: u64,
        /// What sets the limit.
        limit: Limit,
    },
    /// The pages are there.
    Restored,
    /// There is no such segment any more.
    Gone,
    /// No: of another user, or without the token, or not understood.
    Refused,
    /// There is no number left.
    Full,
    /// Its operating system said no, as it may when it has no descriptors left.
    Failed {
        /// The number of the error.
        errno: i32,
    },
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Error::Damaged("message"))?;
        self.0 = rest;
        Ok(*head)
    }
    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.take()?))
    }
    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take()?))
    }
    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take()?))
    }
    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_le_bytes(self.take()?))
    }
    /// A number below `most`: the reader uses it as an index.
    fn below(&mut self, most: u16) -> Result<u16> {
        let number = self.u16()?;
        if number < most { Ok(number) } else { Err(Error::Damaged("message")) }
    }
    fn holder(&mut self) -> Result<u16> {
        self.below(IN_QUEUE)
    }
    fn place(&mut self) -> Result<Place> {
        Ok(Place { pool: self.u32()?, worker: self.below(MAX_WORKERS as u16)?, epoch: self.u32()? })
    }
    fn claim(&mut self) -> Result<Claim> {
        Ok(Claim { holder: self.holder()?, epoch: self.u32()? })
    }
    fn end<T>(self, message: T) -> Result<T> {
        if self.0.is_empty() { Ok(message) } else { Err(Error::Damaged("message")) }
    }
}

fn packet(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    std::iter::once(tag).chain(parts.iter().flat_map(|part| part.iter().copied())).collect()
}

impl Place {
    fn bytes(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..4].copy_from_slice(&self.pool.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.worker.to_le_bytes());
        bytes[6..].copy_from_slice(&self.epoch.to_le_bytes());
        bytes
    }
}

impl ToZygote {
    /// As a packet.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Fork { place, holder, domain, token } => {
                packet(1, &[&place.bytes(), &holder.to_le_bytes(), domain, token])
            }
            Self::Preload(what) => packet(2, &[what]),
        }
    }

    /// From a packet.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader(bytes);
        match reader.take::<1>()?[0] {
            1 => {
                let (place, holder) = (reader.place()?, reader.holder()?);
                let message = Self::Fork { place, holder, domain: reader.take()?, token: reader.take()? };
                reader.end(message)
            }
            2 => Ok(Self::Preload(reader.0.to_vec())),
            _ => Err(Error::Damaged("message")),
        }
    }
}

impl FromZygote {
    /// As a packet.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ready { threads } => packet(1, &[&threads.to_le_bytes()]),
            Self::Forked { place, pid } => packet(2, &[&place.bytes(), &pid.to_le_bytes()]),
            Self::Failed { place, errno } => packet(3, &[&place.bytes(), &errno.to_le_bytes()]),
            Self::Exited { pid, code } => packet(4, &[&pid.to_le_bytes(), &code.to_le_bytes()]),
        }
    }

    /// From a packet.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader(bytes);
        let message = match reader.take::<1>()?[0] {
            1 => Self::Ready { threads: reader.u32()? },
            2 => Self::Forked { place: reader.place()?, pid: reader.u32()? },
            3 => Self::Failed { place: reader.place()?, errno: reader.i32()? },
            4 => Self::Exited { pid: reader.u32()?, code: reader.i32()? },
            _ => return Err(Error::Damaged("message")),
        };
        reader.end(message)
    }
}

impl ToHost {
    /// How many descriptors come with the answer, if it is as hoped.
    pub(crate) fn answer_brings(&self) -> usize {
        match self {
            Self::Hello { .. } => Roster::FDS,
            Self::Create { .. } | Self::Open { .. } => 1,
            Self::Return { .. } | Self::Forked { .. } | Self::Restore { .. } => 0,
        }
    }

    /// As a packet.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello { token } => packet(1, &[token]),
            Self::Return { token, claim } => {
                packet(5, &[token, &claim.holder.to_le_bytes(), &claim.epoch.to_le_bytes()])
            }
            Self::Forked { claim } => packet(6, &[&claim.holder.to_le_bytes(), &claim.epoch.to_le_bytes()]),
            Self::Create { data, backed, entries, patient } => {
                let patient = [u8::from(*patient)];
                packet(2, &[&data.to_le_bytes(), &backed.to_le_bytes(), &entries.to_le_bytes(), &patient])
            }
            Self::Restore { segment, start, end } => {
                packet(4, &[&segment.to_le_bytes(), &start.to_le_bytes(), &end.to_le_bytes()])
            }
            Self::Open { segment } => packet(3, &[&segment.to_le_bytes()]),
        }
    }

    /// From a packet.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader(bytes);
        let message = match reader.take::<1>()?[0] {
            1 => Self::Hello { token: reader.take()? },
            2 => {
                let (data, backed, entries) = (reader.u64()?, reader.u64()?, reader.u32()?);
                Self::Create { data, backed, entries, patient: reader.take::<1>()?[0] != 0 }
            }
            3 => Self::Open { segment: reader.u32()? },
            5 => Self::Return { token: reader.take()?, claim: reader.claim()? },
            6 => Self::Forked { claim: reader.claim()? },
            4 => Self::Restore { segment: reader.u32()?, start: reader.u32()?, end: reader.u32()? },
            _ => return Err(Error::Damaged("message")),
        };
        reader.end(message)
    }
}

impl FromHost {
    /// What the operating system said.
    pub(crate) fn failed(error: &std::io::Error) -> FromHost {
        FromHost::Failed { errno: error.raw_os_error().unwrap_or(0) }
    }

    /// As a packet.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Welcome { claim } => packet(1, &[&claim.holder.to_le_bytes(), &claim.epoch.to_le_bytes()]),
            Self::Segment { id } => packet(2, &[&id.to_le_bytes()]),
            Self::OutOfMemory { wanted, available, limit } => {
                let (tag, bytes) = match limit {
                    Limit::Machine => (0, 0),
                    Limit::Pool(bytes) => (1, *bytes),
                    Limit::Process(bytes) => (2, *bytes),
                };
                packet(3, &[&wanted.to_le_bytes(), &available.to_le_bytes(), &[tag], &bytes.to_le_bytes()])
            }
            Self::Restored => packet(6, &[]),
            Self::Gone => packet(4, &[]),
            Self::Refused => packet(5, &[]),
            Self::Full => packet(7, &[]),
            Self::Failed { errno } => packet(8, &[&errno.to_le_bytes()]),
        }
    }

    /// From a packet.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader(bytes);
        let message = match reader.take::<1>()?[0] {
            1 => Self::Welcome { claim: reader.claim()? },
            2 => Self::Segment { id: reader.u32()? },
            3 => {
                let (wanted, available) = (reader.u64()?, reader.u64()?);
                let limit = match (reader.take::<1>()?[0], reader.u64()?) {
                    (0, _) => Limit::Machine,
                    (1, bytes) => Limit::Pool(bytes),
                    (2, bytes) => Limit::Process(bytes),
                    _ => return Err(Error::Damaged("message")),
                };
                Self::OutOfMemory { wanted, available, limit }
            }
            4 => Self::Gone,
            5 => Self::Refused,
            7 => Self::Full,
            8 => Self::Failed { errno: i32::from_le_bytes(reader.take()?) },
            6 => Self::Restored,
            _ => return Err(Error::Damaged("message")),
        };
        reader.end(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_survive_the_journey(
            pool: u32, worker in 0..MAX_WORKERS as u16, holder in 0..IN_QUEUE, epoch: u32, a: u64, b: u32,
            token: [u8; 16], code: i32,
        ) {
            let place = Place { pool, worker, epoch };
            for m in [ToZygote::Fork { place, holder, domain: token, token }, ToZygote::Preload(token.to_vec())] {
                prop_assert_eq!(ToZygote::decode(&m.encode()).expect("sound"), m);
            }
            for m in [
                FromZygote::Ready { threads: b },
                FromZygote::Forked { place, pid: b },
                FromZygote::Failed { place, errno: code },
                FromZygote::Exited { pid: b, code },
            ] {
                prop_assert_eq!(FromZygote::decode(&m.encode()).expect("sound"), m);
            }
            for m in [
                ToHost::Hello { token },
                ToHost::Return { token, claim: Claim { holder, epoch } },
                ToHost::Forked { claim: Claim { holder, epoch } },
                ToHost::Create { data: a, backed: a / 2, entries: b, patient: b % 2 == 0 },
                ToHost::Open { segment: b },
                ToHost::Restore { segment: b, start: b / 2, end: b },
            ] {
                prop_assert_eq!(ToHost::decode(&m.encode()).expect("sound"), m);
            }
            for m in [
                FromHost::Welcome { claim: Claim { holder, epoch } },
                FromHost::Segment { id: b },
                FromHost::OutOfMemory { wanted: a, available: a / 2, limit: Limit::Machine },
                FromHost::OutOfMemory { wanted: a, available: a / 2, limit: Limit::Pool(a) },
                FromHost::OutOfMemory { wanted: a, available: a / 2, limit: Limit::Process(a) },
                FromHost::Restored,
                FromHost::Gone,
                FromHost::Refused,
                FromHost::Full,
                FromHost::Failed { errno: b as i32 },
            ] {
                prop_assert_eq!(FromHost::decode(&m.encode()).expect("sound"), m);
            }
        }

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (ToZygote::decode(&bytes), FromZygote::decode(&bytes), ToHost::decode(&bytes), FromHost::decode(&bytes));
        }
    }
}
