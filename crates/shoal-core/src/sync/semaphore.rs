//! A semaphore that knows who has its permits, so that those of the dead come back.
//!
//! The permits that are left are a number in one word; how many each process has is in a table, a word for each. An
//! acquisition changes both, and a death may come at any instruction. So the first word also says what the last change was:
//! whose, and which way. That is the change; entering it in the table is a formality that anybody can see to, and everybody
//! does before making the next change (`settle`). A table's word counts its changes, so that each is entered once.
//!
//! ```text
//! value     bits 0..31 permits left    31 SIGNAL    32..42 who    42..44 what    44..64 the low bits of that one's count
//! held[p]   bits 0..32 permits p has   32..64 how many changes of p's are entered
//! ```
//!
//! # What a death means
//!
//! Most semaphores limit: each process gives back what it acquired. The permits of a dead one are given back in its place
//! (`abandon`). Some signal: one process releases for others to acquire. There a permit that was acquired is a message that
//! was read, and must not come again. The first release by a process that has no permits marks the semaphore (SIGNAL),
//! and from then on nothing is given back.
//!
//! # Why each change is entered exactly once
//!
//! No change follows one that is not entered, and p alone is named by p's changes. So for the change that `value` names the
//! count in p's word is one less (not entered) or equal (entered). `settle` reads `value`, p's word, and `value` again: if it
//! is the same, the word it read belongs to it. Entering is a compare-and-swap of the whole word, which has a count of 32
//! bits: it fails if anybody entered that change or a later one meanwhile.
//!
//! Waiting for permits: see [`sleepers`].

use super::atomics::{AtomicU64, Ordering};
use super::bits::CAPACITY;
use super::patience::{End, Patience};
use super::sleepers;
#[cfg(not(loom))]
use super::spin;
use crate::crash;
use crate::memory::lease::Cell;

/// The most permits there can be.
pub const MOST: u32 = i32::MAX as u32;

const PERMITS: u64 = MOST as u64;
const SIGNAL: u64 = 1 << 31;
const WHO: u32 = 32;
const WHAT: u32 = 42;
const COUNT: u32 = 44;
const COUNTS: u32 = (1 << (64 - COUNT)) - 1;

/// How a change changes the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum What {
    /// Not at all: one released what it did not have.
    Nothing = 0,
    /// One has one more.
    Acquired = 1,
    /// One has one less.
    Released = 2,
    /// One has none any more.
    Died = 3,
}

impl What {
    /// The point at which it has been made.
    fn changed(self) -> &'static str {
        match self {
            What::Nothing => "semaphore: signalled",
            What::Acquired => "semaphore: acquired",
            What::Released => "semaphore: released",
            What::Died => "semaphore: buried",
        }
    }

    /// The point at which it is in the table.
    fn entered(self) -> &'static str {
        match self {
            What::Nothing => "semaphore: signal entered",
            What::Acquired => "semaphore: acquisition entered",
            What::Released => "semaphore: release entered",
            What::Died => "semaphore: death entered",
        }
    }
}

/// The permits that each process has. All zero when new.
#[repr(C)]
#[derive(Debug)]
pub struct Held([AtomicU64; CAPACITY]);

#[cfg(not(loom))]
#[allow(unsafe_code, reason = "what others write to")]
// SAFETY: `repr(C)`, nothing but atomics.
unsafe impl crate::memory::words::Words for Held {}

impl Default for Held {
    fn default() -> Self {
        Held(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// Releasing would make more permits than there were, or than there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// The semaphore of a cell and a table.
#[derive(Clone, Copy, Debug)]
pub struct Semaphore<'a> {
    cell: &'a Cell,
    held: &'a Held,
}

fn permits(value: u64) -> u32 {
    (value & PERMITS) as u32
}

impl<'a> Semaphore<'a> {
    /// The semaphore that lies there.
    pub fn new(cell: &'a Cell, held: &'a Held) -> Self {
        Semaphore { cell, held }
    }

    /// Its maker, before anybody else knows it: how many permits there are, and at most.
    ///
    /// # Panics
    /// If there are more than `most`, or [`MOST`].
    pub fn make(&self, permits: u32, most: u32) {
        assert!(permits <= most && most <= MOST, "{permits} of {most} permits");
        self.cell.number.store(u64::from(permits), Ordering::Relaxed);
        self.cell.word.store(most, Ordering::Relaxed);
    }

    /// The most permits there can be.
    pub fn most(&self) -> u32 {
        self.cell.word.load(Ordering::Relaxed)
    }

    fn value(&self) -> &'a AtomicU64 {
        &self.cell.number
    }

    fn sleepers(&self) -> sleepers::On<'a> {
        sleepers::On(&self.cell.futex)
    }

