//! The client's table of all tasks that have not ended.
//!
//! Memory grows by chunks and never moves. A task's number says where it stands and which life of that place it means:
//! a late or double notice of what has ended finds nothing. Each try is a life of its own, so that what a dead worker
//! was at is never taken for the try that came after it; whoever submitted the task knows it by the first.

use std::time::Duration;

use super::current::MOST_TASKS;
use super::tasks::Task;

const CHUNK: usize = 1024;

/// The tasks by number.
#[derive(Debug, Default)]
pub(super) struct Table {
    chunks: Vec<Box<[Slot]>>,
    free: Vec<u32>,
    len: usize,
    /// How many have a limit of time, and the shortest there was since the first of them came.
    timed: usize,
    shortest: Option<Duration>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    /// The generation when the task came.
    first: u32,
    task: Option<Task>,
}

fn number(generation: u32, index: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

impl Table {
    pub(super) fn insert(&mut self, task: Task) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            let first = (self.chunks.len() * CHUNK) as u32;
            assert!(first < MOST_TASKS, "there is memory for a thousand million tasks");
            self.chunks.push((0..CHUNK).map(|_| Slot::default()).collect());
            self.free.extend((first + 1..first + CHUNK as u32).rev());
            first
        });
        if let Some(limit) = task.terms().timeout {
            self.timed += 1;
            self.shortest = Some(self.shortest.map_or(limit, |shortest| shortest.min(limit)));
        }
        let slot = &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK];
        slot.first = slot.generation;
        slot.task = Some(task);
        self.len += 1;
        number(slot.generation, index)
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let index = number as u32 as usize;
        self.chunks.get_mut(index / CHUNK)?.get_mut(index % CHUNK)
    }

    fn alive(&mut self, number: u64) -> Option<&mut Slot> {
        self.slot(number).filter(|slot| slot.generation == (number >> 32) as u32)
    }

    /// The number that a task has now, by the one that it was given first. `None`: it has ended.
    pub(super) fn now(&mut self, first: u64) -> Option<u64> {
        let slot = self.slot(first)?;
        (slot.task.is_some() && slot.first == (first >> 32) as u32).then(|| number(slot.generation, first as u32))
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Task> {
        self.alive(number)?.task.as_mut()
    }

    /// A try has ended and another begins: the number of that.
    ///
    /// # Panics
    /// If there is no such task.
    pub(super) fn renew(&mut self, former: u64) -> u64 {
        let slot = self.alive(former).expect("the task was just looked at");
        slot.generation = slot.generation.wrapping_add(1);
        number(slot.generation, former as u32)
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Task> {
        let slot = self.alive(number)?;
        let task = slot.task.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(number as u32);
        self.len -= 1;
        if task.terms().timeout.is_some() {
            self.timed -= 1;
            self.shortest = self.shortest.filter(|_| self.timed > 0);
        }
        Some(task)
    }

    /// The numbers of those that were put into the task ring.
    pub(super) fn in_ring(&self) -> impl Iterator<Item = u64> {
        let slots = self.chunks.iter().flatten().enumerate();
        let in_ring = slots.filter(|(_, slot)| slot.task.as_ref().is_some_and(|task| task.in_ring));
        in_ring.map(|(index, slot)| number(slot.generation, index as u32))
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A time within which no task that begins now is over; `None` if there is no limit to any.
    pub(super) fn shortest_limit(&self) -> Option<Duration> {
        self.shortest
    }

    pub(super) fn drain(&mut self) -> Vec<Task> {
        let numbers: Vec<u64> = self
            .chunks
            .iter()
            .flatten()
            .enumerate()
            .filter(|(_, slot)| slot.task.is_some())
            .map(|(index, slot)| number(slot.generation, index as u32))
            .collect();
        numbers.into_iter().filter_map(|number| self.remove(number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_table_costs_little() {
        assert!(std::mem::size_of::<Slot>() <= 72, "{}", std::mem::size_of::<Slot>());
    }
}
