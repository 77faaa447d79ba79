//! A condition: those who wait, without the lock that guards what they wait for, until somebody who has it notifies them.
//!
//! A word for each process says how many of its threads wait, how many of those have been notified, and how many have read
//! that and are on their way back to the lock. They sleep on that very word.
//!
//! ```text
//! bits 0..10  waiting      bits 10..20  notified, never more than wait      bits 20..30  going
//! ```
//!
//! Every step is one compare-and-swap of one such word:
//!
//! | who | does | when |
//! | --- | --- | --- |
//! | a waiter | waiting += 1 | while it has the lock |
//! | a notifier | notified += 1, then wakes one thread of that process | for each one that it notifies; while it has the lock |
//! | a waiter | both -= 1, going += 1: it has been notified | if one is |
//! | a waiter | waiting -= 1: it gives up | only if none is notified: otherwise it counts as notified |
//! | a waiter | going -= 1: it goes on | when it has the lock again |
//!
//! So a notification is for somebody who waits, and nobody who gives up takes one along. Which thread of a process gets it
//! does not matter: none of them can tell.
//!
//! Why no wake-up is lost: a thread sleeps on a word that says that none is notified, and the kernel compares it. Threads that
//! come and go change the word too; then it looks again.
//!
//! # Deaths
//!
//! With a process its word goes, and the notifications that it had not read, or had not acted on as it did not have the lock yet,
//! go to others (`abandon`). A holder of the lock who dies may have been about to notify: the lock's count of such deaths is looked at by everybody who waits (`Guard::deaths`),
//! and another one than before is as good as a notification.

use super::atomics::{AtomicU32, Ordering};
use super::bits::CAPACITY;
use super::futex::{Futex, Wake};
use super::lock::{Acquired, Lock};
use super::patience::{End, Patience};
use super::rlock::{Owner, RLock};
#[cfg(not(loom))]
use super::spin;
use crate::crash;
use crate::memory::lease::Cell;

/// The most threads of one process that can wait.
pub const MOST: u32 = (1 << BITS) - 1;
const BITS: u32 = 10;
const ONE_WAITING: u32 = 1;
const ONE_NOTIFIED: u32 = 1 << BITS;
const ONE_GOING: u32 = 1 << (2 * BITS);

fn waiting(word: u32) -> u32 {
    word & MOST
}

fn notified(word: u32) -> u32 {
    (word >> BITS) & MOST
}

fn going(word: u32) -> u32 {
    (word >> (2 * BITS)) & MOST
}

/// One that waits reads that it was notified, if one was.
fn read(word: u32) -> Option<u32> {
    let read = || word.wrapping_sub(ONE_WAITING + ONE_NOTIFIED).wrapping_add(ONE_GOING);
    (notified(word) > 0).then(read)
}

/// Who waits. All zero when new.
#[repr(C)]
#[derive(Debug)]
pub struct Waiters([Futex; CAPACITY]);

#[cfg(not(loom))]
#[allow(unsafe_code, reason = "what others write to")]
// SAFETY: `repr(C)`, nothing but atomics.
unsafe impl crate::memory::words::Words for Waiters {}

impl Default for Waiters {
    fn default() -> Self {
        Waiters(std::array::from_fn(|_| Futex::default()))
    }
}

/// A lock that who waits lets go of.
pub trait Guard {
    /// Lets go of it altogether. How often the caller had it.
    fn let_go(&self) -> u32;
    /// Takes it back as often as that.
    fn take_back(&self, times: u32, patience: &mut Patience<'_>) -> Acquired;
    /// How many have died holding it.
    fn deaths(&self) -> u32;
}

/// A plain lock as a guard, in the hands of a process.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a> {
    /// The lock's cell.
    pub cell: &'a Cell,
    /// The process.
    pub holder: u16,
}

impl Guard for Plain<'_> {
    fn let_go(&self) -> u32 {
        let lock = Lock::new(self.cell);
        u32::from(lock.is_held_by(self.holder) && lock.release())
    }

    fn take_back(&self, _times: u32, patience: &mut Patience<'_>) -> Acquired {
        Lock::new(self.cell).take_back(self.holder, patience)
    }

    fn deaths(&self) -> u32 {
        self.cell.word.load(Ordering::SeqCst)
    }
}

