//! What is gathered while an object is pickled: the parts of the pickle, and the buffers that go beside it.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyException, PyMemoryError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use super::common::Common;
use super::copy::{At, Entry, Kept, Region, Source, known, without_snapshots, write};
use crate::allocator;
use crate::numpy::{Numpy, Order, dtype_of};
use crate::wire::Writer;

/// Buffers from this size on travel beside the pickle, in bytes.
pub const LARGE: usize = 16 << 10;

/// What is gathered while an object is pickled.
pub(super) struct Gathering {
    /// Arrays in this process's own arena may be handed over.
    may_hand_over: bool,
    pub(super) entries: Vec<Entry>,
    pub(super) regions: Vec<Region>,
    handed: Vec<usize>,
    pub(super) pieces: Vec<Py<PyBytes>>,
    pub(super) pickled: usize,
    arrays: bool,
}

thread_local! {
    static GATHERING: RefCell<Option<Gathering>> = const { RefCell::new(None) };
    static PICKLER: RefCell<Option<Pickler>> = const { RefCell::new(None) };
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
        let array = match &kept {
            Kept::Object(object) => Some(object.as_ptr().addr()),
            Kept::Buffer(_) => None,
        };
        let at = match array.and_then(|array| known(array, len)) {
            Some(place) => At::Place(place),
            None => match self.arena(address, len) {
                Some(found) => At::Array(found),
                None => self.region(Source::Memory(address, kept), len, array),
            },
        };
        self.push(Entry { at, len, order, shape })
    }

    pub(super) fn push(&mut self, entry: Entry) -> usize {
        self.entries.push(entry);
        self.entries.len() - 1
    }

    pub(super) fn region(&mut self, source: Source, len: usize, array: Option<usize>) -> At {
        self.regions.push(Region { source, len, array });
        At::Region(self.regions.len() - 1)
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
        if let Ok(common) = object.cast_exact::<Common>() {
            gather(|gathering| gathering.arrays = true);
            let index = gather(|gathering| gathering.push(common.get().entry()));
            return restored(py, index, UBYTE.into_pyobject(py)?.into_any());
        }
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
        if layout.writeable && layout.order.is_some() {
            return as_usual();
        }
        // Pickled as it is, a read-only array would arrive as one, and a scattered one in another byte order.
        return object.call_method1("copy", ("A",))?.call_method1("__reduce_ex__", (5,));
    }
    let shape = Some(layout.shape.to_vec());
    let index = match layout.order {
        Some(order) => gather(|gathering| {
            gathering.add(layout.data.addr(), len, Kept::Object(object.clone().unbind()), order, shape)
        }),
        None => gather(|gathering| {
            let array = object.as_ptr().addr();
            let at = match known(array, len) {
                Some(place) => At::Place(place),
                None => gathering.region(Source::Scattered(object.clone().unbind()), len, Some(array)),
            };
            gathering.push(Entry { at, len, order: Order::C, shape })
        }),
    };
    let dtype = if number >= 0 {
        number.into_pyobject(py)?.into_any()
    } else {
        // SAFETY: the dtype of a living array.
        unsafe { Bound::from_borrowed_ptr(py, layout.descr) }
    };
    restored(py, index, dtype)
}

/// numpy's number of the dtype of bytes.
const UBYTE: i32 = 2;

/// How the pickle names an array that lies in that entry.
fn restored<'py>(py: Python<'py>, index: Option<usize>, dtype: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let restore =
        RESTORE.get_or_try_init(py, || PyResult::Ok(py.import("shoal._engine")?.getattr("restore_array")?.unbind()))?;
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

/// Types that are remembered; beyond, all are forgotten and asked for anew.
const TYPES: usize = 1024;

/// Modules that have types with a way of their own: without them there is nothing to ask for.
const WITH_WAYS: [&str; 5] = ["array", "torch", "numpy", "multiprocessing.reduction", "tqdm.std"];

/// The way of its own that some types have, if this is one: `shoal.serialize.reducers` knows them.
fn special<'py>(py: Python<'py>, object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    static VIEWS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static FIRST: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static OTHERS: Mutex<(isize, Option<Py<PyDict>>)> = Mutex::new((0, None));
    let function = |module: &str, name: &str| PyResult::Ok(py.import(module)?.getattr(name)?.unbind());
    // SAFETY: only compares the type.
    if unsafe { ffi::PyMemoryView_Check(object.as_ptr()) } != 0 {
        let reduce = VIEWS.get_or_try_init(py, || function("shoal.serialize.buffers", "reduce_memoryview"))?;
        return Ok(Some(reduce.bind(py).clone()));
    }
    // Nothing is locked while Python code may run: another thread would wait for the lock with the interpreter in hand.
    let count = modules(py);
    let lock = || OTHERS.lock().unwrap_or_else(PoisonError::into_inner);
    let current = {
        let others = lock();
        (others.0 == count).then(|| others.1.as_ref().map(|known| known.clone_ref(py)))
    };
    let known = match current {
        Some(known) => known,
        None => {
            let loaded = py.import("sys")?.getattr("modules")?;
            let mut wanted = false;
            for name in WITH_WAYS {
                wanted |= loaded.contains(name)?;
            }
            let found = wanted.then(|| PyDict::new(py).unbind());
            let former = std::mem::replace(&mut *lock(), (count, found.as_ref().map(|known| known.clone_ref(py))));
            drop(former);
            found
        }
    };
    let Some(known) = known else { return Ok(None) };
    let (known, kind) = (known.bind(py), object.get_type());
    let reducer = match known.get_item(&kind)? {
        Some(reducer) => reducer,
        None => {
            let first = FIRST.get_or_try_init(py, || function("shoal.serialize.reducers", "first"))?;
            let reducer = first.bind(py).call1((&kind,))?;
            if known.len() >= TYPES {
                known.clear();
            }
            known.set_item(kind, &reducer)?;
            reducer
        }
    };
    Ok(Some(reducer).filter(|reducer| !reducer.is_none()))
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
/// The leases of all that the bytes refer to are noted (`in_flight`). In a result, arrays of this process's
/// arena are referred to where they lie, and noted as such.
pub fn pickle(
    writer: &Writer<'_>,
    object: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    what: impl FnOnce() -> String,
) -> PyResult<Pickled> {
    // Pickling runs Python code, which may come back here.
    if GATHERING.with_borrow(Option::is_some) {
        return without_snapshots(|| pickle_alone(writer, object, out, what));
    }
    pickle_alone(writer, object, out, what)
}

fn pickle_alone(
    writer: &Writer<'_>,
    object: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    what: impl FnOnce() -> String,
) -> PyResult<Pickled> {
    let py = object.py();
    let may_hand_over = matches!(writer, Writer::Result(_));
    let outer = GATHERING.replace(Some(Gathering::new(may_hand_over)));
    let pickled = quick(py, object).and_then(|quick| match quick {
        true => Ok(()),
        false => {
            // Dropped with nothing borrowed: what goes with it may run Python code.
            drop(GATHERING.replace(Some(Gathering::new(may_hand_over))));
            by_value(py, object, &what())
        }
    });
    let gathering = GATHERING.replace(outer).ok_or_else(|| PyRuntimeError::new_err("a pickle was lost"))?;
    pickled?;
    let arrays = gathering.arrays;
    write(py, writer, gathering, out)?;
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
        Err(error) if !error.is_instance_of::<PyException>(py) => Err(error),
        Err(error) if error.is_instance_of::<PyMemoryError>(py) => Err(error),
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
