//! Where a worker's time goes: counters that it alone writes, and that anybody may read at any moment.
//!
//! ```text
//!     taken       decoded         called        ended                      taken
//!       │ decoding   │   calling     │  encoding   │ sending, waiting or idle │
//!       └───────────────── busy ─────────────────┘
//! ```
//!
//! A task's begin and end are clocked in any case. What lies in between costs more looks at the clock, which tasks of a
//! microsecond would feel: of those that are short only some are looked at, and count for the others. See [`Laps`].

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use shoal_sys::clock;

/// Tasks that took no longer are short, in nanoseconds.
const SHORT: u64 = 20_000;
/// Of short tasks, and of the items of a batch, the first and every 32nd are looked at.
const SAMPLE: u64 = 32;

/// What the worker does between its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Pause {
    /// It sends the result, or takes the next task.
    Sending = 0,
    /// There is no task, and none on the way.
    Idle = 1,
    /// There is no task, but the client has more to send.
    Waiting = 2,
    /// None: it is at a task.
    None = 3,
}

/// The counters, in the worker's record. Times are nanoseconds.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Account {
    tasks: AtomicU64,
    busy: AtomicU64,
    decoding: AtomicU64,
    encoding: AtomicU64,
    sending: AtomicU64,
    idle: AtomicU64,
    waiting: AtomicU64,
    /// When what it does now began, on the clock that all processes share; 0 before the first worker was ready.
    since: AtomicU64,
    /// A [`Pause`].
    pause: AtomicU32,
}

/// The counters as they were at a moment. Times are nanoseconds; they count from the worker's start, and go on with
/// another worker that takes its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Tasks ended.
    pub tasks: u64,
    /// From taking a task to its end.
    pub busy: u64,
    /// Of that: reading functions and arguments. Of short tasks estimated from some.
    pub decoding: u64,
    /// Of that: writing results, likewise.
    pub encoding: u64,
    /// Between tasks: sending the result, taking the next task.
    pub sending: u64,
    /// Without a task while the client had none.
    pub idle: u64,
    /// Without a task while the client had more to send.
    pub waiting: u64,
}

/// One writer: no need for a locked instruction.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// Likewise.
fn replace(counter: &AtomicU64, value: u64) -> u64 {
    let former = counter.load(Ordering::Relaxed);
    counter.store(value, Ordering::Relaxed);
    former
}

