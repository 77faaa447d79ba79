//! Client, worker and zygote, each killed at every one of the engine's `crash` points that it comes by.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use shoal_core::crash;
use shoal_core::domain;
use shoal_core::memory::handle::Handle;
use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;
use shoal_core::pool::client::{Limits, Pool};
use shoal_core::pool::tasks::Outcome;
use shoal_core::sync::lock::{Acquired, Lock};

use crate::client::{Client, config, eventually, gone, handle, heap, in_use, number, numbers, value, watch};
use crate::{Test, alone};

/// The tests.
pub const TESTS: &[Test] = &[
    ("every_point_has_a_death", every_point_has_a_death),
    ("all_tasks_end_wherever_a_worker_is_killed", all_tasks_end_wherever_a_worker_is_killed),
    ("no_task_is_lost_wherever_one_that_leaves_is_killed", no_task_is_lost_wherever_one_that_leaves_is_killed),
    ("all_tasks_end_wherever_the_zygote_is_killed", all_tasks_end_wherever_the_zygote_is_killed),
    ("others_are_unharmed_wherever_a_client_is_killed", others_are_unharmed_wherever_a_client_is_killed),
];

/// All points of these files, as they are written there.
const SOURCES: [&str; 7] = [
    include_str!("../../src/pool/worker.rs"),
    include_str!("../../src/pool/crew.rs"),
    include_str!("../../src/pool/zygote.rs"),
    include_str!("../../src/pool/client/submit.rs"),
    include_str!("../../src/pool/client/collect.rs"),
    include_str!("../../src/domain/host.rs"),
    include_str!("../../src/domain/supervisor.rs"),
];

/// Where a worker's death ends no task: it is at none, or has committed what came of it.
const BETWEEN: [&str; 6] =
    ["worker: seated", "worker: ready", "worker: searching", "worker: committed", "worker: done", "worker: rung"];
/// Where it ends one.
const AT_A_TASK: [&str; 6] =
    ["worker: taken", "worker: noted", "worker: released", "worker: found", "worker: in a block", "worker: ending"];
/// Where it may be either: it comes by when its client has read what it sent, behind that task or at the next one.
const EITHER: [&str; 1] = ["worker: landed"];
const LEAVING: [&str; 2] = ["worker: off the gate", "worker: left"];
const ZYGOTE: [&str; 6] = [
    "zygote: ready",
    "zygote: asked",
    "zygote: forked",
    "zygote: told of a fork",
    "zygote: reaped",
    "zygote: told of an end",
];
const CLIENT: [&str; 12] = [
    "client: numbered",
    "client: queued",
    "client: claimed",
    "client: asked",
    "client: leased",
    "client: read",
    "client: settled",
    "death: recovered",
    "death: orphaned",
    "death: given back",
    "death: buried",
    "death: cleared",
];

fn every_point_has_a_death() {
    let killed: BTreeSet<&str> =
        [&BETWEEN[..], &AT_A_TASK, &EITHER, &LEAVING, &ZYGOTE, &CLIENT].concat().into_iter().collect();
    let quoted = SOURCES.iter().flat_map(|source| source.split("crash::point(\"").skip(1));
    let points: BTreeSet<&str> = quoted.map(|text| text.split('"').next().expect("an end")).collect();
    assert_eq!(points, killed);
}

/// A charge: the first that comes to its point takes it, and is killed.
struct Charge(PathBuf);

impl Charge {
    fn new() -> Charge {
        Charge(std::env::temp_dir().join(format!("shoal-charge-{}", std::process::id())))
    }

    fn set(&self) {
        std::fs::write(&self.0, b"").expect("a file");
    }

    fn is_taken(&self) -> bool {
        !self.0.exists()
    }
}

/// A pool of two, of whose processes (but not the client) the first that comes there is killed.
fn armed(point: &str, limits: Limits) -> (Client, Charge) {
    let charge = Charge::new();
    charge.set();
    let mut config = config(2);
    config.limits = limits;
    config.launch.envs.push((crash::VARIABLE.into(), point.into()));
    config.launch.envs.push((crash::CHARGE.into(), charge.0.clone().into_os_string()));
    (Client { pool: Pool::new(&config).expect("the pool starts") }, charge)
}

/// Small and large results, and blocks. How many of the tasks their workers died at.
fn work(client: &Client, point: &str) -> usize {
    const COUNT: u64 = 60;
    let squares = client.call_all("square", (0..COUNT).map(|n| numbers(&[n])));
    let large = client.call_all("fill", (0..COUNT).map(|n| numbers(&[n * 3000, n])));
    let blocks = client.call_all("make a block", (0..COUNT).map(|n| vec![n as u8; 5000]));
    let mut died = 0;
    for (inbox, check) in [
        (squares, (|n, outcome| assert_eq!(number(value(outcome)), n * n)) as fn(u64, &Outcome)),
        (large, |n, outcome| assert!(value(outcome) == vec![n as u8; n as usize * 3000])),
        (blocks, |_, outcome| assert_eq!(named(value(outcome)).len(), 5000)),
    ] {
        for (n, outcome) in client.outcomes(&inbox, COUNT as usize).iter().enumerate() {
            match outcome {
                Outcome::Died(failed) if failed.last().code == -9 => died += 1,
                Outcome::Died(failed) => panic!("{point}: {failed:?}"),
                ended => check(n as u64, ended),
            }
        }
    }
    died
}