    /// Permits left.
    pub fn permits(&self) -> u32 {
        permits(self.value().load(Ordering::SeqCst))
    }

    /// Permits that a process has.
    pub fn held_by(&self, holder: u16) -> u32 {
        self.settled();
        self.held.0[usize::from(holder)].load(Ordering::SeqCst) as u32
    }

    /// Permits that were given back in the place of the dead, in all.
    pub fn recovered(&self) -> u64 {
        self.cell.more[0].load(Ordering::Relaxed)
    }

    /// Sees to it that the last change is entered. The value that has been settled: as long as it is the value, nobody's
    /// word in the table changes.
    fn settled(&self) -> u64 {
        loop {
            let value = self.value().load(Ordering::SeqCst);
            if self.settle(value) {
                return value;
            }
        }
    }

    /// Enters the change that `value` names. `false`: that is not the value any more.
    #[inline]
    fn settle(&self, value: u64) -> bool {
        let held = &self.held.0[(value >> WHO) as usize & (CAPACITY - 1)];
        let before = held.load(Ordering::SeqCst);
        let count = (before >> 32) as u32;
        if count & COUNTS == (value >> COUNT) as u32 {
            return true;
        }
        if self.value().load(Ordering::SeqCst) != value {
            return false;
        }
        let permits = before as u32;
        let permits = match (value >> WHAT) & 3 {
            what if what == What::Acquired as u64 => permits.wrapping_add(1),
            what if what == What::Released as u64 => permits.saturating_sub(1),
            what if what == What::Died as u64 => 0,
            _ => permits,
        };
        let after = u64::from(count.wrapping_add(1)) << 32 | u64::from(permits);
        // If it fails, somebody else has entered it.
        let _entered = held.compare_exchange(before, after, Ordering::SeqCst, Ordering::SeqCst);
        true
    }

    /// Makes one change, and enters it. `plan` is told the value and what `who` has, and says how many permits are left
    /// then and what that is; an error is handed back.
    #[inline]
    fn change<E>(&self, who: u16, mut plan: impl FnMut(u64, u32) -> Result<(u64, What), E>) -> Result<(), E> {
        loop {
            let value = self.settled();
            let held = self.held.0[usize::from(who)].load(Ordering::SeqCst);
            let (left, what) = plan(value, held as u32)?;
            let count = ((held >> 32) as u32).wrapping_add(1) & COUNTS;
            let next = left | u64::from(who) << WHO | (what as u64) << WHAT | u64::from(count) << COUNT;
            if self.value().compare_exchange(value, next, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                crash::point(what.changed());
                self.settle(next);
                crash::point(what.entered());
                return Ok(());
            }
        }
    }

    /// Takes a permit for process `who` if one is left.
    #[inline]
    pub fn try_acquire(&self, who: u16) -> bool {
        let acquired = self.change(who, |value, _| match permits(value) {
            0 => Err(()),
            left => Ok((value & SIGNAL | u64::from(left - 1), What::Acquired)),
        });
        acquired.is_ok()
    }

    /// Takes a permit, waiting for one with patience.
    pub fn acquire(&self, who: u16, patience: &mut Patience<'_>) -> Result<(), End> {
        if self.try_acquire(who) {
            return Ok(());
        }
        #[cfg(not(loom))]
        spin::briefly(|| self.permits() > 0);
        let mut slept = false;
        let result = loop {
            if self.try_acquire(who) {
                break Ok(());
            }
            slept = true;
            let rested = patience.rest(|timeout| self.sleepers().sleep(|| self.permits() > 0, timeout));
            crash::point("semaphore: woken");
            match rested {
                Ok(()) => {}
                // The time may be up for one who was woken just now.
                Err(End::TimedOut) if self.try_acquire(who) => break Ok(()),
                // Who was told to stop takes nothing any more: why it was is all that its caller hears of.
                Err(end) => break Err(end),
            }
        };
        if slept && self.permits() > 0 {
            self.sleepers().wake_one_in_order();
        }
        result
    }

