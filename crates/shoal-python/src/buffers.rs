//! Buffers beside a pickle: what is large lies in blocks of shared memory, the pickle says where.
//!
//! ```text
//! | number of entries: u32 | is the pickle itself an entry?: u8 | Entry … | the pickle, if not |
//!
//! Entry: | segment, line, generation: u32 | offset, len: u64 | order: u8 | dimensions: u8 | length of each: i64 … |
//! ```
//!
//! While an object is pickled, its large buffers are gathered (`Gathering`): numpy arrays by [`reduce_buffer`], all
//! else by the pickler's buffer callback, [`keep_buffer`]. Then, with no more Python code in between, they are copied
//! into blocks, many small ones into one. What lies in the arena already (see `allocator`) is not copied: it is
//! handed over, if it turns out that nobody else uses it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use shoal_core::Error;
use shoal_core::memory::heap::{BlockId, Heap, Lease};
use shoal_core::memory::view::{View, Views};

use crate::allocator;
use crate::errors::OrRaise;
use crate::in_flight::{self, Handover};
use crate::numpy::{Numpy, Order, strides};

/// Buffers from this size on travel beside the pickle, in bytes.
const LARGE: usize = 16 << 10;
/// Buffers from this size on have a block of their own; smaller ones share one, as each costs a page and a lease.
const ALONE: usize = 256 << 10;
/// How long a shared block gets: who keeps one of its arrays keeps all of it.
const TOGETHER: u64 = 1 << 20;
/// How many bytes are copied without letting go of the interpreter.
const AT_ONCE: usize = 256 << 10;
/// Where buffers begin: at lines of the cache, as numpy has it for its own.
const ALIGN: u64 = 64;
/// In place of the number of dimensions: a buffer that is no array.
const PLAIN: u8 = u8::MAX;

// ---- in the pickle ---------------------------------------------------------------------------------------------------

/// Bytes of an object that is being pickled.
struct Region {
    source: Source,
    len: usize,
    key: Key,
}

enum Source {
    /// In memory, as long as that object lives.
    Memory(usize, Kept),
    /// The parts of a pickle.
    Pieces(Vec<Py<PyBytes>>),
    /// An array whose items do not lie one behind the other.
    Scattered(Py<PyAny>),
}

enum Kept {
    Object(Py<PyAny>),
    /// The buffer is what keeps the memory, though nobody reads the field.
    Buffer(#[allow(dead_code)] PyBuffer<u8>),
}

/// Where the bytes of an entry are.
#[derive(Clone)]
struct Place {
    lease: Lease,
    offset: u64,
}

enum At {
    /// In a region that is still to be copied.
    Region(usize),
    /// In shared memory.
    Place(Place),
    /// In an array of the arena, which may be used on.
    Array(allocator::Found),
}

struct Entry {
    at: At,
    len: usize,
    order: Order,
    shape: Option<Vec<isize>>,
}

/// Which bytes of this process: where, how many, and of which object if its items are scattered.
type Key = (usize, usize, usize);

/// The copies of arrays that several tasks of one call share, by what they were copied from.
#[derive(Default)]
pub struct Snapshots {
    taken: HashMap<Key, (Place, Kept)>,
}

/// What is gathered while an object is pickled.
struct Gathering {
    /// Arrays in this process's own arena may be handed over.
    may_hand_over: bool,
    entries: Vec<Entry>,
    regions: Vec<Region>,
    handed: Vec<usize>,
    pieces: Vec<Py<PyBytes>>,
    pickled: usize,
    arrays: bool,
}

thread_local! {
    static GATHERING: RefCell<Option<Gathering>> = const { RefCell::new(None) };
    static SNAPSHOTS: RefCell<Option<Snapshots>> = const { RefCell::new(None) };
    static PICKLER: RefCell<Option<Pickler>> = const { RefCell::new(None) };
    static RESTORING: RefCell<Vec<Restoring>> = const { RefCell::new(Vec::new()) };
}

/// A pickler, kept for the next object.
struct Pickler {
    dump: Py<PyAny>,
    clear: Py<PyAny>,
}

/// What the pickler writes to.
#[pyclass(frozen, module = "shoal._engine")]
struct Sink;

#[pymethods]
impl Sink {
    /// Takes a part of the pickle. Bytes objects are kept as they are: large ones are the user's own.
    fn write(&self, part: &Bound<'_, PyAny>) -> PyResult<()> {
        let bytes = match part.cast_exact::<PyBytes>() {
            Ok(bytes) => bytes.clone(),
            Err(_) => {
                let view = part.py().import("builtins")?.getattr("bytes")?;
                view.call1((part,))?.cast_into::<PyBytes>()?
            }
        };
        gather(|gathering| {
            gathering.pickled += bytes.as_bytes().len();
            gathering.pieces.push(bytes.unbind());
        });
        Ok(())
    }
}

fn gather<T>(use_it: impl FnOnce(&mut Gathering) -> T) -> Option<T> {
    GATHERING.with_borrow_mut(|gathering| gathering.as_mut().map(use_it))
}

impl Gathering {
    fn new(may_hand_over: bool) -> Gathering {
        Gathering {
            may_hand_over,
            entries: Vec::new(),
            regions: Vec::new(),
            handed: Vec::new(),
            pieces: Vec::new(),
            pickled: 0,
            arrays: false,
        }
    }

