//! A condition: those who wait, without the lock that guards what they wait for, until somebody who has it notifies them.
//!
//! Each waiter has a word of its own in a table, and sleeps on it:
//!
//! ```text
//! bits 0..10  process + 1, or 0: nobody's      bit 10  NOTIFIED      bits 11..32  its turn
//! ```
//!
//! Every step is one compare-and-swap of one such word:
//!
//! | who | does | when |
//! | --- | --- | --- |
//! | a waiter | takes a word of nobody's, with the next turn | while it has the lock |
//! | a notifier | NOTIFIED, then wakes that thread | for each one that it notifies, those first that have waited longest; while it has the lock |
//! | a waiter | gives its word back: it gives up | only if it is not notified: otherwise it counts as notified |
//! | a waiter | gives its word back: it goes on | when it has been notified and has the lock again |
//!
//! So a notification is for somebody who waited before it: whoever comes later, be it a thread of the same process, has
//! another word. And nobody who gives up takes one along.
//!
//! Who was notified and does not go on notifies another in its place, without the lock: some may have come since then. But
//! the one that has waited longest is one of those whom the notification was for, if any of them is left.
//!
//! Turns wrap. They tell the order and nothing else, and as the one that has waited longest is notified first, it takes
//! two million who wait and give up without any notification to upset it.
//!
//! Why no wake-up is lost: a thread sleeps on a word that says that it is not notified, and the kernel compares it.
//!
//! # Deaths
//!
//! A dead process's words are given back, and the notifications that it had not read, or had not acted on as it did not
//! have the lock yet, go to others (`abandon`). A holder of the lock who dies may have been about to notify: the lock's count of such deaths is looked at by everybody who waits (`Guard::deaths`),
//! and another one than before is as good as a notification.

use std::cmp::Reverse;

use super::atomics::Ordering;
use super::bits::CAPACITY;
use super::futex::Futex;
use super::lock::{Acquired, Lock};
use super::patience::{End, Patience};
use super::rlock::{Owner, RLock};
#[cfg(not(loom))]
use super::spin;
use crate::crash;
use crate::memory::lease::Cell;

/// The most that can wait at once: their words fill a page.
#[cfg(not(loom))]
pub const MOST: usize = 1024;
/// The most that can wait at once; loom's models need only a few.
#[cfg(loom)]
pub const MOST: usize = 4;

const PROCESS: u32 = (1 << 10) - 1;
const NOTIFIED: u32 = 1 << 10;
const ONE_TURN: u32 = 1 << 11;
const _: () = assert!(CAPACITY < PROCESS as usize, "every process has a number");

/// What all words of a process have in common.
fn process(holder: u16) -> u32 {
    u32::from(holder) + 1
}

/// How long ago the turn in `word` began, in turns, if `next` is the one to come.
fn age(word: u32, next: u32) -> u32 {
    next.wrapping_sub(word & !(ONE_TURN - 1))
}

/// Who waits. All zero when new.
#[repr(C)]
#[derive(Debug)]
pub struct Waiters([Futex; MOST]);

#[cfg(not(loom))]
#[allow(unsafe_code, reason = "what others write to")]
// SAFETY: `repr(C)`, nothing but atomics.
unsafe impl crate::memory::words::Words for Waiters {}

impl Default for Waiters {
    fn default() -> Self {
        Waiters(std::array::from_fn(|_| Futex::default()))
    }
}

/// A word that somebody has, as it was seen.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    futex: &'a Futex,
    word: u32,
}

