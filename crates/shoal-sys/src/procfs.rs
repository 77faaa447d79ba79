//! What the kernel tells of another process: its memory, and whether it was stopped.

use std::fs;

/// The bytes of memory that a process has to itself: what it allocated, and what it wrote of memory that is shared by
/// copy. Shared memory, files and pages swapped out don't count. `None`: there is no such process any more.
///
/// Takes some ten microseconds.
pub fn private_memory(pid: u32) -> Option<u64> {
    parse_statm(&fs::read_to_string(format!("/proc/{pid}/statm")).ok()?)
}

/// In pages: size, resident, of these shared with files or others, …
fn parse_statm(statm: &str) -> Option<u64> {
    let mut pages = statm.split_ascii_whitespace().skip(1).map(|field| field.parse::<u64>().ok());
    let (resident, shared) = (pages.next()??, pages.next()??);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

/// Whether a process was stopped, by a signal or a debugger. `None`: there is no such process any more.
pub fn is_stopped(pid: u32) -> Option<bool> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(|state| matches!(state, 'T' | 't'))
}

/// The letter behind the name, which stands in brackets and may have any in it.
fn parse_stat(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{self, Signal, testing::in_child};
    use std::os::fd::AsFd;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn what_a_process_allocates_and_writes_counts_as_its_own() {
        // Alone: here other tests allocate and free meanwhile.
        let child = in_child(|| {
            let before = private_memory(process::pid()).unwrap();
            let block = std::hint::black_box(vec![1u8; 64 << 20]);
            let now = private_memory(process::pid()).unwrap();
            drop(block);
            now >= before + (60 << 20)
        });
        child.assert_ok();
    }

    #[test]
    fn a_process_that_is_gone_has_no_memory() {
        let child = in_child(|| true);
        let pid = child.pid;
        child.assert_ok();
        assert_eq!((private_memory(pid), is_stopped(pid)), (None, None));
    }

    #[test]
    fn a_stopped_process_is_told_apart_from_one_that_runs() {
        let child = in_child(|| {
            thread::sleep(Duration::MAX);
            false
        });
        assert_eq!(is_stopped(child.pid), Some(false));
        let fd = process::pidfd_open(child.pid).unwrap();
        process::pidfd_kill(fd.as_fd(), Signal::STOP).unwrap();
        while is_stopped(child.pid) != Some(true) {
            thread::yield_now();
        }
        process::pidfd_kill(fd.as_fd(), Signal::KILL).unwrap();
        child.exit();
    }

    #[test]
    fn names_with_brackets_are_no_trouble() {
        assert_eq!(parse_stat("7 (a) S (b)) R 1 7 7 0"), Some('R'));
        assert_eq!(parse_stat(""), None);
        assert_eq!(parse_statm("100 50 20 1 0 9 0"), Some(30 * rustix::param::page_size() as u64));
        assert_eq!(parse_statm("100"), None);
    }
}
