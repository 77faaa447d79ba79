//! numpy's data allocator in a worker (NEP 49): large arrays lie in the worker's arena from the start.
//!
//! So a result need not be copied into shared memory, and the temporaries of a computation get pages that are warm:
//! malloc takes new ones from the system for every array of some size, at a quarter of a millisecond a megabyte, and
//! gives them back at once.
//!
//! What is small, enormous, or does not fit goes to numpy's own allocator. Each array remembers which one it came from,
//! so no array of another allocator ever gets here.

#![allow(unsafe_code, reason = "numpy's C interface")]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use pyo3::prelude::*;
use shoal_core::memory::heap::{Heap, Lease};

use crate::numpy::{Allocator, Handler, Numpy};

/// Arrays from this size on lie in the arena, in bytes.
const LARGE: usize = 64 << 10;
/// Zeroed ones only up to here: the system's own zeroed pages cost nothing until they are touched, and may never be.
const ZEROED: usize = 256 << 20;
const PAGE: usize = 4096;

struct Arena {
    heap: Arc<Heap>,
    numpys: Allocator,
    /// Larger ones are not for the arena: real pages would be taken for what may be hardly used.
    largest: usize,
    live: Mutex<Live>,
}

/// The arrays' memory, by address.
#[derive(Default)]
struct Live {
    pieces: BTreeMap<usize, Piece>,
    serial: u64,
}

#[derive(Clone)]
struct Piece {
    lease: Lease,
    serial: u64,
}

// SAFETY: the context of numpy's own allocator is only handed back to it.
unsafe impl Send for Arena {}
// SAFETY: as above; all else is synchronised.
unsafe impl Sync for Arena {}

static ARENA: OnceLock<Arena> = OnceLock::new();

/// A piece of the arena in which bytes lie that are to be sent.
#[derive(Debug)]
pub struct Found {
    /// The block, kept.
    pub lease: Lease,
    /// Where in it the bytes begin.
    pub offset: u64,
    /// Which life of that address.
    pub serial: u64,
    /// Where the array's memory begins.
    pub start: usize,
}

/// From now on large arrays of this thread lie in `heap`.
pub fn install(py: Python<'_>, numpy: &Numpy, heap: &Arc<Heap>) -> PyResult<()> {
    let numpys = numpy.allocator(py)?;
    let largest = shoal_sys::memory::total_memory() / 4;
    if ARENA.set(Arena { heap: heap.clone(), numpys, largest, live: Mutex::default() }).is_err() {
        return Ok(());
    }
    let mut name = [0; 127];
    name.iter_mut().zip(b"shoal").for_each(|(to, from)| *to = *from as _);
    let allocator = Allocator { context: std::ptr::null_mut(), malloc, calloc, realloc, free };
    // For ever: arrays may outlive everything else.
    numpy.set_allocator(py, Box::leak(Box::new(Handler { name, version: 1, allocator })))
}

/// The array memory in which these bytes lie, if it is the arena's.
pub fn find(address: usize, len: usize) -> Option<Found> {
    let arena = ARENA.get()?;
    let live = arena.live();
    let (start, piece) = live.pieces.range(..=address).next_back()?;
    let offset = (address - start) as u64;
    (offset + len as u64 <= piece.lease.len()).then(|| Found {
        lease: piece.lease.clone(),
        offset,
        serial: piece.serial,
        start: *start,
    })
}

/// Whether an array still uses that memory.
pub fn is_alive(start: usize, serial: u64) -> bool {
    ARENA.get().is_some_and(|arena| arena.live().pieces.get(&start).is_some_and(|piece| piece.serial == serial))
}

impl Arena {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory of the arena, if that is the place for so many bytes.
    fn allocate(&self, size: usize) -> Option<*mut u8> {
        if !(LARGE..=self.largest).contains(&size) || !self.heap.is_mine() {
            return None;
        }
        let lease = self.heap.allocate(size as u64).ok()?;
        let address = lease.address().ok()?;
        let mut live = self.live();
        live.serial += 1;
        let serial = live.serial;
        live.pieces.insert(address.addr(), Piece { lease, serial });
        Some(address)
    }

    /// Takes memory back if it is the arena's.
    fn release(&self, address: *mut c_void) -> Option<Piece> {
        // Blocks begin at pages. Hardly any memory of another allocator does.
        if !address.addr().is_multiple_of(PAGE) {
            return None;
        }
        self.live().pieces.remove(&address.addr())
    }
}

fn arena() -> &'static Arena {
    ARENA.get().expect("set before the allocator was")
}

unsafe extern "C" fn malloc(_: *mut c_void, size: usize) -> *mut c_void {
    let arena = arena();
    match arena.allocate(size) {
        Some(address) => address.cast(),
        // SAFETY: numpy's own function with its own context.
        None => unsafe { (arena.numpys.malloc)(arena.numpys.context, size) },
    }
}

unsafe extern "C" fn calloc(_: *mut c_void, count: usize, item: usize) -> *mut c_void {
    let arena = arena();
    let size = count.checked_mul(item).filter(|size| *size <= ZEROED);
    if let Some((address, size)) = size.and_then(|size| Some((arena.allocate(size)?, size))) {
        // SAFETY: a new block of that size.
        unsafe { address.write_bytes(0, size) };
        return address.cast();
    }
    // SAFETY: numpy's own function with its own context.
    unsafe { (arena.numpys.calloc)(arena.numpys.context, count, item) }
}

unsafe extern "C" fn realloc(_: *mut c_void, old: *mut c_void, size: usize) -> *mut c_void {
    let arena = arena();
    let Some(piece) = arena.release(old) else {
        // SAFETY: it is not the arena's, so it came from numpy's own allocator.
        return unsafe { (arena.numpys.realloc)(arena.numpys.context, old, size) };
    };
    // SAFETY: as numpy itself calls it.
    let new = unsafe { malloc(std::ptr::null_mut(), size) };
    if new.is_null() {
        // The old memory stays what it was.
        arena.live().pieces.insert(old.addr(), piece);
        return new;
    }
    let kept = size.min(piece.lease.len() as usize);
    // SAFETY: the old block is kept by its lease and the new one is at least so long; they are two.
    unsafe { new.cast::<u8>().copy_from_nonoverlapping(old.cast(), kept) };
    new
}

unsafe extern "C" fn free(_: *mut c_void, address: *mut c_void, size: usize) {
    let arena = arena();
    // Freed by the drop, unless a result holds it too.
    if arena.release(address).is_none() {
        // SAFETY: it is not the arena's, so it came from numpy's own allocator.
        unsafe { (arena.numpys.free)(arena.numpys.context, address, size) };
    }
}
