//! The host of a domain is killed, and so is, at every step that it takes, whoever is about to follow it. Those who are left
//! must have all that they had.
#![cfg(feature = "crash-points")]

mod short;

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use shoal_core::Error;
use shoal_core::crash;
use shoal_core::domain;
use shoal_core::memory::handle::Handle;
use shoal_core::memory::heap::Lease;
use shoal_core::queue::{Got, Item, Put, Queue};
use shoal_sys::process::{Signal, pidfd_kill, pidfd_open};

const MEMBER: &str = "SHOAL_TEST_MEMBER";
const LEN: u64 = 100_000;
const LONG: Option<Duration> = Some(Duration::from_secs(50));
/// A member that is there for longer hangs.
const TOO_LONG: Duration = Duration::from_secs(200);
/// What answers begin with, as the test's harness says other things.
const MARK: &str = "@";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

/// Puts an item that names a block of its own, whose length tells the item's number.
fn put(queue: &Queue, number: u8) {
    let block = queue.heap().allocate(LEN + u64::from(number)).expect("memory");
    let id = block.id();
    let name = [id.segment, id.entry, id.generation].map(u32::to_le_bytes).concat();
    let item = Item::new(queue.heap(), &name, vec![block]).expect("memory");
    assert_eq!(queue.put(&item, LONG).expect("put"), Put::Done);
}

/// Takes an item; its number.
fn get(queue: &Queue) -> u8 {
    let Got::Item(content) = queue.get(LONG).expect("got") else { panic!("one comes") };
    let bytes = content.bytes().expect("sound");
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let id = shoal_core::memory::heap::BlockId { segment: word(0), entry: word(4), generation: word(8) };
    let block: Lease = queue.heap().take(id).expect("there");
    (block.len() - LEN) as u8
}

/// What a handle stands for. Whoever follows a host that has just been killed may be longer on its way than a newcomer
/// waits for it: asked again.
fn resolved(handle: &[u8]) -> Lease {
    let handle = Handle::from_bytes(handle).expect("a handle");
    let began = Instant::now();
    loop {
        match domain::resolve(&handle) {
            Err(Error::Gone) if began.elapsed() < LONG.expect("a time") => continue,
            resolved => return resolved.expect("there"),
        }
    }
}

/// What a child of the tests below runs; anywhere else nothing.
#[test]
fn a_member_acts() {
    if std::env::var(MEMBER).is_err() {
        return;
    }
    // Who waits for ever fails the test, and does not stop it.
    std::thread::spawn(|| {
        std::thread::sleep(TOO_LONG);
        std::process::abort();
    });
    let mut queue: Option<Queue> = None;
    for line in std::io::stdin().lines() {
        let line = line.expect("read");
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let opened = || queue.as_ref().expect("opened before");
        let answer = match verb {
            "make" => {
                let made = Queue::new(&domain::heap().expect("a host"), 0).expect("memory");
                let handle = domain::handle_of(made.lease()).expect("a handle").to_bytes();
                queue = Some(made);
                hex(&handle)
            }
            "open" => {
                queue = Some(Queue::open(resolved(&unhex(rest))).expect("a queue"));
                String::new()
            }
            "put" => {
                put(opened(), rest.parse().expect("a number"));
                String::new()
            }
            "get" => get(opened()).to_string(),
            // Needs a segment of its own.
            "grow" => opened().heap().allocate(20 << 20).expect("memory").len().to_string(),
            "starve" => short::starve(),
            "crowd" => short::crowd(),
            "relieve" => short::relieve(),
            "visit" => short::visit(rest),
            "ask" => short::ask(opened()),
            "segments" => opened().heap().usage(|_| None).segments.to_string(),
            other => panic!("no verb is called {other}"),
        };
        println!("{MARK}{answer}");
    }
}

struct Member {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Member {
    /// A process that is killed at that point, if it comes there.
    fn new(point: &str) -> Member {
        Member::started(point, |_| ())
    }

    fn started(point: &str, arrange: impl FnOnce(&mut Command)) -> Member {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "a_member_acts", "--nocapture"]).env(MEMBER, "1").env(crash::VARIABLE, point);
        arrange(&mut command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Member { child, input, output: BufReader::new(output) }
    }

