//! Tests of the engine with real workers, without Python.
//!
//! Workers are this executable, so it has a `main` of its own. A process has one zygote and one memory for all its
//! pools, and these tests kill the one and count the other; so each test is a process too, which the harness starts
//! with the test's name and ends if it takes too long.

#![allow(unsafe_code, reason = "bytes of blocks that nobody writes to")]

#[path = "../../examples/support/mod.rs"]
mod support;

mod cancels;
mod client;
mod deaths;
mod ends;
mod fates;
mod functions;
mod insight;
mod limits;
#[cfg(feature = "crash-points")]
mod points;
mod reports;
mod results;
mod starts;

use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

/// A test: what it shows, and how.
type Test = (&'static str, fn());

/// The first argument of a test's process; the second is its name.
const ALONE: &str = "shoal-test";
/// A test that takes longer hangs. They take seconds.
const TOO_LONG: Duration = Duration::from_secs(300);

fn main() {
    support::enter(functions::start, functions::run);
    let tests = [
        cancels::TESTS,
        results::TESTS,
        insight::TESTS,
        deaths::TESTS,
        ends::TESTS,
        fates::TESTS,
        limits::TESTS,
        reports::TESTS,
        starts::TESTS,
        #[cfg(feature = "crash-points")]
        points::TESTS,
    ]
    .concat();
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == ALONE) {
        let name = arguments.get(2).map_or("", String::as_str);
        let roles = tests.into_iter().chain([ends::KILLED_CLIENT, starts::ORDINARY_CLIENT]);
        #[cfg(feature = "crash-points")]
        let roles = roles.chain([points::VICTIM]);
        let mut roles = roles;
        let test = roles.find(|(of, _)| *of == name).expect("a test of that name").1;
        return test();
    }
    // One at a time: each has several processes that want a core.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let trials = tests.into_iter().map(|(name, _)| Trial::test(name, move || in_a_process(name))).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

/// The command that runs one test in a process of its own.
fn alone(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this executable is somewhere"));
    command.args([ALONE, name]);
    command
}

fn in_a_process(name: &str) -> Result<(), Failed> {
    let mut child = alone(name).spawn()?;
    let started = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("{status}; its words are above").into()),
            None if started.elapsed() > TOO_LONG => {
                child.kill()?;
                child.wait()?;
                return Err(format!("it did not end within {TOO_LONG:?}").into());
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}
