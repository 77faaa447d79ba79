//! Tasks that end well.

use std::sync::atomic::Ordering;

use shoal_core::domain::host::Host;
use shoal_core::memory::lease::Kind;
use shoal_core::pool::tasks::Outcome;
use shoal_core::sync::lock::Lock;

use crate::Test;
use crate::client::{Client, eventually, handle, heap, in_use, kill_and_wait, number, numbers, value};
use crate::support;

/// The tests.
pub const TESTS: &[Test] = &[
    ("results_come_back", results_come_back),
    ("an_error_of_a_task_is_a_result", an_error_of_a_task_is_a_result),
    ("a_hundred_thousand_tasks_end_once_each", a_hundred_thousand_tasks_end_once_each),
    ("bytes_of_any_number_go_and_come", bytes_of_any_number_go_and_come),
    ("the_memory_of_large_results_is_given_back", the_memory_of_large_results_is_given_back),
    ("more_workers_than_cores_share_the_work", more_workers_than_cores_share_the_work),
    ("two_pools_do_not_disturb_each_other", two_pools_do_not_disturb_each_other),
    ("workers_write_into_the_clients_block", workers_write_into_the_clients_block),
    ("a_workers_block_outlives_the_worker", a_workers_block_outlives_the_worker),
    ("a_lock_keeps_workers_apart", a_lock_keeps_workers_apart),
    ("leases_return_to_zero", leases_return_to_zero),
];

fn results_come_back() {
    let client = Client::new(2);
    let inbox = client.call_all("square", (0..1000).map(|n| numbers(&[n])));
    let squares: Vec<u64> = client.outcomes(&inbox, 1000).iter().map(|outcome| number(value(outcome))).collect();
    assert_eq!(squares, (0..1000).map(|n| n * n).collect::<Vec<_>>());
    assert_eq!(client.pool.outstanding(), 0);
}

fn an_error_of_a_task_is_a_result() {
    let client = Client::new(1);
    let worker = client.result("who", &[]);
    let Outcome::Done { kind, payload, .. } = client.outcome(&client.call("dance", &[])) else { panic!("it ended") };
    assert_eq!(kind, support::ERROR);
    assert!(String::from_utf8_lossy(payload.bytes().unwrap()).contains("no function dance"));
    assert_eq!(client.result("who", &[]), worker, "the worker lives");
}

fn a_hundred_thousand_tasks_end_once_each() {
    const COUNT: u64 = 100_000;
    let client = Client::new(3);
    let inbox = client.call_all("square", (0..COUNT).map(|n| numbers(&[n])));
    for (n, outcome) in client.outcomes(&inbox, COUNT as usize).iter().enumerate() {
        assert_eq!(number(value(outcome)), (n * n) as u64);
    }
    assert_eq!(client.pool.workers().iter().map(|worker| worker.spent.tasks).sum::<u64>(), COUNT);
}

/// Around every size at which bytes begin to travel another way, on either side.
fn bytes_of_any_number_go_and_come() {
    let client = Client::new(2);
    for around in [0, 22, 56, 4096, 64 << 10, 128 << 10, 1 << 20, 5 << 20] {
        for len in [around, around + 1, around + 7] {
            let bytes: Vec<u8> = (0..len).map(|n: u32| (n % 251) as u8).collect();
            assert!(client.result("echo", &bytes) == bytes, "{len} bytes");
        }
    }
}

fn the_memory_of_large_results_is_given_back() {
    const LEN: u64 = 2 << 20;
    let client = Client::new(2);
    for round in 0..200 {
        let result = client.result("fill", &numbers(&[LEN, round]));
        assert!(result.len() as u64 == LEN && result.iter().all(|byte| u64::from(*byte) == round));
    }
    let mapped = Host::current().unwrap().usage().bytes;
    assert!(mapped < 32 * LEN, "{mapped} bytes are mapped after 200 results of {LEN}");
    client.pool.terminate();
    eventually("no block is in use", || in_use() == (0, 0));
}

