//! Producers, consumers and who cleans up after them die at every step. Here a process that dies is a thread that stops for
//! ever at one of the engine's `crash` points: what it has written stands, what it holds it holds, and it does nothing more.
//! How real processes fare that are killed there, `killed.rs` shows.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use shoal_core::crash;
use shoal_core::queue::{self, Got, Item, Put, Queue};

use crate::support::{Machine, Process};
use crate::{LONG, NOW, get, put};

/// What a victim does: all that it comes by has names.
#[derive(Clone, Copy, Debug)]
struct Act {
    name: &'static str,
    /// Bytes of each item that lies in the queue before.
    before: &'static [usize],
    /// How many of those are taken before it begins.
    taken: usize,
    /// Bytes of the item that it puts; none: it takes one.
    puts: Option<usize>,
}

const SMALL: usize = 8;
const LARGE: usize = 3000;
/// So many small ones fill the first chunk, and the last of them lies in the second.
const CHUNK: [usize; 250] = [SMALL; 250];

const ACTS: [Act; 9] = [
    Act { name: "the first item is put", before: &[], taken: 0, puts: Some(SMALL) },
    Act { name: "the first item, a large one, is put", before: &[], taken: 0, puts: Some(LARGE) },
    Act { name: "one more is put", before: &[SMALL], taken: 0, puts: Some(SMALL) },
    Act { name: "one more large one is put", before: &[SMALL, LARGE], taken: 1, puts: Some(LARGE) },
    Act { name: "one is put that does not fit", before: &CHUNK, taken: 0, puts: Some(1000) },
    Act { name: "the last is taken", before: &[SMALL], taken: 0, puts: None },
    Act { name: "a large one is taken", before: &[LARGE, LARGE], taken: 0, puts: None },
    Act { name: "one of many is taken", before: &CHUNK, taken: 1, puts: None },
    Act { name: "a chunk is left", before: &[1000, 1000, 1000, 1000, SMALL], taken: 3, puts: None },
];

