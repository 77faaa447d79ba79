//! Whom the kernel killed for want of memory.
//!
//! A process that the out-of-memory killer ends has died of SIGKILL, as any other. Only the counters tell: that of the
//! control group, of both versions, or else that of the machine. They grow before the signal is sent.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::cgroup::{Group, groups};

/// The kernel's counter of processes that it has killed for want of memory: opened as early as may be, as there may be no
/// descriptor left when it matters.
#[derive(Debug)]
pub struct Counter {
    path: PathBuf,
    file: OnceLock<File>,
}

impl Counter {
    /// That of this process's control group; that of the whole machine if there is none that counts.
    pub fn find() -> Counter {
        let files = groups("memory").into_iter().map(|group| match group {
            Group::V2(directory) => directory.join("memory.events"),
            Group::V1(directory) => directory.join("memory.oom_control"),
        });
        let own = files.map(Counter::of).find(|counter| counter.read().is_some());
        own.unwrap_or_else(|| Counter::of("/proc/vmstat".into()))
    }

    fn of(path: PathBuf) -> Counter {
        let counter = Counter { path, file: OnceLock::new() };
        // If there is no descriptor now, it is opened when it is read.
        let _ = counter.file();
        counter
    }

    fn file(&self) -> Option<&File> {
        match self.file.get() {
            Some(file) => Some(file),
            None => File::open(&self.path).ok().map(|file| self.file.get_or_init(|| file)),
        }
    }

    /// How many there were; `None` if that can't be known here.
    pub fn read(&self) -> Option<u64> {
        let file = self.file()?;
        let mut text = Vec::new();
        let mut part = [0; 4096];
        loop {
            match file.read_at(&mut part, text.len() as u64).ok()? {
                0 => return parse(std::str::from_utf8(&text).ok()?),
                read => text.extend_from_slice(&part[..read]),
            }
        }
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
    fn it_is_read_anew_each_time_and_needs_nothing_for_it() {
        let path = std::env::temp_dir().join(format!("shoal-oom-{}", std::process::id()));
        std::fs::write(&path, format!("{}oom_kill 3\n", "other 1\n".repeat(1000))).expect("room");
        let counter = Counter::of(path.clone());
        assert_eq!(counter.read(), Some(3));
        std::fs::write(&path, "oom_kill 4\n").expect("room");
        std::fs::remove_file(&path).expect("there");
        assert_eq!(counter.read(), Some(4), "of the file as it is, which can't be opened any more");
    }

    #[test]
    fn it_can_be_asked_for_anywhere() {
        let counter = Counter::find();
        assert!(counter.read().is_some() && counter.read() <= counter.read());
    }
}