    fn opened(point: &str, handle: &str) -> Member {
        let mut member = Member::new(point);
        member.does(&format!("open {handle}"));
        member
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.input, "{what}").expect("it listens");
    }

    fn does(&mut self, what: &str) -> String {
        self.tell(what);
        let mut lines = (&mut self.output).lines();
        let answer = lines.find_map(|line| Some(line.expect("read").split_once(MARK)?.1.to_owned()));
        answer.unwrap_or_else(|| panic!("it ended: {what}"))
    }

    fn signal(&self, signal: Signal) {
        let pidfd = pidfd_open(self.child.id()).expect("there");
        pidfd_kill(pidfd.as_fd(), signal).expect("sent");
    }

    /// Stops it, all of it: the thread that gets the signal may wait for a CPU while the others go on.
    fn stop(&self) {
        self.signal(Signal::STOP);
        let threads = format!("/proc/{}/task", self.child.id());
        let stopped = |path: std::path::PathBuf| {
            // The name, in parentheses, may hold anything; the state follows it.
            let stat = std::fs::read_to_string(path.join("stat")).expect("a thread that can't end");
            stat.rsplit_once(") ").expect("a name").1.starts_with('T')
        };
        while !std::fs::read_dir(&threads).expect("alive").all(|thread| stopped(thread.expect("read").path())) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until it was killed.
    fn was_killed(&mut self, why: &str) {
        assert_eq!(self.child.wait().expect("waited").signal(), Some(9), "{why}");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        self.child.wait().expect("waited");
    }
}

/// What those who are left can do: all that they could before.
fn go_on(mut survivor: Member, handle: &str, items: &[u8], why: &str) {
    for item in items {
        assert_eq!(survivor.does("get"), item.to_string(), "{why}");
    }
    survivor.does("put 7");
    survivor.does("grow");
    let mut newcomer = Member::opened("", handle);
    assert_eq!(newcomer.does("get"), "7", "{why}");
    newcomer.does("put 8");
    newcomer.does("grow");
    assert_eq!(survivor.does("get"), "8", "{why}");
    // And again: the newcomer follows, or the other one does already.
    survivor.child.kill().expect("killed");
    newcomer.does("put 9");
    assert_eq!(newcomer.does("get"), "9", "{why}");
}

const FOLLOWING: [&str; 9] = [
    "follow: bound",
    "follow: named",
    "follow: mapped",
    "follow: adopted",
    "death: recovered",
    "death: orphaned",
    "death: given back",
    "death: buried",
    "death: cleared",
];

#[test]
fn whoever_follows_may_be_killed_at_every_step() {
    for point in FOLLOWING {
        // It dies in the put lock, with an item begun.
        let mut creator = Member::new("put: begun");
        let handle = creator.does("make");
        let mut helper = Member::opened("", &handle);
        helper.does("put 1");
        let mut victim = Member::opened(point, &handle);
        victim.does("put 2");
        let survivor = Member::opened("", &handle);
        // The dead have envelopes already when the host ends.
        helper.child.kill().expect("killed");
        helper.child.wait().expect("waited");
        survivor.stop();
        creator.tell("put 3");
        creator.was_killed("the creator");
        victim.was_killed(point);
        survivor.signal(Signal::CONT);
        go_on(survivor, &handle, &[1, 2], point);
    }
}

#[test]
fn the_host_may_be_killed_while_it_makes_a_segment() {
    for point in ["segment: made", "vault: sent", "vault: changed", "segment: kept"] {
        let mut creator = Member::new("");
        let handle = creator.does("make");
        creator.does("put 1");
        // Only what it makes later for somebody else is its end: the second host's.
        let mut second = Member::opened(point, &handle);
        second.does("put 2");
        creator.child.kill().expect("killed");
        creator.child.wait().expect("waited");
        let survivor = Member::opened("", &handle);
        second.tell("grow");
        second.was_killed(point);
        go_on(survivor, &handle, &[1, 2], point);
    }
}
