//! Workers and zygotes that die.

use std::sync::atomic::Ordering;
use std::time::Duration;

use shoal_core::domain::host::Host;
use shoal_core::memory::lease::Kind;
use shoal_core::pool::death::Cause;
use shoal_core::pool::tasks::Outcome;
use shoal_core::sync::lock::{Acquired, Lock};
use shoal_sys::process::Signal;

use crate::Test;
use crate::client::{
    Client, death, eventually, gone, handle, heap, in_use, kill, kill_and_wait, number, numbers, value, watch,
};
/// The tests.
pub const TESTS: &[Test] = &[
    ("a_worker_that_exits_at_a_task_ends_that_task_alone", a_worker_that_exits_at_a_task_ends_that_task_alone),
    ("a_worker_that_is_killed_at_a_task_is_replaced", a_worker_that_is_killed_at_a_task_is_replaced),
    ("a_worker_that_panics_says_so_by_its_exit_code", a_worker_that_panics_says_so_by_its_exit_code),
    ("idle_workers_killed_200_times_lose_nothing", idle_workers_killed_200_times_lose_nothing),
    ("the_only_worker_killed_idle_loses_nothing", the_only_worker_killed_idle_loses_nothing),
    ("workers_killed_at_work_end_one_task_each", workers_killed_at_work_end_one_task_each),
    ("results_of_a_worker_that_died_later_arrive", results_of_a_worker_that_died_later_arrive),
    ("a_killed_zygote_is_replaced_and_its_workers_too", a_killed_zygote_is_replaced_and_its_workers_too),
    ("a_zygote_killed_again_and_again_loses_no_queued_task", a_zygote_killed_again_and_again_loses_no_queued_task),
    ("the_lock_of_a_killed_worker_is_free_and_abandoned", the_lock_of_a_killed_worker_is_free_and_abandoned),
    ("others_go_on_after_a_death_in_the_lock", others_go_on_after_a_death_in_the_lock),
    ("what_dead_workers_held_is_given_back", what_dead_workers_held_is_given_back),
    ("the_arena_of_a_dead_worker_goes_when_nobody_uses_it", the_arena_of_a_dead_worker_goes_when_nobody_uses_it),
];

fn a_worker_that_exits_at_a_task_ends_that_task_alone() {
    let client = Client::new(2);
    let before = client.call_all("square", (0..100).map(|n| numbers(&[n])));
    let exits = client.call("exit", &numbers(&[7]));
    let after = client.call_all("square", (0..100).map(|n| numbers(&[n])));
    let (pid, code) = death(&client.outcome(&exits));
    assert_eq!(code, 7);
    for inbox in [before, after] {
        for (n, outcome) in client.outcomes(&inbox, 100).iter().enumerate() {
            assert_eq!(number(value(outcome)), (n * n) as u64);
        }
    }
    assert!(!client.all_pids().contains(&pid), "it is replaced");
}

fn a_worker_that_is_killed_at_a_task_is_replaced() {
    let client = Client::new(1);
    for _ in 0..20 {
        let worker = number(&client.result("who", &[])) as u32;
        let death = client.death("kill", &[]);
        assert_eq!((death.pid, death.code, death.cause), (worker, -9, Cause::Unknown));
        assert!(!client.pids().contains(&worker), "known as dead");
        assert_ne!(number(&client.result("who", &[])) as u32, worker);
    }
}

fn a_worker_that_panics_says_so_by_its_exit_code() {
    let client = Client::new(1);
    assert_eq!(client.death("panic", &[]).code, 101);
    assert_eq!(client.result("echo", b"well"), b"well");
}

/// The task comes when the worker is dead already, but the engine may not know it yet: a wake-up sent to the dead one
/// must not be the only one.
fn idle_workers_killed_200_times_lose_nothing() {
    let client = Client::new(2);
    let mut killed = vec![];
    for round in 0..200 {
        let mut victim = 0;
        eventually("another worker is there", || {
            victim = client.pids().into_iter().find(|pid| !killed.contains(pid)).unwrap_or(0);
            victim != 0
        });
        kill_and_wait(victim);
        killed.push(victim);
        let inbox = client.call_all("square", (0..8).map(|n| numbers(&[n + round])));
        for (n, outcome) in client.outcomes(&inbox, 8).iter().enumerate() {
            assert_eq!(number(value(outcome)), (n as u64 + round).pow(2));
        }
    }
}

fn the_only_worker_killed_idle_loses_nothing() {
    let client = Client::new(1);
    for n in 0..50 {
        kill_and_wait(number(&client.result("who", &[])) as u32);
        assert_eq!(number(&client.result("square", &numbers(&[n]))), n * n);
    }
}

fn workers_killed_at_work_end_one_task_each() {
    const KILLS: usize = 40;
    const BATCH: u64 = 500;
    let client = Client::new(3);
    let mut killed = vec![];
    let mut inboxes = vec![];
    while killed.len() < KILLS {
        inboxes.push(client.call_all("fill", (0..BATCH).map(|n| numbers(&[n * 100, n]))));
        eventually("a worker that lives", || {
            let victim = client.pids().into_iter().find(|pid| !killed.contains(pid));
            victim.inspect(|victim| kill_and_wait(*victim)).is_some_and(|victim| {
                killed.push(victim);
                true
            })
        });
    }
    let mut died_at_work = vec![];
    for inbox in inboxes {
        for (n, outcome) in client.outcomes(&inbox, BATCH as usize).iter().enumerate() {
            match outcome {
                Outcome::Died(failed) if failed.last().code == -9 => died_at_work.push(failed.last().pid),
                ended => assert!(value(ended) == vec![n as u8; n * 100]),
            }
        }
    }
    assert!(died_at_work.iter().all(|pid| killed.contains(pid)), "{died_at_work:?} of {killed:?}");
    let deaths = died_at_work.len();
    died_at_work.sort_unstable();
    died_at_work.dedup();
    assert_eq!(died_at_work.len(), deaths, "each of them at one task");
    assert!(deaths > 0, "some were at work");
}

