//! Workers that have too much memory, too little to do, or nothing to say.

use std::sync::atomic::Ordering;
use std::time::Duration;

use shoal_core::memory::lease::Kind;
use shoal_core::pool::client::{Config, Limits, Pool, WorkerState};
use shoal_core::pool::death::Cause;
use shoal_core::pool::tasks::Outcome;
use shoal_sys::process::Signal;

use crate::Test;
use crate::client::{Client, config, eventually, handle, heap, kill, number, numbers, value};

/// The tests.
pub const TESTS: &[Test] = &[
    ("a_worker_with_too_much_memory_is_ended_and_says_so", a_worker_with_too_much_memory_is_ended_and_says_so),
    (
        "who_waits_behind_a_full_ring_for_memory_that_is_not_there_keeps_nobody",
        who_waits_behind_a_full_ring_for_memory_that_is_not_there_keeps_nobody,
    ),
    ("idle_workers_end_and_come_back_when_there_is_work", idle_workers_end_and_come_back_when_there_is_work),
    ("workers_that_come_and_go_lose_no_task", workers_that_come_and_go_lose_no_task),
    ("a_stopped_worker_does_not_keep_others_at_rest", a_stopped_worker_does_not_keep_others_at_rest),
    ("a_pool_whose_workers_rest_closes", a_pool_whose_workers_rest_closes),
    ("a_silent_worker_is_told_apart_from_a_busy_one", a_silent_worker_is_told_apart_from_a_busy_one),
    ("a_stopped_worker_is_told_apart_from_a_busy_one", a_stopped_worker_is_told_apart_from_a_busy_one),
];

fn limited(workers: usize, limits: Limits) -> Client {
    Client { pool: Pool::new(&Config { limits, ..config(workers) }).expect("the pool starts") }
}

fn states(client: &Client) -> Vec<WorkerState> {
    client.pool.workers().iter().map(|worker| worker.state).collect()
}

fn a_worker_with_too_much_memory_is_ended_and_says_so() {
    let limit = 256 << 20;
    let client = limited(2, Limits { private_memory: Some(limit), ..Limits::default() });
    let small = client.call("hoard", &numbers(&[1 << 20]));
    let death = client.death("hoard", &numbers(&[512 << 20]));
    let Cause::MemoryLimit { used, limit: told } = death.cause else { panic!("for its memory: {death:?}") };
    assert!(told == limit && used > limit, "{used}");
    assert!(!small.is_done(), "the other one goes on");
    assert_eq!(client.result("echo", b"well"), b"well");
}

fn who_waits_behind_a_full_ring_for_memory_that_is_not_there_keeps_nobody() {
    let limit = Some(1 << 20);
    let client = Client { pool: Pool::new(&Config { memory_limit: limit, ..config(1) }).expect("the pool starts") };
    let gate = heap().allocate_cell(Kind::Cell).expect("there is memory");
    let first = client.call("count and wait", &handle(&gate));
    client.wait("the worker at its task", || gate.cell().number.load(Ordering::SeqCst) == 1);
    let is_large = |n: u64| n > 1500 && n.is_multiple_of(3);
    let payload = |n| numbers(&[n]).repeat(if is_large(n) { 1 << 18 } else { 1 });
    let inbox = client.call_all("square", (0..2000).map(payload));
    gate.cell().word.store(1, Ordering::SeqCst);
    client.outcome(&first);
    for (n, outcome) in (0..).zip(client.outcomes(&inbox, 2000)) {
        if is_large(n) {
            assert!(matches!(outcome, Outcome::OutOfSharedMemory { .. }), "{outcome:?}");
        } else {
            assert_eq!(number(value(&outcome)), n * n);
        }
    }
}

fn idle_workers_end_and_come_back_when_there_is_work() {
    let client = limited(3, Limits { idle: Some(Duration::from_millis(50)), ..Limits::default() });
    for round in 0..5 {
        eventually("all rest", || states(&client) == [WorkerState::Resting; 3]);
        assert!(client.pids().is_empty());
        let gate = heap().allocate_cell(Kind::Cell).expect("there is memory");
        let waiting = client.call_all("count and wait", (0..3).map(|_| handle(&gate)));
        eventually("all are called back", || client.pids().len() == 3);
        gate.cell().word.store(1, Ordering::SeqCst);
        client.outcomes(&waiting, 3).iter().for_each(|outcome| drop(value(outcome).to_vec()));
        assert_eq!(number(&client.result("square", &numbers(&[round]))), round * round);
    }
}

fn workers_that_come_and_go_lose_no_task() {
    let client = limited(2, Limits { idle: Some(Duration::from_millis(1)), ..Limits::default() });
    for n in 0..300u64 {
        assert_eq!(number(&client.result("square", &numbers(&[n]))), n * n);
        // Just about when they leave.
        std::thread::sleep(Duration::from_micros(n * 37 % 4_000));
    }
}

fn a_stopped_worker_does_not_keep_others_at_rest() {
    let client = limited(2, Limits { idle: Some(Duration::from_secs(2)), ..Limits::default() });
    // It looks for tasks, or is about to be woken for one, and will not take it.
    kill(client.all_pids()[1], Signal::STOP);
    eventually("the other rests", || states(&client)[0] == WorkerState::Resting);
    assert_eq!(client.result("echo", b"well"), b"well");
    // Also when nobody waits for it.
    eventually("it rests again", || states(&client)[0] == WorkerState::Resting);
    let nobody_waits = client.call("echo", b"well");
    eventually("it is done", || client.pool.queued() == 0);
    assert_eq!(value(&client.outcome(&nobody_waits)), b"well");
}

fn a_pool_whose_workers_rest_closes() {
    let client = limited(2, Limits { idle: Some(Duration::from_millis(5)), ..Limits::default() });
    eventually("all rest", || states(&client) == [WorkerState::Resting; 2]);
    let last = client.call("echo", b"the last");
    client.pool.close();
    assert_eq!(value(&client.outcome(&last)), b"the last");
    client.wait("the end of the workers", || client.pool.is_over());
}

fn a_silent_worker_is_told_apart_from_a_busy_one() {
    let client = limited(2, Limits { answer: Some(Duration::from_millis(50)), ..Limits::default() });
    // Nothing in it answers SIGURG.
    client.call("sleep", &[]);
    eventually("it is silent", || {
        let states = states(&client);
        states.contains(&WorkerState::Silent) && states.contains(&WorkerState::Idle)
    });
}

fn a_stopped_worker_is_told_apart_from_a_busy_one() {
    let client = Client::new(1);
    let worker = client.all_pids()[0];
    kill(worker, Signal::STOP);
    eventually("it is stopped", || states(&client) == [WorkerState::Stopped]);
    kill(worker, Signal::CONT);
    eventually("it goes on", || states(&client) == [WorkerState::Idle]);
    assert_eq!(client.result("echo", b"well"), b"well");
}
