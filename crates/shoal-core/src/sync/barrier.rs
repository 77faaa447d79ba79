//! A barrier: so many parties wait for each other, again and again.
//!
//! ```text
//! state     bits 0..16 arrived    16..40 generation    40 BROKEN    41 DIED    42..64 the last generations' ends, newest first
//! inside[p] bits 0..16 threads of p that wait           16..32 the low bits of the generation that they wait in
//! ```
//!
//! To arrive is one compare-and-swap of the state. Who arrives last runs the action, if there is one, while the state says that
//! all are there, and then begins the next generation. The others wait for that; how their own ended (complete, or reset
//! while they waited) they read in the state, also if later ones have ended in between. A generation that is broken stays until
//! somebody resets the barrier.
//!
//! Unlike `threading.Barrier` nobody has to wait until those of the last generation have left: a generation more is all it
//! takes to tell them apart.
//!
//! Why no wake-up is lost: whoever changes the state so that waiting ends, adds one to the word that all sleep on, and wakes
//! them. A waiter reads that word before it looks at the state, and the kernel compares it.
//!
//! # Deaths
//!
//! Before a party arrives it notes in its process's word that it is inside; when it has left it takes that back. If a process
//! dies with somebody inside the present generation, the others would wait for ever: it breaks, and says why (DIED). Who dies
//! after its generation ended breaks nothing, nor who dies elsewhere: nobody knows whether it would have come.

use super::atomics::{AtomicU32, AtomicU64, Ordering};
use super::bits::CAPACITY;
use super::patience::{End, Patience};
#[cfg(not(loom))]
use super::spin;
use crate::crash;
use crate::memory::lease::Cell;

const ARRIVED: u64 = 0xffff;
const GENERATION: u32 = 16;
const GENERATIONS: u64 = (1 << 24) - 1;
const BROKEN: u64 = 1 << 40;
const DIED: u64 = 1 << 41;
const ENDS: u32 = 42;
/// How many ends the state remembers.
const REMEMBERED: u32 = 64 - ENDS;

/// The most parties there can be.
pub const MOST: u32 = ARRIVED as u32;

/// Which processes have threads inside. All zero when new.
#[repr(C)]
#[derive(Debug)]
pub struct Inside([AtomicU32; CAPACITY]);

#[cfg(not(loom))]
#[allow(unsafe_code, reason = "what others write to")]
// SAFETY: `repr(C)`, nothing but atomics.
unsafe impl crate::memory::words::Words for Inside {}

impl Default for Inside {
    fn default() -> Self {
        Inside(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

/// Why nobody gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Somebody broke it or reset it, or lost patience.
    Broken,
    /// Somebody died while it waited.
    Died,
    /// The waiter was told to stop. The others go on waiting.
    Stopped,
}

/// A party that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    holder: u16,
    generation: u64,
    index: u32,
}

impl Party {
    /// How many were there before.
    pub fn index(&self) -> u32 {
        self.index
    }
}

/// The barrier of a cell and a table.
#[derive(Clone, Copy, Debug)]
pub struct Barrier<'a> {
    cell: &'a Cell,
    inside: &'a Inside,
}

fn generation(state: u64) -> u64 {
    (state >> GENERATION) & GENERATIONS
}

fn arrived(state: u64) -> u32 {
    (state & ARRIVED) as u32
}

/// The state in which a new generation begins, the last one having been reset or not.
fn next(state: u64, reset: bool) -> u64 {
    let ends = (state >> ENDS) << 1 | u64::from(reset);
    ends << ENDS | ((generation(state) + 1) & GENERATIONS) << GENERATION
}

impl<'a> Barrier<'a> {
    /// The barrier that lies there.
    pub fn new(cell: &'a Cell, inside: &'a Inside) -> Self {
        Barrier { cell, inside }
    }

    /// Its maker, before anybody else knows it: for how many.
    ///
    /// # Panics
    /// If that is 0 or more than [`MOST`].
    pub fn make(&self, parties: u32) {
        assert!((1..=MOST).contains(&parties), "{parties} parties");
        self.cell.word.store(parties, Ordering::Relaxed);
    }

