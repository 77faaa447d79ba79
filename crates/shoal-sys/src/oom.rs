//! Whom the kernel killed for want of memory.
//!
//! A process that the out-of-memory killer ends has died of SIGKILL, as any other. Only the counters tell: that of the
//! control group, of both versions, or else that of the machine. They grow before the signal is sent.

use crate::cgroup::{Group, groups};
use std::fs;

/// How many processes the kernel has killed for want of memory in this process's control group; on the whole machine
/// if there is none that counts.
pub fn kills() -> u64 {
    let own = groups("memory").into_iter().find_map(|group| match group {
        Group::V2(_) => parse(&group.read("memory.events")?),
        Group::V1(_) => parse(&group.read("memory.oom_control")?),
    });
    own.or_else(|| parse(&fs::read_to_string("/proc/vmstat").ok()?)).unwrap_or(0)
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
        assert!(kills() <= kills());
    }
}
