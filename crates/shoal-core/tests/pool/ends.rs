//! Pools that end, in order or not.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::Ordering;

use shoal_core::error::Error;
use shoal_core::memory::lease::Kind;
use shoal_core::pool::client::{Pool, WorkerState};
use shoal_core::pool::tasks::{Outcome, Reply, TaskCell};

use crate::client::{Client, config, gone, handle, heap, number, numbers, value, watch};
use crate::{Test, alone};

/// The tests.
pub const TESTS: &[Test] = &[
    ("a_closed_pool_does_what_was_submitted_and_ends", a_closed_pool_does_what_was_submitted_and_ends),
    (
        "a_closed_pool_replaces_a_dead_worker_while_there_is_work",
        a_closed_pool_replaces_a_dead_worker_while_there_is_work,
    ),
    ("a_closed_pool_goes_on_for_a_job_that_was_begun", a_closed_pool_goes_on_for_a_job_that_was_begun),
    ("no_job_begins_in_a_pool_that_has_closed", no_job_begins_in_a_pool_that_has_closed),
    ("an_ended_pool_takes_no_tasks", an_ended_pool_takes_no_tasks),
    ("a_terminated_pool_ends_its_tasks_and_workers", a_terminated_pool_ends_its_tasks_and_workers),
    ("workers_that_ignore_sigterm_are_killed", workers_that_ignore_sigterm_are_killed),
    ("a_dropped_pool_is_terminated", a_dropped_pool_is_terminated),
    ("pools_come_and_go", pools_come_and_go),
    ("nobody_survives_a_killed_client", nobody_survives_a_killed_client),
];

fn a_closed_pool_does_what_was_submitted_and_ends() {
    let client = Client::new(2);
    let workers: Vec<_> = client.all_pids().into_iter().map(watch).collect();
    let inbox = client.call_all("square", (0..5000).map(|n| numbers(&[n])));
    client.pool.close();
    for (n, outcome) in client.outcomes(&inbox, 5000).iter().enumerate() {
        assert_eq!(number(value(outcome)), (n * n) as u64);
    }
    client.wait("the workers' end", || client.pool.is_over());
    workers.iter().for_each(gone);
    assert!(client.pool.workers().iter().all(|worker| worker.state == WorkerState::Gone && worker.pid.is_none()));
}

fn a_closed_pool_replaces_a_dead_worker_while_there_is_work() {
    let client = Client::new(1);
    let killed = client.call("kill", &[]);
    let after = client.call("echo", b"after");
    client.pool.close();
    assert!(matches!(client.outcome(&killed), Outcome::Died(_)));
    assert_eq!(value(&client.outcome(&after)), b"after");
    client.wait("the workers' end", || client.pool.is_over());
}

fn a_closed_pool_goes_on_for_a_job_that_was_begun() {
    let client = Client::new(1);
    client.pool.feed(0).unwrap();
    client.pool.close();
    client.pool.feed(0).expect("the pool is held by the first job");
    client.pool.fed();
    let inbox = client.call_all("square", (0..10).map(|n| numbers(&[n])));
    assert!(!client.pool.is_over());
    client.pool.fed();
    for (n, outcome) in client.outcomes(&inbox, 10).iter().enumerate() {
        assert_eq!(number(value(outcome)), (n * n) as u64);
    }
    client.wait("the worker's end", || client.pool.is_over());
}

fn no_job_begins_in_a_pool_that_has_closed() {
    let client = Client::new(1);
    client.pool.close();
    // Its workers have been told to end: nobody would do what the job sends.
    assert!(matches!(client.pool.feed(0), Err(Error::PoolClosed)));
    client.wait("the worker's end", || client.pool.is_over());
}

fn an_ended_pool_takes_no_tasks() {
    let (closed, terminated) = (Client::new(1), Client::new(1));
    closed.pool.close();
    terminated.pool.terminate();
    for client in [closed, terminated] {
        assert!(!client.pool.is_open());
        let function = client.pool.function(b"echo", vec![]).unwrap();
        let submitted = client.pool.submit(&function, 0, b"", vec![], Reply::Cell(TaskCell::default().into()));
        assert!(matches!(submitted, Err(Error::PoolClosed)), "{submitted:?}");
    }
}

fn a_terminated_pool_ends_its_tasks_and_workers() {
    let client = Client::new(2);
    let workers: Vec<_> = client.all_pids().into_iter().map(watch).collect();
    let gate = heap().allocate_cell(Kind::Cell).unwrap();
    let inbox = client.call_all("count and wait", (0..3000).map(|_| handle(&gate)));
    client.wait("both workers at a task", || gate.cell().number.load(Ordering::SeqCst) == 2);
    client.pool.terminate();
    assert_eq!(client.pool.queued(), 0, "nobody looks for room for what was cut off");
    for outcome in client.outcomes(&inbox, 3000) {
        assert!(matches!(outcome, Outcome::Terminated), "{outcome:?}");
    }
    client.wait("the workers' end", || client.pool.is_over());
    workers.iter().for_each(gone);
}

fn workers_that_ignore_sigterm_are_killed() {
    let mut config = config(2);
    let run = format!("trap '' TERM; exec \"$0\" {}", config.launch.args[0].display());
    config.launch.args = vec!["-c".into(), run.into(), config.launch.program];
    config.launch.program = "sh".into();
    let client = Client { pool: Pool::new(&config).unwrap() };
    let workers: Vec<_> = client.all_pids().into_iter().map(watch).collect();
    let gate = heap().allocate_cell(Kind::Cell).unwrap();
    let inbox = client.call_all("count and wait", (0..2).map(|_| handle(&gate)));
    client.wait("both workers at a task", || gate.cell().number.load(Ordering::SeqCst) == 2);
    client.pool.terminate();
    workers.iter().for_each(gone);
    client.wait("the workers' end", || client.pool.is_over());
    client.outcomes(&inbox, 2).iter().for_each(|outcome| assert!(matches!(outcome, Outcome::Terminated)));
}

fn a_dropped_pool_is_terminated() {
    let client = Client::new(2);
    let workers: Vec<_> = client.all_pids().into_iter().map(watch).collect();
    let asleep = client.call("sleep", &[]);
    drop(client);
    workers.iter().for_each(gone);
    assert!(matches!(asleep.take(), Some(Outcome::Terminated)));
}

fn pools_come_and_go() {
    let mut zygotes = vec![];
    for n in 0..30 {
        let client = Client::new(2);
        assert_eq!(number(&client.result("square", &numbers(&[n]))), n * n);
        zygotes.push(client.result("zygote", &[]));
    }
    zygotes.dedup();
    assert_eq!(zygotes.len(), 1, "one zygote serves all pools of a process");
}

fn nobody_survives_a_killed_client() {
    let mut child = alone(KILLED_CLIENT.0).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut told).unwrap();
    let others: Vec<_> = told.split_whitespace().map(|pid| watch(pid.parse().unwrap())).collect();
    assert_eq!(others.len(), 4, "a zygote and three workers: {told:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    others.iter().for_each(gone);
}

/// The client of the test above: says who belongs to it, and waits for its end. One worker is at a task.
pub const KILLED_CLIENT: Test = ("the client that is killed", || {
    let client = Client::new(3);
    let mut pids = client.all_pids();
    pids.push(number(&client.result("zygote", &[])) as u32);
    let _asleep = client.call("sleep", &[]);
    client.wait("the worker at its task", || client.pool.queued() == 0);
    println!("{}", pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
    std::thread::sleep(std::time::Duration::MAX);
});
