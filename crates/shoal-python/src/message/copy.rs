//! From the buffers that were gathered to blocks of shared memory.

use std::cell::RefCell;
use std::collections::HashMap;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use shoal_core::memory::heap::{BlockId, Lease};

use super::PLAIN;
use super::gather::{Gathering, LARGE};
use super::restore::Buffer;
use crate::allocator;
use crate::errors::OrRaise;
use crate::in_flight::{self, Handover};
use crate::numpy::{Numpy, Order, dtype_of, strides};
use crate::wire::Writer;

/// Buffers from this size on have a block of their own; smaller ones share one, as each costs a page and a lease.
const ALONE: usize = 256 << 10;
/// How long a shared block gets: who keeps one of its arrays keeps all of it.
const TOGETHER: u64 = 1 << 20;
/// How many bytes are copied without letting go of the interpreter.
const AT_ONCE: usize = 256 << 10;
/// Where buffers begin: at lines of the cache, as numpy has it for its own.
const ALIGN: u64 = 64;

/// Bytes of an object that is being pickled.
pub(super) struct Region {
    pub(super) source: Source,
    pub(super) len: usize,
    /// The array, by its address as an object, if it is one.
    pub(super) array: Option<usize>,
}

impl Region {
    /// The object that it is the memory of.
    fn object(&self) -> Option<&Py<PyAny>> {
        match &self.source {
            Source::Memory(_, Kept::Object(object)) | Source::Scattered(object) => Some(object),
            _ => None,
        }
    }
}

pub(super) enum Source {
    /// In memory, as long as that object lives.
    Memory(usize, Kept),
    /// The parts of a pickle.
    Pieces(Vec<Py<PyBytes>>),
    /// An array whose items do not lie one behind the other.
    Scattered(Py<PyAny>),
}

/// What keeps memory in its place; nobody has to look at it.
pub(super) enum Kept {
    Object(Py<PyAny>),
    Buffer(#[expect(dead_code)] PyBuffer<u8>),
}

/// Where the bytes of an entry are.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) lease: Lease,
    pub(super) offset: u64,
}

pub(super) enum At {
    /// In a region that is still to be copied.
    Region(usize),
    /// In shared memory.
    Place(Place),
    /// In an array of the arena, which may be used on.
    Array(allocator::Found),
}

pub(super) struct Entry {
    pub(super) at: At,
    pub(super) len: usize,
    pub(super) order: Order,
    pub(super) shape: Option<Vec<isize>>,
}

thread_local! {
    static SNAPSHOTS: RefCell<Option<Snapshots>> = const { RefCell::new(None) };
}

/// The copies of arrays that several items of a map have: made for the first, used for all.
#[derive(Default)]
pub struct Snapshots {
    /// By their address as objects, which stays theirs as they are kept.
    shared: HashMap<usize, Shared>,
    /// Of arrays that are met on the way too, if they have so many bytes.
    least: Option<usize>,
    /// How often something was pickled with these.
    pickled: u64,
}

struct Shared {
    _array: Py<PyAny>,
    taken: Option<(Place, usize)>,
    /// When it was used last, by `Snapshots::pickled`.
    used: u64,
}

impl Snapshots {
    /// Of arrays of at least so many bytes that are met on the way: for calls that are made one by one.
    pub fn of_large(least: usize) -> Snapshots {
        Snapshots { least: Some(least), ..Default::default() }
    }

    /// Forgets those that the last `calls` calls did not have.
    pub fn forget_unused(&mut self, calls: u64) {
        self.pickled += 1;
        self.shared.retain(|_, shared| shared.used + calls > self.pickled);
    }