impl Place<'_> {
    fn is_notified(&self) -> bool {
        self.word & NOTIFIED != 0
    }

    /// Its waiter looks whether somebody has notified it.
    fn was_notified(&self) -> bool {
        self.futex.word().load(Ordering::SeqCst) != self.word
    }

    fn change(&self, new: u32) -> bool {
        self.futex.word().compare_exchange(self.word, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// It is nobody's from now on. `false`: it is not as it was seen any more.
    fn give_back(&self) -> bool {
        self.change(0)
    }

    /// The same place when it has been notified.
    fn notified(self) -> Self {
        Place { word: self.word | NOTIFIED, ..self }
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
    /// It can't wait: it does not have the lock, or [`MOST`] wait already.
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

    /// How many words have ever been used: all behind them are nobody's.
    fn top(&self) -> usize {
        (self.cell.word.load(Ordering::SeqCst) as usize).min(MOST)
    }

    /// The words that somebody has.
    fn places(&self) -> impl Iterator<Item = Place<'a>> + use<'a> {
        let used = self.waiters.0[..self.top()].iter();
        let places = used.map(|futex| Place { futex, word: futex.word().load(Ordering::SeqCst) });
        places.filter(|place| place.word != 0)
    }

    /// A thread of process `me`, which has the lock, waits from now on. `None`: too many do.
    fn enter(&self, me: u16) -> Option<Place<'a>> {
        let turn = self.cell.more[0].fetch_add(1, Ordering::SeqCst) as u32;
        let word = turn.wrapping_mul(ONE_TURN) | process(me);
        self.waiters.0.iter().enumerate().find_map(|(at, futex)| {
            if futex.word().load(Ordering::Relaxed) != 0 {
                return None;
            }
            if self.top() <= at {
                self.cell.word.fetch_max(at as u32 + 1, Ordering::SeqCst);
            }
            let taken = futex.word().compare_exchange(0, word, Ordering::SeqCst, Ordering::SeqCst);
            taken.ok().map(|_| Place { futex, word })
        })
    }

    /// One that was notified does not go on: another one is notified in its place. That comes first: whoever dies in between
    /// leaves the word for others to pass on again, and one too many is notified, not one too few.
    fn pass_on(&self, place: Place<'_>) {
        self.notify(1);
        crash::point("condition: passed on");
        place.notified().give_back();
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
        let Some(place) = self.enter(me) else { return (Waited::Refused, Acquired::Yes) };
        crash::point("condition: entered");
        let times = guard.let_go();
        crash::point("condition: let go");
        if times == 0 {
            if !place.give_back() {
                self.pass_on(place);
            }
            return (Waited::Refused, Acquired::Yes);
        }
        let (waited, going) = self.sleep(place, || guard.deaths() != deaths, patience);
        crash::point("condition: read");
        let back = guard.take_back(times, back);
        crash::point("condition: back");
        match back {
            _ if !going => {}
            Acquired::Yes => _ = place.notified().give_back(),
            _ => self.pass_on(place),
        }
        (waited, back)
    }

    /// Waits. What for, and whether its place is still its own, as it has been notified.
    fn sleep(&self, place: Place<'_>, bereft: impl Fn() -> bool, patience: &mut Patience<'_>) -> (Waited, bool) {
        #[cfg(not(loom))]
        spin::briefly(|| place.was_notified());
        loop {
            if place.was_notified() {
                return (Waited::Notified, true);
            }
            let rested = patience.rest(|timeout| place.futex.wait(place.word, timeout));
            crash::point("condition: woken");
            match rested {
                Ok(()) if !bereft() => {}
                Ok(()) => return (Waited::Notified, !place.give_back()),
                Err(end) => {
                    return match (place.give_back(), end) {
                        (true, end) => (Waited::Ended(end), false),
                        (false, End::TimedOut) => (Waited::Notified, true),
                        (false, End::Stopped) => {
                            // It turns to something else: the notification is for another one.
                            self.pass_on(place);
                            (Waited::Ended(end), false)
                        }
                    };
                }
            }
        }
    }

    /// Notifies up to `most` of those who wait, those first that have waited longest. How many.
    pub fn notify(&self, most: u32) -> u32 {
        let next = (self.cell.more[0].load(Ordering::SeqCst) as u32).wrapping_mul(ONE_TURN);
        let mut waiting: Vec<Place<'_>> = self.places().filter(|place| !place.is_notified()).collect();
        waiting.sort_unstable_by_key(|place| Reverse(age(place.word, next)));
        // Some may give up meanwhile.
        let notified = waiting.iter().filter(|place| Self::notify_this(place));
        notified.take(most as usize).count() as u32
    }

    fn notify_this(place: &Place<'_>) -> bool {
        let notified = place.change(place.notified().word);
        if notified {
            crash::point("condition: notified");
            place.futex.wake(1);
        }
        notified
    }

    /// How many wait and have not been notified.
    pub fn waiting(&self) -> u32 {
        self.places().filter(|place| !place.is_notified()).count() as u32
    }

    /// A process has died: it waits no more, and what it was notified of and has not acted on others are. All look again: a lock may have been
    /// abandoned, and the dead one may not have come to wake whom it notified.
    pub fn abandon(&self, dead: u16) {
        let theirs = || self.places().filter(|place| place.word & PROCESS == process(dead));
        theirs().filter(|place| !place.is_notified()).for_each(|place| _ = place.give_back());
        // What is left was notified.
        theirs().for_each(|place| self.pass_on(place));
        self.places().for_each(|place| _ = place.futex.wake(1));
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
            assert!(condition.enter(7).is_some(), "7 waits");
            assert_eq!(condition.notify(1), 1);
            let waiter = scope.spawn(|| whole.wait(1, &mut Patience::endless()));
            whole.until_waiting(1);
            condition.abandon(7);
            assert_eq!(waiter.join().expect("ends"), Waited::Notified);
        });
        assert!(whole.waiters.0.iter().all(|futex| futex.word().load(Ordering::SeqCst) == 0), "nobody is there");
    }

    #[cfg(feature = "crash-points")]
    #[test]
    fn one_who_cleans_up_may_die_and_another_begins_again() {
        for point in ["condition: passed on", "condition: notified"] {
            let whole = Whole::default();
            let condition = whole.condition();
            let [dead, also_dead, living] = [7, 7, 1].map(|me| condition.enter(me).expect("room"));
            assert_eq!(condition.notify(1), 1);
            let died = scope(|scope| {
                let cleaner = scope.spawn(|| {
                    crash::on_this_thread(move |name| assert_ne!(name, point, "it dies"));
                    whole.condition().abandon(7);
                });
                cleaner.join().is_err()
            });
            assert!(died, "{point}: it comes by there");
            condition.abandon(7);
            assert!(living.was_notified(), "{point}");
            assert!(![dead, also_dead].iter().any(|place| place.futex.word().load(Ordering::SeqCst) != 0), "{point}");
        }
    }

    #[test]
    fn a_notification_is_for_those_who_waited_before_it() {
        let whole = Whole::default();
        let condition = whole.condition();
        let mut earlier = [(); 2].map(|()| condition.enter(3).expect("room"));
        for turns in [0, u64::from(u32::MAX / ONE_TURN)] {
            assert_eq!(condition.notify(u32::MAX), 2);
            // Of the same process, and before they have looked.
            let later = condition.enter(3).expect("room");
            assert!(earlier.iter().all(Place::was_notified) && !later.was_notified());
            // Also where the turns wrap.
            earlier.iter().for_each(|place| assert!(place.notified().give_back()));
            assert!(later.give_back());
            whole.cell.more[0].store(turns, Ordering::SeqCst);
            earlier = [(); 2].map(|()| condition.enter(3).expect("room"));
        }
        assert_eq!(condition.notify(1), 1);
        assert_eq!(earlier.map(|place| place.was_notified()), [true, false], "the first has waited longest");
    }

    #[test]
    fn what_is_passed_on_is_for_the_one_that_has_waited_longest() {
        let whole = Whole::default();
        let condition = whole.condition();
        let [dead, hasty, longest] = [7, 1, 2].map(|me| condition.enter(me).expect("room"));
        assert_eq!(condition.notify(1), 1);
        assert!(dead.was_notified());
        assert!(hasty.give_back());
        // This one has the place that was given back.
        let latest = condition.enter(1).expect("room");
        condition.abandon(7);
        assert!(longest.was_notified() && !latest.was_notified());
        condition.pass_on(longest);
        assert!(latest.was_notified());
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
    fn no_more_wait_than_there_are_words() {
        let whole = Whole::default();
        let places: Vec<Place<'_>> = (0..MOST).map_while(|_| whole.condition().enter(3)).collect();
        assert_eq!(places.len(), MOST);
        assert!(whole.condition().enter(3).is_none());
        assert_eq!(whole.condition().notify(u32::MAX), MOST as u32);
        assert!(whole.condition().enter(3).is_none(), "they are on their way");
        assert!(places[5].notified().give_back());
        assert!(whole.condition().enter(3).is_some());
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
    use loom::sync::atomic::AtomicU32;
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

        /// Waits, with the lock, until there are so many things.
        fn wait_for(&self, me: u16, things: u32) {
            while self.things.load(Ordering::Relaxed) < things {
                let guard = Plain { cell: &self.lock, holder: me };
                let (waited, back) =
                    self.condition().wait(me, &guard, &mut Patience::endless(), &mut Patience::endless());
                assert_eq!((waited, back), (Waited::Notified, Acquired::Yes));
            }
        }

        fn take(&self, me: u16) {
            self.locked(me, |whole| {
                whole.wait_for(me, 1);
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
    fn loom_who_comes_later_takes_no_notification_of_an_earlier_one() {
        model(2, |whole| {
            // Each changes what the other waits for. The second may come while the notification of the first is unread.
            let first = go(&whole, |whole| {
                whole.locked(1, |whole| {
                    whole.wait_for(1, 1);
                    whole.things.store(2, Ordering::Relaxed);
                    whole.condition().notify(u32::MAX);
                });
            });
            whole.locked(1, |whole| {
                whole.things.store(1, Ordering::Relaxed);
                whole.condition().notify(u32::MAX);
            });
            whole.locked(1, |whole| whole.wait_for(1, 2));
            vec![first]
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
            assert!(whole.condition().enter(1).is_some(), "1 waits, and dies before it reads anything");
            let threads = vec![go(&whole, |whole| whole.take(2)), go(&whole, |whole| whole.condition().abandon(1))];
            whole.put(0);
            threads
        });
    }
}
