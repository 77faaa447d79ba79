//! Tasks that are stopped, tried again, or let pass by others.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;
use shoal_core::pool::death::Cause;
use shoal_core::pool::tasks::{Inbox, Outcome, Reply};
use shoal_core::pool::terms::Terms;

use crate::Test;
use crate::client::{Client, eventually, handle, heap, number, numbers, value};

/// The tests.
pub const TESTS: &[Test] = &[
    ("a_task_that_overruns_is_stopped_and_the_next_one_runs", a_task_that_overruns_is_stopped_and_the_next_one_runs),
    ("the_time_in_the_queue_does_not_count", the_time_in_the_queue_does_not_count),
    ("a_task_ends_or_is_stopped_and_no_other_is_hit", a_task_ends_or_is_stopped_and_no_other_is_hit),
    ("a_task_whose_worker_dies_is_tried_again", a_task_whose_worker_dies_is_tried_again),
    ("a_task_that_kills_each_worker_is_given_up", a_task_that_kills_each_worker_is_given_up),
    ("a_task_that_fails_is_tried_again", a_task_that_fails_is_tried_again),
    ("an_overrun_is_tried_again_if_the_terms_say_so", an_overrun_is_tried_again_if_the_terms_say_so),
    ("there_is_a_pause_before_another_try", there_is_a_pause_before_another_try),
    ("a_closed_pool_waits_for_the_last_try", a_closed_pool_waits_for_the_last_try),
    ("a_running_task_is_stopped_at_once", a_running_task_is_stopped_at_once),
    ("stopped_or_done_never_both", stopped_or_done_never_both),
    ("what_matters_more_goes_first", what_matters_more_goes_first),
    ("what_a_worker_said_last_is_known", what_a_worker_said_last_is_known),
];

fn timeout(time: Duration) -> Terms {
    Terms { timeout: Some(time), ..Terms::default() }
}

fn retries(retries: u32) -> Terms {
    Terms { retries, ..Terms::default() }
}

fn counter() -> Lease {
    heap().allocate_cell(Kind::Cell).expect("there is memory")
}

fn a_task_that_overruns_is_stopped_and_the_next_one_runs() {
    let client = Client::new(1);
    for _ in 0..3 {
        let worker = number(&client.result("who", &[])) as u32;
        let limit = Duration::from_millis(30);
        let (_, cell) = client.call_on(timeout(limit), "sleep", &[]);
        let Outcome::TimedOut(told, failed) = client.outcome(&cell) else { panic!("it sleeps for ever") };
        assert_eq!((told, failed.tries()), (limit, 1));
        let death = failed.last();
        assert_eq!((death.pid, death.code, death.cause), (worker, -9, Cause::TimedOut(limit)));
        assert_eq!(client.result("echo", b"well"), b"well");
    }
}

fn the_time_in_the_queue_does_not_count() {
    let client = Client::new(1);
    let gate = counter();
    let before = client.call("count and wait", &handle(&gate));
    let limit = Duration::from_secs(1);
    let behind: Vec<_> = (0..10).map(|n| client.call_on(timeout(limit), "square", &numbers(&[n])).1).collect();
    std::thread::sleep(limit + limit / 4);
    gate.cell().word.store(1, Ordering::SeqCst);
    assert!(value(&client.outcome(&before)).is_empty());
    let ended = behind.iter().filter(|cell| matches!(client.outcome(cell), Outcome::Done { .. })).count();
    assert!(ended > 5, "one that a busy machine keeps waiting while it runs may be stopped, but not all");
}

/// Tasks that take about as long as they may.
fn a_task_ends_or_is_stopped_and_no_other_is_hit() {
    let client = Client::new(2);
    let (limit, mut ended, mut stopped) = (Duration::from_millis(4), 0, 0);
    let mut calls = vec![];
    for n in 0..300u64 {
        let micros = 3_500 + n * 7 % 1_000;
        calls.push((true, client.call_on(timeout(limit), "nap", &numbers(&[micros])).1));
        calls.push((false, client.call("square", &numbers(&[n]))));
    }
    for (may_be_stopped, cell) in calls {
        match client.outcome(&cell) {
            Outcome::Done { .. } => ended += 1,
            Outcome::TimedOut(..) if may_be_stopped => stopped += 1,
            other => panic!("neither ended nor stopped: {other:?}"),
        }
    }
    assert_eq!(ended + stopped, 600);
    assert_eq!(client.pool.outstanding(), 0);
}

fn a_task_whose_worker_dies_is_tried_again() {
    let client = Client::new(2);
    let counter = counter();
    let payload = [numbers(&[3]), handle(&counter)].concat();
    let (_, cell) = client.call_on(retries(3), "die at first", &payload);
    assert_eq!(number(value(&client.outcome(&cell))), 4);
}

fn a_task_that_kills_each_worker_is_given_up() {
    let client = Client::new(2);
    let (_, cell) = client.call_on(retries(2), "kill", b"its argument");
    let Outcome::Died(failed) = client.outcome(&cell) else { panic!("it kills") };
    assert_eq!(failed.tries(), 3);
    let mut pids: Vec<u32> = failed.all().iter().map(|death| death.pid).collect();
    pids.dedup();
    assert_eq!(pids.len(), 3, "each time another one");
    assert!(failed.all().iter().all(|death| death.code == -9));
    assert_eq!(failed.arguments(100).as_deref(), Some(&b"its argument"[..]));
    assert_eq!(failed.arguments(3), None);
}

