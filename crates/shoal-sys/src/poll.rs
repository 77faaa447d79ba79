//! Waiting for several descriptors at once, and a descriptor to wake the one who waits.

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::io::Errno;
use rustix::time::Timespec;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Waits until one of `fds` is readable, hung up or in error, for `timeout` at most (`None`: without limit).
///
/// Tells for each descriptor whether it is. All are `false` when the time is over or a signal handler ran.
pub fn poll(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Vec<bool>> {
    // A time too long for the kernel to hold is as good as for ever.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let mut polled: Vec<_> = fds.iter().map(|&fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    match rustix::event::poll(&mut polled, timeout.as_ref()) {
        Ok(_) => Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect()),
        Err(Errno::INTR) => Ok(vec![false; fds.len()]),
        Err(error) => Err(error.into()),
    }
}

/// Whether something can be written to `fd` now: to a pipe 4096 bytes at once. Also if that fails at once.
pub fn writable(fd: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Waits until the peer of `socket` has closed it, or `process` (a pidfd) has ended, for `timeout` at most. Tells which.
///
/// What the peer has sent is no reason to return: somebody else receives it.
pub fn ended(
    socket: BorrowedFd<'_>,
    process: Option<BorrowedFd<'_>>,
    timeout: Option<Duration>,
) -> io::Result<(bool, bool)> {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    // A hang-up is told unasked.
    let mut polled = vec![PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    polled.extend(process.map(|process| PollFd::from_borrowed_fd(process, PollFlags::IN)));
    match rustix::event::poll(&mut polled, timeout.as_ref()) {
        Ok(_) => {
            let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
            Ok((ready.next().unwrap_or(false), ready.next().unwrap_or(false)))
        }
        Err(Errno::INTR) => Ok((false, false)),
        Err(error) => Err(error.into()),
    }
}

/// A descriptor that becomes readable when someone calls [`Notifier::notify`]: wakes a thread out of [`poll`].
#[derive(Debug)]
pub struct Notifier(OwnedFd);

impl Notifier {
    /// A notifier that nobody has notified yet.
    pub fn new() -> io::Result<Notifier> {
        Ok(Notifier(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes the descriptor readable until the next [`Notifier::drain`]. Never blocks.
    pub fn notify(&self) {
        match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            // A full counter is readable already.
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => panic!("an eventfd could not be written: {error}"),
        }
    }

    /// Takes back all notifications so far. Never blocks. Drain first, then look for what was announced.
    pub fn drain(&self) {
        match rustix::io::read(&self.0, &mut [0u8; 8]) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => panic!("an eventfd could not be read: {error}"),
        }
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::testing::alone;
    use crate::socket::Seqpacket;
    use std::thread;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn nothing_is_ready_when_the_time_is_over() {
        let quiet = Notifier::new().unwrap();
        assert_eq!(poll(&[quiet.as_fd()], Some(Duration::from_millis(1))).unwrap(), [false]);
        assert!(poll(&[], NOW).unwrap().is_empty());
    }

    #[test]
    fn each_descriptor_has_its_own_answer() {
        let (quiet, loud) = (Notifier::new().unwrap(), Notifier::new().unwrap());
        loud.notify();
        assert_eq!(poll(&[quiet.as_fd(), loud.as_fd()], None).unwrap(), [false, true]);
    }

    #[test]
    fn a_hang_up_is_readiness() {
        let _alone = alone();
        let (ours, theirs) = Seqpacket::pair().unwrap();
        assert_eq!(poll(&[ours.as_fd()], NOW).unwrap(), [false]);
        drop(theirs);
        assert_eq!(poll(&[ours.as_fd()], Some(Duration::MAX)).unwrap(), [true]);
    }

    #[test]
    fn the_end_of_a_peer_is_told_apart_from_its_words() {
        let _alone = alone();
        let (ours, theirs) = Seqpacket::pair().unwrap();
        theirs.send(b"a word", &[]).unwrap();
        assert_eq!(ended(ours.as_fd(), None, NOW).unwrap(), (false, false));
        drop(theirs);
        assert_eq!(ended(ours.as_fd(), None, Some(Duration::MAX)).unwrap(), (true, false));
    }

    #[test]
    fn draining_takes_back_every_notification() {
        let notifier = Notifier::new().unwrap();
        notifier.drain();
        notifier.notify();
        notifier.notify();
        notifier.drain();
        assert_eq!(poll(&[notifier.as_fd()], NOW).unwrap(), [false]);
    }

    #[test]
    fn notifying_a_full_counter_does_not_block() {
        let notifier = Notifier::new().unwrap();
        rustix::io::write(&notifier.0, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        notifier.notify();
        assert_eq!(poll(&[notifier.as_fd()], NOW).unwrap(), [true]);
    }

    #[test]
    fn a_notifier_wakes_a_thread_that_polls() {
        let notifier = Notifier::new().unwrap();
        thread::scope(|scope| {
            let poller = scope.spawn(|| poll(&[notifier.as_fd()], None));
            notifier.notify();
            // A test harness's signals would show as [false], and be a failure here: there are none.
            assert_eq!(poller.join().unwrap().unwrap(), [true]);
        });
    }
}
