//! Where workers report: one end of a SEQPACKET pair for all that have the same voice, read here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_sys::socket::Seqpacket;

use super::host::Host;
use super::voice::{Stream, Voice};
use crate::pool::reporter::Parts;

/// Reports read at a time.
const MOST: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Reports {
    ours: Arc<Seqpacket>,
    /// Every worker has a copy.
    theirs: OwnedFd,
    parts: Mutex<Parts>,
}

impl Reports {
    pub(super) fn new() -> std::io::Result<Reports> {
        let (ours, theirs) = Seqpacket::pair()?;
        Ok(Reports { ours: Arc::new(ours), theirs: theirs.into_fd(), parts: Mutex::default() })
    }

    /// The end that is read here.
    pub(super) fn ours(&self) -> Arc<Seqpacket> {
        self.ours.clone()
    }

    /// The end that workers get.
    pub(super) fn theirs(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what workers have reported, and has it spoken.
    pub(super) fn hear(&self, voice: &Arc<Voice>, host: &Arc<Host>) {
        // Locked until it is queued: who reads next is to come behind.
        let mut parts = self.parts();
        // No more than a socket holds: who never stops is not to keep the supervisor. A packet that did not arrive whole is
        // no worker's.
        for _ in 0..MOST {
            match self.ours.try_recv() {
                Ok(Some(packet)) => {
                    if let Some(report) = parts.add(&packet.bytes) {
                        voice.say(Stream::Report, report, host);
                    }
                }
                Ok(None) => return,
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {}
                Err(_) => return,
            }
        }
    }

    /// A process is dead: what it had not reported to the end is forgotten.
    pub(super) fn forget(&self, pid: u32) {
        self.parts().forget(pid);
    }
}