fn a_task_that_fails_is_tried_again() {
    let client = Client::new(2);
    let counter = counter();
    let payload = [numbers(&[2]), handle(&counter)].concat();
    let (_, cell) = client.call_on(retries(2), "fail at first", &payload);
    assert_eq!(number(value(&client.outcome(&cell))), 3);
    let payload = [numbers(&[100]), handle(&counter)].concat();
    let (_, cell) = client.call_on(retries(2), "fail at first", &payload);
    let Outcome::Done { kind: crate::support::ERROR, payload, .. } = client.outcome(&cell) else {
        panic!("its error is its end")
    };
    assert!(payload.bytes().expect("small").ends_with(b"call 6"), "the error of the last try");
}

fn an_overrun_is_tried_again_if_the_terms_say_so() {
    let client = Client::new(1);
    let terms = Terms { retries: 2, ..timeout(Duration::from_millis(20)) };
    let tries = |terms| match client.outcome(&client.call_on(terms, "sleep", &[]).1) {
        Outcome::TimedOut(_, failed) => (failed.tries(), failed.all().len()),
        other => panic!("it sleeps for ever: {other:?}"),
    };
    assert_eq!(tries(terms.clone()), (1, 1));
    assert_eq!(tries(Terms { retry_timeouts: true, ..terms }), (3, 3));
}

fn there_is_a_pause_before_another_try() {
    let client = Client::new(1);
    let counter = counter();
    let payload = [numbers(&[2]), handle(&counter)].concat();
    let pause = Duration::from_millis(50);
    let started = Instant::now();
    let (_, cell) = client.call_on(Terms { pause, ..retries(2) }, "fail at first", &payload);
    client.wait("the first try", || counter.cell().number.load(Ordering::SeqCst) > 0);
    assert_eq!(client.result("echo", b"meanwhile"), b"meanwhile");
    assert_eq!(number(value(&client.outcome(&cell))), 3);
    assert!(started.elapsed() >= 3 * pause, "one pause, and one twice as long");
}

fn a_closed_pool_waits_for_the_last_try() {
    let client = Client::new(1);
    let counter = counter();
    let payload = [numbers(&[1]), handle(&counter)].concat();
    let terms = Terms { pause: Duration::from_millis(50), ..retries(1) };
    let (_, cell) = client.call_on(terms, "die at first", &payload);
    client.pool.close();
    assert_eq!(number(value(&client.outcome(&cell))), 2);
    client.wait("the end of the workers", || client.pool.is_over());
}

fn a_running_task_is_stopped_at_once() {
    let client = Client::new(1);
    for _ in 0..20 {
        let (task, cell) = client.call_on(Terms::default(), "sleep", &[]);
        client.wait("the worker at its task", || !client.pool.is_queued(task));
        let (queued, behind) = client.call_on(Terms::default(), "echo", b"behind");
        assert!(client.pool.stop(task));
        assert!(cell.is_cancelled(), "whoever waits knows at once");
        assert!(!client.pool.stop(task), "once");
        assert_eq!(value(&client.outcome(&behind)), b"behind");
        assert!(!client.pool.stop(queued), "it has ended");
    }
    let (_, cell) = client.call_on(Terms::default(), "echo", b"");
    client.outcome(&cell);
    eventually("nothing is left", || client.pool.outstanding() == 0);
}

fn stopped_or_done_never_both() {
    let client = Client::new(2);
    let (mut stopped, mut done) = (0, 0);
    for n in 0..400u64 {
        let (task, cell) = client.call_on(Terms::default(), "nap", &numbers(&[n % 200]));
        let (_, other) = client.call_on(Terms::default(), "square", &numbers(&[n]));
        std::thread::sleep(Duration::from_micros(n * 13 % 300));
        match (client.pool.stop(task), client.outcome(&cell)) {
            (true, Outcome::Cancelled) => stopped += 1,
            (false, Outcome::Done { .. }) => done += 1,
            (stopped, other) => panic!("stopped: {stopped}, and yet {other:?}"),
        }
        assert_eq!(number(value(&client.outcome(&other))), n * n, "nobody else is hit");
    }
    assert_eq!(stopped + done, 400);
}

fn what_matters_more_goes_first() {
    let client = Client::new(1);
    let (gate, order) = (counter(), counter());
    let before = client.call("count and wait", &handle(&gate));
    client.wait("the worker at its task", || gate.cell().number.load(Ordering::SeqCst) == 1);
    let function = client.pool.function(b"place", vec![]).expect("there is memory");
    let inbox: Arc<Inbox> = Inbox::new();
    // More than the ring holds, of five priorities.
    let priorities: Vec<i32> = (0..6_000u64).map(|n| (n * n * 7 % 5) as i32 - 2).collect();
    for (tag, priority) in priorities.iter().enumerate() {
        let function = function.on(Terms { priority: *priority, ..Terms::default() });
        let reply = Reply::Inbox(inbox.clone(), tag as u64);
        client.pool.submit(&function, 0, &handle(&order), vec![], reply).expect("it is open");
    }
    gate.cell().word.store(1, Ordering::SeqCst);
    client.outcome(&before);
    let places: Vec<u64> =
        client.outcomes(&inbox, priorities.len()).iter().map(|outcome| number(value(outcome))).collect();
    let mut tasks: Vec<usize> = (0..priorities.len()).collect();
    tasks.sort_by_key(|task| (std::cmp::Reverse(priorities[*task]), *task));
    let expected: Vec<u64> = {
        let mut expected = vec![0; tasks.len()];
        tasks.iter().enumerate().for_each(|(place, task)| expected[*task] = place as u64);
        expected
    };
    assert!(places == expected, "by priority, and equals in their order");
}

fn what_a_worker_said_last_is_known() {
    let client = Client::new(1);
    client.result("who", &[]);
    let death = client.death("mutter and die", b"second line");
    assert_eq!(&*death.words, "first line\nsecond line\nand no end");
    assert!(death.uptime > Duration::ZERO);
    assert_eq!(&*client.death("kill", &[]).words, "", "of its own");
}
