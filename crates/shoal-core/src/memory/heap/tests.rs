//! The specification of the heap: blocks come and go, and memory goes back to the system.

use std::sync::atomic::{AtomicU32, AtomicU64};

use super::*;
use crate::error::Limit;
use crate::memory::arena::LOOK;
use crate::memory::segment::GRANULE;
use crate::queue::{Item, Put, Queue};

const MIB: u64 = 1 << 20;

/// Makes segments, up to so many bytes with pages.
#[derive(Default)]
struct Machine {
    segments: Mutex<Vec<Arc<Segment>>>,
    limit: AtomicU64,
    told: AtomicU32,
    /// Whether nothing can be opened, as if there were no descriptors.
    is_short: AtomicBool,
}

impl Machine {
    fn resident(&self) -> u64 {
        lock(&self.segments).iter().map(|segment| segment.len() - segment.released()).sum()
    }

    fn check(&self, wanted: u64) -> Result<()> {
        let available = self.limit.load(Ordering::Relaxed).saturating_sub(self.resident());
        let limit = Limit::Machine;
        if wanted > available { Err(Error::OutOfSharedMemory { wanted, available, limit }) } else { Ok(()) }
    }
}

struct Of(Arc<Machine>);

impl Source for Of {
    fn create(&self, data: u64, backed: u64, entries: u32, _patient: bool) -> Result<Arc<Segment>> {
        self.0.check(Segment::cost(data, backed, entries)?)?;
        let mut segments = lock(&self.0.segments);
        let segment = Arc::new(Segment::create(segments.len() as u32, data, backed, entries)?);
        segments.push(segment.clone());
        Ok(segment)
    }

    fn restore(&self, segment: &Arc<Segment>, granules: Range<usize>) -> Result<()> {
        self.0.check(granules.len() as u64 * GRANULE)?;
        segment.restore(granules)
    }

    fn open(&self, id: u32) -> Result<Arc<Segment>> {
        if self.0.is_short.load(Ordering::Relaxed) {
            return Err(Error::Os(std::io::ErrorKind::Other.into()));
        }
        // Another mapping, as in another process.
        let fd = lock(&self.0.segments).get(id as usize).ok_or(Error::Gone)?.fd().try_clone_to_owned()?;
        Ok(Arc::new(Segment::open(id, fd)?))
    }

    fn freed(&self) {
        self.0.told.fetch_add(1, Ordering::Relaxed);
    }
}

fn machine(limit: u64) -> (Arc<Machine>, Arc<Heap>) {
    let machine = Arc::new(Machine { limit: AtomicU64::new(limit), ..Machine::default() });
    let heap = member(&machine, HOST);
    (machine, heap)
}

fn member(machine: &Arc<Machine>, me: u16) -> Arc<Heap> {
    Heap::new(me, Address { domain: [0; 16], token: [0; 16] }, Box::new(Of(machine.clone())))
}

fn used(heap: &Heap) -> u64 {
    lock(&heap.books().arena).holdings().used
}

fn fill(lease: &Lease, byte: u8) {
    let address = lease.address().expect("a block");
    // SAFETY: the block is that long, and nobody else uses it.
    unsafe { address.write_bytes(byte, lease.len() as usize) };
}

/// Makes time pass, so that the arena looks twice, and a third time.
fn two_looks(heap: &Heap) -> Option<Duration> {
    static TIMES: AtomicU32 = AtomicU32::new(1);
    let mut now = Instant::now() + TIMES.fetch_add(1, Ordering::Relaxed) * 100 * LOOK;
    for _ in 0..3 {
        lock(&heap.books().arena).tick(now);
        now += LOOK;
    }
    lock(&heap.books().arena).tick(now)
}

#[test]
fn a_block_that_only_its_owner_held_is_free_at_once() {
    let (machine, heap) = machine(u64::MAX);
    let block = heap.allocate(MIB).expect("memory");
    assert_eq!(used(&heap), MIB);
    let first = block.address().expect("a block");
    drop(block);
    assert_eq!(used(&heap), 0, "without a look at any mark");
    assert_eq!(lock(&machine.segments)[0].marks().changes(), 0);
    let again = heap.allocate(MIB).expect("memory");
    assert_eq!(again.address().expect("a block"), first, "the same warm pages");
}

#[test]
fn a_block_that_another_holds_is_free_when_that_lets_go() {
    let (machine, owner) = machine(u64::MAX);
    let other = member(&machine, 1);
    let block = owner.allocate(MIB).expect("memory");
    let lease = other.take(block.id()).expect("it is there");
    drop(block);
    assert_eq!(used(&owner), MIB);
    drop(lease);
    assert!(other.has_let_go() && !other.has_let_go(), "told once");
    lock(&owner.books().arena).sweep();
    assert_eq!(used(&owner), 0);
}

