//! The task ring: the client publishes tasks, workers take them, one compare-and-swap each.
//!
//! See `docs/design/task-ring.md` for the protocol with its proof. In short: a slot's state is one word,
//!
//! ```text
//!            push                 try_take                  release
//!   FREE ───────────▶ QUEUED ───────────────▶ RUNNING ───────────────▶ FREE
//!  (client)             │      (worker: CAS)  (worker, epoch)  (worker, or the supervisor for a dead one)
//!                       └──────────────▶ FREE
//!                        retract (client: CAS)   of one task, or of all
//! ```
//!
//! and the swap that takes a task also names its taker, so that there is no moment at which a death loses it.
//! `head` is a hint that anyone may help forward: a process that dies never holds up the others.

#![allow(unsafe_code, reason = "slots in shared memory, under the protocol above")]

use super::body::Body;
use crate::sync::apart::Apart;
use crate::sync::atomics::{AtomicU64, DataCell, Ordering};

/// How often a taker looks beyond a whole lap.
const LOOKS: usize = 64;

const FREE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;

/// A slot's state word, taken apart: lap and position (32 bits), worker (16), epoch (8), what (8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    position: u32,
    worker: u16,
    epoch: u8,
    what: u8,
}

impl State {
    const fn pack(self) -> u64 {
        (self.position as u64) << 32 | (self.worker as u64) << 16 | (self.epoch as u64) << 8 | self.what as u64
    }

    const fn unpack(word: u64) -> State {
        State { position: (word >> 32) as u32, worker: (word >> 16) as u16, epoch: (word >> 8) as u8, what: word as u8 }
    }

    const fn of(position: u64, what: u8) -> State {
        State { position: position as u32, worker: 0, epoch: 0, what }
    }
}

/// One slot: two cache lines, never shared with a neighbour.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Slot {
    state: AtomicU64,
    body: DataCell<Body>,
}

impl Slot {
    /// Makes slot `index` of a new ring of `capacity` slots: free, left over from the lap before the first.
    pub fn new(index: usize, capacity: usize) -> Slot {
        let position = (index as u64).wrapping_sub(capacity as u64);
        Slot { state: AtomicU64::new(State::of(position, FREE).pack()), body: DataCell::new(Body::EMPTY) }
    }

    fn state(&self) -> State {
        State::unpack(self.state.load(Ordering::Acquire))
    }

    fn set(&self, state: State) {
        self.state.store(state.pack(), Ordering::Release);
    }

    /// Whether it was `from` and is `to` now.
    fn swap(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// The positions, each on lines of its own: the client writes `tail`, the workers write `head`.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Positions {
    head: Apart<AtomicU64>,
    tail: Apart<AtomicU64>,
}

/// A task that a worker has taken but not yet noted as its own.
#[derive(Debug)]
pub struct Taken {
    position: u64,
    /// The task.
    pub body: Body,
}

/// The ring, seen from one process.
#[derive(Clone, Copy, Debug)]
pub struct TaskRing<'a> {
    positions: &'a Positions,
    slots: &'a [Slot],
}

impl<'a> TaskRing<'a> {
    /// A view of a ring; the number of slots must be a power of two.
    pub fn new(positions: &'a Positions, slots: &'a [Slot]) -> Self {
        assert!(slots.len().is_power_of_two(), "a ring has a power of two of slots, not {}", slots.len());
        Self { positions, slots }
    }

