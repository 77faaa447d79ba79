//! What a pool tells of its work.

use std::time::Duration;

use shoal_core::pool::account::Spent;
use shoal_core::pool::tasks::Outcome;
use shoal_core::pool::trace::{End, Trace};

use crate::Test;
use crate::client::{Client, eventually, numbers};
use crate::support;

/// The tests.
pub const TESTS: &[Test] = &[
    ("a_trace_has_every_task_that_was_submitted_in_it", a_trace_has_every_task_that_was_submitted_in_it),
    ("a_trace_tells_of_the_task_that_killed_its_worker", a_trace_tells_of_the_task_that_killed_its_worker),
    ("a_trace_of_too_many_tasks_counts_those_left_out", a_trace_of_too_many_tasks_counts_those_left_out),
    ("one_trace_at_a_time", one_trace_at_a_time),
    ("the_time_of_workers_is_accounted_for", the_time_of_workers_is_accounted_for),
];

fn traced(client: &Client, work: impl FnOnce()) -> Trace {
    assert!(client.pool.start_trace(1000).unwrap());
    work();
    client.pool.stop_trace().expect("it was begun")
}

fn a_trace_has_every_task_that_was_submitted_in_it() {
    let client = Client::new(2);
    client.result("echo", b"before");
    let trace = traced(&client, || {
        let inbox = client.call_all("square", (0..100).map(|n| numbers(&[n])));
        client.outcomes(&inbox, 100);
        assert!(matches!(client.outcome(&client.call("dance", &[7; 3000])), Outcome::Done { .. }));
    });
    let records: Vec<_> = trace.records().collect();
    assert_eq!((records.len(), trace.left_out), (101, 0));
    for record in &records {
        assert!(record.submitted <= record.started, "{record:?}");
        assert!(record.started <= record.ended && record.ended <= record.received, "{record:?}");
        assert!(record.worker < 2 && record.end == End::Done && record.units == 1);
    }
    assert!(records[..100].iter().all(|record| record.bytes_in == 8 && record.bytes_out == 8));
    let last = records[100];
    assert_eq!((last.kind, last.bytes_in), (support::ERROR, 3000));
    // On one worker, one at a time.
    for worker in 0..2 {
        let mut of_worker: Vec<_> = records.iter().filter(|record| record.worker == worker).collect();
        of_worker.sort_by_key(|record| record.started);
        assert!(of_worker.windows(2).all(|pair| pair[0].ended <= pair[1].started));
    }
}

fn a_trace_tells_of_the_task_that_killed_its_worker() {
    let client = Client::new(1);
    let trace = traced(&client, || {
        client.death("kill", &[]);
        client.result("echo", b"after");
    });
    let records: Vec<_> = trace.records().collect();
    assert_eq!(records.iter().map(|record| record.end).collect::<Vec<_>>(), [End::Died, End::Done]);
    let killed = records[0];
    assert!(killed.submitted <= killed.started && killed.started <= killed.ended, "{killed:?}");
    assert!(killed.ended <= records[1].started);
}

fn a_trace_of_too_many_tasks_counts_those_left_out() {
    let client = Client::new(1);
    assert!(client.pool.start_trace(3).unwrap());
    for n in 0..5 {
        client.result("square", &numbers(&[n]));
    }
    let trace = client.pool.stop_trace().expect("it was begun");
    assert_eq!((trace.records().count(), trace.left_out), (3, 2));
}

fn one_trace_at_a_time() {
    let client = Client::new(1);
    assert!(client.pool.stop_trace().is_none());
    assert!(client.pool.start_trace(1).unwrap());
    assert!(!client.pool.start_trace(1).unwrap());
    assert!(client.pool.stop_trace().is_some());
    assert!(client.pool.start_trace(1).unwrap());
}

fn the_time_of_workers_is_accounted_for() {
    let client = Client::new(2);
    client.result("echo", b"");
    // They have looked for work and found none: from now on their time counts as idle.
    eventually("both are idle", || {
        let earlier = client.pool.spent();
        std::thread::sleep(Duration::from_millis(1));
        client.pool.spent().iter().zip(&earlier).all(|(now, earlier)| now.since(earlier).idle > 0)
    });
    let began = shoal_sys::clock::nanos();
    let before = client.pool.spent();
    std::thread::sleep(Duration::from_millis(50));
    let inbox = client.call_all("square", (0..10_000).map(|n| numbers(&[n])));
    client.outcomes(&inbox, 10_000);
    let after = client.pool.spent();
    let passed = shoal_sys::clock::nanos() - began;
    let between: Vec<Spent> = after.iter().zip(&before).map(|(after, before)| after.since(before)).collect();
    assert_eq!(between.iter().map(|spent| spent.tasks).sum::<u64>(), 10_000);
    for spent in between {
        let all = spent.busy + spent.sending + spent.idle + spent.waiting;
        assert!(all <= passed + passed / 10, "{spent:?} in {passed}");
        // It slept, or was about to.
        assert!(spent.idle + spent.sending >= 45_000_000, "{spent:?}");
        assert!(spent.decoding + spent.encoding <= spent.busy, "{spent:?}");
    }
}
