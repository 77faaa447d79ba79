//! How much memory there is, and how much of it can be had before the out-of-memory killer comes.
//!
//! The machine's own figure (`MemAvailable`) knows nothing of a container's limit, and the limit nothing of the
//! machine, so the smallest counts. Swap is not counted: shared memory that lives on it is no use.

use crate::cgroup::{Group, groups};
use std::fs;

/// The bytes of memory that this process could use if it were alone: the machine's, or the smallest limit of its
/// control groups if that is less.
pub fn total_memory() -> usize {
    memory().total
}

/// The bytes of memory that can still be used: the machine's, or what the control groups leave of their limits if
/// that is less. Page cache that the kernel can drop counts as available.
///
/// Reads a few small files, which takes about 0.1 ms; nothing is cached.
pub fn available_memory() -> usize {
    memory().available
}

/// [`total_memory`] and [`available_memory`] in bytes, at one moment.
pub(super) struct Memory {
    pub(super) total: usize,
    pub(super) available: usize,
}

/// Both figures for the price of one.
pub(super) fn memory() -> Memory {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    // Where /proc is not mounted nothing is known: no limit of ours, then, and the kernel has the last word.
    let machine = |field| parse_field(&meminfo, field).map_or(usize::MAX, |kib| kib.saturating_mul(1024));
    let (total, available) = (machine("MemTotal:"), machine("MemAvailable:"));
    let mut memory = Memory { total, available };
    for group in groups("memory") {
        // A limit of no less than the machine has (version 1 writes "none" as a huge one) is never the one that counts.
        if let Some(limit) = group_limit(&group).filter(|&limit| limit < total) {
            memory.total = memory.total.min(limit);
            memory.available = memory.available.min(group_available(&group).unwrap_or(limit));
        }
    }
    memory
}

/// The number after a name, as in `/proc/meminfo` and `memory.stat`.
fn parse_field(text: &str, field: &str) -> Option<usize> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next() == Some(field) { words.next()?.parse().ok() } else { None }
    })
}

fn group_limit(group: &Group) -> Option<usize> {
    match group {
        Group::V2(_) => v2_limit(|file| group.read(file)),
        Group::V1(_) => v1_limit(|file| group.read(file)),
    }
}

fn group_available(group: &Group) -> Option<usize> {
    match group {
        Group::V2(_) => v2_available(|file| group.read(file)),
        Group::V1(_) => v1_available(|file| group.read(file)),
    }
}

/// The limit of a group of version 2; `None` for "max".
///
/// `memory.high` counts as one: beyond it nobody is killed, but everybody in the group is slowed to a crawl.
fn v2_limit(read: impl Fn(&str) -> Option<String>) -> Option<usize> {
    let limit = |file| read(file)?.trim().parse().ok();
    [limit("memory.max"), limit("memory.high")].into_iter().flatten().min()
}

fn v2_available(read: impl Fn(&str) -> Option<String>) -> Option<usize> {
    let limit = v2_limit(&read)?;
    let used = read("memory.current")?.trim().parse().ok()?;
    Some(left(limit, used, parse_field(&read("memory.stat")?, "inactive_file")))
}

/// The limit of a group of version 1: a huge number if there is none.
fn v1_limit(read: impl Fn(&str) -> Option<String>) -> Option<usize> {
    read("memory.limit_in_bytes")?.trim().parse().ok()
}

fn v1_available(read: impl Fn(&str) -> Option<String>) -> Option<usize> {
    let limit = v1_limit(&read)?;
    let used = read("memory.usage_in_bytes")?.trim().parse().ok()?;
    // With the descendants', as the usage is.
    Some(left(limit, used, parse_field(&read("memory.stat")?, "total_inactive_file")))
}

fn left(limit: usize, used: usize, reclaimable: Option<usize>) -> usize {
    limit.saturating_sub(used.saturating_sub(reclaimable.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader of the files of an imagined group.
    fn files(files: &[(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        move |wanted| files.iter().find(|(name, _)| *name == wanted).map(|(_, text)| (*text).into())
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "MemTotal:       24683520 kB\nMemFree:        1 kB\nMemAvailable:   24376320 kB\n";
        assert_eq!(parse_field(text, "MemAvailable:"), Some(24_376_320));
        assert_eq!(parse_field("total_inactive_file 7\ninactive_file 5\n", "inactive_file"), Some(5));
        assert_eq!(parse_field(text, "Mem"), None);
        assert_eq!(parse_field("MemTotal:\n", "MemTotal:"), None);
    }

    #[test]
    fn what_a_group_of_version_2_leaves_is_its_limit_less_what_cannot_be_reclaimed() {
        let group =
            [("memory.max", "1000\n"), ("memory.current", "700\n"), ("memory.stat", "anon 400\ninactive_file 200\n")];
        assert_eq!(v2_limit(files(&group)), Some(1000));
        assert_eq!(v2_available(files(&group)), Some(500));
    }

    #[test]
    fn the_lower_of_the_two_limits_of_version_2_counts() {
        let usage = [("memory.current", "100\n"), ("memory.stat", "inactive_file 0\n")];
        let limits = [("memory.max", "max\n"), ("memory.high", "300\n")];
        assert_eq!(v2_available(files(&[limits, usage].concat())), Some(200));
        let limits = [("memory.max", "250\n"), ("memory.high", "300\n")];
        assert_eq!(v2_available(files(&[limits, usage].concat())), Some(150));
    }

    #[test]
    fn a_group_without_limit_says_nothing() {
        let group = [("memory.max", "max\n"), ("memory.high", "max\n"), ("memory.current", "1\n"), ("memory.stat", "")];
        assert_eq!(v2_limit(files(&group)), None);
        assert_eq!(v2_available(files(&group)), None);
        assert_eq!(v2_available(files(&[])), None);
        assert_eq!(v1_available(files(&[])), None);
    }

    #[test]
    fn what_a_group_of_version_1_leaves_counts_its_descendants_cache() {
        let group = [
            ("memory.limit_in_bytes", "1000\n"),
            ("memory.usage_in_bytes", "700\n"),
            ("memory.stat", "inactive_file 10\ntotal_inactive_file 200\n"),
        ];
        assert_eq!(v1_limit(files(&group)), Some(1000));
        assert_eq!(v1_available(files(&group)), Some(500));
    }

    #[test]
    fn a_group_beyond_its_limit_leaves_nothing() {
        assert_eq!(left(1000, 1200, None), 0);
        assert_eq!(left(1000, 100, Some(200)), 1000);
    }

    #[test]
    fn this_machine_has_memory_and_not_all_of_it_is_used() {
        assert!((1..=total_memory()).contains(&available_memory()));
    }
}