/// A reentrant lock as a guard, in the hands of a thread.
#[derive(Clone, Copy, Debug)]
pub struct Reentrant<'a> {
    /// The lock's cell.
    pub cell: &'a Cell,
    /// The thread.
    pub owner: Owner,
}

impl Guard for Reentrant<'_> {
    fn let_go(&self) -> u32 {
        RLock::new(self.cell).let_go(self.owner)
    }

    fn take_back(&self, times: u32, patience: &mut Patience<'_>) -> Acquired {
        RLock::new(self.cell).take_back(self.owner, times, patience)
    }

    fn deaths(&self) -> u32 {
        self.cell.word.load(Ordering::SeqCst)
    }
}

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Somebody notified it, or a holder of the lock died.
    Notified,
    /// It gave up.
    Ended(End),
    /// It can't wait: it does not have the lock, or [`MOST`] threads of its process wait already.
    Refused,
}

/// The condition of a cell and a table.
#[derive(Clone, Copy, Debug)]
pub struct Condition<'a> {
    cell: &'a Cell,
    waiters: &'a Waiters,
}

impl<'a> Condition<'a> {
    /// The condition that lies there.
    pub fn new(cell: &'a Cell, waiters: &'a Waiters) -> Self {
        Condition { cell, waiters }
    }

