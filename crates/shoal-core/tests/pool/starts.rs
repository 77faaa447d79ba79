//! Pools that cannot start.

use std::os::unix::process::CommandExt;

use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use shoal_core::domain::host::Host;
use shoal_core::error::Error;
use shoal_core::pool::client::{Config, Pool};
use shoal_core::pool::tasks::{Outcome, Reply, TaskCell};

use crate::client::{Client, config};
use crate::functions::REFUSE;
use crate::{Test, alone};

/// The tests.
pub const TESTS: &[Test] = &[
    ("a_zygote_that_is_no_program_is_an_error_at_once", a_zygote_that_is_no_program_is_an_error_at_once),
    ("a_zygote_that_ends_at_once_gives_no_workers", a_zygote_that_ends_at_once_gives_no_workers),
    ("a_zygote_that_is_killed_before_it_is_ready_is_replaced", a_zygote_that_is_killed_before_it_is_ready_is_replaced),
    ("workers_that_end_before_they_are_ready_are_given_up", workers_that_end_before_they_are_ready_are_given_up),
    ("a_pool_that_could_not_start_leaves_the_next_alone", a_pool_that_could_not_start_leaves_the_next_alone),
    ("a_pool_has_from_one_to_500_workers", a_pool_has_from_one_to_500_workers),
    ("nobody_waits_for_a_zygote_that_does_not_read", nobody_waits_for_a_zygote_that_does_not_read),
    ("an_ordinary_user_has_more_workers_than_can_be_asked_for_at_once", || {
        let mut command = alone(ORDINARY_CLIENT.0);
        if geteuid().is_root() {
            command.uid(NOBODY);
        }
        assert!(command.status().expect("it starts").success());
    }),
];

/// The client of the last test, a process of its own.
pub const ORDINARY_CLIENT: Test = ("an_ordinary_client", an_ordinary_client);
/// Somebody with no rights of root: the kernel lets that one send as many descriptors as it likes.
const NOBODY: u32 = 65534;

/// Such a pool whose zygote is a script, followed by the command of the real one.
fn scripted(workers: usize, script: &str) -> Config {
    let mut config = config(workers);
    let real = std::mem::replace(&mut config.launch.program, "/bin/sh".into());
    config.launch.args.splice(0..0, ["-c".into(), script.into(), "zygote".into(), real]);
    config
}

fn program(name: &str) -> Config {
    let mut config = config(2);
    config.launch.program = name.into();
    config.launch.args = vec![];
    config
}

fn refusing() -> Config {
    Config { setup: REFUSE.to_vec(), ..config(2) }
}

/// Why none of the tasks of such a pool will ever run.
fn why_no_workers(config: &Config) -> String {
    let client = Client { pool: Pool::new(config).expect("started in the background") };
    let tasks: Vec<_> = (0..10).map(|_| submit(&client)).collect();
    let mut why = vec![];
    for task in tasks {
        match task {
            Ok(cell) => match client.outcome(&cell) {
                Outcome::NoWorkers(reason) => why.push(reason.to_string()),
                other => panic!("nobody can have run it: {other:?}"),
            },
            // The pool was faster to find out than we were to submit.
            Err(Error::CannotStart(reason)) => why.push(reason),
            Err(other) => panic!("{other}"),
        }
    }
    let later = submit(&client);
    assert!(matches!(&later, Err(Error::CannotStart(reason)) if *reason == why[0]), "{later:?}");
    client.wait("the pool's end", || client.pool.is_over());
    why.dedup();
    assert_eq!(why.len(), 1, "all for the same reason");
    why.remove(0)
}

fn submit(client: &Client) -> shoal_core::Result<std::sync::Arc<TaskCell>> {
    let cell = std::sync::Arc::new(TaskCell::default());
    let function = client.pool.function(b"echo", vec![])?;
    client.pool.submit(&function, 0, b"", vec![], Reply::Cell(cell.clone()))?;
    Ok(cell)
}

fn a_zygote_that_is_no_program_is_an_error_at_once() {
    match Pool::new(&program("/no/such/program")) {
        Err(Error::CannotStart(why)) => assert!(why.contains("/no/such/program"), "{why}"),
        other => panic!("{other:?}"),
    }
}

fn a_zygote_that_ends_at_once_gives_no_workers() {
    let why = why_no_workers(&program("false"));
    assert!(why.contains("exit status: 1"), "{why}");
}

fn a_zygote_that_is_killed_before_it_is_ready_is_replaced() {
    let mut config = config(2);
    // Kills itself the first five times, and counts them in a file.
    let count = std::env::temp_dir().join(format!("shoal-zygotes-{}", std::process::id()));
    let script = "echo >> \"$0\"; if [ $(wc -l < \"$0\") -gt 5 ]; then exec \"$@\"; fi; kill -9 $$";
    let real = std::mem::replace(&mut config.launch.program, "/bin/sh".into());
    let own = ["-c".into(), script.into(), count.clone().into_os_string(), real];
    config.launch.args.splice(0..0, own);
    let client = Client { pool: Pool::new(&config).expect("started in the background") };
    assert_eq!(client.result("echo", b"well"), b"well");
    std::fs::remove_file(count).expect("it was counted");
}

fn workers_that_end_before_they_are_ready_are_given_up() {
    let why = why_no_workers(&refusing());
    assert!(why.contains("exit code 5"), "{why}");
}

fn a_pool_that_could_not_start_leaves_the_next_alone() {
    why_no_workers(&program("false"));
    why_no_workers(&refusing());
    assert_eq!(Client::new(2).result("echo", b"well"), b"well");
}

fn a_pool_has_from_one_to_500_workers() {
    for workers in [0, 501, usize::MAX] {
        let refused = Pool::new(&config(workers));
        assert!(matches!(refused, Err(Error::Workers { asked, most: 500 }) if asked == workers), "{workers}");
    }
}

fn nobody_waits_for_a_zygote_that_does_not_read() {
    // As long as this process is there.
    let deaf = scripted(400, "while kill -0 $PPID 2> /dev/null; do sleep 1; done");
    let client = Client { pool: Pool::new(&deaf).expect("started in the background") };
    let host = Host::existing().expect("there is one");
    // Would wait for whoever has it locked.
    host.usage();
    assert!(client.pool.is_starting());
    client.pool.terminate();
}

fn an_ordinary_client() {
    let now = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(220), ..now }).expect("a lower limit");
    // Nothing is read until all have been asked for.
    let client = Client { pool: Pool::new(&scripted(40, "sleep 1; exec \"$@\"")).expect("it can wait for some") };
    client.wait("the workers", || client.pids().len() == 40);
    assert_eq!(client.result("echo", b"well"), b"well");
}