/// Nobody has looked into its completion ring when it dies.
fn results_of_a_worker_that_died_later_arrive() {
    let client = Client::new(1);
    let worker = number(&client.result("who", &[])) as u32;
    // Watched, not waited for in the pool: nothing is collected here. And watched before it dies: later it may be gone.
    let watched = watch(worker);
    let small = client.call("square", &numbers(&[9]));
    let large = client.call("fill", &numbers(&[3 << 20, 5]));
    let last = client.call("kill", &[]);
    gone(&watched);
    assert_eq!(death(&client.outcome(&last)), (worker, -9));
    assert_eq!(number(value(&client.outcome(&small))), 81);
    assert!(value(&client.outcome(&large)) == vec![5; 3 << 20]);
}

fn a_killed_zygote_is_replaced_and_its_workers_too() {
    let client = Client::new(2);
    let zygote = number(&client.result("zygote", &[])) as u32;
    let workers: Vec<_> = client.all_pids().into_iter().map(watch).collect();
    let busy = client.call("sleep", &[]);
    client.wait("the worker at its task", || client.pool.queued() == 0);
    kill(zygote, Signal::KILL);
    workers.iter().for_each(gone);
    assert_eq!(death(&client.outcome(&busy)).1, -9, "its worker died");
    assert_ne!(number(&client.result("zygote", &[])) as u32, zygote);
    let inbox = client.call_all("square", (0..100).map(|n| numbers(&[n])));
    for (n, outcome) in client.outcomes(&inbox, 100).iter().enumerate() {
        assert_eq!(number(value(outcome)), (n * n) as u64);
    }
}

fn a_zygote_killed_again_and_again_loses_no_queued_task() {
    let client = Client::new(2);
    let mut zygotes = vec![];
    for _ in 0..10 {
        let zygote = number(&client.result("zygote", &[])) as u32;
        assert!(!zygotes.contains(&zygote), "a new one");
        zygotes.push(zygote);
        client.all_pids();
        kill_and_wait_for_workers(&client, zygote);
        let inbox = client.call_all("square", (0..20).map(|n| numbers(&[n])));
        client.outcomes(&inbox, 20).iter().for_each(|outcome| drop(value(outcome).to_vec()));
    }
}

/// Kills the zygote, whose workers are idle, and waits until they are gone with it.
fn kill_and_wait_for_workers(client: &Client, zygote: u32) {
    let workers: Vec<_> = client.pids().into_iter().map(watch).collect();
    kill(zygote, Signal::KILL);
    workers.iter().for_each(gone);
}

fn the_lock_of_a_killed_worker_is_free_and_abandoned() {
    let client = Client::new(1);
    let cell = heap().allocate_cell(Kind::Lock).unwrap();
    let lock = Lock::new(cell.cell());
    assert_eq!(client.death("die in the lock", &handle(&cell)).code, -9);
    assert_eq!(lock.acquire(heap().me(), Some(Duration::from_secs(120))), Acquired::Yes);
    assert!(lock.is_abandoned(), "the next holder can know");
    assert!(lock.release());
    assert!(lock.try_acquire(heap().me()));
    assert!(!lock.is_abandoned(), "it is told once");
    lock.release();
}

fn others_go_on_after_a_death_in_the_lock() {
    let client = Client::new(3);
    let (lock, counter) = (heap().allocate_cell(Kind::Lock).unwrap(), heap().allocate_cell(Kind::Cell).unwrap());
    let both = [handle(&lock), handle(&counter)].concat();
    let mut deaths = vec![];
    let mut inboxes = vec![];
    for _ in 0..10 {
        inboxes.push(client.call_all("add under the lock", (0..50).map(|_| both.clone())));
        deaths.push(client.call("die in the lock", &handle(&lock)));
    }
    for inbox in inboxes {
        client.outcomes(&inbox, 50).iter().for_each(|outcome| assert!(value(outcome).is_empty()));
    }
    for killed in deaths {
        assert_eq!(death(&client.outcome(&killed)).1, -9);
    }
    assert_eq!(counter.cell().number.load(Ordering::SeqCst), 500);
}

fn what_dead_workers_held_is_given_back() {
    let client = Client::new(2);
    let block = heap().allocate(1 << 20).unwrap();
    for _ in 0..10 {
        client.death("die with a lease", &handle(&block));
    }
    eventually("the client alone holds the block", || in_use() == (1, 1));
    drop(block);
    eventually("nothing is in use", || in_use() == (0, 0));
    kill_and_wait(client.all_pids()[0]);
    assert_eq!(client.result("echo", b"well"), b"well");
}

fn the_arena_of_a_dead_worker_goes_when_nobody_uses_it() {
    let client = Client::new(1);
    let mapped = || Host::current().expect("a host").usage().bytes;
    client.result("who", &[]);
    let before = mapped();
    let made: Vec<_> = (0..10)
        .map(|_| {
            let made = client.outcome(&client.call("make a block", &[7; 100_000]));
            client.death("kill", &[]);
            made
        })
        .collect();
    client.result("who", &[]);
    // No arena is smaller than a mebibyte.
    assert!(mapped() >= before + (10 << 20), "the client still uses all of them");
    drop(made);
    // The client's own has grown, once, for the arguments.
    eventually("the arenas are gone", || mapped() < before + (5 << 20));
}