fn named(bytes: &[u8]) -> Lease {
    domain::resolve(&Handle::from_bytes(bytes).expect("a handle")).expect("it is there")
}

/// Nothing is left of a death, and nobody else has come to harm.
fn all_is_well(client: &Client, point: &str) {
    assert_eq!(work(client, point), 0, "{point}: the others go on");
    assert_eq!(client.pool.outstanding(), 0, "{point}");
    eventually(point, || in_use() == (0, 0));
}

/// One zygote serves all pools of a process, so each pool with a point of its own has a process of its own.
fn each(points: &[&str], test: fn(&str)) {
    const POINT: &str = "SHOAL_TEST_POINT";
    if let Ok(point) = std::env::var(POINT) {
        return test(&point);
    }
    for point in points {
        let name = std::env::args().nth(2).expect("the test's name");
        assert!(alone(&name).env(POINT, point).status().expect("it starts").success(), "{point}");
    }
}

fn all_tasks_end_wherever_a_worker_is_killed() {
    each(&[&BETWEEN[..], &AT_A_TASK, &EITHER].concat(), |point| {
        let (client, charge) = armed(point, Limits::default());
        let mut died = work(&client, point);
        // By some they come only when they have nothing to do.
        eventually(point, || {
            died += work(&client, point);
            charge.is_taken()
        });
        died += work(&client, point);
        let at_a_task = if EITHER.contains(&point) { died.min(1) } else { usize::from(AT_A_TASK.contains(&point)) };
        assert_eq!(died, at_a_task, "{point}");
        all_is_well(&client, point);
        assert_eq!(client.all_pids().len(), 2, "{point}");
    });
}

fn no_task_is_lost_wherever_one_that_leaves_is_killed() {
    each(&LEAVING, |point| {
        let limits = Limits { idle: Some(Duration::from_millis(1)), ..Limits::default() };
        let (client, charge) = armed(point, limits);
        let mut n = 0;
        eventually(point, || {
            assert_eq!(number(&client.result("square", &numbers(&[n]))), n * n, "{point}");
            n += 1;
            std::thread::sleep(Duration::from_millis(n % 8));
            charge.is_taken()
        });
        all_is_well(&client, point);
    });
}

fn all_tasks_end_wherever_the_zygote_is_killed() {
    each(&ZYGOTE, |point| {
        let (client, charge) = armed(point, Limits::default());
        let kill = client.call("kill", &[]);
        // Its workers end with it, each of them at one task at most.
        let mut died = work(&client, point);
        assert!(matches!(client.outcome(&kill), Outcome::Died(_)), "{point}");
        eventually(point, || charge.is_taken());
        died += work(&client, point);
        assert!(died <= 2, "{point}: {died}");
        all_is_well(&client, point);
        assert_eq!(client.all_pids().len(), 2, "{point}");
    });
}

fn others_are_unharmed_wherever_a_client_is_killed() {
    let charge = Charge::new();
    for point in CLIENT {
        let mut command = alone(VICTIM.0);
        command.env(crash::VARIABLE, point).env(crash::CHARGE, &charge.0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut told = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut line = || told.next().expect("it tells").expect("read");
        let handles = line();
        let digits = |at: usize| u8::from_str_radix(&handles[at..at + 2], 16).expect("digits");
        let bytes: Vec<u8> = (0..handles.len()).step_by(2).map(digits).collect();
        let (lock, block) = bytes.split_at(bytes.len() / 2);
        let (lock, block) = (named(lock), named(block));
        let others: Vec<_> = line().split_whitespace().map(|pid| watch(pid.parse().expect("a number"))).collect();
        assert_eq!(others.len(), 3, "a zygote and two workers");
        charge.set();
        writeln!(child.stdin.take().expect("piped"), "go on").expect("it listens");
        assert_eq!(child.wait().expect("waited").signal(), Some(9), "{point}");
        assert!(charge.is_taken(), "{point}: it comes by there");
        others.iter().for_each(gone);
        let mine = Lock::new(lock.cell());
        let taken = mine.acquire(lock.heap().me(), Some(Duration::from_secs(120)));
        assert_eq!((taken, mine.is_abandoned()), (Acquired::Yes, true), "{point}");
        // SAFETY: the only other one that had it is dead.
        let bytes = unsafe { block.front(block.len()) }.expect("mapped");
        assert!(bytes.iter().all(|&byte| byte == 7), "{point}");
    }
}

/// The client of the test above: makes a lock and a block for others, and goes on when it is told to.
pub const VICTIM: Test = ("the client that is killed somewhere", || {
    let client = Client::new(2);
    let (lock, block) = (heap().allocate_cell(Kind::Lock).unwrap(), heap().allocate(5000).unwrap());
    // SAFETY: nobody knows of it yet.
    unsafe { &mut *crate::support::part(&block, 0..5000).unwrap() }.fill(7);
    assert!(Lock::new(lock.cell()).try_acquire(heap().me()));
    let text: String = [handle(&lock), handle(&block)].concat().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{text}");
    let mut pids = client.all_pids();
    pids.push(parent_of(pids[0]));
    println!("{}", pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
    std::io::stdin().read_line(&mut String::new()).expect("told");
    let killed = client.call("kill", &[]);
    work(&client, "the client");
    client.outcome(&killed);
    std::thread::sleep(Duration::MAX);
});

/// The parent of a process: the zygote of a worker.
fn parent_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok()).expect("a number")
}
