//! What the processes share, and the ones that are killed.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use shoal_core::crash;
use shoal_core::domain;
use shoal_core::memory::handle::Handle;
use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;
use shoal_core::memory::words::Shared;
use shoal_core::sync::atomics::Ordering;
use shoal_core::sync::barrier::{Barrier, Broken, Inside};
use shoal_core::sync::condition::{Condition, Plain, Waited, Waiters};
use shoal_core::sync::event::Event;
use shoal_core::sync::lock::{Acquired, Lock};
use shoal_core::sync::rlock::{Owner, RLock};
use shoal_core::sync::semaphore::{Held, MOST, Semaphore};

use crate::{acts, patience, until};

/// The environment of a child: what it does, and with what.
const ACT: &str = "SHOAL_TEST_ACT";
const THINGS: &str = "SHOAL_TEST_THINGS";

/// One of each.
pub struct Things {
    lock: Lease,
    rlock: Lease,
    event: Lease,
    /// Its number: whether the child is there. The first of more: things to be taken under the lock.
    state: Lease,
    semaphore: Shared<Held>,
    condition: Shared<Waiters>,
    barrier: Shared<Inside>,
}

impl Things {
    /// New ones.
    pub fn new() -> Things {
        let heap = domain::heap().expect("a host");
        let cell = |kind| heap.allocate_cell(kind).expect("memory");
        Things {
            lock: cell(Kind::Lock),
            rlock: cell(Kind::RLock),
            event: cell(Kind::Event),
            state: cell(Kind::Cell),
            semaphore: heap.allocate_words(Kind::Semaphore).expect("memory"),
            condition: heap.allocate_words(Kind::Condition).expect("memory"),
            barrier: heap.allocate_words(Kind::Barrier).expect("memory"),
        }
    }

    fn leases(&self) -> [&Lease; 7] {
        let [semaphore, condition, barrier] = [self.semaphore.lease(), self.condition.lease(), self.barrier.lease()];
        [&self.lock, &self.rlock, &self.event, &self.state, semaphore, condition, barrier]
    }

    fn to_text(&self) -> String {
        let handle = |lease: &&Lease| domain::handle_of(lease).expect("a handle").to_bytes();
        self.leases().iter().flat_map(handle).map(|byte| format!("{byte:02x}")).collect()
    }

    fn from_text(text: &str) -> Things {
        let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("digits");
        let bytes: Vec<u8> = (0..text.len()).step_by(2).map(digits).collect();
        let open = |bytes: &[u8]| domain::resolve(&Handle::from_bytes(bytes).expect("a handle")).expect("there");
        let leases: Vec<Lease> = bytes.chunks(bytes.len() / 7).map(open).collect();
        let [lock, rlock, event, state, semaphore, condition, barrier] = leases.try_into().expect("seven");
        let semaphore = Shared::new(semaphore).expect("a table");
        let condition = Shared::new(condition).expect("a table");
        Things { lock, rlock, event, state, semaphore, condition, barrier: Shared::new(barrier).expect("a table") }
    }

    /// This process.
    pub fn me(&self) -> u16 {
        self.lock.heap().me()
    }

    /// This thread.
    pub fn owner(&self) -> Owner {
        Owner::current(self.me())
    }

    pub fn lock(&self) -> Lock<'_> {
        Lock::new(self.lock.cell())
    }

    /// How many have died in the lock.
    pub fn deaths(&self) -> u32 {
        self.lock.cell().word.load(Ordering::SeqCst)
    }

    /// The lock, as the condition's.
    pub fn guard(&self) -> Plain<'_> {
        Plain { cell: self.lock.cell(), holder: self.me() }
    }

    pub fn rlock(&self) -> RLock<'_> {
        RLock::new(self.rlock.cell())
    }

    pub fn event(&self) -> Event<'_> {
        Event::new(self.event.cell())
    }

    pub fn semaphore(&self) -> Semaphore<'_> {
        Semaphore::new(self.semaphore.lease().cell(), &self.semaphore)
    }

    pub fn make_semaphore(&self, permits: u32) {
        self.semaphore().make(permits, MOST);
    }

    pub fn condition(&self) -> Condition<'_> {
        Condition::new(self.condition.lease().cell(), &self.condition)
    }

    pub fn barrier(&self) -> Barrier<'_> {
        Barrier::new(self.barrier.lease().cell(), &self.barrier)
    }

    /// Comes to the barrier, and goes through.
    pub fn pass(&self) -> Result<(), Broken> {
        let (party, last) = self.barrier().arrive(self.me(), &mut patience())?;
        if last { self.barrier().open(party, true) } else { self.barrier().wait(party, &mut patience()) }
    }

    /// How many things are there to be taken.
    pub fn left(&self) -> u64 {
        self.state.cell().more[0].load(Ordering::SeqCst)
    }

    /// Waits for a thing and takes it.
    pub fn take_one(&self) {
        assert_eq!(self.lock().acquire_with(self.me(), &mut patience()), Acquired::Yes);
        while self.left() == 0 {
            let waited = self.condition().wait(self.me(), &self.guard(), &mut patience(), &mut patience());
            assert_eq!(waited, (Waited::Notified, Acquired::Yes));
        }
        self.state.cell().more[0].fetch_sub(1, Ordering::SeqCst);
        assert!(self.lock().release());
    }

    /// Puts a thing, and notifies one.
    pub fn put_one(&self) {
        assert_eq!(self.lock().acquire_with(self.me(), &mut patience()), Acquired::Yes);
        self.state.cell().more[0].fetch_add(1, Ordering::SeqCst);
        self.condition().notify(1);
        assert!(self.lock().release());
    }
}

/// A process that acts, and is killed at a point.
pub struct Child<'a> {
    things: &'a Things,
    process: Mutex<std::process::Child>,
    point: &'static str,
}

impl Child<'_> {
    pub fn start<'a>(act: &str, things: &'a Things, point: &'static str) -> Child<'a> {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "child::a_child_acts"]).env(ACT, act).env(THINGS, things.to_text());
        command.env(crash::VARIABLE, point).stdout(Stdio::null());
        Child { things, process: Mutex::new(command.spawn().expect("it starts")), point }
    }

    /// Whether it has begun to act.
    pub fn is_there(&self) -> bool {
        self.things.state.cell().number.load(Ordering::SeqCst) > 0
    }

    pub fn has_ended(&self) -> bool {
        self.process.lock().expect("sound").try_wait().expect("it is a child").is_some()
    }

    /// Waits until it has been killed at its point.
    pub fn dies(self) {
        until(self.point, || self.has_ended());
        let status = self.process.into_inner().expect("sound").wait().expect("it is a child");
        assert_eq!(status.signal(), Some(9), "{}: it comes by there", self.point);
    }
}

/// What a child of the tests runs; anywhere else nothing.
#[test]
fn a_child_acts() {
    let (Ok(act), Ok(things)) = (std::env::var(ACT), std::env::var(THINGS)) else { return };
    let things = Things::from_text(&things);
    things.state.cell().number.fetch_add(1, Ordering::SeqCst);
    acts::act(&act, &things);
}