    fn slot(&self, position: u64) -> &'a Slot {
        &self.slots[position as usize & (self.slots.len() - 1)]
    }

    fn head(&self) -> u64 {
        self.positions.head.0.load(Ordering::Acquire)
    }

    /// Moves the hint on over `head`, if nobody has. Where it is then.
    fn help_on(&self, head: u64) -> u64 {
        let next = head.wrapping_add(1);
        let moved = self.positions.head.0.compare_exchange(head, next, Ordering::AcqRel, Ordering::Acquire);
        moved.map_or_else(|now| now, |_| next)
    }

    /// Publishes a task at the tail. `false`: the ring is full. Only one thread at a time may push.
    pub fn push(&self, body: &Body) -> bool {
        let tail = self.positions.tail.0.load(Ordering::Relaxed);
        let slot = self.slot(tail);
        if slot.state().what != FREE {
            return false;
        }
        // SAFETY: the slot is free and only the one producer leaves that state, so nobody else touches the body.
        unsafe { slot.body.write(*body) };
        slot.set(State::of(tail, QUEUED));
        self.positions.tail.0.store(tail.wrapping_add(1), Ordering::Release);
        true
    }

    /// Whether `push` would find room.
    pub fn has_room(&self) -> bool {
        let tail = self.positions.tail.0.load(Ordering::Relaxed);
        self.slot(tail).state().what == FREE
    }

    /// Takes the task at the head for `worker`. The worker must note `body.task` where its death leaves it to be
    /// found and then call [`release`](Self::release).
    pub fn try_take(&self, worker: u16, epoch: u8) -> Option<Taken> {
        // A lap and some more: in a ring that was written over there might be no end. Who has not found a task then looks
        // again if there is one.
        for _ in 0..self.slots.len() + LOOKS {
            let head = self.head();
            let slot = self.slot(head);
            let state = slot.state();
            if state.position != head as u32 {
                if (state.position.wrapping_sub(head as u32) as i32) < 0 {
                    // Left from the lap before: nothing is published here yet. Unless `head` itself is old.
                    if self.head() == head {
                        return None;
                    }
                } else {
                    // From a later lap: whoever took the slot at `head` died before it could move it on.
                    self.help_on(head);
                }
                continue;
            }
            let taken = state.what == QUEUED && slot.swap(state, State { worker, epoch, what: RUNNING, ..state });
            // Whoever finds the slot at the head taken helps the hint forward.
            self.help_on(head);
            if taken {
                // SAFETY: the swap gave the slot to this worker; the producer does not write before it is free.
                let body = unsafe { slot.body.read() };
                return Some(Taken { position: head, body });
            }
        }
        None
    }

    /// Gives the slot of a taken task back to the producer; the task is the worker's alone from here on.
    pub fn release(&self, taken: Taken) -> Body {
        self.slot(taken.position).set(State::of(taken.position, FREE));
        taken.body
    }

    /// Tasks published and not yet taken, about.
    pub fn queued(&self) -> u64 {
        let head = self.head();
        self.positions.tail.0.load(Ordering::Acquire).saturating_sub(head)
    }

    /// The position that the next task gets. Asked by the producer.
    pub fn next_position(&self) -> u64 {
        self.positions.tail.0.load(Ordering::Relaxed)
    }

    /// The task in the slot of `position`, whatever lap it is of. Asked by the producer.
    fn task_at(&self, position: u64) -> u64 {
        // SAFETY: only the producer writes a body, and that is this thread; takers only read.
        unsafe { self.slot(position).body.read() }.task
    }

    /// Whether `task`, which got `position`, is still queued. Asked by the producer.
    pub fn holds(&self, position: u64, task: u64) -> bool {
        self.slot(position).state() == State::of(position, QUEUED) && self.task_at(position) == task
    }

    /// Takes the queued task at `position` back. `false`: a worker was quicker. Called by the producer.
    pub fn retract(&self, position: u64) -> bool {
        let retracted = self.slot(position).swap(State::of(position, QUEUED), State::of(position, FREE));
        self.help();
        retracted
    }

    /// Takes every queued task back; `each` gets its number. Called by the producer.
    pub fn retract_all(&self, mut each: impl FnMut(u64)) {
        let tail = self.next_position();
        // No queued task lies before `head`, nor more than a lap before `tail`.
        let head = self.head();
        for position in head.max(tail.saturating_sub(self.slots.len() as u64))..tail {
            let task = self.task_at(position);
            if self.retract(position) {
                each(task);
            }
        }
    }

    /// Moves `head` on over what was taken back, so that it does not count as queued. Called by the producer.
    fn help(&self) {
        let tail = self.next_position();
        let mut head = self.head();
        while head < tail && self.slot(head).state() == State::of(head, FREE) {
            head = self.help_on(head);
        }
    }

    /// Every task that lies in a slot, queued or taken; `each` gets its number. Called by the producer.
    pub fn each_held(&self, mut each: impl FnMut(u64)) {
        for slot in self.slots {
            if slot.state().what != FREE {
                // SAFETY: only the producer writes a body, and that is this thread; takers only read.
                each(unsafe { slot.body.read() }.task);
            }
        }
    }

    /// Whether the positions and all slots are as they can be with `pushed` tasks pushed so far, and that many workers; if
    /// not, somebody has written over them. Called by the producer.
    pub fn is_sound(&self, pushed: u64, workers: usize) -> bool {
        let head = self.head();
        let capacity = self.slots.len() as u64;
        let slot_is_sound = |(index, slot): (usize, &Slot)| {
            let state = slot.state();
            // The last position that was this slot's, or the one before the first.
            let last =
                pushed.wrapping_sub(1).wrapping_sub(pushed.wrapping_sub(1).wrapping_sub(index as u64) % capacity);
            state.position == last as u32
                && match state.what {
                    FREE => true,
                    // None before `head`: who moves that on has seen that it is not.
                    QUEUED => (head..pushed).contains(&last),
                    RUNNING => usize::from(state.worker) < workers,
                    _ => false,
                }
        };
        self.next_position() == pushed && head <= pushed && self.slots.iter().enumerate().all(slot_is_sound)
    }

    /// Frees the slots that a dead worker had taken and not released; `each` gets the tasks' numbers.
    pub fn recover(&self, worker: u16, mut each: impl FnMut(u64)) {
        for slot in self.slots {
            let state = slot.state();
            if state.what == RUNNING && state.worker == worker {
                // SAFETY: the taker is dead, and nobody else leaves this state.
                let body = unsafe { slot.body.read() };
                slot.set(State { worker: 0, epoch: 0, what: FREE, ..state });
                each(body.task);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring_of(capacity: usize) -> (Positions, Vec<Slot>) {
        (Positions::default(), (0..capacity).map(|i| Slot::new(i, capacity)).collect())
    }

    fn task(number: u64) -> Body {
        Body { task: number, ..Body::EMPTY }
    }

    #[test]
    fn a_slot_is_two_cache_lines() {
        assert_eq!(std::mem::size_of::<Slot>(), 128);
    }

    #[test]
    fn tasks_are_taken_in_the_order_they_were_pushed() {
        let (positions, slots) = ring_of(4);
        let ring = TaskRing::new(&positions, &slots);
        for lap in 0..5 {
            for i in 0..4 {
                assert!(ring.push(&task(lap * 4 + i)));
            }
            assert!(!ring.push(&task(99)), "the ring is full");
            for i in 0..4 {
                let taken = ring.try_take(1, 0).expect("there are four");
                assert_eq!(ring.release(taken).task, lap * 4 + i);
            }
            assert!(ring.try_take(1, 0).is_none());
        }
    }

    #[test]
    fn what_a_dead_worker_took_is_found() {
        let (positions, slots) = ring_of(8);
        let ring = TaskRing::new(&positions, &slots);
        (0..4).for_each(|i| assert!(ring.push(&task(i))));
        let _lost = ring.try_take(7, 3).expect("queued");
        let kept = ring.try_take(2, 0).expect("queued");
        let mut found = vec![];
        ring.recover(7, |task| found.push(task));
        assert_eq!(found, [0]);
        assert_eq!(ring.release(kept).task, 1);
        assert_eq!(ring.try_take(2, 0).expect("queued").body.task, 2);
    }

    #[test]
    fn a_death_between_taking_and_moving_on_does_not_wedge_the_ring() {
        let (positions, slots) = ring_of(2);
        let ring = TaskRing::new(&positions, &slots);
        assert!(ring.push(&task(0)));
        let _lost = ring.try_take(7, 0).expect("queued");
        // As if it had died just before its last step.
        positions.head.0.store(0, Ordering::Relaxed);
        ring.recover(7, |_| ());
        assert!(ring.push(&task(1)) && ring.push(&task(2)), "both slots are free");
        let took: Vec<_> = std::iter::from_fn(|| ring.try_take(1, 0).map(|taken| ring.release(taken).task)).collect();
        assert_eq!(took, [1, 2]);
    }

    #[test]
    fn retracted_tasks_are_not_taken() {
        let (positions, slots) = ring_of(4);
        let ring = TaskRing::new(&positions, &slots);
        (0..3).for_each(|i| assert!(ring.push(&task(i))));
        let mine = ring.try_take(1, 0).expect("queued");
        let mut back = vec![];
        ring.retract_all(|task| back.push(task));
        assert_eq!(back, [1, 2]);
        assert!(ring.try_take(1, 0).is_none());
        ring.release(mine);
        (10..14).for_each(|i| assert!(ring.push(&task(i)), "all slots are free again"));
        assert_eq!(ring.try_take(1, 0).expect("queued").body.task, 10);
    }

    #[test]
    fn what_was_taken_back_does_not_count_as_queued() {
        let (positions, slots) = ring_of(4);
        let ring = TaskRing::new(&positions, &slots);
        (0..4).for_each(|i| assert!(ring.push(&task(i))));
        assert!(ring.retract(2) && ring.retract(1));
        assert_eq!(ring.queued(), 4, "behind the first");
        assert!(ring.retract(0));
        assert_eq!(ring.queued(), 1);
        assert!(!ring.retract(0), "once");
        assert!(ring.holds(3, 3) && !ring.holds(3, 4) && !ring.holds(2, 2));
        assert_eq!(ring.release(ring.try_take(1, 0).expect("queued")).task, 3);
        assert!(!ring.retract(3), "it has been taken");
    }

    proptest! {
        /// Any order of pushes, takes, releases, retractions and deaths: each task is taken once, taken back, or found
        /// with the dead.
        #[test]
        fn no_task_is_lost_or_doubled(steps in prop::collection::vec((0u8..6, 0u64..9), 1..300)) {
            let (positions, slots) = ring_of(8);
            let ring = TaskRing::new(&positions, &slots);
            let (mut pushed, mut seen, mut held) = (0u64, vec![], vec![]);
            for (step, back) in steps {
                match step {
                    0 | 1 => pushed += u64::from(ring.push(&task(pushed))),
                    2 => if let Some(taken) = ring.try_take(1, 0) { held.push(taken) },
                    3 => if let Some(taken) = held.pop() { seen.push(ring.release(taken).task) },
                    4 => {
                        // Task and position have the same number here.
                        let number = pushed.wrapping_sub(back);
                        let queued = ring.holds(number, number);
                        prop_assert_eq!(queued && ring.retract(number), queued);
                        if queued { seen.push(number) }
                    }
                    _ => { held.clear(); ring.recover(1, |task| seen.push(task)) }
                }
                prop_assert!(ring.is_sound(pushed, 2) && !ring.is_sound(pushed + 1, 2));
                let mut there = vec![];
                ring.each_held(|task| there.push(task));
                prop_assert!(held.iter().all(|taken| there.contains(&taken.body.task)));
                prop_assert!(seen.iter().all(|task| !there.contains(task)));
            }
            held.drain(..).for_each(|taken| seen.push(ring.release(taken).task));
            while let Some(taken) = ring.try_take(2, 0) { seen.push(ring.release(taken).task) }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..pushed).collect::<Vec<_>>());
        }
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    type Shared = Arc<(Positions, Vec<Slot>)>;

    fn ring_of(capacity: usize) -> Shared {
        Arc::new((Positions::default(), (0..capacity).map(|i| Slot::new(i, capacity)).collect()))
    }

    fn task(number: u64) -> Body {
        Body { task: number, ..Body::EMPTY }
    }

    /// What a worker does: takes a task, if there is one, and makes room.
    fn take(shared: &Shared, worker: u16) -> impl FnOnce() -> Option<u64> + use<> {
        let shared = shared.clone();
        move || {
            let ring = TaskRing::new(&shared.0, &shared.1);
            ring.try_take(worker, 0).map(|taken| ring.release(taken).task)
        }
    }

    /// What the client does meanwhile, in a thread of its own: of what a thread does right after it has spawned its last one,
    /// loom (0.7) tries no other order.
    fn client<T: Send + 'static>(shared: &Shared, act: impl FnOnce(&TaskRing<'_>) -> T + Send + 'static) -> T {
        let shared = shared.clone();
        thread::spawn(move || act(&TaskRing::new(&shared.0, &shared.1))).join().expect("ends")
    }

    #[test]
    fn loom_two_workers_never_take_the_same_task() {
        loom::model(|| {
            let shared = ring_of(2);
            let ring = TaskRing::new(&shared.0, &shared.1);
            assert!(ring.push(&task(1)));
            assert!(ring.push(&task(2)));
            let (a, b) = (thread::spawn(take(&shared, 1)), thread::spawn(take(&shared, 2)));
            let mut got = [a.join().expect("ends"), b.join().expect("ends")];
            got.sort_unstable();
            assert_eq!(got, [Some(1), Some(2)]);
        });
    }

    #[test]
    fn loom_a_slot_is_not_written_while_it_is_read() {
        loom::model(|| {
            let shared = ring_of(1);
            let worker = thread::spawn(take(&shared, 1));
            let second = client(&shared, |ring| {
                assert!(ring.push(&task(1)));
                ring.push(&task(2))
            });
            let first = worker.join().expect("ends");
            let left = take(&shared, 2)();
            match (first, second) {
                (Some(1), true) => assert_eq!(left, Some(2)),
                (Some(1), false) => assert_eq!(left, None),
                (None, false) => assert_eq!(left, Some(1)),
                other => panic!("impossible: {other:?}"),
            }
        });
    }

    #[test]
    fn loom_a_task_is_retracted_or_taken_never_both() {
        loom::model(|| {
            let shared = ring_of(1);
            let ring = TaskRing::new(&shared.0, &shared.1);
            assert!(ring.push(&task(1)));
            let worker = thread::spawn(take(&shared, 1));
            let back = client(&shared, |ring| {
                let mut back = None;
                ring.retract_all(|task| back = Some(task));
                back.is_some()
            });
            let taken = worker.join().expect("ends");
            assert!(taken.is_some() != back);
        });
    }

    #[test]
    fn loom_a_slot_that_was_taken_back_serves_again() {
        loom::model(|| {
            let shared = ring_of(1);
            let ring = TaskRing::new(&shared.0, &shared.1);
            assert!(ring.push(&task(1)));
            let worker = thread::spawn(take(&shared, 1));
            let (back, second) = client(&shared, |ring| (ring.holds(0, 1) && ring.retract(0), ring.push(&task(2))));
            let first = worker.join().expect("ends");
            let left = take(&shared, 2)();
            match (back, second) {
                (true, true) => assert_eq!([first, left].iter().flatten().collect::<Vec<_>>(), [&2]),
                (false, true) => assert_eq!((first, left), (Some(1), Some(2))),
                (false, false) => assert_eq!((first, left), (Some(1), None)),
                (true, false) => panic!("the slot was free"),
            }
        });
    }
}
