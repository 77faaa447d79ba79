//! Queues between processes: each "process" here is a heap of its own over the same segments, with a number of its own,
//! and dies when the test says so. What real ones do when they are killed, the Python tests show.

#[cfg(feature = "crash-points")]
mod deaths;
#[cfg(feature = "crash-points")]
mod killed;
mod support;

use std::time::Duration;

use shoal_core::queue::{Got, Item, Put, Queue};
use support::{Machine, Process};

const LONG: Option<Duration> = Some(Duration::from_secs(50));
const NOW: Option<Duration> = Some(Duration::ZERO);

fn put(queue: &Queue, bytes: &[u8]) {
    let item = Item::new(queue.heap(), bytes, vec![]).expect("memory");
    assert_eq!(queue.put(&item, LONG).expect("put"), Put::Done);
}

fn get(queue: &Queue) -> Vec<u8> {
    match queue.get(LONG).expect("got") {
        Got::Item(content) => content.bytes().expect("sound").to_vec(),
        other => panic!("{other:?}"),
    }
}

fn is_empty(queue: &Queue) -> bool {
    matches!(queue.get(NOW).expect("looked"), Got::Empty)
}

#[test]
fn items_come_out_in_the_order_they_were_put() {
    let machine = Machine::new();
    let [one, two] = [machine.process(), machine.process()];
    let queue = Queue::new(&one.heap, 0).expect("memory");
    let other = two.open(&queue);
    for number in 0..10_000u32 {
        put(&queue, &number.to_le_bytes());
    }
    assert_eq!(other.len(), 10_000);
    for number in 0..10_000u32 {
        assert_eq!(get(&other), number.to_le_bytes());
    }
    assert!(is_empty(&other) && is_empty(&queue));
}

#[test]
fn items_of_all_lengths_pass() {
    let machine = Machine::new();
    let [one, two] = [machine.process(), machine.process()];
    let queue = Queue::new(&one.heap, 0).expect("memory");
    let other = two.open(&queue);
    let lens = [0, 1, 63, 64, 65, 999, 1000, 1001, 4096, 100_000, 3_000_000];
    for round in 0..20 {
        for len in lens {
            put(&queue, &vec![round; len]);
        }
        for len in lens {
            assert!(get(&other) == vec![round; len], "{len} bytes");
        }
    }
}

#[test]
fn a_full_queue_takes_no_more() {
    let machine = Machine::new();
    let one = machine.process();
    let queue = Queue::new(&one.heap, 2).expect("memory");
    put(&queue, b"a");
    put(&queue, b"b");
    let item = Item::new(queue.heap(), b"c", vec![]).expect("memory");
    assert_eq!(queue.put(&item, NOW).expect("tried"), Put::Full);
    assert_eq!(queue.put(&item, Some(Duration::from_millis(5))).expect("tried"), Put::Full);
    assert_eq!(get(&queue), b"a");
    assert_eq!(queue.put(&item, NOW).expect("put"), Put::Done);
    assert_eq!((get(&queue), get(&queue)), (b"b".to_vec(), b"c".to_vec()));
}

#[test]
fn a_queue_that_is_shut_takes_no_more_and_gives_what_it_has() {
    let machine = Machine::new();
    let one = machine.process();
    let queue = Queue::new(&one.heap, 0).expect("memory");
    put(&queue, b"a");
    queue.shut_down(None);
    let item = Item::new(queue.heap(), b"b", vec![]).expect("memory");
    assert_eq!(queue.put(&item, None).expect("tried"), Put::Shut);
    assert_eq!(get(&queue), b"a");
    assert!(matches!(queue.get(None).expect("looked"), Got::Shut));
}

#[test]
fn threads_of_several_processes_lose_nothing_and_keep_each_others_order() {
    const EACH: u32 = 20_000;
    let machine = Machine::new();
    let processes: Vec<Process> = (0..4).map(|_| machine.process()).collect();
    let queue = Queue::new(&processes[0].heap, 0).expect("memory");
    let queues: Vec<Queue> = processes.iter().map(|process| process.open(&queue)).collect();
    let received = std::thread::scope(|scope| {
        let (producers, consumers) = queues.split_at(2);
        for (me, queue) in producers.iter().enumerate() {
            scope.spawn(move || (0..EACH).for_each(|n| put(queue, &(n * 2 + me as u32).to_le_bytes())));
        }
        let taking = consumers.iter().map(|queue| {
            scope.spawn(|| {
                let number = |bytes: Vec<u8>| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
                (0..EACH).map(|_| number(get(queue))).collect::<Vec<_>>()
            })
        });
        let taking: Vec<_> = taking.collect();
        taking.into_iter().map(|thread| thread.join().expect("ends")).collect::<Vec<_>>()
    });
    for taken in &received {
        for me in 0..2 {
            let of_one: Vec<u32> = taken.iter().copied().filter(|n| n % 2 == me).collect();
            assert!(of_one.is_sorted(), "what one has put is taken in order");
        }
    }
    let mut all = received.concat();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..2 * EACH));
}

#[test]
fn what_an_item_names_lives_as_long_as_it_lies_in_the_queue() {
    let machine = Machine::new();
    let [one, two] = [machine.process(), machine.process()];
    let queue = Queue::new(&one.heap, 0).expect("memory");
    let other = two.open(&queue);
    let block = one.heap.allocate(100_000).expect("memory");
    let id = block.id();
    let item = Item::new(&one.heap, b"a block", vec![block]).expect("memory");
    assert_eq!(queue.put(&item, None).expect("put"), Put::Done);
    drop(item);
    let Got::Item(content) = other.get(NOW).expect("got") else { panic!("it lies there") };
    let lease = two.heap.take(id).expect("still there");
    drop(content);
    one.heap.tick();
    assert!(two.heap.take(id).is_ok(), "the second has it");
    drop(lease);
    one.heap.tick();
    assert!(two.heap.take(id).is_err(), "nobody has it");
}

#[test]
fn what_lies_in_a_queue_goes_with_it() {
    let machine = Machine::new();
    let [one, two] = [machine.process(), machine.process()];
    let before = machine.blocks();
    let queue = Queue::new(&one.heap, 0).expect("memory");
    let other = two.open(&queue);
    for number in 0..1000u32 {
        put(&queue, &number.to_le_bytes());
        put(&other, &vec![1; 2000]);
        let block = two.heap.allocate(10_000).expect("memory");
        let item = Item::new(&two.heap, b"a block", vec![block]).expect("memory");
        assert_eq!(other.put(&item, None).expect("put"), Put::Done);
    }
    drop((queue, other));
    for process in [&one, &two, &one] {
        process.heap.tick();
    }
    assert_eq!(machine.blocks(), before);
}