    /// Notes a buffer in memory; returns its number.
    fn add(&mut self, address: usize, len: usize, kept: Kept, order: Order, shape: Option<Vec<isize>>) -> usize {
        let key = (address, len, 0);
        let at = match self.known(key) {
            Some(place) => At::Place(place),
            None => match self.arena(address, len) {
                Some(found) => At::Array(found),
                None => self.region(Source::Memory(address, kept), len, key),
            },
        };
        self.push(Entry { at, len, order, shape })
    }

    fn push(&mut self, entry: Entry) -> usize {
        self.entries.push(entry);
        self.entries.len() - 1
    }

    fn region(&mut self, source: Source, len: usize, key: Key) -> At {
        self.regions.push(Region { source, len, key });
        At::Region(self.regions.len() - 1)
    }

    fn known(&self, key: Key) -> Option<Place> {
        SNAPSHOTS.with_borrow(|snapshots| snapshots.as_ref()?.taken.get(&key).map(|(place, _)| place.clone()))
    }

    /// The arena's memory of those bytes, if they are most of it: a small part would keep all of it from others. And only
    /// once in a message, or what is written into one array would show in another.
    fn arena(&mut self, address: usize, len: usize) -> Option<allocator::Found> {
        if !self.may_hand_over {
            return None;
        }
        let found = allocator::find(address, len)?;
        if (len as u64) < found.lease.len() / 2 || self.handed.contains(&found.start) {
            return None;
        }
        self.handed.push(found.start);
        Some(found)
    }
}

/// What is known of a dtype that was asked for last.
struct Dtype {
    descr: Py<PyAny>,
    /// Its number if it is one of numpy's own types, else -1.
    number: i32,
    item: usize,
    /// Whether its items are plain bytes.
    plain: bool,
}

static LAST: Mutex<Option<Dtype>> = Mutex::new(None);

/// Number, item size, and whether items are plain bytes.
fn dtype_of(py: Python<'_>, numpy: &Numpy, descr: *mut ffi::PyObject) -> PyResult<(i32, usize, bool)> {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(last) = last.as_ref().filter(|last| last.descr.as_ptr() == descr) {
        return Ok((last.number, last.item, last.plain));
    }
    // SAFETY: the dtype of a living array.
    let dtype = unsafe { Bound::from_borrowed_ptr(py, descr) };
    let kind: char = dtype.getattr("kind")?.extract()?;
    let plain = "biufcmMSUV".contains(kind) && !dtype.getattr("hasobject")?.is_truthy()?;
    let mut number = -1;
    if "biufc".contains(kind) {
        let candidate: i32 = dtype.getattr("num")?.extract()?;
        // Byte-swapped ones and those with metadata have the same number.
        if numpy.dtype(py, candidate)?.as_ptr() == descr {
            number = candidate;
        }
    }
    let item = dtype.getattr("itemsize")?.extract()?;
    *last = Some(Dtype { descr: dtype.unbind(), number, item, plain });
    Ok((number, item, plain))
}

