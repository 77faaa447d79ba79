//! Real processes, killed by SIGKILL at every one of the engine's `crash` points, while the host that they are guests of
//! goes on. What each step leaves, `deaths.rs` looks at more closely.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_core::crash;
use shoal_core::domain;
use shoal_core::memory::handle::Handle;
use shoal_core::memory::heap::{BlockId, Lease};
use shoal_core::queue::{Got, Item, Put, Queue};

use crate::{LONG, NOW};

/// The environment of a child: what it does, and with which queue.
const ACT: &str = "SHOAL_TEST_ACT";
const QUEUE: &str = "SHOAL_TEST_QUEUE";

/// Items that a child puts or takes: small ones, large ones, chunks that fill.
const COUNT: usize = 300;

/// The bytes of an item: its number, the block that it names (or zeros), and more of its number.
fn bytes_of(number: usize, named: Option<BlockId>) -> Vec<u8> {
    let name = named.map_or([0; 3], |id| [id.segment, id.entry, id.generation]);
    let len = [20, 500, 3000][number % 3];
    let filler = std::iter::repeat_n(number as u8, len - 20);
    number.to_le_bytes().into_iter().chain(name.into_iter().flat_map(u32::to_le_bytes)).chain(filler).collect()
}

fn put_item(queue: &Queue, number: usize) {
    // Every other one names something that the producer has made: it must outlive it.
    let named = number.is_multiple_of(2).then(|| queue.heap().allocate(5000).expect("memory"));
    let bytes = bytes_of(number, named.as_ref().map(Lease::id));
    let item = Item::new(queue.heap(), &bytes, named.into_iter().collect()).expect("memory");
    assert_eq!(queue.put(&item, LONG).expect("put"), Put::Done);
}

/// Takes an item; which one. It must be whole, and what it names must be there.
fn take_item(queue: &Queue) -> usize {
    let Got::Item(content) = queue.get(LONG).expect("got") else { panic!("one comes") };
    let bytes = content.bytes().expect("sound");
    let number = usize::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let named = BlockId { segment: word(8), entry: word(12), generation: word(16) };
    let named = (named.generation != 0).then_some(named);
    assert_eq!(bytes, bytes_of(number, named), "it is whole");
    assert_eq!(named.is_some(), number.is_multiple_of(2));
    if let Some(id) = named {
        assert_eq!(queue.heap().take(id).expect("there").len(), 5000);
    }
    number
}

fn act(name: &str, queue: &Queue) {
    match name {
        "put" => (0..COUNT).for_each(|number| put_item(queue, number)),
        "get" => (0..COUNT).for_each(|number| assert_eq!(take_item(queue), number)),
        other => panic!("no act is called {other}"),
    }
}

/// What a child of the tests below runs; anywhere else nothing.
#[test]
fn a_child_acts() {
    let (Ok(name), Ok(handle)) = (std::env::var(ACT), std::env::var(QUEUE)) else { return };
    let digits = |at: usize| u8::from_str_radix(&handle[at..at + 2], 16).expect("digits");
    let bytes: Vec<u8> = (0..handle.len()).step_by(2).map(digits).collect();
    let lease = domain::resolve(&Handle::from_bytes(&bytes).expect("a handle")).expect("the host is there");
    act(&name, &Queue::open(lease).expect("a queue"));
}

/// One test at a time has the host: they count what lies in it.
fn alone() -> MutexGuard<'static, ()> {
    static HOST: Mutex<()> = Mutex::new(());
    HOST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A queue of this process, with so many items, that others may have.
fn queue(items: usize) -> Queue {
    let queue = Queue::new(&domain::heap().expect("a host"), 0).expect("memory");
    (0..items).for_each(|number| put_item(&queue, number));
    queue
}

/// Runs a child that is killed at that point, if it comes there. Whether it was.
fn killed(name: &str, queue: &Queue, point: &str) -> bool {
    let handle = domain::handle_of(queue.lease()).expect("a handle").to_bytes();
    let handle: String = handle.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    child.args(["--exact", "killed::a_child_acts"]).env(ACT, name).env(QUEUE, handle).env(crash::VARIABLE, point);
    let output = child.output().expect("it starts");
    assert!(output.status.success() || output.status.signal() == Some(9), "{point}: {output:?}");
    !output.status.success()
}

/// The points that an act comes by.
fn points(name: &str, queue: &Queue) -> Vec<&'static str> {
    std::thread::scope(|scope| {
        let acting = scope.spawn(|| {
            let (found, finds) = std::sync::mpsc::channel();
            crash::on_this_thread(move |name| found.send(name).expect("kept below"));
            act(name, queue);
            finds.try_iter().collect::<std::collections::BTreeSet<_>>()
        });
        acting.join().expect("ends").into_iter().collect()
    })
}

/// All that lies in the queue when those who were killed have been cleaned up after.
fn drain(queue: &Queue) -> Vec<usize> {
    // Waits for the dead one's locks.
    put_item(queue, COUNT);
    let mut left = Vec::new();
    loop {
        let number = take_item(queue);
        if number == COUNT {
            return left;
        }
        left.push(number);
    }
}

/// Waits until all that the dead held has been given back.
fn nothing_is_left(queue: &Queue, before: u64, point: &str) {
    assert!(matches!(queue.get(NOW).expect("looked"), Got::Empty));
    let end = Instant::now() + Duration::from_secs(50);
    let left = || queue.heap().usage(|_| None).blocks as u64;
    while left() > before {
        assert!(Instant::now() < end, "{point}: {} blocks are left, not {before}", left());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_a_producer_has_put_is_there_wherever_it_is_killed() {
    let _alone = alone();
    let points = points("put", &queue(0));
    assert!(points.len() >= 11, "{points:?}");
    for point in points {
        let queue = queue(0);
        assert!(killed("put", &queue, point), "{point}: it comes by there");
        let left = drain(&queue);
        assert!(left.iter().copied().eq(0..left.len()), "{point}: in order, none missing: {left:?}");
    }
}

#[test]
fn a_consumer_takes_one_item_along_at_most_wherever_it_is_killed() {
    let _alone = alone();
    let points = points("get", &queue(COUNT));
    assert!(points.len() >= 8, "{points:?}");
    for point in points {
        let queue = queue(COUNT);
        assert!(killed("get", &queue, point), "{point}: it comes by there");
        let left = drain(&queue);
        // At which item it came by there first, it does not say.
        assert!(left.len() >= COUNT / 2, "{point}: {} left", left.len());
        assert!(left.iter().copied().eq(COUNT - left.len()..COUNT), "{point}: in order, none missing: {left:?}");
    }
}

#[test]
fn what_the_killed_have_left_is_given_back() {
    let _alone = alone();
    let queue = queue(0);
    let before = queue.heap().usage(|_| None).blocks as u64;
    for (name, point) in [("put", "envelope: sealed"), ("put", "put: envelope held"), ("put", "put: done")] {
        assert!(killed(name, &queue, point));
        drain(&queue);
        // The chunk that the queue is in stays.
        nothing_is_left(&queue, before + 1, point);
    }
}
