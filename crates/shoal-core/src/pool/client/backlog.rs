//! The tasks that wait for room in the ring: by priority, and in the order they came.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

/// Numbers of tasks. Some may have ended meanwhile.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    levels: BTreeMap<Reverse<i32>, VecDeque<u64>>,
    len: usize,
}

impl Backlog {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Behind its equals.
    pub(super) fn push_back(&mut self, priority: i32, number: u64) {
        self.levels.entry(Reverse(priority)).or_default().push_back(number);
        self.len += 1;
    }

    /// Before its equals: it was there already.
    pub(super) fn push_front(&mut self, priority: i32, number: u64) {
        self.levels.entry(Reverse(priority)).or_default().push_front(number);
        self.len += 1;
    }

    /// The next one, with its priority.
    pub(super) fn front(&self) -> Option<(i32, u64)> {
        let (Reverse(priority), numbers) = self.levels.first_key_value()?;
        Some((*priority, *numbers.front()?))
    }

    pub(super) fn pop_front(&mut self) -> Option<u64> {
        let mut first = self.levels.first_entry()?;
        let number = first.get_mut().pop_front()?;
        if first.get().is_empty() {
            first.remove();
        }
        self.len -= 1;
        Some(number)
    }

    /// All of them, in their order.
    pub(super) fn drain(&mut self) -> Vec<u64> {
        self.len = 0;
        std::mem::take(&mut self.levels).into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What comes out is what is in, the highest priority first, and equals in their order.
        #[test]
        fn what_matters_more_comes_first(priorities in prop::collection::vec(-3i32..4, 0..50)) {
            let mut backlog = Backlog::default();
            for (number, priority) in priorities.iter().enumerate() {
                backlog.push_back(*priority, number as u64);
            }
            let mut expected: Vec<u64> = (0..priorities.len() as u64).collect();
            expected.sort_by_key(|number| Reverse(priorities[*number as usize]));
            prop_assert_eq!(backlog.len(), expected.len());
            let mut found = vec![];
            while let Some((priority, number)) = backlog.front() {
                prop_assert_eq!(priority, priorities[number as usize]);
                prop_assert_eq!(backlog.pop_front(), Some(number));
                found.push(number);
            }
            prop_assert_eq!(found, expected);
            prop_assert!(backlog.is_empty());
        }
    }

    #[test]
    fn what_is_put_back_comes_before_its_equals() {
        let mut backlog = Backlog::default();
        backlog.push_back(0, 1);
        backlog.push_front(0, 2);
        backlog.push_back(5, 3);
        assert_eq!(backlog.drain(), [3, 2, 1]);
        assert!(backlog.is_empty() && backlog.front().is_none());
    }
}
