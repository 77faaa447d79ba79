//! Hosts, and those who would follow one, that are short of descriptors.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::Mutex;

use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use shoal_core::domain;
use shoal_core::memory::handle::Handle;
use shoal_core::memory::heap::Lease;
use shoal_core::queue::Queue;
use shoal_sys::process::Signal;
use shoal_sys::socket::{MAX_FDS, Seqpacket};

use crate::{Member, go_on, unhex};

/// What a member says that got what it asked for.
const HAD: &str = "had";
/// Somebody with no rights of root: the kernel lets that one send as many descriptors as it likes.
const NOBODY: u32 = 65534;
/// Descriptors that are on their way.
static CROWD: Mutex<Option<(Seqpacket, Seqpacket)>> = Mutex::new(None);

fn limit_descriptors(most: u64) {
    let now = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..now }).expect("a lower limit");
}

/// This process is to have as many descriptors as it has now, and not one more.
pub fn starve() -> String {
    let free = std::io::stdin().as_fd().try_clone_to_owned().expect("one more");
    limit_descriptors(free.as_raw_fd() as u64);
    String::new()
}

/// So many descriptors of this user are on their way now that this process can't send one more.
pub fn crowd() -> String {
    let (ours, theirs) = Seqpacket::pair().expect("two more");
    ours.send(b"crowd", &[ours.as_fd(); MAX_FDS]).expect("sent");
    limit_descriptors(MAX_FDS as u64 - 1);
    *CROWD.lock().expect("one thread") = Some((ours, theirs));
    String::new()
}

/// They have arrived.
pub fn relieve() -> String {
    let crowd = CROWD.lock().expect("one thread").take();
    drop(crowd);
    String::new()
}

fn told(got: shoal_core::Result<Lease>) -> String {
    got.map_or_else(|error| error.to_string(), |_| HAD.to_owned())
}

pub fn visit(handle: &str) -> String {
    told(domain::resolve(&Handle::from_bytes(&unhex(handle)).expect("a handle")))
}

/// Needs a segment of its own.
pub fn ask(queue: &Queue) -> String {
    told(queue.heap().allocate(20 << 20))
}

fn ordinary() -> Member {
    Member::started("", |command| {
        if geteuid().is_root() {
            command.uid(NOBODY);
        }
    })
}

#[test]
fn who_asks_a_host_that_can_not_send_descriptors_is_told_so() {
    let mut host = ordinary();
    let handle = host.does("make");
    let mut guest = ordinary();
    guest.does(&format!("open {handle}"));
    host.does("crowd");
    let segments = host.does("segments");
    let mut newcomer = ordinary();
    for _ in 0..3 {
        let (asked, visited) = (guest.does("ask"), newcomer.does(&format!("visit {handle}")));
        assert!(
            [&asked, &visited].iter().all(|told| told.contains("could not: Too many references")),
            "{asked}, {visited}"
        );
    }
    assert_eq!(host.does("segments"), segments, "what nobody was told of is kept");
    host.does("relieve");
    assert_eq!(guest.does("ask"), HAD);
    assert_eq!(newcomer.does(&format!("visit {handle}")), HAD);
}

#[test]
fn who_has_no_descriptor_left_for_a_segment_does_not_have_one_made() {
    let mut host = Member::new("");
    let handle = host.does("make");
    let mut guest = Member::opened("", &handle);
    let segments = host.does("segments");
    guest.does("starve");
    for _ in 0..3 {
        let asked = guest.does("ask");
        assert!(asked.contains("open files"), "{asked}");
    }
    assert_eq!(host.does("segments"), segments);
}

#[test]
fn who_can_not_follow_leaves_it_to_another() {
    let mut creator = Member::new("");
    let handle = creator.does("make");
    creator.does("put 1");
    let mut poor = Member::started("", |command| _ = command.stderr(Stdio::piped()));
    poor.does(&format!("open {handle}"));
    poor.does("put 2");
    let survivor = Member::opened("", &handle);
    survivor.stop();
    // The one that the socket to the host has taken is free again: enough for the name, and for nothing else.
    poor.does("starve");
    creator.child.kill().expect("killed");
    creator.child.wait().expect("waited");
    let stderr = BufReader::new(poor.child.stderr.take().expect("piped"));
    let mut words = stderr.lines().map(|line| line.expect("read"));
    assert!(words.any(|line| line.contains("can't take over")), "it ended");
    survivor.signal(Signal::CONT);
    go_on(survivor, &handle, &[1, 2], "one could not follow");
}