static RESTORE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static FALLBACK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// What the pickler asks for every object that is not of a plain built-in type: large arrays are replaced by their place,
/// everything else is NotImplemented, which means: as usual.
#[pyfunction]
pub fn reduce_buffer<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    let as_usual = || Ok(py.NotImplemented().into_bound(py));
    if GATHERING.with_borrow(Option::is_none) {
        return as_usual();
    }
    let layout = Numpy::loaded(py).and_then(|numpy| Some((numpy, numpy.layout(object)?)));
    let Some((numpy, layout)) = layout else {
        return match special(py, object)? {
            Some(reducer) => reducer.call1((object,)),
            None => as_usual(),
        };
    };
    gather(|gathering| gathering.arrays = true);
    let (number, item, plain) = dtype_of(py, numpy, layout.descr)?;
    let items = layout.shape.iter().product::<isize>() as usize;
    let len = items * item;
    if !plain {
        return as_usual();
    }
    if len < LARGE {
        // Pickled as it is, a read-only array would arrive as one. A copy is writable.
        return if layout.writeable { as_usual() } else { object.call_method0("__reduce__") };
    }
    let shape = Some(layout.shape.to_vec());
    let index = match layout.order {
        Some(order) => gather(|gathering| {
            gathering.add(layout.data.addr(), len, Kept::Object(object.clone().unbind()), order, shape)
        }),
        None => gather(|gathering| {
            let key = (layout.data.addr(), len, object.as_ptr().addr());
            let at = match gathering.known(key) {
                Some(place) => At::Place(place),
                None => gathering.region(Source::Scattered(object.clone().unbind()), len, key),
            };
            gathering.push(Entry { at, len, order: Order::C, shape })
        }),
    };
    let restore =
        RESTORE.get_or_try_init(py, || PyResult::Ok(py.import("shoal._engine")?.getattr("restore_array")?.unbind()))?;
    let dtype = if number >= 0 {
        number.into_pyobject(py)?.into_any()
    } else {
        // SAFETY: the dtype of a living array.
        unsafe { Bound::from_borrowed_ptr(py, layout.descr) }
    };
    let arguments = PyTuple::new(py, [index.unwrap_or_default().into_pyobject(py)?.into_any(), dtype])?;
    Ok(PyTuple::new(py, [restore.bind(py).as_any(), arguments.as_any()])?.into_any())
}

/// How many modules this process has imported: when none came, none came that would matter here.
pub fn modules(_: Python<'_>) -> isize {
    // SAFETY: attached; the dictionary of modules is there as long as the interpreter, and not given away here.
    let modules = unsafe { ffi::PyImport_GetModuleDict() };
    // SAFETY: as above.
    unsafe { ffi::PyDict_Size(modules) }
}

/// The way of its own that some types have, if this is one.
fn special<'py>(py: Python<'py>, object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    static VIEWS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static OTHERS: Mutex<(isize, Option<Py<PyDict>>)> = Mutex::new((0, None));
    let reducers = |name: &str| PyResult::Ok(py.import("shoal.serialize.buffers")?.getattr(name)?);
    // SAFETY: only compares the type.
    if unsafe { ffi::PyMemoryView_Check(object.as_ptr()) } != 0 {
        let reduce = VIEWS.get_or_try_init(py, || PyResult::Ok(reducers("reduce_memoryview")?.unbind()))?;
        return Ok(Some(reduce.bind(py).clone()));
    }
    let count = modules(py);
    let known = {
        let mut others = OTHERS.lock().unwrap_or_else(PoisonError::into_inner);
        if others.0 != count {
            *others = (count, None);
            let loaded = py.import("sys")?.getattr("modules")?;
            if loaded.contains("array")? || loaded.contains("torch")? {
                others.1 = Some(reducers("reducers")?.call0()?.cast_into::<PyDict>()?.unbind());
            }
        }
        others.1.as_ref().map(|known| known.clone_ref(py))
    };
    match known {
        Some(known) => known.bind(py).get_item(object.get_type()),
        None => Ok(None),
    }
}

/// The pickler's buffer callback: true to have the buffer in the pickle, false if it goes beside it.
#[pyfunction]
pub fn keep_buffer(buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
    let raw = match buffer.call_method0("raw") {
        Ok(raw) => raw,
        // Not of one piece: the pickler says so itself.
        Err(error) if error.is_instance_of::<PyBufferError>(buffer.py()) => return Ok(true),
        Err(error) => return Err(error),
    };
    let bytes = PyBuffer::<u8>::get(&raw)?;
    let len = bytes.len_bytes();
    if len < LARGE {
        return Ok(true);
    }
    let address = bytes.buf_ptr().addr();
    let added = gather(|gathering| gathering.add(address, len, Kept::Buffer(bytes), Order::C, None));
    Ok(added.is_none())
}