    /// For those of `items` (a list or a tuple): arrays that are, or are in, more than one of them. Only what lies open is
    /// looked at, in lists, tuples and dicts: what an object shows to the pickler may be another content each time.
    pub fn of<'py>(py: Python<'py>, items: &Bound<'py, PyAny>) -> PyResult<Snapshots> {
        let mut counts: HashMap<usize, (Bound<'py, PyAny>, u32)> = HashMap::new();
        if let Some(numpy) = Numpy::loaded(py)
            .filter(|_| items.is_exact_instance_of::<PyList>() || items.is_exact_instance_of::<PyTuple>())
        {
            let mut count = |object: Bound<'py, PyAny>| {
                if numpy.layout(&object).is_some() {
                    counts.entry(object.as_ptr().addr()).or_insert_with(|| (object.clone(), 0)).1 += 1;
                }
            };
            for item in items.try_iter()? {
                let item = item?;
                if let Ok(item) = item.cast_exact::<PyTuple>() {
                    item.iter().for_each(&mut count);
                } else if let Ok(item) = item.cast_exact::<PyList>() {
                    item.iter().for_each(&mut count);
                } else if let Ok(item) = item.cast_exact::<PyDict>() {
                    item.values().iter().for_each(&mut count);
                } else {
                    count(item);
                }
            }
        }
        let repeated = counts.into_iter().filter(|(_, (_, count))| *count > 1);
        let shared =
            repeated.map(|(key, (array, _))| (key, Shared { _array: array.unbind(), taken: None, used: 0 })).collect();
        Ok(Snapshots { shared, ..Default::default() })
    }
}

/// The copy of an array, if an earlier item of the same map has made one.
pub(super) fn known(array: usize, len: usize) -> Option<Place> {
    SNAPSHOTS.with_borrow_mut(|snapshots| {
        let snapshots = snapshots.as_mut()?;
        let shared = snapshots.shared.get_mut(&array)?;
        shared.used = snapshots.pickled;
        let (place, taken) = shared.taken.as_ref()?;
        (*taken == len).then(|| place.clone())
    })
}

/// Runs `pickle` as if there were no copies: for what is pickled while something else is.
pub(super) fn without_snapshots<T>(pickle: impl FnOnce() -> T) -> T {
    let outer = SNAPSHOTS.replace(None);
    let result = pickle();
    SNAPSHOTS.replace(outer);
    result
}

/// Copies what was gathered into blocks, and writes the message.
pub(super) fn write(py: Python<'_>, writer: &Writer<'_>, mut gathering: Gathering, out: &mut Vec<u8>) -> PyResult<()> {
    let beside = gathering.pickled >= LARGE;
    if !beside && gathering.entries.is_empty() {
        // The most frequent case by far.
        out.push(0);
        gathering.pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_bytes(py)));
        return Ok(());
    }
    if beside {
        let (pieces, len) = (std::mem::take(&mut gathering.pieces), gathering.pickled);
        let at = gathering.region(Source::Pieces(pieces), len, None);
        gathering.push(Entry { at, len, order: Order::C, shape: None });
    }
    let places = copy(py, writer, gathering.regions)?;
    out.push(1);
    out.extend_from_slice(&(gathering.entries.len() as u32).to_le_bytes());
    out.push(u8::from(beside));
    for entry in gathering.entries {
        let begins = out.len();
        let place = match entry.at {
            At::Place(place) => place,
            At::Region(index) => places[index].clone(),
            At::Array(found) => {
                in_flight::note_handover(Handover {
                    at: begins,
                    start: found.start,
                    serial: found.serial,
                    lease: found.lease.clone(),
                });
                Place { lease: found.lease, offset: found.offset }
            }
        };
        write_place(out, place.lease.id());
        out.extend_from_slice(&place.offset.to_le_bytes());
        out.extend_from_slice(&(entry.len as u64).to_le_bytes());
        out.push(entry.order as u8);
        match &entry.shape {
            Some(shape) => {
                out.push(shape.len() as u8);
                shape.iter().for_each(|length| out.extend_from_slice(&(*length as i64).to_le_bytes()));
            }
            None => out.push(PLAIN),
        }
        in_flight::note(&place.lease);
    }
    gathering.pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_bytes(py)));
    Ok(())
}