    fn state(&self) -> &'a AtomicU64 {
        &self.cell.number
    }

    /// For how many it is.
    pub fn parties(&self) -> u32 {
        self.cell.word.load(Ordering::Relaxed)
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        let state = self.state().load(Ordering::SeqCst);
        if state & BROKEN == 0 { arrived(state) } else { 0 }
    }

    /// Whether it is broken.
    pub fn is_broken(&self) -> bool {
        self.state().load(Ordering::SeqCst) & BROKEN != 0
    }

    /// Changes the state, and wakes all. `plan` says how; `None`: not at all.
    fn change(&self, plan: impl Fn(u64) -> Option<u64>) -> bool {
        let changed = self.state().fetch_update(Ordering::SeqCst, Ordering::SeqCst, plan).is_ok();
        if changed {
            crash::point("barrier: changed");
            self.cell.futex.bump(u32::MAX);
        }
        changed
    }

    /// Arrives. `Ok((party, last))`: who is the last to arrive calls [`open`](Self::open) next, all others
    /// [`wait`](Self::wait). While an action runs the barrier is closed, and whoever comes waits outside.
    pub fn arrive(&self, holder: u16, patience: &mut Patience<'_>) -> Result<(Party, bool), Broken> {
        loop {
            let seen = self.cell.futex.word().load(Ordering::SeqCst);
            let state = self.state().load(Ordering::SeqCst);
            if state & BROKEN != 0 {
                return Err(if state & DIED != 0 { Broken::Died } else { Broken::Broken });
            }
            let (index, parties) = (arrived(state), self.parties());
            if parties == 0 || index > parties {
                // Somebody has written over it: nobody would ever come to let these go on.
                return Err(Broken::Broken);
            }
            if index == parties {
                let rested = patience.without_deadline().rest(|timeout| self.cell.futex.wait(seen, timeout));
                if rested.is_err() {
                    return Err(Broken::Stopped);
                }
                continue;
            }
            let party = Party { holder, generation: generation(state), index };
            if !self.enter(party) {
                continue;
            }
            crash::point("barrier: inside");
            if self.state().compare_exchange(state, state + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                crash::point("barrier: arrived");
                return Ok((party, index + 1 == parties));
            }
            self.leave(party);
        }
    }

    /// Notes that a thread is inside: of those that have not left an earlier generation yet nothing is to be known any more.
    /// `false`: the generation has ended, and the word may be about those in a later one.
    fn enter(&self, party: Party) -> bool {
        let tag = (party.generation as u32 & 0xffff) << 16;
        let enter = |now: u32| {
            if now & !0xffff == tag {
                return Some(now.wrapping_add(1));
            }
            // Whoever noted a later generation had seen it in the state. So if that is not there now, this one is earlier.
            (generation(self.state().load(Ordering::SeqCst)) == party.generation).then_some(tag | 1)
        };
        self.word(party.holder).fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).is_ok()
    }

    fn leave(&self, party: Party) {
        let tag = (party.generation as u32 & 0xffff) << 16;
        let leave = |now: u32| (now & !0xffff == tag && now & 0xffff > 0).then(|| now - 1);
        // `Err`: another thread of the process is in a later generation already.
        let _left = self.word(party.holder).fetch_update(Ordering::SeqCst, Ordering::SeqCst, leave);
    }

    fn word(&self, holder: u16) -> &'a AtomicU32 {
        &self.inside.0[usize::from(holder)]
    }

    /// How the party's generation ended; `None`: not yet.
    fn end(&self, party: Party) -> Option<Result<(), Broken>> {
        let state = self.state().load(Ordering::SeqCst);
        let age = (generation(state).wrapping_sub(party.generation) & GENERATIONS) as u32;
        match age {
            0 if state & DIED != 0 => Some(Err(Broken::Died)),
            0 if state & BROKEN != 0 => Some(Err(Broken::Broken)),
            0 => None,
            // Who slept through so many generations was not waiting for a reset, most likely.
            _ if age > REMEMBERED => Some(Ok(())),
            _ if state >> (ENDS + age - 1) & 1 == 0 => Some(Ok(())),
            _ => Some(Err(Broken::Broken)),
        }
    }

    /// The last to arrive has done what was to be done, well or not: the others go on, or the barrier breaks.
    pub fn open(&self, party: Party, well: bool) -> Result<(), Broken> {
        let mine = |state: u64| generation(state) == party.generation && state & BROKEN == 0;
        self.change(|state| mine(state).then(|| if well { next(state, false) } else { state | BROKEN }));
        self.leave(party);
        self.end(party).unwrap_or(Ok(()))
    }

    /// Waits until all are there. Who loses patience breaks the barrier.
    pub fn wait(&self, party: Party, patience: &mut Patience<'_>) -> Result<(), Broken> {
        #[cfg(not(loom))]
        spin::briefly(|| self.end(party).is_some());
        let ended = loop {
            let seen = self.cell.futex.word().load(Ordering::SeqCst);
            if let Some(ended) = self.end(party) {
                break ended;
            }
            match patience.rest(|timeout| self.cell.futex.wait(seen, timeout)) {
                Ok(()) => {}
                Err(End::TimedOut) => {
                    self.break_generation(party.generation, BROKEN);
                }
                Err(End::Stopped) => {
                    self.withdraw(party);
                    // However it ended by now: why it was told to stop is all that its caller hears of.
                    break Err(Broken::Stopped);
                }
            }
        };
        crash::point("barrier: ended");
        self.leave(party);
        crash::point("barrier: left");
        ended
    }

    /// Goes away again, if the others have not all come.
    fn withdraw(&self, party: Party) {
        let parties = self.parties();
        let open =
            |state: u64| generation(state) == party.generation && state & BROKEN == 0 && arrived(state) < parties;
        // `Err`: there is nothing to withdraw from any more.
        let _left = self
            .state()
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| open(state).then(|| state.wrapping_sub(1)));
    }

    /// A party has died that was here: its generation breaks, and says so, if it has not ended.
    pub fn mourn(&self, party: Party) {
        self.break_generation(party.generation, BROKEN | DIED);
    }

    fn break_generation(&self, broken: u64, how: u64) -> bool {
        self.change(|state| (generation(state) == broken && state & BROKEN == 0).then_some(state | how))
    }

    /// Breaks it: all who wait, and all who come, are told, until it is reset.
    pub fn abort(&self) {
        self.change(|state| (state & BROKEN == 0).then_some(state | BROKEN));
    }

    /// Begins anew. Those who wait are told that it is broken.
    pub fn reset(&self) {
        self.change(|state| (state & (BROKEN | ARRIVED) != 0).then(|| next(state, true)));
    }

    /// A process has died: if it was inside, the barrier breaks. Wakes all in any case: the dead one may have changed
    /// the state, and not have come to wake them.
    pub fn abandon(&self, dead: u16) {
        let word = self.word(dead).load(Ordering::SeqCst);
        if word & 0xffff > 0 {
            let tag = u64::from(word >> 16);
            let inside = |state: u64| generation(state) & 0xffff == tag && state & BROKEN == 0;
            self.change(|state| inside(state).then_some(state | BROKEN | DIED));
            self.word(dead).store(0, Ordering::SeqCst);
        }
        self.cell.futex.bump(u32::MAX);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread::scope;
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Whole(Cell, Inside);

    impl Whole {
        fn new(parties: u32) -> Whole {
            let whole = Whole::default();
            whole.get().make(parties);
            whole
        }

        fn get(&self) -> Barrier<'_> {
            Barrier::new(&self.0, &self.1)
        }

        fn pass(&self, holder: u16, patience: &mut Patience<'_>) -> Result<u32, Broken> {
            let (party, last) = self.get().arrive(holder, patience)?;
            if last {
                self.get().open(party, true)?
            } else {
                self.get().wait(party, patience)?
            };
            Ok(party.index())
        }

        fn until_waiting(&self, count: u32) {
            while self.get().waiting() != count {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn nobody_goes_on_before_all_are_there_round_after_round() {
        let (whole, count) = (Whole::new(3), AtomicU32::new(0));
        scope(|scope| {
            for holder in 0..3 {
                let (whole, count) = (&whole, &count);
                scope.spawn(move || {
                    for round in 1..=500 {
                        count.fetch_add(1, Ordering::SeqCst);
                        whole.pass(holder, &mut Patience::endless()).expect("sound");
                        assert!(count.load(Ordering::SeqCst) >= 3 * round);
                    }
                });
            }
        });
        assert_eq!((whole.get().waiting(), whole.get().is_broken()), (0, false));
        assert!(whole.1.0.iter().all(|word| word.load(Ordering::SeqCst) & 0xffff == 0), "nobody is inside");
    }

    #[test]
    fn each_has_an_index_of_its_own() {
        let whole = Whole::new(4);
        let mut indices: Vec<u32> = scope(|scope| {
            let parties = [1; 4].map(|me| {
                scope.spawn({
                    let whole = &whole;
                    move || whole.pass(me, &mut Patience::endless())
                })
            });
            parties.into_iter().map(|party| party.join().expect("ends").expect("sound")).collect()
        });
        indices.sort_unstable();
        assert_eq!(indices, [0, 1, 2, 3]);
    }

    #[test]
    fn who_loses_patience_breaks_it_until_it_is_reset() {
        let whole = Whole::new(2);
        assert_eq!(whole.pass(1, &mut Patience::within(Some(Duration::from_millis(5)))), Err(Broken::Broken));
        assert!(whole.get().is_broken());
        assert_eq!(whole.pass(1, &mut Patience::endless()), Err(Broken::Broken));
        whole.get().reset();
        assert!(!whole.get().is_broken());
        scope(|scope| {
            let other = scope.spawn(|| whole.pass(2, &mut Patience::endless()));
            assert!(whole.pass(1, &mut Patience::endless()).is_ok());
            assert!(other.join().expect("ends").is_ok());
        });
    }

    /// Breaks what somebody waits at, in some way. How it ended for who waited.
    fn waiting(whole: &Whole, act: impl FnOnce(Barrier<'_>)) -> Result<u32, Broken> {
        scope(|scope| {
            let waiter = scope.spawn(|| whole.pass(1, &mut Patience::endless()));
            whole.until_waiting(1);
            act(whole.get());
            waiter.join().expect("ends")
        })
    }

    #[test]
    fn who_waits_is_told_that_it_was_aborted_or_reset() {
        let whole = Whole::new(2);
        assert_eq!(waiting(&whole, |barrier| barrier.reset()), Err(Broken::Broken));
        assert!(!whole.get().is_broken(), "it began anew");
        assert_eq!(waiting(&whole, |barrier| barrier.abort()), Err(Broken::Broken));
        assert!(whole.get().is_broken());
    }

    #[test]
    fn who_waited_is_told_how_its_own_round_ended_whatever_came_after() {
        let whole = Whole::new(1);
        let round = |reset: bool| {
            let state = whole.get().state().load(Ordering::SeqCst);
            whole.get().change(|state| Some(next(state, reset)));
            Party { holder: 1, generation: generation(state), index: 0 }
        };
        let resets = [false, true, true, false, true, false, false];
        let parties = resets.map(round);
        for (party, reset) in parties.into_iter().zip(resets) {
            assert_eq!(whole.get().end(party), Some(if reset { Err(Broken::Broken) } else { Ok(()) }));
        }
    }

    #[test]
    fn a_death_inside_breaks_it_and_says_so_and_other_deaths_do_not() {
        let whole = Whole::new(3);
        let outcome = waiting(&whole, |barrier| {
            barrier.abandon(9);
            assert!(!barrier.is_broken(), "9 was not inside");
            barrier.arrive(7, &mut Patience::endless()).expect("sound");
            barrier.abandon(7);
        });
        assert_eq!(outcome, Err(Broken::Died));
        assert_eq!(whole.pass(2, &mut Patience::endless()), Err(Broken::Died));
    }

    #[test]
    fn who_comes_to_a_round_that_has_ended_does_not_hide_a_thread_of_its_process_from_the_supervisor() {
        let whole = Whole::new(2);
        let barrier = whole.get();
        // A thread of 7 has looked at the state, and is put off for as long as a whole round takes.
        let late = Party { holder: 7, generation: 0, index: 0 };
        scope(|scope| {
            let other = scope.spawn(|| whole.pass(1, &mut Patience::endless()));
            whole.pass(2, &mut Patience::endless()).expect("sound");
            other.join().expect("ends").expect("sound");
        });
        let outcome = waiting(&whole, |barrier| {
            let (_, last) = barrier.arrive(7, &mut Patience::endless()).expect("sound");
            assert!(last, "its action may take a while");
            assert!(!barrier.enter(late));
            barrier.abandon(7);
        });
        assert_eq!(outcome, Err(Broken::Died));
        assert!(barrier.is_broken());
    }

    #[test]
    fn who_dies_after_its_round_breaks_nothing() {
        let whole = Whole::new(2);
        let barrier = whole.get();
        let (_first, _) = barrier.arrive(7, &mut Patience::endless()).expect("sound");
        let (second, last) = barrier.arrive(1, &mut Patience::endless()).expect("sound");
        assert!(last);
        barrier.open(second, true).expect("sound");
        // 7 is still on its way out.
        barrier.abandon(7);
        assert!(!barrier.is_broken());
    }

    #[test]
    fn who_is_told_to_stop_leaves_the_others_waiting() {
        let whole = Whole::new(2);
        let (party, _) = whole.get().arrive(1, &mut Patience::endless()).expect("sound");
        assert_eq!(whole.get().wait(party, &mut Patience::endless().hasty()), Err(Broken::Stopped));
        assert_eq!((whole.get().waiting(), whole.get().is_broken()), (0, false));
    }

    #[test]
    fn who_is_told_to_stop_hears_of_nothing_else() {
        let acts: [fn(Barrier<'_>); 2] = [|barrier| barrier.abort(), |barrier| barrier.reset()];
        for act in acts {
            let whole = Whole::new(2);
            let barrier = whole.get();
            let (party, _) = barrier.arrive(1, &mut Patience::endless()).expect("sound");
            let mut stop = || {
                act(barrier);
                true
            };
            assert_eq!(barrier.wait(party, &mut Patience::endless().unless(&mut stop)), Err(Broken::Stopped));
        }
    }

    #[test]
    fn an_action_that_fails_breaks_it() {
        let whole = Whole::new(2);
        let outcome = waiting(&whole, |barrier| {
            let (party, last) = barrier.arrive(2, &mut Patience::endless()).expect("sound");
            assert!(last);
            assert_eq!(barrier.open(party, false), Err(Broken::Broken));
        });
        assert_eq!(outcome, Err(Broken::Broken));
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    type Whole = Arc<(Cell, Inside)>;

    fn pass(whole: &Whole, holder: u16) -> Result<(), Broken> {
        let barrier = Barrier::new(&whole.0, &whole.1);
        let (party, last) = barrier.arrive(holder, &mut Patience::endless())?;
        if last { barrier.open(party, true) } else { barrier.wait(party, &mut Patience::endless()) }
    }

    fn whole(parties: u32) -> Whole {
        let whole = Arc::new((Cell::default(), Inside::default()));
        Barrier::new(&whole.0, &whole.1).make(parties);
        whole
    }

    fn model(act: impl Fn() + Send + Sync + 'static) {
        let mut explored = loom::model::Builder::new();
        explored.preemption_bound = Some(3);
        explored.check(act);
    }

    #[test]
    fn loom_all_parties_go_on_together_twice() {
        model(|| {
            let whole = whole(2);
            let other = {
                let whole = whole.clone();
                thread::spawn(move || (0..2).for_each(|_| assert_eq!(pass(&whole, 1), Ok(()))))
            };
            (0..2).for_each(|_| assert_eq!(pass(&whole, 0), Ok(())));
            other.join().expect("ends");
            assert_eq!(Barrier::new(&whole.0, &whole.1).waiting(), 0);
        });
    }

    #[test]
    fn loom_a_death_inside_is_told_to_all_who_wait() {
        model(|| {
            let whole = whole(3);
            let waiter = {
                let whole = whole.clone();
                thread::spawn(move || pass(&whole, 1))
            };
            let barrier = Barrier::new(&whole.0, &whole.1);
            barrier.arrive(2, &mut Patience::endless()).expect("nobody has broken it");
            barrier.abandon(2);
            assert_eq!(waiter.join().expect("ends"), Err(Broken::Died));
        });
    }

    #[test]
    fn loom_a_reset_never_leaves_anybody_waiting() {
        model(|| {
            let whole = whole(2);
            let waiter = {
                let whole = whole.clone();
                thread::spawn(move || pass(&whole, 1))
            };
            let barrier = Barrier::new(&whole.0, &whole.1);
            barrier.reset();
            barrier.abort();
            assert_eq!(waiter.join().expect("ends"), Err(Broken::Broken));
        });
    }
}
