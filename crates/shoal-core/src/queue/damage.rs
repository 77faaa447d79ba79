//! What becomes of a queue that somebody has written over, or goes on writing over while it is used: an error, or items that
//! nobody has put; and nobody who does not wait is kept waiting.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;

use super::ring::{Chunk, STATE};
use super::shared::Queue;
use super::{Got, Item};
use crate::memory::heap::{Heap, Lease};
use crate::testing::{Alone, Exposed, damages, heap};

/// A queue with short and long items in it.
fn filled(heap: &Arc<Heap>, items: &[u16]) -> Queue {
    let queue = Queue::new(heap, 0).expect("memory");
    for len in items {
        let bytes = vec![7; usize::from(*len)];
        let item = Item::new(heap, &bytes, vec![]).expect("memory");
        queue.put(&item, None).expect("sound");
    }
    queue
}

/// The chunk that the queue's first item lies in.
fn chunk(heap: &Arc<Heap>, queue: &Queue) -> Option<Lease> {
    let [segment, entry, generation] = queue.state.common.0.first.get();
    heap.take(crate::memory::heap::BlockId { segment, entry, generation }).ok()
}

/// Puts and takes without waiting, as any process would.
fn used(heap: &Arc<Heap>, queue: &Queue) {
    let now = Some(Duration::ZERO);
    for len in [0, 10, 900, 2000] {
        let bytes = vec![1; len];
        if let Ok(item) = Item::new(heap, &bytes, vec![]) {
            let _ = queue.put(&item, now);
        }
        if let Ok(Got::Item(content)) = queue.get(now) {
            let _ = content.bytes().map(<[u8]>::len);
        }
    }
    let mut more = vec![];
    queue.get_more(10, &mut more);
    let _ = (queue.done(1), queue.done(u64::MAX), queue.unfinished(), queue.join(now), queue.len(), queue.is_full());
    let _ = (queue.shut_down(now), queue.is_shut());
}

/// What is done when its last user lets go, and when one of them dies.
fn cleared(heap: &Arc<Heap>, queue: &Queue) {
    let id = queue.lease().id();
    let segment = heap.segment(id.segment).expect("mapped");
    let _ = (super::recover(heap, 5), super::recover(heap, heap.me()), super::clear(heap, &segment, id.entry));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_queue_that_was_written_over_keeps_nobody(
        items in prop::collection::vec(0u16..3000, 0..30), state in damages(20), ring in damages(60), which in 0..4,
    ) {
        let heap = heap();
        let queue = filled(&heap, &items);
        let chunk = chunk(&heap, &queue);
        // Another process: this one remembers what it has seen.
        let other = Heap::new(5, heap.address(), Box::new(Alone::default()));
        heap.segments().iter().for_each(|segment| other.know(segment));
        let theirs = Queue::open(other.take(queue.lease().id()).expect("held")).expect("a queue");
        let state_of = Exposed::of(queue.lease());
        if which & 1 == 0 {
            state_of.write(&state);
        }
        if let Some(chunk) = chunk.as_ref().filter(|_| which & 2 == 0) {
            Exposed::of(chunk).write(&ring);
        }
        let used = || {
            used(&other, &theirs);
            used(&heap, &queue);
        };
        used();
        state_of.while_written(&state, used);
        if let Some(chunk) = &chunk {
            Exposed::of(chunk).while_written(&ring, used);
        }
        cleared(&heap, &queue);
        state_of.write(&state);
        cleared(&heap, &queue);
    }

    #[test]
    fn a_chunk_that_is_being_written_over_is_read_within_its_bounds(ring in damages(60), position in 0u64..10_000) {
        let lease = heap().allocate(4096).expect("memory");
        let (start, end) = (lease.address().expect("mapped").addr(), lease.address().expect("mapped").addr() + 4096);
        let chunk = Chunk::new(lease.clone()).expect("a chunk");
        Exposed::of(&lease).while_written(&ring, || {
            for position in (position..position + 4096).step_by(8) {
                if let Ok(super::ring::Found::Item(super::ring::Content::Bytes(bytes), _)) = chunk.read(position) {
                    assert!(bytes.as_ptr().addr() >= start && bytes.as_ptr_range().end.addr() <= end);
                }
            }
        });
    }
}

#[test]
fn who_was_woken_for_an_item_that_can_not_be_taken_wakes_the_next() {
    let heap = heap();
    let queue = filled(&heap, &[8]);
    assert!(matches!(queue.get(None), Ok(Got::Item(_))));
    // From where nothing lies.
    queue.state.get.now(queue.state.get.steps()).position.store(u64::MAX, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let getters = [0, 1].map(|_| scope.spawn(|| queue.get(Some(Duration::from_secs(100)))));
        // Most likely both are asleep by then. If not, they look by themselves.
        std::thread::sleep(Duration::from_millis(100));
        queue.put(&Item::new(&heap, &[7; 8], vec![]).expect("memory"), None).expect("sound");
        for getter in getters {
            assert!(getter.join().expect("ends").is_err(), "its time was up");
        }
    });
}

#[test]
fn of_many_those_before_one_that_can_not_be_taken_are() {
    let heap = heap();
    let queue = filled(&heap, &[8; 4]);
    let chunk = chunk(&heap, &queue).expect("held");
    // The head of the third item, of two words each, behind the front.
    Exposed::of(&chunk).set(16 + 2 * 2, 0);
    let mut items = vec![];
    queue.get_more(10, &mut items);
    assert_eq!(items.len(), 2);
    queue.get_more(10, &mut items);
    assert_eq!((items.len(), queue.len()), (2, 2));
    assert!(queue.get(Some(Duration::ZERO)).is_err(), "who asks for it is told");
}

#[test]
fn a_queue_that_says_it_has_no_end_is_cleared_all_the_same() {
    let heap = heap();
    // As full as it can be of items without bytes: a reader that goes round and round finds one everywhere.
    let queue = filled(&heap, &[0; 450]);
    let state = Exposed::of(queue.lease());
    assert_eq!(state.len() as u64 * 8, STATE);
    queue.state.put.commit(u64::MAX - 10);
    let chunk = chunk(&heap, &queue).expect("held");
    let words = Exposed::of(&chunk);
    (16..words.len()).for_each(|index| words.set(index, 1 << 32));
    let id = queue.lease().id();
    let segment = heap.segment(id.segment).expect("mapped");
    assert!(super::clear(&heap, &segment, id.entry).is_err());
}