/// An object's pickle and its buffers, behind what `out` holds. `what` names the object in an error.
///
/// The leases of all that the bytes refer to are noted (`in_flight`). With `may_hand_over`, arrays of this process's
/// arena are referred to where they lie, and noted as such.
pub fn pickle(
    heap: &Arc<Heap>,
    may_hand_over: bool,
    object: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    what: impl FnOnce() -> String,
) -> PyResult<Pickled> {
    let py = object.py();
    // Pickling runs Python code, which may come back here.
    let outer = GATHERING.replace(Some(Gathering::new(may_hand_over)));
    let pickled = quick(py, object).and_then(|quick| match quick {
        true => Ok(()),
        false => {
            GATHERING.set(Some(Gathering::new(may_hand_over)));
            by_value(py, object, &what())
        }
    });
    let gathering = GATHERING.replace(outer).ok_or_else(|| PyRuntimeError::new_err("a pickle was lost"))?;
    pickled?;
    let arrays = gathering.arrays;
    write(py, heap, gathering, out)?;
    Ok(Pickled { arrays })
}

/// What is to be known of a pickle.
#[derive(Clone, Copy, Debug)]
pub struct Pickled {
    /// Whether there are numpy arrays in it, large or small.
    pub arrays: bool,
}

/// Pickles with the C pickler. False: it can't, or not in a form that every process can read.
fn quick(py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let pickler = match PICKLER.take() {
        Some(pickler) => pickler,
        None => Pickler::new(py)?,
    };
    let dumped = pickler.dump.call1(py, (object,));
    pickler.clear.call0(py)?;
    match dumped {
        Ok(_) => {
            PICKLER.set(Some(pickler));
            Ok(!gather(|gathering| gathering.mentions_main(py)).unwrap_or(false))
        }
        Err(error) if !error.is_instance_of::<pyo3::exceptions::PyException>(py) => Err(error),
        Err(error) if error.is_instance_of::<pyo3::exceptions::PyMemoryError>(py) => Err(error),
        Err(_) => Ok(false),
    }
}

/// Pickles code by value; or fails with an error that says where the trouble is.
fn by_value(py: Python<'_>, object: &Bound<'_, PyAny>, what: &str) -> PyResult<()> {
    let dump = FALLBACK.get_or_try_init(py, || {
        PyResult::Ok(py.import("shoal.serialize.pickler")?.getattr("dump_by_value")?.unbind())
    })?;
    let keep = py.import("shoal._engine")?.getattr("keep_buffer")?;
    dump.call1(py, (object, what, Bound::new(py, Sink)?, keep)).map(drop)
}

impl Pickler {
    fn new(py: Python<'_>) -> PyResult<Pickler> {
        static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let engine = py.import("shoal._engine")?;
        let class = CLASS.get_or_try_init(py, || {
            let members = PyDict::new(py);
            members.set_item("reducer_override", engine.getattr("reduce_buffer")?)?;
            members.set_item("__slots__", PyTuple::empty(py))?;
            let bases = (py.import("_pickle")?.getattr("Pickler")?,);
            PyResult::Ok(py.import("builtins")?.getattr("type")?.call1(("Pickler", bases, members))?.unbind())
        })?;
        let options = PyDict::new(py);
        options.set_item("buffer_callback", engine.getattr("keep_buffer")?)?;
        let pickler = class.bind(py).call((Bound::new(py, Sink)?, 5), Some(&options))?;
        Ok(Pickler { dump: pickler.getattr("dump")?.unbind(), clear: pickler.getattr("clear_memo")?.unbind() })
    }
}

impl Gathering {
    /// Whether the pickle may name something in `__main__`, which no other process has. Large parts that the pickler has
    /// passed on as they are hold no names.
    fn mentions_main(&self, py: Python<'_>) -> bool {
        const FRAME: u8 = 0x95;
        const FIRST: u8 = 0x80;
        self.pieces.iter().any(|piece| {
            let bytes = piece.as_bytes(py);
            let passed_on = bytes.len() >= 64 << 10 && !matches!(bytes.first(), Some(&FRAME | &FIRST));
            !passed_on && memchr::memmem::find(bytes, b"_main__").is_some()
        })
    }
}

// ---- into shared memory ----------------------------------------------------------------------------------------------

