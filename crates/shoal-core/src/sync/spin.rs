//! How long to spin before sleeping.
//!
//! A round trip through the scheduler costs some tens of microseconds, a spinning peer answers in a tenth of one. Spinning
//! pays while a core has nothing else to do and harms as soon as it has: a waiter spins only while the parties that
//! run or spin are no more than the CPUs this process may use. And since the kernel may have put the very process that
//! is waited for on the same CPU, a spinner that was not answered at once yields between its looks: with nobody else there
//! that costs a third of a microsecond, and otherwise it lets the other run.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a waiter spins at most. About twice what a sleep and a wake-up cost.
pub const SPIN: Duration = Duration::from_micros(60);
/// How long it does so without yielding: a worker that spins too has answered by then.
const KEEN: Duration = Duration::from_micros(6);
/// The same for who waits for any process: one that spins too answers in a tenth of this, and one that does not may well be
/// waiting for this very CPU.
const BRIEFLY_KEEN: Duration = Duration::from_micros(2);

/// What came of spinning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spun {
    /// It became ready while spinning.
    Ready,
    /// It became ready only after a yield: perhaps the other was waiting for this very CPU.
    AfterYield,
    /// It did not.
    No,
}

/// Spins until `ready`, at most for [`SPIN`] and only while `allowed`.
pub fn until(ready: impl FnMut() -> bool, allowed: impl FnMut() -> bool) -> Spun {
    spin(KEEN, ready, allowed)
}

fn spin(keen: Duration, mut ready: impl FnMut() -> bool, mut allowed: impl FnMut() -> bool) -> Spun {
    let started = Instant::now();
    let mut yielded = false;
    let end = |ready: bool, yielded: bool| match (ready, yielded) {
        (true, false) => Spun::Ready,
        (true, true) => Spun::AfterYield,
        (false, _) => Spun::No,
    };
    loop {
        // The clock and the budget are looked at now and then only: they cost more than a look at the ring.
        for _ in 0..32 {
            if ready() {
                return end(true, yielded);
            }
            std::hint::spin_loop();
        }
        let spent = started.elapsed();
        if spent >= SPIN || !allowed() {
            return end(ready(), yielded);
        }
        if spent >= keen {
            yielded = true;
            std::thread::yield_now();
        }
    }
}

/// Whether spinning is of any use here: not where there is only one CPU to run on. Asked once.
fn pays() -> bool {
    static PAYS: OnceLock<bool> = OnceLock::new();
    *PAYS.get_or_init(|| shoal_sys::cpu::cpu_count() > 1)
}

/// Spins for a moment until `ready`, as somebody who waits for what may come from any process: nobody has counted those that
/// run, so it soon yields.
pub fn briefly(ready: impl FnMut() -> bool) -> Spun {
    spin(BRIEFLY_KEEN, ready, pays)
}