    /// Gives a permit back, or a new one.
    #[inline]
    pub fn release(&self, who: u16) -> Result<(), TooMany> {
        let most = self.most();
        self.change(who, |value, held| match (permits(value), held) {
            (left, _) if left >= most => Err(TooMany),
            (left, 0) => Ok((SIGNAL | u64::from(left + 1), What::Nothing)),
            (left, _) => Ok((value & SIGNAL | u64::from(left + 1), What::Released)),
        })?;
        self.sleepers().wake_one_in_order();
        Ok(())
    }

    /// Whether it signals: some process has released what it had not acquired.
    pub fn is_signal(&self) -> bool {
        self.value().load(Ordering::SeqCst) & SIGNAL != 0
    }

    /// A process has died: its permits are given back, unless the semaphore signals. Wakes all who sleep: the dead one may
    /// have been woken to take a permit.
    pub fn abandon(&self, dead: u16) {
        let most = self.most();
        let mut counted = 0;
        // Before they are there: who takes one of them finds it counted. (If it ends in between, who follows counts again.)
        // A try that fails may be followed by another number.
        let mut count = |back: u64| {
            self.cell.more[0].fetch_add(back.wrapping_sub(counted), Ordering::Relaxed);
            counted = back;
        };
        let _had_none = self.change(dead, |value, held| {
            let back = if value & SIGNAL == 0 { held } else { 0 };
            count(u64::from(back));
            // More than there may be, only if somebody has written over it.
            let left = permits(value).saturating_add(back).min(most);
            if held == 0 { Err(()) } else { Ok((value & SIGNAL | u64::from(left), What::Died)) }
        });
        self.sleepers().wake_all();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Whole(Cell, Held);

    impl Whole {
        fn new(permits: u32, most: u32) -> Whole {
            let whole = Whole::default();
            whole.get().make(permits, most);
            whole
        }

        fn get(&self) -> Semaphore<'_> {
            Semaphore::new(&self.0, &self.1)
        }
    }

    #[test]
    fn permits_are_taken_until_none_is_left() {
        let whole = Whole::new(2, MOST);
        let semaphore = whole.get();
        assert!(semaphore.try_acquire(1) && semaphore.try_acquire(2) && !semaphore.try_acquire(1));
        assert_eq!(semaphore.acquire(3, &mut Patience::within(Some(std::time::Duration::ZERO))), Err(End::TimedOut));
        assert_eq!(semaphore.release(1), Ok(()));
        assert!(semaphore.try_acquire(2));
        assert_eq!((semaphore.held_by(1), semaphore.held_by(2), semaphore.permits()), (0, 2, 0));
    }

    #[test]
    fn who_is_told_to_stop_takes_no_permit_even_if_one_is_left_by_then() {
        let whole = Whole::new(0, MOST);
        let semaphore = whole.get();
        let mut stop = || semaphore.release(0).is_ok();
        assert_eq!(semaphore.acquire(1, &mut Patience::endless().unless(&mut stop)), Err(End::Stopped));
        assert_eq!((semaphore.permits(), semaphore.held_by(1)), (1, 0));
    }

    #[test]
    fn a_bounded_one_has_never_more_than_at_first() {
        let whole = Whole::new(1, 1);
        let semaphore = whole.get();
        assert_eq!(semaphore.release(0), Err(TooMany));
        assert!(semaphore.try_acquire(0));
        assert_eq!(semaphore.release(0), Ok(()));
        assert_eq!(semaphore.release(0), Err(TooMany));
        assert!(!semaphore.is_signal(), "what was refused is no signal");
    }

    #[test]
    fn there_are_as_many_as_a_number_of_31_bits_can_tell() {
        let whole = Whole::new(MOST - 1, MOST);
        assert_eq!(whole.get().release(0), Ok(()));
        assert_eq!(whole.get().release(0), Err(TooMany));
        assert_eq!(whole.get().permits(), MOST);
    }

