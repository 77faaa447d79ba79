//! Points at which a process may be killed on purpose.
//!
//! Code that has to survive a death at any instruction says where its steps are: `crash::point("put: begun")`. Built
//! without the feature `crash-points` that is nothing at all. With it, a process that has the name in its environment
//! as [`VARIABLE`] is killed by SIGKILL when it comes there. With a file as [`CHARGE`], only while that is there, and only
//! the first of several: it takes the file away. And a test can have a thread do whatever it likes at each point, such as to stop there for ever, which is
//! how a death looks to everybody else.

/// The environment variable that names the point at which a process is killed.
pub const VARIABLE: &str = "SHOAL_CRASH_POINT";
/// The environment variable that names a file: only whoever takes it away is killed.
pub const CHARGE: &str = "SHOAL_CRASH_CHARGE";

/// A step is done, or about to be: a process may be killed here.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

#[cfg(feature = "crash-points")]
pub use self::armed::{on_this_thread, point};

#[cfg(feature = "crash-points")]
mod armed {
    use std::cell::RefCell;
    use std::sync::OnceLock;

    use super::{CHARGE, VARIABLE};

    type Hook = Box<dyn FnMut(&'static str)>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    fn die() -> ! {
        use shoal_sys::process::{Signal, pid, pidfd_kill, pidfd_open};
        let killed = pidfd_open(pid()).and_then(|me| pidfd_kill(std::os::fd::AsFd::as_fd(&me), Signal::KILL));
        panic!("not killed: {killed:?}");
    }

    /// From now on this thread calls `hook` at each point, with its name.
    pub fn on_this_thread(hook: impl FnMut(&'static str) + 'static) {
        HOOK.set(Some(Box::new(hook)));
    }

    /// A step is done, or about to be: a process may be killed here.
    pub fn point(name: &'static str) {
        static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
        let chosen = || CHOSEN.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref() == Some(name);
        let is_charged = || std::env::var(CHARGE).map_or(true, |file| std::fs::remove_file(file).is_ok());
        if chosen() && is_charged() {
            die();
        }
        // Taken: the hook may come by points itself.
        if let Some(mut hook) = HOOK.take() {
            hook(name);
            HOOK.set(Some(hook));
        }
    }
}
