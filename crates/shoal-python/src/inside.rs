//! Threads inside the engine, and the end of the interpreter, which waits for them.
//!
//! At its end CPython ends a daemon thread by force when that next wants to be attached, and this must not happen in the
//! middle of Rust code. So the end waits for those inside, and who comes later stays outside.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// Threads inside the engine.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// The thread that ends the interpreter, once it does.
static ENDING: OnceLock<ThreadId> = OnceLock::new();

thread_local! {
    /// How often the thread is counted as inside.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Counts a thread that is inside the engine and may have to come back to the interpreter.
pub struct Inside;

impl Inside {
    /// Counts the calling thread. Does not return if another one is ending the interpreter.
    pub fn enter(py: Python<'_>) -> Inside {
        Inside::stay_if_ending(py);
        INSIDE.fetch_add(1, Ordering::SeqCst);
        DEPTH.set(DEPTH.get() + 1);
        Inside
    }

    /// Acts detached from the interpreter, as a thread that is counted.
    pub fn detach<T: Send>(py: Python<'_>, act: impl FnOnce() -> T + Send) -> T {
        let _inside = Inside::enter(py);
        py.detach(act)
    }

    /// As [`enter`](Self::enter), for a thread of the engine's own, which is told that another one is ending the interpreter.
    pub fn enter_unless_ending(_attached: Python<'_>) -> Option<Inside> {
        // Counted before it looks: who ends the interpreter marks that, and then looks whom it has to wait for.
        INSIDE.fetch_add(1, Ordering::SeqCst);
        DEPTH.set(DEPTH.get() + 1);
        let inside = Inside;
        ENDING.get().is_none_or(|thread| *thread == std::thread::current().id()).then_some(inside)
    }

    /// Does not return if another thread is ending the interpreter: what the calling one waited for was cut off by that,
    /// and nobody wants to hear of it. Only daemon threads are left then.
    pub fn stay_if_ending(py: Python<'_>) {
        if ENDING.get().is_none_or(|thread| *thread == std::thread::current().id()) {
            return;
        }
        INSIDE.fetch_sub(DEPTH.take(), Ordering::SeqCst);
        loop {
            py.detach(|| std::thread::sleep(Duration::from_secs(3600)));
        }
    }

    /// The calling thread ends the interpreter: from now on no other comes back from the engine.
    pub fn end() {
        ENDING.get_or_init(|| std::thread::current().id());
    }

    /// The calling thread ends the interpreter: waits until no other is inside, a few seconds at most.
    pub fn wait_for_none(py: Python<'_>) {
        Inside::end();
        let deadline = Instant::now() + Duration::from_secs(5);
        while INSIDE.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            py.detach(|| std::thread::sleep(Duration::from_millis(1)));
        }
    }

    /// In the child of a fork: no other thread is there.
    pub fn forked() {
        INSIDE.store(0, Ordering::SeqCst);
        DEPTH.set(0);
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().saturating_sub(1));
        // Not below 0: the thread that forked may have been inside.
        let _ = INSIDE.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1));
    }
}