    #[test]
    fn permits_of_the_dead_come_back() {
        let whole = Whole::new(3, MOST);
        let semaphore = whole.get();
        assert!((0..3).all(|_| semaphore.try_acquire(7)));
        semaphore.release(7).expect("it has one");
        semaphore.abandon(7);
        assert_eq!((semaphore.permits(), semaphore.recovered(), semaphore.held_by(7)), (3, 2, 0));
        semaphore.abandon(7);
        assert_eq!((semaphore.permits(), semaphore.recovered()), (3, 2));
        assert!(semaphore.try_acquire(7), "another process has that number");
        assert_eq!(semaphore.held_by(7), 1);
    }

    #[test]
    fn where_permits_are_messages_those_that_were_read_do_not_come_again() {
        let whole = Whole::new(0, MOST);
        let semaphore = whole.get();
        (0..3).for_each(|_| semaphore.release(1).expect("there is room"));
        assert!(semaphore.try_acquire(7) && semaphore.try_acquire(7));
        semaphore.abandon(7);
        assert_eq!((semaphore.permits(), semaphore.recovered(), semaphore.held_by(7)), (1, 0, 0));
    }

    /// Leaves the last change as somebody does who dies before it is entered.
    fn undo_entry(whole: &Whole, who: u16, before: u64) {
        whole.1.0[usize::from(who)].store(before, Ordering::SeqCst);
    }

    #[test]
    fn who_dies_before_its_change_is_entered_has_made_it_all_the_same() {
        let whole = Whole::new(2, MOST);
        let semaphore = whole.get();
        assert!(semaphore.try_acquire(7));
        undo_entry(&whole, 7, 0);
        assert!(semaphore.try_acquire(3));
        assert_eq!(semaphore.held_by(7), 1);
        let before = whole.1.0[7].load(Ordering::SeqCst);
        semaphore.release(7).expect("it has one");
        undo_entry(&whole, 7, before);
        semaphore.abandon(7);
        assert_eq!((semaphore.permits(), semaphore.held_by(7), semaphore.recovered()), (1, 0, 0));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Acquire(u16),
        Release(u16),
        Die(u16),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = (0..3, 0..4u16).prop_map(|(kind, who)| match kind {
            0 => Step::Acquire(who),
            1 => Step::Release(who),
            _ => Step::Die(who),
        });
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn it_does_what_one_does_that_changes_all_at_once(first in 0..4u32, bounded: bool, steps in steps()) {
            let most = if bounded { first } else { MOST };
            let whole = Whole::new(first, most);
            let semaphore = whole.get();
            let (mut left, mut held, mut signal) = (first, [0u32; 4], false);
            for step in steps {
                match step {
                    Step::Acquire(who) => {
                        prop_assert_eq!(semaphore.try_acquire(who), left > 0);
                        if left > 0 {
                            left -= 1;
                            held[usize::from(who)] += 1;
                        }
                    }
                    Step::Release(who) => {
                        prop_assert_eq!(semaphore.release(who).is_ok(), left < most);
                        if left < most {
                            left += 1;
                            signal |= held[usize::from(who)] == 0;
                            held[usize::from(who)] = held[usize::from(who)].saturating_sub(1);
                        }
                    }
                    Step::Die(who) => {
                        semaphore.abandon(who);
                        left += if signal { 0 } else { held[usize::from(who)] };
                        held[usize::from(who)] = 0;
                    }
                }
                prop_assert_eq!(semaphore.permits(), left);
                prop_assert_eq!(std::array::from_fn(|who| semaphore.held_by(who as u16)), held);
                prop_assert_eq!(semaphore.is_signal(), signal);
            }
        }
    }