#[test]
fn who_dies_before_it_marks_a_block_leaks_nothing() {
    let (machine, owner) = machine(u64::MAX);
    let other = member(&machine, 1);
    owner.segment(0).expect_err("none yet");
    let block = owner.allocate(MIB).expect("memory");
    let lease = other.take(block.id()).expect("it is there");
    drop(block);
    let segment = lock(&machine.segments)[0].clone();
    // It clears its bit, and dies.
    assert!(segment.entries()[lease.id().entry as usize].give_back(1));
    std::mem::forget(lease);
    lock(&owner.books().arena).sweep();
    assert_eq!(used(&owner), MIB, "nobody knows yet");
    owner.give_back_all(1, |_, _| ());
    lock(&owner.books().arena).sweep();
    assert_eq!(used(&owner), 0);
}

#[test]
fn small_blocks_in_a_long_segment_go_elsewhere_when_its_table_is_full() {
    let (machine, heap) = machine(u64::MAX);
    // A segment for one long block has far fewer lines than pages.
    drop(heap.allocate(80 * MIB).expect("memory"));
    let lines = lock(&machine.segments)[0].entries().len();
    assert!(lines < 20_000, "{lines}");
    let blocks: Vec<Lease> = (0..lines as u64 + 1_000).map(|_| heap.allocate(1).expect("memory")).collect();
    assert_eq!(lock(&machine.segments).len(), 2, "the others lie in another segment");
    drop(blocks);
    assert_eq!(used(&heap), 0);
    drop(heap.allocate(80 * MIB).expect("memory"));
    assert_eq!(lock(&machine.segments).len(), 2, "what was full is not any more");
}

#[test]
fn what_was_free_for_a_while_goes_back_to_the_system() {
    let (machine, heap) = machine(u64::MAX);
    let (kept, block) = (heap.allocate(MIB).expect("memory"), heap.allocate(100 * MIB).expect("memory"));
    fill(&block, 7);
    drop(block);
    assert!(machine.told.load(Ordering::Relaxed) == 1 && machine.resident() > 100 * MIB);
    assert_eq!(two_looks(&heap), None, "nothing is left to give back");
    assert!(machine.resident() < 10 * MIB, "{}", machine.resident());
    let told = machine.told.load(Ordering::Relaxed);
    let block = heap.allocate(100 * MIB).expect("memory");
    // SAFETY: nobody writes.
    assert!(unsafe { block.bytes() }.expect("a block").iter().all(|byte| *byte == 0), "pages are new");
    fill(&block, 8);
    assert_eq!(lock(&machine.segments).len(), 2, "the same segment");
    drop(block);
    assert_eq!(machine.told.load(Ordering::Relaxed), told + 1, "once, so that somebody looks");
    drop(kept);
    two_looks(&heap);
    let tables: u64 = lock(&machine.segments).iter().map(|segment| segment.data_at()).sum();
    assert_eq!(machine.resident(), tables, "only the tables");
}

#[test]
fn of_what_is_freed_after_a_new_segment_came_somebody_is_told() {
    let (machine, heap) = machine(u64::MAX);
    drop(heap.allocate(MIB).expect("memory"));
    assert_eq!(two_looks(&heap), None, "nobody comes to look by itself any more");
    let told = machine.told.load(Ordering::Relaxed);
    drop(heap.allocate(100 * MIB).expect("memory"));
    assert!(machine.told.load(Ordering::Relaxed) > told);
}

#[test]
fn what_is_used_again_and_again_stays() {
    let (machine, heap) = machine(u64::MAX);
    drop(heap.allocate(100 * MIB).expect("memory"));
    let now = Instant::now();
    for seconds in (0..100).step_by(2) {
        // A small block in the same long segment does not keep the rest of it.
        drop(heap.allocate(20 * MIB).expect("memory"));
        lock(&heap.books().arena).tick(now + Duration::from_secs(seconds));
    }
    assert!((20 * MIB..40 * MIB).contains(&machine.resident()), "{}", machine.resident());
}

#[test]
fn resident_memory_is_handed_out_before_what_would_have_to_be_fetched() {
    let (machine, heap) = machine(u64::MAX);
    let (first, second) = (heap.allocate(40 * MIB).expect("memory"), heap.allocate(50 * MIB).expect("memory"));
    drop(first);
    two_looks(&heap);
    drop(second);
    let before = machine.resident();
    let block = heap.allocate(40 * MIB).expect("memory");
    assert_eq!(machine.resident(), before, "it lies where the second lay, though the first place fits better");
    drop(block);
}

#[test]
fn a_block_may_lie_across_what_is_resident_and_what_is_not() {
    let (machine, heap) = machine(u64::MAX);
    let blocks: Vec<Lease> = (0..4).map(|_| heap.allocate(16 * MIB).expect("memory")).collect();
    let segments = lock(&machine.segments).len();
    drop(heap.allocate(100 * MIB).expect("memory"));
    two_looks(&heap);
    let warm = heap.allocate(10 * MIB).expect("memory");
    drop(warm);
    let block = heap.allocate(100 * MIB).expect("memory");
    fill(&block, 1);
    assert_eq!(lock(&machine.segments).len(), segments + 1, "no new one");
    drop(blocks);
}

