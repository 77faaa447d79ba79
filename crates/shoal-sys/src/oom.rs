//! Whom the kernel killed for want of memory.
//!
//! A process that the out-of-memory killer ends has died of SIGKILL, as any other. Only the counters tell: that of the
//! control group, of both versions, or else that of the machine. They grow before the signal is sent.

use std::fs;
use std::path::PathBuf;

use crate::cgroup::{Group, groups};

/// The kernel's counter of processes that it has killed for want of memory.
#[derive(Debug)]
pub struct Counter(PathBuf);

impl Counter {
    /// That of this process's control group; that of the whole machine if there is none that counts.
    pub fn find() -> Counter {
        let files = groups("memory").into_iter().map(|group| match group {
            Group::V2(directory) => directory.join("memory.events"),
            Group::V1(directory) => directory.join("memory.oom_control"),
        });
        let own = files.map(Counter).find(|counter| counter.read().is_some());
        own.unwrap_or_else(|| Counter("/proc/vmstat".into()))
    }

    /// How many there were; `None` if that can't be read, as when no descriptor is left.
    pub fn read(&self) -> Option<u64> {
        parse(&fs::read_to_string(&self.0).ok()?)
    }
}

/// The number behind `oom_kill`.
fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_among_others() {
        assert_eq!(parse("low 0\nhigh 3\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn it_can_be_asked_for_anywhere() {
        let counter = Counter::find();
        assert!(counter.read().is_some() && counter.read() <= counter.read());
    }
}
