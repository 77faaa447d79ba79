//! A count that any number of processes add to at once, integers and fractions alike.
//!
//! Integers are added by compare-and-set, exactly. A fraction goes into a word of its own in the same way: the count is the
//! sum of both, and an integer as long as nobody added a fraction.

use super::atomics::Ordering;
use crate::memory::lease::Cell;

/// What a count amounts to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Only integers were added.
    Whole(i64),
    /// A fraction was, too.
    Real(f64),
}

/// The count in a cell.
#[derive(Clone, Copy, Debug)]
pub struct Tally<'a>(&'a Cell);

impl<'a> Tally<'a> {
    /// The count that lies in `cell`.
    pub fn new(cell: &'a Cell) -> Self {
        Self(cell)
    }

    /// Adds an integer. `false`: the count would no longer fit, and is left as it was.
    pub fn add(&self, n: i64) -> bool {
        // In one step: what was added first and then taken back would be seen in between, and stay after a death.
        let add = |whole: u64| (whole as i64).checked_add(n).map(|sum| sum as u64);
        self.0.number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// Adds a fraction.
    pub fn add_real(&self, n: f64) {
        let real = &self.0.more[0];
        let mut bits = real.load(Ordering::Relaxed);
        loop {
            let sum = (f64::from_bits(bits) + n).to_bits();
            match real.compare_exchange_weak(bits, sum, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => bits = changed,
            }
        }
    }

    /// The count at this moment.
    pub fn amount(&self) -> Amount {
        let whole = self.0.number.load(Ordering::Relaxed) as i64;
        // All bits zero is what a cell begins with; sums of fractions that come to zero stay fractions if they are -0.
        match self.0.more[0].load(Ordering::Relaxed) {
            0 => Amount::Whole(whole),
            bits => Amount::Real(whole as f64 + f64::from_bits(bits)),
        }
    }

    /// Begins anew from `amount`. What others add at the same moment counts or does not.
    pub fn set(&self, amount: Amount) {
        let (whole, real) = match amount {
            Amount::Whole(whole) => (whole, 0.0),
            Amount::Real(real) => (0, real),
        };
        self.0.number.store(whole as u64, Ordering::Relaxed);
        self.0.more[0].store(real.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn integers_stay_integers_until_a_fraction_comes() {
        let cell = Cell::default();
        let tally = Tally::new(&cell);
        assert!(tally.add(3) && tally.add(-1));
        assert_eq!(tally.amount(), Amount::Whole(2));
        tally.add_real(0.25);
        assert!(tally.add(1));
        assert_eq!(tally.amount(), Amount::Real(3.25));
        tally.set(Amount::Whole(7));
        assert_eq!(tally.amount(), Amount::Whole(7));
        tally.set(Amount::Real(0.5));
        assert_eq!(tally.amount(), Amount::Real(0.5));
    }

    #[test]
    fn what_does_not_fit_is_not_added() {
        let cell = Cell::default();
        let tally = Tally::new(&cell);
        tally.set(Amount::Whole(i64::MAX - 1));
        assert!(tally.add(1));
        assert!(!tally.add(1));
        assert_eq!(tally.amount(), Amount::Whole(i64::MAX));
    }

    #[test]
    fn threads_lose_nothing_of_what_they_add_at_once() {
        let cell = Cell::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        assert!(Tally::new(&cell).add(1));
                        Tally::new(&cell).add_real(0.5);
                    }
                });
            }
        });
        assert_eq!(Tally::new(&cell).amount(), Amount::Real(6000.0));
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn loom_what_does_not_fit_is_never_seen() {
        loom::model(|| {
            let cell = Arc::new(Cell::default());
            Tally::new(&cell).set(Amount::Whole(i64::MAX));
            let other = {
                let cell = cell.clone();
                thread::spawn(move || Tally::new(&cell).add(1))
            };
            let reader = {
                let cell = cell.clone();
                thread::spawn(move || Tally::new(&cell).amount())
            };
            assert_eq!(reader.join().expect("ends"), Amount::Whole(i64::MAX));
            assert!(!other.join().expect("ends"));
        });
    }

    #[test]
    fn loom_no_addition_is_lost() {
        loom::model(|| {
            let cell = Arc::new(Cell::default());
            let other = {
                let cell = cell.clone();
                thread::spawn(move || {
                    Tally::new(&cell).add_real(0.5);
                    Tally::new(&cell).add(1)
                })
            };
            let one = {
                let cell = cell.clone();
                thread::spawn(move || {
                    Tally::new(&cell).add_real(0.25);
                    Tally::new(&cell).add(2)
                })
            };
            assert!(one.join().expect("ends"));
            assert!(other.join().expect("ends"));
            assert_eq!(Tally::new(&cell).amount(), Amount::Real(3.75));
        });
    }
}