#[test]
fn short_of_memory_the_own_free_memory_goes_first() {
    let (machine, heap) = machine(300 * MIB);
    for round in 0..3 {
        // Each has a segment of its own, and two of them together would be too much.
        for mib in [130, 200, 270] {
            let block = heap.allocate(mib * MIB).unwrap_or_else(|error| panic!("{mib} MiB in round {round}: {error}"));
            fill(&block, mib as u8);
        }
    }
    let error = heap.allocate(310 * MIB).expect_err("more than there is");
    assert!(matches!(error, Error::OutOfSharedMemory { wanted, .. } if wanted >= 310 * MIB), "{error}");
    let held = heap.allocate(200 * MIB).expect("the refusal has broken nothing");
    heap.allocate(200 * MIB).expect_err("twice is too much");
    fill(&held, 1);
    assert!(machine.resident() <= 300 * MIB);
}

#[test]
fn a_limit_that_is_lowered_is_heard_of_when_pages_are_fetched() {
    let (machine, heap) = machine(u64::MAX);
    drop(heap.allocate(100 * MIB).expect("memory"));
    two_looks(&heap);
    machine.limit.store(50 * MIB, Ordering::Relaxed);
    for _ in 0..3 {
        heap.allocate(100 * MIB).expect_err("too much");
        assert_eq!(used(&heap), 0);
    }
    drop(heap.allocate(30 * MIB).expect("there is room for that"));
    machine.limit.store(u64::MAX, Ordering::Relaxed);
    let block = heap.allocate(100 * MIB).expect("memory");
    fill(&block, 1);
}

#[test]
fn a_queue_that_can_not_be_cleared_when_it_is_left_is_cleared_later() {
    let (machine, owner) = machine(u64::MAX);
    let other = member(&machine, 1);
    let queue = Queue::new(&owner, 0).expect("memory");
    let id = queue.lease().id();
    let theirs = Queue::open(other.take(id).expect("there")).expect("a queue");
    let item = Item::new(&other, b"item", vec![]).expect("memory");
    assert_eq!(theirs.put(&item, None).expect("put"), Put::Done);
    drop((item, theirs));
    let kind = || owner.segment(id.segment).expect("its own").entries()[id.entry as usize].kind();
    // What lies in it lies in the other's memory.
    machine.is_short.store(true, Ordering::Relaxed);
    drop(queue);
    drop(owner.allocate(1).expect("its own memory"));
    assert_eq!(kind(), Some(Kind::Queue), "it can't be cleared");
    machine.is_short.store(false, Ordering::Relaxed);
    drop(owner.allocate(1).expect("memory"));
    assert_eq!(kind(), None);
}

#[cfg(feature = "crash-points")]
#[test]
fn a_handle_of_a_lines_former_life_does_no_harm_to_who_opens_it_anew() {
    let (_machine, heap) = machine(u64::MAX);
    let former = heap.allocate(MIB).expect("memory").id();
    let (other, taken) = (heap.clone(), Arc::new(Mutex::new(None)));
    let taker = taken.clone();
    crate::crash::on_this_thread(move |point| {
        if point == "heap: opened" {
            let other = other.clone();
            let (done, told) = std::sync::mpsc::channel();
            *lock(&taker) = Some(std::thread::spawn(move || {
                let gone = matches!(other.take(former), Err(Error::Gone));
                let _nobody_waits = done.send(());
                gone
            }));
            // It may have to wait until this goes on.
            let _waits = told.recv_timeout(Duration::from_millis(100));
        }
    });
    let block = heap.allocate(MIB).expect("memory");
    let id = block.id();
    assert_eq!((id.segment, id.entry), (former.segment, former.entry), "the same line");
    let taker = lock(&taken).take().expect("it was opened");
    assert!(taker.join().expect("ends"));
    assert!(block.0.entry().held_by(heap.me()), "another's block would lie there soon");
}

#[cfg(feature = "crash-points")]
#[test]
fn of_a_death_nothing_is_told_that_has_become_another_meanwhile() {
    let (machine, owner) = machine(u64::MAX);
    let host = member(&machine, 1);
    let former = owner.allocate(MIB).expect("memory");
    former.become_kind(Kind::Condition);
    let id = former.id();
    host.segment(id.segment).expect("mapped");
    let (mut former, latter) = (Some(former), Arc::new(Mutex::new(None)));
    let opened = latter.clone();
    crate::crash::on_this_thread(move |point| {
        if point == "death: one that is held" {
            drop(former.take());
            let block = owner.allocate(MIB).expect("memory");
            assert_eq!(block.id().entry, id.entry, "the same line");
            *lock(&opened) = Some(block);
        }
    });
    host.give_back_all(2, |_, _| panic!("a user's block is told of a death"));
    assert!(lock(&latter).take().is_some());
}
