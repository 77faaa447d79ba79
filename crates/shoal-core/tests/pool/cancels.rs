//! Tasks that are taken back before a worker takes them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;
use shoal_core::pool::tasks::{Inbox, Outcome, Reply, TaskCell};

use crate::Test;
use crate::client::{Client, eventually, handle, heap, number, numbers, value};

/// The tests.
pub const TESTS: &[Test] = &[
    ("a_task_is_cancelled_or_run_never_both", a_task_is_cancelled_or_run_never_both),
    ("what_runs_or_has_ended_is_not_cancelled", what_runs_or_has_ended_is_not_cancelled),
    ("tasks_far_behind_a_full_ring_are_cancelled_too", tasks_far_behind_a_full_ring_are_cancelled_too),
    ("a_closed_pool_whose_tasks_are_cancelled_ends", a_closed_pool_whose_tasks_are_cancelled_ends),
    ("an_inbox_is_told_of_watched_tasks_once", an_inbox_is_told_of_watched_tasks_once),
];

/// Submits a call; returns its number besides.
fn submit(client: &Client, function: &str, payload: &[u8]) -> (u64, Arc<TaskCell>) {
    let cell = Arc::new(TaskCell::default());
    let function = client.pool.function(function.as_bytes(), vec![]).expect("there is memory");
    let number = client.pool.submit(&function, 0, payload, vec![], Reply::Cell(cell.clone()));
    (number.expect("the pool is open"), cell)
}

/// A pool of one worker that is at a task until the gate is opened; the gate, and the task.
fn busy() -> (Client, Lease, (u64, Arc<TaskCell>)) {
    let client = Client::new(1);
    let gate = heap().allocate_cell(Kind::Cell).unwrap();
    let at_it = submit(&client, "count and wait", &handle(&gate));
    client.wait("the worker at its task", || gate.cell().number.load(Ordering::SeqCst) == 1);
    (client, gate, at_it)
}

fn open(gate: &Lease) {
    gate.cell().word.store(1, Ordering::SeqCst);
}

fn a_task_is_cancelled_or_run_never_both() {
    let client = Client::new(2);
    let (mut cancelled, mut done) = (0, 0);
    // Submitted and cancelled at once: whoever is quicker.
    for n in 0..20_000 {
        let (task, cell) = submit(&client, "square", &numbers(&[n]));
        if n % 3 == 0 {
            std::thread::yield_now();
        }
        let taken_back = client.pool.cancel(task);
        assert_eq!(cell.is_cancelled(), taken_back);
        match client.outcome(&cell) {
            Outcome::Cancelled if taken_back => cancelled += 1,
            outcome if !taken_back => {
                assert_eq!(number(value(&outcome)), n * n);
                done += 1;
            }
            outcome => panic!("cancelled, and yet {outcome:?}"),
        }
    }
    assert_eq!(cancelled + done, 20_000);
    assert_eq!(client.pool.outstanding(), 0);
}

fn what_runs_or_has_ended_is_not_cancelled() {
    let (client, gate, (running, cell)) = busy();
    let (queued, behind) = submit(&client, "echo", b"behind");
    assert!(!client.pool.is_queued(running) && client.pool.is_queued(queued));
    assert!(!client.pool.cancel(running));
    open(&gate);
    client.outcome(&cell);
    assert_eq!(value(&client.outcome(&behind)), b"behind");
    assert!(!client.pool.cancel(running) && !client.pool.cancel(queued) && !client.pool.is_queued(queued));
}

fn tasks_far_behind_a_full_ring_are_cancelled_too() {
    let (client, gate, (_, cell)) = busy();
    let function = client.pool.function(b"square", vec![]).unwrap();
    let inbox: Arc<Inbox> = Inbox::new();
    let tasks: Vec<u64> = (0..5000)
        .map(|n| {
            // Every other one has its argument in a block.
            let payload = numbers(&[n]).repeat(if n % 2 == 0 { 1 } else { 20 });
            client.pool.submit(&function, 0, &payload, vec![], Reply::Inbox(inbox.clone(), n)).unwrap()
        })
        .collect();
    let kept = |n: usize| n.is_multiple_of(7);
    for (n, task) in tasks.iter().enumerate().rev() {
        assert!(client.pool.cancel(*task), "{n}: none has been taken");
        if kept(n) {
            // Its place is free for another.
            client
                .pool
                .submit(&function, 0, &numbers(&[n as u64]), vec![], Reply::Inbox(inbox.clone(), 5000 + n as u64))
                .unwrap();
        }
    }
    open(&gate);
    client.outcome(&cell);
    let mut squares = 0;
    for _ in 0..5000 + (0..5000).filter(|n| kept(*n)).count() {
        client.wait("the end of each", || !inbox.is_empty());
        match inbox.pop().expect("waited for") {
            (tag, Outcome::Cancelled) => assert!(tag < 5000),
            (tag, outcome) => {
                assert_eq!(number(value(&outcome)), (tag - 5000) * (tag - 5000));
                squares += 1;
            }
        }
    }
    assert_eq!(squares, (0..5000).filter(|n| kept(*n)).count());
    assert_eq!(client.pool.queued(), 0);
}

fn a_closed_pool_whose_tasks_are_cancelled_ends() {
    let (client, gate, (_, cell)) = busy();
    let inbox = client.call_all("square", (0..3000).map(|n| numbers(&[n])));
    client.pool.close();
    client.pool.cancel_queued();
    client.outcomes(&inbox, 3000).iter().for_each(|outcome| assert!(matches!(outcome, Outcome::Cancelled)));
    assert!(!client.pool.is_over(), "one is still at work");
    open(&gate);
    client.outcome(&cell);
    client.wait("the worker's end", || client.pool.is_over());
}

fn an_inbox_is_told_of_watched_tasks_once() {
    let (client, gate, (_, cell)) = busy();
    let told: Arc<Inbox<u64>> = Inbox::new();
    let (_, before) = submit(&client, "echo", b"before");
    let (task, cancelled) = submit(&client, "echo", b"cancelled");
    assert!(before.watch(&told, 1) && cancelled.watch(&told, 2) && cell.watch(&told, 3));
    assert!(client.pool.cancel(task));
    assert_eq!(told.pop(), Some(2));
    open(&gate);
    client.wait("the ends of both", || before.is_done() && cell.is_done());
    // It is told of an end right behind that.
    let mut ends = vec![];
    eventually("both are told of", || {
        ends.extend(told.take_all());
        ends.len() >= 2
    });
    assert_eq!(ends, [3, 1]);
    assert!(!before.watch(&told, 4), "it has ended already");
    assert_eq!(value(&before.take().expect("taken once")), b"before");
    assert!(told.is_empty() && before.take().is_none());
}