fn more_workers_than_cores_share_the_work() {
    const WORKERS: u64 = 12;
    let client = Client::new(WORKERS as usize);
    let gate = heap().allocate_cell(Kind::Cell).unwrap();
    let inbox = client.call_all("count and wait", (0..WORKERS).map(|_| handle(&gate)));
    client.wait("all workers at a task", || gate.cell().number.load(Ordering::SeqCst) == WORKERS);
    gate.cell().word.store(1, Ordering::SeqCst);
    client.outcomes(&inbox, WORKERS as usize).iter().for_each(|outcome| assert!(value(outcome).is_empty()));
}

fn two_pools_do_not_disturb_each_other() {
    let (one, other) = (Client::new(1), Client::new(2));
    let (ones, others) = (one.all_pids(), other.all_pids());
    for n in 0..100 {
        assert_eq!(number(&one.result("square", &numbers(&[n]))), n * n);
        assert!(others.contains(&(number(&other.result("who", &[])) as u32)));
    }
    one.pool.terminate();
    assert_eq!(number(&other.result("square", &numbers(&[7]))), 49);
    assert!(other.all_pids().iter().all(|pid| !ones.contains(pid)));
}

fn workers_write_into_the_clients_block() {
    const LEN: usize = 3 << 20;
    let client = Client::new(2);
    let block = heap().allocate(LEN as u64).unwrap();
    // SAFETY: nobody else knows of it.
    unsafe { &mut *support::part(&block, 0..LEN).unwrap() }.fill(0);
    for _ in 0..10 {
        client.result("increment bytes", &handle(&block));
    }
    // SAFETY: all who wrote have ended.
    assert!(unsafe { block.bytes() }.unwrap().iter().all(|byte| *byte == 10));
}

fn a_workers_block_outlives_the_worker() {
    let client = Client::new(1);
    let bytes: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 241) as u8).collect();
    let Outcome::Done { leases, .. } = client.outcome(&client.call("make a block", &bytes)) else { panic!("it ended") };
    let worker = number(&client.result("who", &[])) as u32;
    kill_and_wait(worker);
    assert_ne!(number(&client.result("who", &[])) as u32, worker);
    // SAFETY: the only one who could write is dead.
    assert!(unsafe { leases[0].bytes() }.unwrap() == bytes);
    // And another worker can find it by its handle, though it never knew the dead one.
    client.result("increment bytes", &handle(&leases[0]));
    // SAFETY: the task has ended.
    assert_eq!(unsafe { leases[0].bytes() }.unwrap()[..3], [1, 2, 3]);
}

fn a_lock_keeps_workers_apart() {
    let client = Client::new(4);
    let (lock, counter) = (heap().allocate_cell(Kind::Lock).unwrap(), heap().allocate_cell(Kind::Cell).unwrap());
    let both = [handle(&lock), handle(&counter)].concat();
    let inbox = client.call_all("add under the lock", (0..2000).map(|_| both.clone()));
    client.outcomes(&inbox, 2000).iter().for_each(|outcome| assert!(value(outcome).is_empty()));
    assert_eq!(counter.cell().number.load(Ordering::SeqCst), 2000);
    assert!(!Lock::new(lock.cell()).is_locked());
}

fn leases_return_to_zero() {
    let client = Client::new(3);
    let block = heap().allocate(1 << 20).unwrap();
    let inbox = client.call_all("increment bytes", (0..5).map(|_| handle(&block)));
    client.outcomes(&inbox, 5).iter().for_each(|outcome| assert!(value(outcome).is_empty()));
    let made: Vec<_> = (0..50).map(|n| client.outcome(&client.call("make a block", &vec![1; 1000 * n + 1]))).collect();
    let large: Vec<_> = (0..50).map(|n| client.outcome(&client.call("fill", &numbers(&[1 << 20, n])))).collect();
    assert_eq!(in_use().0, 101, "the client has them all");
    drop((block, made, large));
    client.pool.close();
    client.wait("the workers' end", || client.pool.is_over());
    drop(client);
    eventually("nothing is in use", || in_use() == (0, 0));
    eventually("the client's own memory is free", || Host::current().unwrap().usage().used == 0);
}
