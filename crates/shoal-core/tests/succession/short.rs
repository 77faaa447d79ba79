//! Hosts, and those who would follow, that are short of descriptors.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Stdio;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shoal_sys::process::Signal;

use crate::{Member, go_on};

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