/// Copies what was gathered into blocks, and writes the message.
fn write(py: Python<'_>, heap: &Arc<Heap>, mut gathering: Gathering, out: &mut Vec<u8>) -> PyResult<()> {
    let beside = gathering.pickled >= LARGE;
    if !beside && gathering.entries.is_empty() {
        // The most frequent case by far.
        out.push(0);
        gathering.pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_bytes(py)));
        return Ok(());
    }
    if beside {
        let (pieces, len) = (std::mem::take(&mut gathering.pieces), gathering.pickled);
        let at = gathering.region(Source::Pieces(pieces), len, (0, 0, 0));
        gathering.push(Entry { at, len, order: Order::C, shape: None });
    }
    let places = copy(py, heap, gathering.regions)?;
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
fn copy(py: Python<'_>, heap: &Arc<Heap>, regions: Vec<Region>) -> PyResult<Vec<Place>> {
    let mut places = Vec::with_capacity(regions.len());
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
        let block = if end >= AT_ONCE as u64 { py.detach(|| heap.allocate(end)) } else { heap.allocate(end) };
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
                unsafe { shoal_sys::memory::copy(from, to, *len) };
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
        if let Some(snapshots) = snapshots {
            for (region, place) in regions.into_iter().zip(&places) {
                match region.source {
                    Source::Memory(_, kept) => _ = snapshots.taken.insert(region.key, (place.clone(), kept)),
                    Source::Scattered(array) => {
                        _ = snapshots.taken.insert(region.key, (place.clone(), Kept::Object(array)));
                    }
                    Source::Pieces(_) => {}
                }
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
    let base = Bound::new(py, Buffer { held: Arc::new(Held::Mine(lease.clone())), address: to.addr(), len: 0 })?;
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

// ---- out of shared memory --------------------------------------------------------------------------------------------

/// How a block is held by those who use its bytes.
#[derive(Debug)]
enum Held {
    /// Privately: what is written stays here.
    View(View),
    /// It was handed over, and is nobody else's.
    Mine(Lease),
}

/// Bytes of a block that was received: a writable buffer, freed with its last user. What lies in it is this process's
/// own, so unlike a Block it does not pickle.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Buffer {
    held: Arc<Held>,
    address: usize,
    len: usize,
}

#[pymethods]
impl Buffer {
    /// The buffer: all bytes, writable.
    ///
    /// # Safety
    /// As the buffer protocol says: `view` is null or points to a buffer structure to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("view is null"));
        }
        let buffer = slf.get();
        let address = std::ptr::with_exposed_provenance_mut::<c_void>(buffer.address);
        // SAFETY: `view` is valid by the protocol; it holds a reference to the buffer, which keeps the bytes.
        match unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), address, buffer.len as isize, 0, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }

    /// Nothing to be done: the view's reference is all there is.
    ///
    /// # Safety
    /// As the buffer protocol says.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {}
}

/// How a process reads messages.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// Where to take leases.
    pub heap: &'a Arc<Heap>,
    /// For arguments, which others get too; results are the reader's own.
    pub views: Option<&'a Views>,
}

/// An entry of a message that is being unpickled.
struct Part {
    held: Arc<Held>,
    /// Keeps the block for arrays.
    base: Py<Buffer>,
    address: usize,
    len: usize,
    order: Order,
    shape: Option<Vec<isize>>,
}

struct Restoring {
    parts: Vec<Part>,
}

struct Bytes<'a>(&'a [u8]);

