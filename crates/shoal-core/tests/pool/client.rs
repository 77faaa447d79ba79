//! A pool and what tests do with it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_core::domain::{
    self,
    host::{Host, Output},
};
use shoal_core::memory::heap::{Heap, Lease};
use shoal_core::pool::client::{Config, Limits, Pool, Waited};
use shoal_core::pool::death::Death;
use shoal_core::pool::tasks::{Inbox, Outcome, Reply, TaskCell};
use shoal_core::pool::terms::Terms;
use shoal_core::sync::bell::Tone;
use shoal_sys::poll::poll;
use shoal_sys::process::{self, Signal};

use crate::support;

/// Nothing takes that long: a wait that does has failed.
const AT_MOST: Duration = Duration::from_secs(120);

/// A pool that can be called.
pub struct Client {
    /// The pool.
    pub pool: Pool,
}

/// The usual pool: this executable's.
pub fn config(workers: usize) -> Config {
    let launch = support::launch().expect("this executable is somewhere");
    Config {
        workers,
        launch,
        preload: vec![],
        setup: vec![],
        memory_limit: None,
        limits: Limits::default(),
        output: Output::Shared,
        speakers: None,
    }
}

impl Client {
    /// A pool of so many workers.
    pub fn new(workers: usize) -> Client {
        Client { pool: Pool::new(&config(workers)).expect("the pool starts") }
    }

    /// Submits a call.
    pub fn call(&self, function: &str, payload: &[u8]) -> Arc<TaskCell> {
        let cell = Arc::new(TaskCell::default());
        let function = self.pool.function(function.as_bytes(), vec![]).expect("there is memory");
        self.pool.submit(&function, 0, payload, vec![], Reply::Cell(cell.clone())).expect("the pool is open");
        cell
    }

    /// Submits a call on terms; its number besides.
    pub fn call_on(&self, terms: Terms, function: &str, payload: &[u8]) -> (u64, Arc<TaskCell>) {
        let cell = Arc::new(TaskCell::default());
        let function = self.pool.function(function.as_bytes(), vec![]).expect("there is memory");
        let number = self.pool.submit(&function.on(terms), 0, payload, vec![], Reply::Cell(cell.clone()));
        (number.expect("the pool is open"), cell)
    }

    /// Submits a call for each payload, its place being the tag.
    pub fn call_all(&self, function: &str, payloads: impl Iterator<Item = Vec<u8>>) -> Arc<Inbox> {
        let inbox = Inbox::new();
        let function = self.pool.function(function.as_bytes(), vec![]).expect("there is memory");
        for (tag, payload) in payloads.enumerate() {
            let reply = Reply::Inbox(inbox.clone(), tag as u64);
            self.pool.submit(&function, 0, &payload, vec![], reply).expect("the pool is open");
        }
        inbox
    }

    /// Waits until `done`, collecting results.
    pub fn wait(&self, what: &str, done: impl FnMut() -> bool) {
        let waited = self.pool.wait(Tone::Completion, done, Some(AT_MOST), || false);
        assert_eq!(waited, Waited::Done, "waiting for {what}; workers: {:?}", self.pool.workers());
    }

    /// Waits for a task's end.
    pub fn outcome(&self, cell: &TaskCell) -> Outcome {
        self.wait("a task's end", || cell.is_done());
        cell.take().expect("taken once")
    }

    /// Waits for the ends of `count` calls, by tag. Each ends once.
    pub fn outcomes(&self, inbox: &Inbox, count: usize) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = (0..count).map(|_| None).collect();
        for left in (0..count).rev() {
            self.wait(&format!("the ends of {} of {count} tasks", left + 1), || !inbox.is_empty());
            let (tag, outcome) = inbox.pop().expect("waited for");
            assert!(outcomes[tag as usize].replace(outcome).is_none(), "task {tag} ended twice");
        }
        outcomes.into_iter().map(|outcome| outcome.expect("as many ends as tasks, none twice")).collect()
    }

    /// What a call gives back.
    pub fn result(&self, function: &str, payload: &[u8]) -> Vec<u8> {
        value(&self.outcome(&self.call(function, payload))).to_vec()
    }

    /// How the worker of a call dies.
    pub fn death(&self, function: &str, payload: &[u8]) -> Death {
        match self.outcome(&self.call(function, payload)) {
            Outcome::Died(failed) => failed.last().clone(),
            other => panic!("{function:?} should have killed its worker: {other:?}"),
        }
    }

    /// The processes of the workers that are there now.
    pub fn pids(&self) -> Vec<u32> {
        self.pool.workers().iter().filter_map(|worker| worker.pid).collect()
    }

    /// Waits until all workers are there, and returns their processes.
    pub fn all_pids(&self) -> Vec<u32> {
        eventually("all workers are there", || self.pids().len() == self.pool.size());
        self.pids()
    }
}

/// Who died at a task, and how: its process and code.
pub fn death(outcome: &Outcome) -> (u32, i32) {
    match outcome {
        Outcome::Died(failed) => (failed.last().pid, failed.last().code),
        other => panic!("the task should have killed its worker: {other:?}"),
    }
}

/// The bytes of a task that ended well.
pub fn value(outcome: &Outcome) -> &[u8] {
    match outcome {
        Outcome::Done { kind: support::VALUE, payload, .. } => payload.bytes().expect("its block is mapped"),
        Outcome::Done { payload, .. } => {
            panic!("the task failed: {}", String::from_utf8_lossy(payload.bytes().unwrap()))
        }
        other => panic!("the task should have ended well: {other:?}"),
    }
}

/// The number at the front of `bytes`.
pub fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes"))
}

/// The numbers, one after the other.
pub fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Looks again and again until `true`: for what the supervisor does in its own time.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < AT_MOST, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The client's heap.
pub fn heap() -> Arc<Heap> {
    Host::current().expect("a host").heap().clone()
}

/// Blocks and leases in use in the whole domain.
pub fn in_use() -> (usize, usize) {
    let usage = Host::current().expect("a host").usage();
    (usage.blocks, usage.leases)
}

/// The handle of a block, as bytes.
pub fn handle(lease: &Lease) -> Vec<u8> {
    domain::handle_of(lease).expect("a host").to_bytes().to_vec()
}

/// A descriptor of a process.
pub fn watch(pid: u32) -> OwnedFd {
    process::pidfd_open(pid).expect("the process is there")
}

/// Waits for the end of a process.
pub fn gone(pidfd: &OwnedFd) {
    let ready = poll(&[pidfd.as_fd()], Some(AT_MOST)).expect("a pidfd can be polled");
    assert_eq!(ready, [true], "the process should have ended");
}

/// Sends a signal.
pub fn kill(pid: u32, signal: Signal) {
    process::pidfd_kill(watch(pid).as_fd(), signal).expect("it is our own process");
}

/// Kills a process and waits until it is gone, whatever the engine knows of it by then.
pub fn kill_and_wait(pid: u32) {
    let pidfd = watch(pid);
    process::pidfd_kill(pidfd.as_fd(), Signal::KILL).expect("it is our own process");
    gone(&pidfd);
}
