//! The specification of a chunk: what is written comes out, whole and in order, wherever the ring's end falls.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::testing::heap;

fn chunk() -> Chunk {
    Chunk::new(heap().allocate(SMALLEST).expect("memory")).expect("a chunk")
}

fn block(number: u32) -> BlockId {
    BlockId { segment: number, entry: number + 1, generation: number + 2 }
}

#[derive(Clone, Debug, PartialEq)]
enum Thing {
    Bytes(Vec<u8>),
    Envelope(BlockId),
}

impl Thing {
    fn content(&self) -> Content<'_> {
        match self {
            Thing::Bytes(bytes) => Content::Bytes(bytes),
            Thing::Envelope(id) => Content::Envelope(*id),
        }
    }
}

fn read(chunk: &Chunk, position: u64) -> (Thing, u64) {
    match chunk.read(position).expect("sound") {
        Found::Item(Content::Bytes(bytes), end) => (Thing::Bytes(bytes.to_vec()), end),
        Found::Item(Content::Envelope(id), end) => (Thing::Envelope(id), end),
        Found::Link(id) => panic!("{id:?} was never linked"),
    }
}

proptest! {
    #[test]
    fn what_is_written_comes_out(
        things in prop::collection::vec(
            prop_oneof![
                (0..=INLINE).prop_map(|len| Thing::Bytes((0..len).map(|i| i as u8).collect())),
                any::<u16>().prop_map(|number| Thing::Envelope(block(number.into()))),
            ],
            1..200,
        ),
        often in 1usize..10,
    ) {
        let chunk = chunk();
        let (mut written, mut at) = (0, 0);
        let mut inside = VecDeque::new();
        for (number, thing) in things.into_iter().enumerate() {
            let end = loop {
                match chunk.write(written, thing.content()) {
                    Some(end) => break end,
                    None => {
                        let first: Thing = inside.pop_front().expect("an empty ring has room");
                        let (found, end) = read(&chunk, at);
                        prop_assert_eq!(found, first);
                        chunk.free(end);
                        at = end;
                    }
                }
            };
            written = end;
            inside.push_back(thing);
            if number % often == 0 {
                let (found, end) = read(&chunk, at);
                prop_assert_eq!(Some(found), inside.pop_front());
                chunk.free(end);
                at = end;
            }
        }
        // However full it is, there is room to say where it goes on.
        chunk.link(written, block(7));
        for thing in inside {
            let (found, end) = read(&chunk, at);
            prop_assert_eq!(found, thing);
            at = end;
        }
        prop_assert!(matches!(chunk.read(at), Ok(Found::Link(id)) if id == block(7)));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(words in prop::collection::vec(any::<u64>(), 8), position: u64) {
        let chunk = chunk();
        for (index, word) in words.into_iter().enumerate() {
            // SAFETY: within the block of the test.
            unsafe { chunk.base.wrapping_add(FRONT as usize + index * 8).cast::<u64>().write(word) };
        }
        let _ = chunk.read(position % (SMALLEST * 4));
    }
}

#[test]
fn a_chunk_is_made_of_whole_lines() {
    assert_eq!((FRONT, STATE), (128, 640));
}