    fn word(&self, holder: u16) -> &'a AtomicU32 {
        self.futex(holder).word()
    }

    fn futex(&self, holder: u16) -> &'a Futex {
        &self.waiters.0[usize::from(holder)]
    }

    /// No process with a greater number has ever waited.
    fn top(&self) -> u16 {
        self.cell.word.load(Ordering::SeqCst).min(CAPACITY as u32) as u16
    }

    /// A thread of process `me`, which has the lock, waits from now on. `false`: too many of them do.
    fn enter(&self, me: u16) -> bool {
        if self.top() <= me {
            self.cell.word.fetch_max(u32::from(me) + 1, Ordering::SeqCst);
        }
        // Those that go were waiting: neither field runs over.
        let enter = |now: u32| (waiting(now) + going(now) < MOST).then(|| now + ONE_WAITING);
        self.word(me).fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).is_ok()
    }

    /// Stops to wait. Whether it was notified, or may count as one that was: then it is going. See the module.
    fn leave(&self, me: u16) -> bool {
        let leave = |now: u32| Some(read(now).unwrap_or(now.wrapping_sub(ONE_WAITING)));
        self.word(me).fetch_update(Ordering::SeqCst, Ordering::SeqCst, leave).is_ok_and(|now| notified(now) > 0)
    }

    /// Reads a notification, if there is one.
    fn take(&self, me: u16) -> bool {
        self.word(me).fetch_update(Ordering::SeqCst, Ordering::SeqCst, read).is_ok()
    }

    /// One that was going goes on, or else another one is notified in its place.
    fn gone(&self, me: u16, on: bool) {
        if !on {
            self.notify(1);
        }
        self.word(me).fetch_sub(ONE_GOING, Ordering::SeqCst);
    }

    /// Lets go of the lock, waits until it is notified, and takes the lock back, for which `back` is the patience. What it
    /// waited for is told even if it did not get the lock again.
    pub fn wait(
        &self,
        me: u16,
        guard: &impl Guard,
        patience: &mut Patience<'_>,
        back: &mut Patience<'_>,
    ) -> (Waited, Acquired) {
        let deaths = guard.deaths();
        if !self.enter(me) {
            return (Waited::Refused, Acquired::Yes);
        }
        crash::point("condition: entered");
        let times = guard.let_go();
        crash::point("condition: let go");
        if times == 0 {
            if self.leave(me) {
                self.gone(me, false);
            }
            return (Waited::Refused, Acquired::Yes);
        }
        let (waited, going) = self.sleep(me, || guard.deaths() != deaths, patience);
        crash::point("condition: read");
        let back = guard.take_back(times, back);
        crash::point("condition: back");
        if going {
            self.gone(me, back == Acquired::Yes);
        }
        (waited, back)
    }

    /// Waits. What for, and whether a notification was read.
    fn sleep(&self, me: u16, bereft: impl Fn() -> bool, patience: &mut Patience<'_>) -> (Waited, bool) {
        #[cfg(not(loom))]
        spin::briefly(|| notified(self.word(me).load(Ordering::Relaxed)) > 0);
        loop {
            if self.take(me) {
                return (Waited::Notified, true);
            }
            let rested = patience.rest(|timeout| match self.word(me).load(Ordering::SeqCst) {
                now if notified(now) > 0 => Wake::Woken,
                now => self.futex(me).wait(now, timeout),
            });
            crash::point("condition: woken");
            match rested {
                Ok(()) if !bereft() => {}
                Ok(()) => return (Waited::Notified, self.leave(me)),
                Err(end) => {
                    return match (self.leave(me), end) {
                        (true, End::TimedOut) => (Waited::Notified, true),
                        (true, End::Stopped) => {
                            // It turns to something else: the notification is for another one.
                            self.gone(me, false);
                            (Waited::Ended(end), false)
                        }
                        (false, end) => (Waited::Ended(end), false),
                    };
                }
            }
        }
    }

    /// Notifies up to `most` of those who wait, one process after the other. How many.
    pub fn notify(&self, most: u32) -> u32 {
        let top = self.top();
        let start = if top == 0 { 0 } else { (self.cell.more[0].load(Ordering::Relaxed) % u64::from(top)) as u16 };
        let mut notified = 0;
        loop {
            let before = notified;
            for holder in (start..top).chain(0..start) {
                if notified == most {
                    return notified;
                }
                if self.notify_one_of(holder) {
                    notified += 1;
                    self.cell.more[0].store(u64::from(holder) + 1, Ordering::Relaxed);
                }
            }
            if notified == before {
                return notified;
            }
        }
    }

    fn notify_one_of(&self, holder: u16) -> bool {
        let notify = |now: u32| (notified(now) < waiting(now)).then(|| now + ONE_NOTIFIED);
        let notified = self.word(holder).fetch_update(Ordering::SeqCst, Ordering::SeqCst, notify).is_ok();
        if notified {
            crash::point("condition: notified");
            self.futex(holder).wake(1);
        }
        notified
    }

    /// How many wait and have not been notified.
    pub fn waiting(&self) -> u32 {
        let words = (0..self.top()).map(|holder| self.word(holder).load(Ordering::SeqCst));
        words.map(|now| waiting(now).saturating_sub(notified(now))).sum()
    }

    /// A process has died: it waits no more, and what it was notified of and has not acted on others are. All look again: a lock may have been
    /// abandoned, and the dead one may not have come to wake whom it notified.
    pub fn abandon(&self, dead: u16) {
        let word = self.word(dead).swap(0, Ordering::SeqCst);
        self.notify(notified(word) + going(word));
        (0..self.top()).for_each(|holder| _ = self.futex(holder).wake(u32::MAX));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread::scope;
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Whole {
        lock: Cell,
        cell: Cell,
        waiters: Waiters,
    }

    impl Whole {
        fn condition(&self) -> Condition<'_> {
            Condition::new(&self.cell, &self.waiters)
        }

        fn wait(&self, me: u16, patience: &mut Patience<'_>) -> Waited {
            let guard = Plain { cell: &self.lock, holder: me };
            assert_eq!(Lock::new(&self.lock).acquire(me, None), Acquired::Yes);
            let (waited, back) = self.condition().wait(me, &guard, patience, &mut Patience::endless());
            assert_eq!(back, Acquired::Yes);
            assert!(Lock::new(&self.lock).release());
            waited
        }

        fn until_waiting(&self, count: u32) {
            while self.condition().waiting() != count {
                std::thread::yield_now();
            }
        }
    }

    fn short() -> Patience<'static> {
        Patience::within(Some(Duration::from_millis(5)))
    }

    #[test]
    fn as_many_as_are_notified_go_on() {
        let whole = Whole::default();
        scope(|scope| {
            // Two threads of 1, one of 2, one of 5.
            let waiters = [1, 1, 2, 5].map(|me| {
                scope.spawn({
                    let whole = &whole;
                    move || whole.wait(me, &mut Patience::endless())
                })
            });
            for (left, notify) in [(4, 1), (3, 2), (1, 10)] {
                whole.until_waiting(left);
                assert_eq!(whole.condition().notify(notify), notify.min(left));
            }
            waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().expect("ends"), Waited::Notified));
        });
        assert_eq!(whole.condition().notify(1), 0, "nobody waits");
    }

    #[test]
    fn who_gives_up_is_not_notified() {
        let whole = Whole::default();
        assert_eq!(whole.wait(3, &mut short()), Waited::Ended(End::TimedOut));
        assert_eq!((whole.condition().waiting(), whole.condition().notify(1)), (0, 0));
    }

    #[test]
    fn nobody_waits_without_the_lock() {
        let whole = Whole::default();
        let guard = Plain { cell: &whole.lock, holder: 3 };
        let waited = whole.condition().wait(3, &guard, &mut Patience::endless(), &mut Patience::endless());
        assert_eq!(waited.0, Waited::Refused);
        assert_eq!(whole.condition().waiting(), 0);
    }

    #[test]
    fn what_a_dead_one_was_notified_of_another_is() {
        let whole = Whole::default();
        scope(|scope| {
            let condition = whole.condition();
            assert!(condition.enter(7), "7 waits");
            assert_eq!(condition.notify(1), 1);
            let waiter = scope.spawn(|| whole.wait(1, &mut Patience::endless()));
            whole.until_waiting(1);
            condition.abandon(7);
            assert_eq!(waiter.join().expect("ends"), Waited::Notified);
        });
    }

    #[test]
    fn what_one_read_that_dies_before_it_has_the_lock_another_is_notified_of() {
        let whole = Whole::default();
        scope(|scope| {
            let condition = whole.condition();
            assert!(condition.enter(7), "7 waits");
            assert_eq!(condition.notify(1), 1);
            assert!(condition.take(7));
            let waiter = scope.spawn(|| whole.wait(1, &mut Patience::endless()));
            whole.until_waiting(1);
            condition.abandon(7);
            assert_eq!(waiter.join().expect("ends"), Waited::Notified);
        });
        assert!(whole.waiters.0.iter().all(|word| word.word().load(Ordering::SeqCst) == 0), "nobody is there");
    }

    #[test]
    fn who_can_not_have_the_lock_again_leaves_the_notification_to_another() {
        let whole = Whole::default();
        scope(|scope| {
            let condition = whole.condition();
            let whole = &whole;
            let hasty = scope.spawn(move || {
                assert_eq!(Lock::new(&whole.lock).acquire(2, None), Acquired::Yes);
                let guard = Plain { cell: &whole.lock, holder: 2 };
                condition.wait(2, &guard, &mut Patience::endless(), &mut Patience::endless().hasty())
            });
            whole.until_waiting(1);
            assert_eq!(Lock::new(&whole.lock).acquire(0, None), Acquired::Yes);
            assert_eq!(condition.notify(1), 1);
            assert_eq!(hasty.join().expect("ends"), (Waited::Notified, Acquired::Interrupted));
            assert!(Lock::new(&whole.lock).release());
            // Nobody waited then: it is gone.
            assert_eq!(whole.wait(1, &mut short()), Waited::Ended(End::TimedOut));
        });
    }

    #[test]
    fn no_more_threads_of_a_process_wait_than_its_word_can_tell() {
        let whole = Whole::default();
        assert!((0..MOST).all(|_| whole.condition().enter(3)));
        assert!(!whole.condition().enter(3));
        assert_eq!(whole.condition().notify(u32::MAX), MOST);
        assert!((0..MOST).all(|_| whole.condition().take(3)));
        assert!(!whole.condition().enter(3), "they are on their way");
        whole.condition().gone(3, true);
        assert!(whole.condition().enter(3));
    }

    #[test]
    fn a_death_in_the_lock_is_as_good_as_a_notification_and_other_deaths_are_not() {
        let whole = Whole::default();
        scope(|scope| {
            let waiter = scope.spawn(|| whole.wait(1, &mut Patience::endless()));
            whole.until_waiting(1);
            whole.condition().abandon(7);
            assert!(Lock::new(&whole.lock).try_acquire(7));
            assert_eq!(whole.condition().waiting(), 1, "7 did not have the lock");
            super::super::lock::abandon(&whole.lock, 7);
            whole.condition().abandon(7);
            assert_eq!(waiter.join().expect("ends"), Waited::Notified);
        });
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[derive(Default)]
    struct Whole {
        lock: Cell,
        cell: Cell,
        waiters: Waiters,
        /// What is waited for; under the lock.
        things: AtomicU32,
    }

    impl Whole {
        fn condition(&self) -> Condition<'_> {
            Condition::new(&self.cell, &self.waiters)
        }

        fn locked<T>(&self, me: u16, act: impl FnOnce(&Whole) -> T) -> T {
            assert_eq!(Lock::new(&self.lock).acquire_with(me, &mut Patience::endless()), Acquired::Yes);
            let result = act(self);
            assert!(Lock::new(&self.lock).release());
            result
        }

        fn take(&self, me: u16) {
            self.locked(me, |whole| {
                while whole.things.load(Ordering::Relaxed) == 0 {
                    let guard = Plain { cell: &whole.lock, holder: me };
                    let (waited, back) =
                        whole.condition().wait(me, &guard, &mut Patience::endless(), &mut Patience::endless());
                    assert_eq!((waited, back), (Waited::Notified, Acquired::Yes));
                }
                whole.things.fetch_sub(1, Ordering::Relaxed);
            });
        }

        fn put(&self, me: u16) {
            self.locked(me, |whole| {
                whole.things.fetch_add(1, Ordering::Relaxed);
                whole.condition().notify(1);
            });
        }
    }

    fn model(bound: usize, act: impl Fn(Arc<Whole>) -> Vec<thread::JoinHandle<()>> + Send + Sync + 'static) {
        let mut explored = loom::model::Builder::new();
        explored.preemption_bound = Some(bound);
        explored.check(move || act(Arc::new(Whole::default())).into_iter().for_each(|one| one.join().expect("ends")));
    }

    fn go(whole: &Arc<Whole>, act: impl FnOnce(&Whole) + Send + 'static) -> thread::JoinHandle<()> {
        let whole = whole.clone();
        thread::spawn(move || act(&whole))
    }

    #[test]
    fn loom_each_thing_wakes_one_who_waits_for_it() {
        model(1, |whole| {
            let threads = vec![go(&whole, |whole| whole.take(1)), go(&whole, |whole| whole.take(2))];
            whole.put(0);
            whole.put(0);
            threads
        });
    }

    #[test]
    fn loom_threads_of_one_process_are_notified_as_well() {
        model(1, |whole| {
            let threads = vec![go(&whole, |whole| whole.take(1)), go(&whole, |whole| whole.take(1))];
            whole.put(0);
            whole.put(0);
            threads
        });
    }

    #[test]
    fn loom_who_gives_up_takes_no_notification_with_it() {
        model(2, |whole| {
            let threads = vec![
                go(&whole, |whole| whole.take(1)),
                go(&whole, |whole| {
                    whole.locked(2, |whole| {
                        let guard = Plain { cell: &whole.lock, holder: 2 };
                        let (mut patience, mut back) = (Patience::endless().hasty(), Patience::endless());
                        let (waited, _) = whole.condition().wait(2, &guard, &mut patience, &mut back);
                        if waited == Waited::Notified {
                            // It was meant in earnest: the thing is for the other one all the same.
                            whole.condition().notify(1);
                        }
                    });
                }),
            ];
            whole.put(0);
            threads
        });
    }

    #[test]
    fn loom_the_notification_of_a_dead_one_goes_to_another() {
        model(3, |whole| {
            assert!(whole.condition().enter(1), "1 waits, and dies before it reads anything");
            let threads = vec![go(&whole, |whole| whole.take(2)), go(&whole, |whole| whole.condition().abandon(1))];
            whole.put(0);
            threads
        });
    }
}