impl Account {
    /// The worker may take tasks from now on.
    pub fn begin(&self, now: u64) {
        self.pause.store(Pause::Sending as u32, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
    }

    /// It has found no task; `more`: the client has more to send.
    pub fn search(&self, more: bool) {
        let pause = if more { Pause::Waiting } else { Pause::Idle };
        self.pause.store(pause as u32, Ordering::Relaxed);
    }

    /// It has taken a task.
    pub fn taken(&self, now: u64) {
        let passed = now.saturating_sub(replace(&self.since, now));
        let pause = self.pause.load(Ordering::Relaxed);
        self.pause.store(Pause::None as u32, Ordering::Relaxed);
        add(self.between(pause).unwrap_or(&self.sending), passed);
    }

    /// It has ended the task, which took `nanos`, with what its [`Laps`] say: decoding and encoding.
    pub fn ended(&self, now: u64, nanos: u64, (decoding, encoding): (u64, u64)) {
        self.pause.store(Pause::Sending as u32, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
        add(&self.tasks, 1);
        add(&self.busy, nanos);
        add(&self.decoding, decoding);
        add(&self.encoding, encoding);
    }

    /// Where time in that pause counts; `None`: it is at a task.
    fn between(&self, pause: u32) -> Option<&AtomicU64> {
        match pause {
            pause if pause == Pause::Sending as u32 => Some(&self.sending),
            pause if pause == Pause::Idle as u32 => Some(&self.idle),
            pause if pause == Pause::Waiting as u32 => Some(&self.waiting),
            _ => None,
        }
    }

    /// The counters, with what the worker is at since then. About: it goes on meanwhile.
    pub fn read(&self) -> Spent {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut spent = Spent {
            tasks: load(&self.tasks),
            busy: load(&self.busy),
            decoding: load(&self.decoding),
            encoding: load(&self.encoding),
            sending: load(&self.sending),
            idle: load(&self.idle),
            waiting: load(&self.waiting),
        };
        let since = load(&self.since);
        if since > 0 {
            let so_far = clock::nanos().saturating_sub(since);
            let more = |counter: &mut u64| *counter = counter.wrapping_add(so_far);
            match self.pause.load(Ordering::Relaxed) {
                pause if pause == Pause::Idle as u32 => more(&mut spent.idle),
                pause if pause == Pause::Waiting as u32 => more(&mut spent.waiting),
                pause if pause == Pause::Sending as u32 => more(&mut spent.sending),
                _ => more(&mut spent.busy),
            }
        }
        spent
    }

    /// The worker has died: what its time went to from then on is nobody's.
    pub fn died(&self) {
        self.since.store(0, Ordering::Relaxed);
    }
}

impl Spent {
    /// What came between `earlier` and this.
    pub fn since(&self, earlier: &Spent) -> Spent {
        Spent {
            tasks: self.tasks.saturating_sub(earlier.tasks),
            busy: self.busy.saturating_sub(earlier.busy),
            decoding: self.decoding.saturating_sub(earlier.decoding),
            encoding: self.encoding.saturating_sub(earlier.encoding),
            sending: self.sending.saturating_sub(earlier.sending),
            idle: self.idle.saturating_sub(earlier.idle),
            waiting: self.waiting.saturating_sub(earlier.waiting),
        }
    }
}

/// Which of many short things are looked at, and what each of these counts for.
#[derive(Debug, Default)]
pub struct Sampler {
    turn: u64,
    /// Whether the one before was long.
    long: bool,
}

impl Sampler {
    /// What the next one counts for; 0: it is not looked at. A `weighty` one is, like one that follows a long one.
    pub fn weight(&mut self, weighty: bool) -> u64 {
        self.turn += 1;
        if self.long || weighty { 1 } else { sampled(self.turn) }
    }

    /// It took so many nanoseconds.
    pub fn saw(&mut self, nanos: u64) {
        self.long = nanos > SHORT;
    }
}

/// What one of many short ones counts for, the first of them being 1.
fn sampled(turn: u64) -> u64 {
    if turn % SAMPLE == 1 { SAMPLE } else { 0 }
}

/// What was clocked, with what that counts for: something long only counts for itself.
pub fn weighted(nanos: u64, weight: u64) -> u64 {
    if nanos > SHORT { nanos } else { nanos * weight }
}

/// What the task at hand spends its time on, told by who runs it. A look at the clock costs some tens of nanoseconds; a
/// task is looked at if the one before was not short, if it has large arguments, or as one of many.
#[derive(Debug, Default)]
pub struct Laps {
    /// What this one counts for; 0: it is not looked at.
    weight: AtomicU64,
    last: AtomicU64,
    decoding: AtomicU64,
    encoding: AtomicU64,
    sampler: Sampler,
}

impl Laps {
    /// A task was taken; `large`: its arguments do not fit into its slot.
    pub(super) fn begin(&mut self, now: u64, large: bool) {
        *self.weight.get_mut() = self.sampler.weight(large);
        *self.last.get_mut() = now;
        (*self.decoding.get_mut(), *self.encoding.get_mut()) = (0, 0);
    }

    /// The next item of a batch begins, at its place in it.
    pub fn item(&self, place: usize) {
        let weight = sampled(place as u64 + 1);
        self.weight.store(weight, Ordering::Relaxed);
        if weight > 0 {
            self.last.store(clock::nanos(), Ordering::Relaxed);
        }
    }

    fn lap(&self) -> u64 {
        let weight = self.weight.load(Ordering::Relaxed);
        if weight == 0 {
            return 0;
        }
        let now = clock::nanos();
        weighted(now.saturating_sub(replace(&self.last, now)), weight)
    }

    /// Function and arguments have been read.
    pub fn decoded(&self) {
        add(&self.decoding, self.lap());
    }

    /// The function has returned.
    pub fn called(&self) {
        self.lap();
    }

    /// The result has been written.
    pub fn encoded(&self) {
        add(&self.encoding, self.lap());
    }

    /// The task has ended: nanoseconds of decoding and encoding, no more than all of it.
    pub(super) fn ended(&mut self, nanos: u64) -> (u64, u64) {
        self.sampler.saw(nanos);
        let decoding = (*self.decoding.get_mut()).min(nanos);
        (decoding, (*self.encoding.get_mut()).min(nanos - decoding))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_for_what_the_worker_does() {
        let account = Account::default();
        account.begin(1_000);
        account.search(false);
        account.taken(1_500);
        account.ended(2_500, 1_000, (100, 50));
        account.taken(2_600);
        account.ended(3_000, 400, (0, 0));
        account.search(true);
        account.taken(3_700);
        account.ended(4_000, 300, (0, 0));
        account.died();
        let expected =
            Spent { tasks: 3, busy: 1_700, decoding: 100, encoding: 50, sending: 100, idle: 500, waiting: 700 };
        assert_eq!(account.read(), expected);
        assert_eq!(expected.since(&expected), Spent::default());
    }

    #[test]
    fn what_it_is_at_counts_up_to_now() {
        let account = Account::default();
        let then = clock::nanos() - 1_000_000;
        account.begin(then);
        account.search(false);
        assert!(account.read().idle >= 1_000_000);
        account.taken(then);
        assert!(account.read().busy >= 1_000_000 && account.read().idle == 0);
        account.ended(then, 0, (0, 0));
        assert!(account.read().sending >= 1_000_000);
    }

    #[test]
    fn long_tasks_are_all_looked_at_and_short_ones_now_and_then() {
        let mut laps = Laps::default();
        let mut looked_at = |long: bool, large: bool| {
            laps.begin(clock::nanos(), large);
            let weight = *laps.weight.get_mut();
            laps.ended(if long { SHORT + 1 } else { SHORT });
            weight
        };
        let weights: Vec<u64> = (0..64).map(|_| looked_at(false, false)).collect();
        assert_eq!(weights.iter().sum::<u64>(), 64, "they count for the others");
        assert_eq!(weights.iter().filter(|weight| **weight > 0).count() as u64, 64 / SAMPLE);
        looked_at(true, false);
        assert!((0..64).all(|_| looked_at(true, false) == 1));
        looked_at(false, false);
        assert!((0..64).all(|_| looked_at(false, true) == 1));
    }

    #[test]
    fn parts_are_never_more_than_the_whole() {
        let mut laps = Laps::default();
        laps.begin(0, true);
        laps.decoded();
        laps.called();
        laps.encoded();
        assert_eq!(laps.ended(10), (10, 0));
    }
}