/// Item `number`, of that many bytes.
fn item(number: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![number as u8; len.max(8)];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

impl Act {
    /// The victim's part.
    fn run(&self, queue: &Queue) {
        match self.puts {
            Some(len) => put(queue, &item(self.before.len(), len)),
            None => drop(get(queue)),
        }
    }

    /// What must lie in the queue afterwards, if it came past these points.
    fn left(&self, passed: &[&str]) -> Range<usize> {
        let (put, got) = (passed.contains(&"put: done"), passed.contains(&"get: taken"));
        self.taken + usize::from(got)..self.before.len() + usize::from(put)
    }
}

/// Runs `act` in a thread that stops for ever when `when` says so of the points it has passed; those. `None`: it has ended.
fn die(
    when: impl Fn(&[&'static str]) -> bool + Send + 'static,
    act: impl FnOnce() + Send + 'static,
) -> Option<Vec<&'static str>> {
    let (died, came) = channel::<Option<Vec<&'static str>>>();
    let end = |died: &Sender<_>, passed| died.send(passed).expect("somebody waits");
    thread::spawn(move || {
        let (mut passed, at) = (Vec::new(), died.clone());
        crash::on_this_thread(move |name| {
            passed.push(name);
            if when(&passed) {
                end(&at, Some(std::mem::take(&mut passed)));
                loop {
                    thread::park();
                }
            }
        });
        act();
        end(&died, None);
    });
    came.recv().expect("it ends or dies")
}

struct Scene {
    machine: Arc<Machine>,
    host: Process,
    bystander: Process,
    victim: Arc<Queue>,
    queue: Queue,
    blocks: usize,
}

impl Scene {
    fn new(act: &Act) -> Scene {
        let machine = Machine::new();
        let [host, bystander, victim] = std::array::from_fn(|_| machine.process());
        let blocks = machine.blocks();
        let queue = Queue::new(&host.heap, 0).expect("memory");
        for (number, len) in act.before.iter().enumerate() {
            put(&queue, &item(number, *len));
        }
        (0..act.taken).for_each(|number| assert_eq!(get(&queue), item(number, act.before[number])));
        let victim = Arc::new(victim.open(&queue));
        Scene { machine, host, bystander, victim, queue, blocks }
    }

    fn dead(&self) -> u16 {
        self.victim.heap().me()
    }

    /// Whoever cleans up has done so. Nobody is blocked, no item is damaged, nothing is left.
    fn check(self, act: &Act, passed: &[&str], bystander: thread::JoinHandle<()>) {
        bystander.join().expect("nobody is in its way");
        put(&self.queue, b"and one more");
        let mut left = Vec::new();
        while let Got::Item(content) = self.queue.get(NOW).expect("got") {
            left.push(content.bytes().expect("sound").to_vec());
        }
        let lens = act.before.iter().copied().chain(act.puts).collect::<Vec<_>>();
        let mut expected: Vec<_> = act.left(passed).map(|number| item(number, lens[number])).collect();
        expected.push(b"of a bystander".to_vec());
        expected.push(b"and one more".to_vec());
        assert!(left == expected, "{} {passed:?}: {} left, not {}", act.name, left.len(), expected.len());
        let Scene { machine, host, bystander, victim, queue, blocks } = self;
        drop(queue);
        for process in [&host, &bystander, &host] {
            process.heap.tick();
        }
        assert_eq!(machine.blocks(), blocks, "{} {passed:?}", act.name);
        // Its thread has it for ever, as a dead process has what it had.
        std::mem::forget(victim);
    }

    /// Somebody who puts while the dead one is in the way.
    fn bystander(&self) -> thread::JoinHandle<()> {
        let queue = self.bystander.open(&self.queue);
        thread::spawn(move || {
            let item = Item::new(queue.heap(), b"of a bystander", vec![]).expect("memory");
            assert_eq!(queue.put(&item, LONG).expect("put"), Put::Done);
        })
    }
}

/// What the host's supervisor does after a death.
fn clean_up(machine: &Machine, process: &Process, dead: u16) {
    machine.map_all(process);
    queue::recover(&process.heap, dead).expect("all is sound");
    process.heap.give_back_all(dead, |_, _| ());
}

#[test]
fn whoever_dies_at_any_step_neither_blocks_others_nor_damages_an_item() {
    let mut steps: Vec<&str> = Vec::new();
    for act in ACTS {
        for lives in 0.. {
            let scene = Scene::new(&act);
            let victim = scene.victim.clone();
            let Some(passed) = die(move |passed| passed.len() > lives, move || act.run(&victim)) else { break };
            let bystander = scene.bystander();
            clean_up(&scene.machine, &scene.host, scene.dead());
            steps.extend(passed.last());
            scene.check(&act, &passed, bystander);
        }
    }
    steps.sort_unstable();
    steps.dedup();
    assert!(steps.len() >= 18, "the engine's points were passed: {steps:?}");
}

#[test]
fn whoever_dies_while_it_cleans_up_leaves_it_to_the_next() {
    for act in ACTS {
        for lives in 0.. {
            let mut again = true;
            for lives_of_cleaner in 0.. {
                let scene = Scene::new(&act);
                let victim = scene.victim.clone();
                let Some(passed) = die(move |passed| passed.len() > lives, move || act.run(&victim)) else {
                    again = false;
                    break;
                };
                let bystander = scene.bystander();
                let (cleaner, dead) = (scene.machine.process(), scene.dead());
                let (machine, died) = (scene.machine.clone(), cleaner.heap.me());
                let ended =
                    die(move |passed| passed.len() > lives_of_cleaner, move || clean_up(&machine, &cleaner, dead))
                        .is_none();
                [dead, died].into_iter().for_each(|dead| clean_up(&scene.machine, &scene.host, dead));
                scene.check(&act, &passed, bystander);
                if ended {
                    break;
                }
            }
            if !again {
                break;
            }
        }
    }
}

#[test]
fn whoever_dies_while_it_clears_a_queue_that_nobody_has_leaves_the_rest_to_the_host() {
    for lives in 0.. {
        let machine = Machine::new();
        let [host, producer, owner] = std::array::from_fn(|_| machine.process());
        let blocks = machine.blocks();
        let queue = Queue::new(&owner.heap, 0).expect("memory");
        let id = queue.lease().id();
        let theirs = producer.open(&queue);
        for number in 0..20 {
            put(&queue, &item(number, if number % 2 == 0 { LARGE } else { 900 }));
            put(&theirs, &item(number, LARGE));
        }
        drop(theirs);
        let dead = owner.heap.me();
        let died = die(move |passed| passed.len() > lives, move || drop(queue)).is_some();
        if died {
            clean_up(&machine, &host, dead);
        }
        let segment = host.heap.segment(id.segment).expect("there");
        assert!(queue::clear(&host.heap, &segment, id.entry).expect("sound"), "nobody else is about it");
        assert!(queue::clear(&host.heap, &segment, id.entry).expect("sound"), "twice does no harm");
        producer.heap.tick();
        assert_eq!(machine.blocks(), blocks, "after {lives} steps");
        if !died {
            break;
        }
    }
}

#[test]
fn who_sleeps_for_an_item_hears_of_a_death() {
    let machine = Machine::new();
    let [host, victim, sleeper] = std::array::from_fn(|_| machine.process());
    let queue = Queue::new(&host.heap, 0).expect("memory");
    let (theirs, asleep) = (victim.open(&queue), sleeper.open(&queue));
    let sleeping = thread::spawn(move || get(&asleep));
    let dead = victim.heap.me();
    // Before it wakes anybody.
    die(|passed| passed.ends_with(&["put: done"]), move || put(&theirs, b"here")).expect("it dies there");
    clean_up(&machine, &host, dead);
    assert_eq!(sleeping.join().expect("is woken"), b"here");
}
