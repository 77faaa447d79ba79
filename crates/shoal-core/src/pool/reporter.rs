//! How a worker reports: messages of any length to its client, whole and in order.
//!
//! All workers of a host share one end of a SEQPACKET pair: a packet arrives whole whoever else sends, and none of the
//! client's descriptors is needed for each. A message that is longer than a packet goes in parts, which may come among
//! those of others:
//!
//! ```text
//! 4 bytes pid | 4 bytes number of the message | 1 byte: 1 if it is the last part | the part
//! ```
//!
//! Then the worker counts it in the pool's memory (`Control::said`), before its task ends. So whoever has the task's result
//! knows whether there is something to be heard first, by a look at that count; and who never reports never pays.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use shoal_sys::process;
use shoal_sys::socket::{MAX_BYTES, Seqpacket};

use super::layout::PoolMemory;
use crate::error::Result;

const HEAD: usize = 9;

/// A worker's way to report.
#[derive(Debug)]
pub struct Reporter {
    pub(super) socket: Arc<Seqpacket>,
    pub(super) memory: Arc<PoolMemory>,
    pub(super) worker: u16,
    pub(super) numbers: AtomicU32,
}

impl Reporter {
    /// Sends a message to the client; waits while too many are on their way. A client that has ended hears nothing, and
    /// that is no error.
    pub fn report(&self, message: &[u8]) -> Result<()> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        for packet in packets(process::pid(), number, message) {
            match self.socket.send(&packet, &[]) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                sent => sent?,
            }
        }
        self.spoke();
        Ok(())
    }

    /// Something was written to a stream that the client listens to.
    pub fn spoke(&self) {
        self.memory.control().said.fetch_add(1, Ordering::Release);
    }

    /// The number of the task that the worker is at.
    pub fn task(&self) -> Option<u64> {
        self.memory.record(self.worker).current.running()
    }
}

fn packets(pid: u32, number: u32, message: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let parts = message.len().div_ceil(MAX_BYTES - HEAD);
    message.chunks(MAX_BYTES - HEAD).enumerate().map(move |(index, part)| {
        let last = u8::from(index + 1 == parts);
        [&pid.to_le_bytes()[..], &number.to_le_bytes(), &[last], part].concat()
    })
}

/// What has come of messages that are not complete.
#[derive(Debug, Default)]
pub(crate) struct Parts(HashMap<(u32, u32), Vec<u8>>);

impl Parts {
    /// A packet has come: the message that it completes. One that is no part of a message is nobody's.
    pub(crate) fn add(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let (pid, rest) = packet.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (last, part) = rest.split_first()?;
        let key = (u32::from_le_bytes(*pid), u32::from_le_bytes(*number));
        let mut message = self.0.remove(&key).unwrap_or_default();
        message.extend_from_slice(part);
        if *last != 0 {
            return Some(message);
        }
        self.0.insert(key, message);
        None
    }

    /// That process is dead: what it had not said to the end is not said.
    pub(crate) fn forget(&mut self, pid: u32) {
        self.0.retain(|key, _| key.0 != pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content() -> impl Strategy<Value = Vec<u8>> {
        (1..200_000usize, any::<u8>()).prop_map(|(len, seed)| (0..len).map(|at| seed ^ at as u8).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn messages_whose_parts_are_mixed_arrive_whole(first in content(), second in content()) {
            let mut both = [packets(1, 7, &first).collect::<Vec<_>>(), packets(2, 7, &second).collect()];
            let (mut parts, mut arrived) = (Parts::default(), vec![]);
            while both.iter().any(|packets| !packets.is_empty()) {
                for packets in &mut both {
                    if !packets.is_empty() {
                        arrived.extend(parts.add(&packets.remove(0)));
                    }
                }
            }
            arrived.sort();
            let mut sent = vec![first, second];
            sent.sort();
            prop_assert_eq!(arrived, sent);
            prop_assert!(parts.0.is_empty());
        }

        #[test]
        fn a_message_arrives_whole_and_once_whatever_others_send_in_between(
            message in content(),
            others in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
        ) {
            let mut parts = Parts::default();
            let mut others = others.into_iter().filter(|packet| !packet.starts_with(&[1, 0, 0, 0, 7, 0, 0, 0]));
            let mut arrived = vec![];
            for packet in packets(1, 7, &message) {
                arrived.extend(parts.add(&packet));
                (0..3).for_each(|_| _ = others.next().and_then(|other| parts.add(&other)));
            }
            prop_assert_eq!(arrived, vec![message]);
        }

        #[test]
        fn no_packet_makes_the_listener_panic(packet in prop::collection::vec(any::<u8>(), 0..32)) {
            Parts::default().add(&packet);
        }
    }

    #[test]
    fn what_a_dead_process_did_not_end_is_forgotten() {
        let long = vec![1; 2 * MAX_BYTES];
        let mut parts = Parts::default();
        assert_eq!(parts.add(&packets(5, 0, &long).next().expect("a part")), None);
        parts.forget(5);
        assert!(parts.0.is_empty());
    }
}
