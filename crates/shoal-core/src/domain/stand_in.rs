//! A thread that stands for another: one of a process that is not in the domain, as it runs on another machine.
//!
//! What such a process takes (locks, permits, a place at a barrier) is to pass on when it dies, as if it were here. So it gets
//! a number of its own on the roster, which this process claims and holds in its place; the threads that do what it asks for
//! act under that number. When it has ended, and the last of these threads has, the number is left, and the supervisor cleans
//! up after it as after any death. See `docs/design/cluster-shared.md`.
//!
//! The number is only for what tells holders apart in the words of a thing. Leases are this process's: it is this one that has
//! everything mapped, and its threads let go of what they use.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::host::Host;
use crate::error::Result;
use crate::memory::heap::Heap;
use crate::memory::roster::Claim;

thread_local! {
    /// The heap in which this thread acts for another, and under which number. Two words, as every lock looks at them.
    static ACTING: Cell<(usize, u16)> = const { Cell::new((0, 0)) };
    static TWIN: RefCell<Option<Arc<Twin>>> = const { RefCell::new(None) };
}

/// Under which number the calling thread acts in a heap, if it stands for another there.
#[inline]
pub(crate) fn acting(heap: &Heap) -> Option<u16> {
    let (address, holder) = ACTING.get();
    (address == std::ptr::from_ref(heap) as usize).then_some(holder)
}

fn told() -> u8 {
    TWIN.with_borrow(|twin| twin.as_ref().map_or(0, |twin| twin.told.load(Ordering::Relaxed)))
}

/// Whether the calling thread was told to wait no longer.
pub fn is_recalled() -> bool {
    told() != 0
}

/// Whether the process that the calling thread stands for has ended.
pub fn is_over() -> bool {
    told() == OVER
}

/// What a twin was told: to wait no longer, for now;
const RECALLED: u8 = 1;
/// or for good.
const OVER: u8 = 2;

/// A number, held for a process elsewhere.
#[derive(Debug)]
struct Number {
    host: Arc<Host>,
    claim: Claim,
}

impl Number {
    fn claim() -> Result<Number> {
        let host = Host::current()?;
        let claim = host.claim()?;
        // First, or the roster would be looked at for a process that nobody watches.
        host.state().stand_ins.insert(claim.holder);
        host.roster.settle(claim, host.roster.pid());
        Ok(Number { host, claim })
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        // In a fork it is the parent's.
        if self.host.is_mine() {
            self.host.state().stand_ins.remove(&self.claim.holder);
            self.host.roster.leave(self.claim);
            self.host.look_again();
        }
    }
}

/// What stands for one process elsewhere. Its number is claimed when it first takes something.
#[derive(Debug, Default)]
pub struct StandIn(Mutex<Option<Arc<Number>>>);

impl StandIn {
    fn number(&self) -> Result<Arc<Number>> {
        let mut number = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*number {
            Some(number) => Ok(number.clone()),
            None => Ok(number.insert(Arc::new(Number::claim()?)).clone()),
        }
    }
}

/// What stands for one thread of it.
#[derive(Debug)]
pub struct Twin {
    stand_in: Arc<StandIn>,
    told: AtomicU8,
}

impl Twin {
    /// A twin of a thread of that process.
    pub fn new(stand_in: Arc<StandIn>) -> Arc<Twin> {
        Arc::new(Twin { stand_in, told: AtomicU8::new(0) })
    }

    /// The calling thread is it, until it ends.
    pub fn begin(self: &Arc<Twin>) {
        TWIN.set(Some(self.clone()));
    }

    /// From now on the calling thread, which is it, takes things under the number of the process it stands for.
    pub fn own(&self) -> Result<()> {
        if ACTING.get().0 == 0 {
            let number = self.stand_in.number()?;
            ACTING.set((Arc::as_ptr(number.host.heap()) as usize, number.claim.holder));
        }
        Ok(())
    }

    /// Does something under that number in a thread that is not it; what does not wait, and has no thread for its owner.
    pub fn lend<T>(&self, act: impl FnOnce() -> T) -> Result<T> {
        let number = self.stand_in.number()?;
        let before = ACTING.replace((Arc::as_ptr(number.host.heap()) as usize, number.claim.holder));
        let done = act();
        ACTING.set(before);
        Ok(done)
    }

    /// It is to wait no longer; or may wait again.
    pub fn recall(&self, recalled: bool) {
        let _over = self.told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |told| {
            (told != OVER).then_some(u8::from(recalled) * RECALLED)
        });
    }

    /// The process that it stands for has ended.
    pub fn end(&self) {
        self.told.store(OVER, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::domain;
    use crate::memory::lease::Kind;
    use crate::sync::lock::Lock;

    fn in_a_twin<T: Send>(stand_in: &Arc<StandIn>, act: impl FnOnce() -> T + Send) -> T {
        let twin = Twin::new(stand_in.clone());
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    twin.begin();
                    twin.own().expect("a number");
                    act()
                })
                .join()
                .expect("ends")
        })
    }

    #[test]
    fn what_it_took_passes_on_when_it_ends_and_says_that_it_was_abandoned() {
        let lease = domain::heap().expect("heap").allocate_cell(Kind::Lock).expect("memory");
        let lock = Lock::new(lease.cell());
        let stand_in = Arc::new(StandIn::default());
        assert!(in_a_twin(&stand_in, || lock.try_acquire(lease.heap().actor())));
        assert!(!lock.is_held_by(lease.heap().me()));
        assert!(
            in_a_twin(&stand_in, || lock.is_held_by(lease.heap().actor())),
            "its other threads act for the same one"
        );
        drop(stand_in);
        assert!(lock.acquire(lease.heap().me(), None) == crate::sync::lock::Acquired::Yes);
        assert!(lock.is_abandoned());
    }

    #[test]
    fn another_thread_may_take_something_for_it() {
        let lease = domain::heap().expect("heap").allocate_cell(Kind::Lock).expect("memory");
        let (lock, stand_in) = (Lock::new(lease.cell()), Arc::new(StandIn::default()));
        let taken = Twin::new(stand_in.clone()).lend(|| lock.try_acquire(lease.heap().actor()));
        assert!(taken.expect("a number") && !lock.is_held_by(lease.heap().actor()));
        assert!(in_a_twin(&stand_in, || lock.is_held_by(lease.heap().actor())));
    }

    #[test]
    fn who_is_recalled_hears_of_it() {
        let twin = Twin::new(Arc::default());
        assert!(!is_recalled());
        twin.begin();
        assert!(!is_recalled());
        twin.recall(true);
        assert!(is_recalled() && !is_over());
        twin.recall(false);
        assert!(!is_recalled());
        twin.end();
        twin.recall(false);
        assert!(is_recalled() && is_over(), "for good");
        TWIN.set(None);
    }
}