fn damaged() -> PyErr {
    PyValueError::new_err("damaged message")
}

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>().ok_or_else(damaged)?;
        self.0 = rest;
        Ok(*front)
    }

    fn part(
        &mut self,
        reader: &Reader<'_>,
        blocks: &mut Vec<(BlockId, Arc<Held>, Py<Buffer>)>,
        py: Python<'_>,
    ) -> PyResult<Part> {
        let mut number = || self.take::<4>().map(u32::from_le_bytes);
        let id = BlockId { segment: number()?, entry: number()?, generation: number()? };
        let offset = u64::from_le_bytes(self.take()?);
        let len = u64::from_le_bytes(self.take()?);
        let [order, dimensions] = self.take()?;
        let order = if order == Order::Fortran as u8 { Order::Fortran } else { Order::C };
        let shape = match dimensions {
            PLAIN => None,
            count => {
                let lengths = (0..count).map(|_| self.take().map(|length| i64::from_le_bytes(length) as isize));
                Some(lengths.collect::<PyResult<Vec<_>>>()?)
            }
        };
        // Those of one block follow each other.
        let known = blocks.iter().rev().take(2).find(|(known, ..)| *known == id);
        let (held, base) = match known {
            Some((_, held, base)) => (held.clone(), base.clone_ref(py)),
            None => {
                let lease = reader.heap.take(id).or_raise(py)?;
                let held = Arc::new(match reader.views {
                    Some(views) => Held::View(views.open(lease).or_raise(py)?),
                    None => Held::Mine(lease),
                });
                let (address, len) = held.bytes().or_raise(py)?;
                let base = Py::new(py, Buffer { held: held.clone(), address: address.addr(), len: len as usize })?;
                blocks.push((id, held.clone(), base.clone_ref(py)));
                (held, base)
            }
        };
        let (address, whole) = held.bytes().or_raise(py)?;
        if offset.checked_add(len).is_none_or(|end| end > whole) {
            return Err(damaged());
        }
        Ok(Part { address: address.addr() + offset as usize, len: len as usize, held, base, order, shape })
    }
}

impl Held {
    fn bytes(&self) -> Result<(*mut u8, u64), Error> {
        match self {
            Held::View(view) => Ok((view.address(), view.lease().len())),
            Held::Mine(lease) => Ok((lease.address()?, lease.len())),
        }
    }
}

static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The object of a message that [`pickle`] wrote.
pub fn unpickle<'py>(py: Python<'py>, bytes: &[u8], reader: &Reader<'_>) -> PyResult<Bound<'py, PyAny>> {
    let loads = LOADS.get_or_try_init(py, || PyResult::Ok(py.import("_pickle")?.getattr("loads")?.unbind()))?;
    let mut rest = Bytes(bytes);
    if rest.take()? == [0] {
        return loads.bind(py).call1((PyBytes::new(py, rest.0),));
    }
    let count = u32::from_le_bytes(rest.take()?);
    let [beside] = rest.take()?;
    let mut blocks = Vec::new();
    let parts = (0..count).map(|_| rest.part(reader, &mut blocks, py)).collect::<PyResult<Vec<Part>>>();
    let mut parts = parts?;
    drop(blocks);
    let buffer = |part: &Part| Bound::new(py, Buffer { held: part.held.clone(), address: part.address, len: part.len });
    let pickle = match beside {
        0 => PyBytes::new(py, rest.0).into_any(),
        _ => buffer(&parts.pop().ok_or_else(damaged)?)?.into_any(),
    };
    let plain = parts.iter().filter(|part| part.shape.is_none()).map(buffer).collect::<PyResult<Vec<_>>>()?;
    let options = PyDict::new(py);
    options.set_item("buffers", PyList::new(py, plain)?)?;
    // Unpickling runs Python code, which may come back here.
    RESTORING.with_borrow_mut(|stack| stack.push(Restoring { parts }));
    let object = loads.bind(py).call((pickle,), Some(&options));
    let done = RESTORING.with_borrow_mut(Vec::pop);
    drop(done);
    object
}

/// The array that a message says lies in its entry `index`: `dtype` is one of numpy's own types by number, or a dtype.
#[pyfunction]
pub fn restore_array<'py>(py: Python<'py>, index: usize, dtype: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let numpy = Numpy::import(py)?;
    let dtype = match dtype.extract::<i32>() {
        Ok(number) => numpy.dtype(py, number)?,
        Err(_) => dtype,
    };
    let item: isize = dtype.getattr("itemsize")?.extract()?;
    let part = RESTORING.with_borrow(|stack| {
        let part = stack.last()?.parts.get(index)?;
        Some((part.base.clone_ref(py), part.address, part.len, part.order, part.shape.clone()?))
    });
    let (base, address, len, order, shape) = part.ok_or_else(damaged)?;
    let size = shape.iter().try_fold(item, |size, length| size.checked_mul(*length));
    if size != Some(len as isize) || shape.iter().any(|length| *length < 0) {
        return Err(damaged());
    }
    let data = std::ptr::with_exposed_provenance_mut(address);
    // SAFETY: the items lie in the block, as was checked, which the base keeps.
    unsafe { numpy.array(dtype, &shape, &strides(&shape, item, order), data, base.into_bound(py).into_any()) }
}