    #[test]
    fn threads_and_deaths_together_lose_and_make_no_permit() {
        let whole = Whole::new(3, 3);
        std::thread::scope(|scope| {
            for who in 0..4u16 {
                let semaphore = whole.get();
                scope.spawn(move || {
                    for round in 0..5000 {
                        semaphore.acquire(who, &mut Patience::endless()).expect("for ever");
                        if round % 7 == 0 {
                            semaphore.abandon(who);
                        } else {
                            semaphore.release(who).expect("it has one");
                        }
                    }
                });
            }
        });
        assert_eq!(whole.get().permits(), 3);
        assert!((0..4).all(|who| whole.get().held_by(who) == 0));
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    type Whole = Arc<(Cell, Held)>;

    fn whole(permits: u32) -> Whole {
        let whole = Arc::new((Cell::default(), Held::default()));
        Semaphore::new(&whole.0, &whole.1).make(permits, permits.max(2));
        whole
    }

    fn go(whole: &Whole, act: impl FnOnce(Semaphore<'_>) + Send + 'static) -> thread::JoinHandle<()> {
        let whole = whole.clone();
        thread::spawn(move || act(Semaphore::new(&whole.0, &whole.1)))
    }

    fn model(bound: usize, act: impl Fn() + Send + Sync + 'static) {
        let mut explored = loom::model::Builder::new();
        explored.preemption_bound = Some(bound);
        explored.check(act);
    }

    #[test]
    fn loom_changes_are_entered_once_whoever_enters_them() {
        model(3, || {
            let whole = whole(2);
            let threads = [1, 2].map(|who| {
                go(&whole, move |semaphore| {
                    assert!(semaphore.try_acquire(who));
                    semaphore.release(who).expect("it has one");
                })
            });
            threads.into_iter().for_each(|thread| thread.join().expect("ends"));
            let semaphore = Semaphore::new(&whole.0, &whole.1);
            assert_eq!((semaphore.permits(), semaphore.held_by(1), semaphore.held_by(2)), (2, 0, 0));
            assert!(!semaphore.is_signal());
        });
    }

    #[test]
    fn loom_a_death_gives_back_what_the_dead_one_had() {
        model(3, || {
            let whole = whole(2);
            let semaphore = Semaphore::new(&whole.0, &whole.1);
            assert!(semaphore.try_acquire(1));
            // It had got so far as to make the change, and died.
            whole.1.0[1].store(0, Ordering::SeqCst);
            let threads = [
                go(&whole, |semaphore| semaphore.abandon(1)),
                go(&whole, |semaphore| {
                    assert!(semaphore.try_acquire(2));
                    semaphore.release(2).expect("it has one");
                }),
            ];
            threads.into_iter().for_each(|thread| thread.join().expect("ends"));
            assert_eq!((semaphore.permits(), semaphore.held_by(1), semaphore.held_by(2)), (2, 0, 0));
        });
    }

    #[test]
    fn loom_who_takes_a_permit_of_the_dead_finds_it_counted() {
        model(3, || {
            let whole = whole(1);
            let semaphore = Semaphore::new(&whole.0, &whole.1);
            assert!(semaphore.try_acquire(1));
            let threads = [
                go(&whole, |semaphore| semaphore.abandon(1)),
                go(&whole, |semaphore| {
                    if semaphore.try_acquire(2) {
                        assert_eq!(semaphore.recovered(), 1);
                    }
                }),
            ];
            threads.into_iter().for_each(|thread| thread.join().expect("ends"));
            assert_eq!(semaphore.recovered(), 1);
        });
    }

    #[test]
    fn loom_nobody_sleeps_while_a_permit_is_left() {
        model(2, || {
            let whole = whole(0);
            let takers = [1, 2].map(|who| {
                go(&whole, move |semaphore| assert_eq!(semaphore.acquire(who, &mut Patience::endless()), Ok(())))
            });
            let semaphore = Semaphore::new(&whole.0, &whole.1);
            (0..2).for_each(|_| semaphore.release(0).expect("there is room"));
            takers.into_iter().for_each(|taker| taker.join().expect("ends"));
        });
    }

    #[test]
    fn loom_whose_time_is_up_takes_no_wake_up_with_it() {
        takes_no_wake_up_with_it(Patience::brief);
    }

    #[test]
    fn loom_who_is_told_to_stop_takes_no_wake_up_with_it() {
        takes_no_wake_up_with_it(|| Patience::endless().hasty());
    }

    fn takes_no_wake_up_with_it(patience: fn() -> Patience<'static>) {
        model(2, move || {
            let whole = whole(0);
            let patient = go(&whole, |semaphore| assert_eq!(semaphore.acquire(1, &mut Patience::endless()), Ok(())));
            let hasty = go(&whole, move |semaphore| {
                if semaphore.acquire(2, &mut patience()).is_ok() {
                    semaphore.release(2).expect("it has one");
                }
            });
            Semaphore::new(&whole.0, &whole.1).release(0).expect("there is room");
            patient.join().expect("ends");
            hasty.join().expect("ends");
        });
    }
}
