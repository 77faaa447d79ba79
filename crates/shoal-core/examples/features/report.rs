//! What is shown: a line that moves on stderr, a table of times at the end.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

/// A part of the job and how long it took.
pub type Step = (&'static str, Duration);

/// How far a step is. Moves where stderr is a terminal; elsewhere only its end is written.
pub struct Line {
    name: &'static str,
    unit: &'static str,
    total: usize,
    moves: bool,
}

impl Line {
    /// A line for `total` of `unit`.
    pub fn new(name: &'static str, unit: &'static str, total: usize) -> Line {
        Line { name, unit, total, moves: std::io::stderr().is_terminal() }
    }

    /// Shows that `done` are done.
    pub fn show(&self, done: u64) {
        if self.moves {
            eprint!("\r{}", self.text(done));
        }
    }

    /// Shows the end.
    pub fn end(&self, done: u64) {
        eprintln!("{}{}", if self.moves { "\r" } else { "" }, self.text(done));
    }

    fn text(&self, done: u64) -> String {
        let (total, percent) = (self.total, done * 100 / self.total.max(1) as u64);
        format!(
            "{:9} {percent:3} %  {done:>width$} / {total} {}",
            self.name,
            self.unit,
            width = total.to_string().len()
        )
    }
}

/// The times of the steps side by side, and their sums. What one process alone does not have to do takes it no time.
pub fn table(serial: &[Step], shoal: &[Step]) -> String {
    let mut table = format!("\n{:10}{:>11}{:>11}{:>8}\n", "", "serial", "shoal", "ratio");
    let mut line = |name: &str, serial: Duration, shoal: Duration| {
        let (serial, shoal) = (serial.as_secs_f64(), shoal.as_secs_f64());
        let ratio = if serial > 0.0 { format!("{:.2}", serial / shoal) } else { "-".into() };
        writeln!(table, "{name:10}{serial:>9.3} s{shoal:>9.3} s{ratio:>8}").expect("a string takes all");
    };
    for ((name, serial), (_, shoal)) in serial.iter().zip(shoal) {
        line(name, *serial, *shoal);
    }
    let sum = |steps: &[Step]| steps.iter().map(|(_, took)| *took).sum();
    line("together", sum(serial), sum(shoal));
    table + "\n"
}
