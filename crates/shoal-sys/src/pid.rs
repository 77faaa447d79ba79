//! This process's id, at the cost of a load.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// This process's id: asked for once, and again after a fork, however it was made.
pub fn pid() -> u32 {
    let known = KNOWN.get_or_init(forgotten_by_forks);
    let Some(known) = known else { return std::process::id() };
    match known.load(Ordering::Relaxed) {
        0 => {
            let pid = std::process::id();
            known.store(pid, Ordering::Relaxed);
            pid
        }
        pid => pid,
    }
}

static KNOWN: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();

/// A word that every fork of this process finds to be 0; `None` if there is no memory for it.
fn forgotten_by_forks() -> Option<&'static AtomicU32> {
    let (len, protection) = (rustix::param::page_size(), ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: the kernel chooses an address that is free.
    let page = unsafe { mmap_anonymous(ptr::null_mut(), len, protection, MapFlags::PRIVATE) }.ok()?;
    // SAFETY: the page just made, which nobody else knows.
    unsafe { madvise(page, len, Advice::LinuxWipeOnFork) }.ok()?;
    // SAFETY: a page of zeros is a valid AtomicU32, aligned, and stays for good.
    Some(unsafe { &*page.cast::<AtomicU32>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::testing::in_child;

    #[test]
    fn a_fork_knows_its_own_id() {
        assert_eq!(pid(), std::process::id());
        in_child(|| pid() == std::process::id() && pid() == std::process::id()).assert_ok();
    }
}
