//! Processes that are none: heaps with numbers of their own over the same segments.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use shoal_core::memory::handle::Address;
use shoal_core::memory::heap::{Heap, Source};
use shoal_core::memory::segment::Segment;
use shoal_core::queue::Queue;
use shoal_core::{Error, Result};

/// Makes segments for all of them.
#[derive(Default)]
pub struct Machine {
    segments: Mutex<Vec<Arc<Segment>>>,
    processes: Mutex<u16>,
}

struct Of(Arc<Machine>);

impl Source for Of {
    fn create(&self, data: u64, backed: u64, entries: u32, _patient: bool) -> Result<Arc<Segment>> {
        let mut segments = self.0.segments.lock().expect("sound");
        let segment = Arc::new(Segment::create(segments.len() as u32, data, backed, entries)?);
        segments.push(segment.clone());
        Ok(segment)
    }

    fn restore(&self, segment: &Arc<Segment>, granules: Range<usize>) -> Result<()> {
        segment.restore(granules)
    }

    fn open(&self, id: u32) -> Result<Arc<Segment>> {
        // Another mapping, as in another process.
        let segments = self.0.segments.lock().expect("sound");
        let fd = segments.get(id as usize).ok_or(Error::Gone)?.fd().try_clone_to_owned()?;
        Ok(Arc::new(Segment::open(id, fd)?))
    }

    fn freed(&self) {}
}

/// What one of them has.
pub struct Process {
    pub heap: Arc<Heap>,
}

impl Machine {
    pub fn new() -> Arc<Machine> {
        Arc::new(Machine::default())
    }

    pub fn process(self: &Arc<Machine>) -> Process {
        let mut processes = self.processes.lock().expect("sound");
        let me = *processes;
        *processes += 1;
        Process { heap: Heap::new(me, Address { domain: [0; 16], token: [0; 16] }, Box::new(Of(self.clone()))) }
    }

    /// Has a process map all segments, as a host has.
    #[cfg(feature = "crash-points")]
    pub fn map_all(&self, process: &Process) {
        let count = self.segments.lock().expect("sound").len();
        (0..count as u32).for_each(|id| drop(process.heap.segment(id).expect("there")));
    }

    /// Blocks that somebody holds.
    pub fn blocks(&self) -> usize {
        let segments = self.segments.lock().expect("sound");
        let held = |segment: &Arc<Segment>| segment.used_entries().iter().filter(|entry| entry.held()).count();
        segments.iter().map(held).sum()
    }
}

impl Process {
    /// The queue, as this process has it.
    pub fn open(&self, queue: &Queue) -> Queue {
        Queue::open(self.heap.take(queue.lease().id()).expect("there")).expect("a queue")
    }
}