fn write_place(out: &mut Vec<u8>, id: BlockId) {
    [id.segment, id.entry, id.generation].iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

/// The worker could not hand an array over: the message refers to a copy instead.
pub fn refer_to_copy(out: &mut [u8], handover: &Handover, copy: &Lease) {
    let mut place = Vec::with_capacity(12);
    write_place(&mut place, copy.id());
    out[handover.at..handover.at + place.len()].copy_from_slice(&place);
}

/// Copies regions into new blocks.
pub(super) fn copy(py: Python<'_>, writer: &Writer<'_>, regions: Vec<Region>) -> PyResult<Vec<Place>> {
    let mut places = Vec::with_capacity(regions.len());
    let whole = regions.iter().map(|region| region.len).sum();
    let mut first = 0;
    while first < regions.len() {
        // A block's worth of regions: one large one, or as many small ones as fit.
        let mut offsets = vec![0];
        let mut end = regions[first].len as u64;
        while end < ALONE as u64 || offsets.len() > 1 {
            let Some(next) = regions.get(first + offsets.len()).filter(|region| region.len < ALONE) else { break };
            let begins = end.next_multiple_of(ALIGN);
            if begins + next.len as u64 > TOGETHER {
                break;
            }
            offsets.push(begins);
            end = begins + next.len as u64;
        }
        let block = if end >= AT_ONCE as u64 { py.detach(|| writer.allocate(end)) } else { writer.allocate(end) };
        let lease = block.or_raise(py)?;
        let address = lease.address().or_raise(py)?;
        let count = offsets.len();
        let mut plain = Vec::with_capacity(count);
        for (region, offset) in regions[first..first + count].iter().zip(&offsets) {
            let to = address.wrapping_add(*offset as usize);
            match &region.source {
                Source::Memory(from, _) => plain.push((*from, to.addr(), region.len)),
                Source::Pieces(pieces) => {
                    let mut to = to.addr();
                    for piece in pieces {
                        let bytes = piece.as_bytes(py);
                        plain.push((bytes.as_ptr().addr(), to, bytes.len()));
                        to += bytes.len();
                    }
                }
                Source::Scattered(array) => scattered(py, array.bind(py), to, &lease)?,
            }
            places.push(Place { lease: lease.clone(), offset: *offset });
        }
        let copy_all = || {
            for (from, to, len) in &plain {
                let (from, to) = (std::ptr::with_exposed_provenance(*from), std::ptr::with_exposed_provenance_mut(*to));
                // SAFETY: the regions keep what is copied, the lease where it goes to, which is new and long enough.
                unsafe { shoal_sys::memory::copy(from, to, *len, whole) };
            }
        };
        if end >= AT_ONCE as u64 {
            py.detach(copy_all)
        } else {
            copy_all()
        }
        first += count;
    }
    SNAPSHOTS.with_borrow_mut(|snapshots| {
        let Some(snapshots) = snapshots else { return };
        for (region, place) in regions.iter().zip(&places) {
            let Some(key) = region.array else { continue };
            let taken = Some((place.clone(), region.len));
            if let Some(shared) = snapshots.shared.get_mut(&key) {
                shared.taken = taken;
            } else if let Some(array) =
                region.object().filter(|_| snapshots.least.is_some_and(|least| region.len >= least))
            {
                let shared = Shared { _array: array.clone_ref(py), taken, used: snapshots.pickled };
                snapshots.shared.insert(key, shared);
            }
        }
    });
    Ok(places)
}

/// Copies an array's items one behind the other.
fn scattered(py: Python<'_>, array: &Bound<'_, PyAny>, to: *mut u8, lease: &Lease) -> PyResult<()> {
    let numpy = Numpy::import(py)?;
    let layout = numpy.layout(array).ok_or_else(|| PyRuntimeError::new_err("an array has changed its type"))?;
    let (_, item, _) = dtype_of(py, numpy, layout.descr)?;
    let base = Bound::new(py, Buffer::of(lease, to.addr()))?;
    // SAFETY: the dtype of a living array.
    let dtype = unsafe { Bound::from_borrowed_ptr(py, layout.descr) };
    let strides = strides(layout.shape, item as isize, Order::C);
    // SAFETY: the block is kept by `base` and long enough for the items.
    let target = unsafe { numpy.array(dtype, layout.shape, &strides, to, base.into_any()) }?;
    py.import("numpy")?.getattr("copyto")?.call1((target, array)).map(drop)
}

/// Runs `pickle`; what it copies is kept in `snapshots`, and what lies there already is not copied again.
pub fn with_snapshots<T>(snapshots: &mut Snapshots, pickle: impl FnOnce() -> T) -> T {
    let outer = SNAPSHOTS.replace(Some(std::mem::take(snapshots)));
    let result = pickle();
    *snapshots = SNAPSHOTS.replace(outer).unwrap_or_default();
    result
}
