//! What the threshold needs of numpy's C interface: the fields of an array, arrays over given memory, and the data
//! allocator (NEP 49). The table behind numpy's capsule only ever grows, so its places are good for any numpy.

#![allow(unsafe_code, reason = "numpy's C interface")]

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

/// Places in the table.
mod place {
    pub const ARRAY_TYPE: usize = 2;
    pub const DESCR_FROM_TYPE: usize = 45;
    pub const NEW_FROM_DESCR: usize = 94;
    pub const SET_BASE_OBJECT: usize = 282;
    pub const SET_HANDLER: usize = 304;
    pub const GET_HANDLER: usize = 305;
}

const C_CONTIGUOUS: c_int = 0x1;
const F_CONTIGUOUS: c_int = 0x2;
const WRITEABLE: c_int = 0x400;

/// The name of a capsule with a data allocator.
pub const HANDLER: &std::ffi::CStr = c"mem_handler";

/// As numpy's `PyArrayObject_fields`: the front of every array.
#[repr(C)]
struct Fields {
    head: ffi::PyObject,
    data: *mut u8,
    dimensions: c_int,
    shape: *mut isize,
    strides: *mut isize,
    base: *mut ffi::PyObject,
    descr: *mut ffi::PyObject,
    flags: c_int,
}

/// As numpy's `PyDataMemAllocator`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Allocator {
    pub context: *mut c_void,
    pub malloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    pub calloc: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    pub realloc: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    pub free: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
}

/// As numpy's `PyDataMem_Handler`.
#[repr(C)]
pub struct Handler {
    pub name: [c_char; 127],
    pub version: u8,
    pub allocator: Allocator,
}

type DescrFromType = unsafe extern "C" fn(c_int) -> *mut ffi::PyObject;
type SetBaseObject = unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject) -> c_int;
type SetHandler = unsafe extern "C" fn(*mut ffi::PyObject) -> *mut ffi::PyObject;
type GetHandler = unsafe extern "C" fn() -> *mut ffi::PyObject;
type NewFromDescr = unsafe extern "C" fn(
    *mut ffi::PyTypeObject,
    *mut ffi::PyObject,
    c_int,
    *const isize,
    *const isize,
    *mut c_void,
    c_int,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// numpy, once somebody has imported it.
pub struct Numpy {
    array_type: *mut ffi::PyTypeObject,
    descr_from_type: DescrFromType,
    new_from_descr: NewFromDescr,
    set_base_object: SetBaseObject,
    set_handler: SetHandler,
    get_handler: GetHandler,
}

// SAFETY: addresses in a module that is never unloaded; functions are called with the interpreter attached only.
unsafe impl Send for Numpy {}
// SAFETY: as above.
unsafe impl Sync for Numpy {}

static NUMPY: OnceLock<Numpy> = OnceLock::new();

/// An array, as its fields say.
#[derive(Debug)]
pub struct Layout<'a> {
    pub data: *mut u8,
    pub shape: &'a [isize],
    /// Whether its items lie one behind the other, and in which order. `None`: they do not.
    pub order: Option<Order>,
    pub writeable: bool,
    pub descr: *mut ffi::PyObject,
}

/// How the items of an array follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// The last index runs first.
    C = 0,
    /// The first index runs first.
    Fortran = 1,
}

impl Numpy {
    /// numpy, if this process has imported it.
    pub fn loaded(py: Python<'_>) -> Option<&'static Numpy> {
        if let Some(numpy) = NUMPY.get() {
            return Some(numpy);
        }
        static LOOKED: AtomicIsize = AtomicIsize::new(0);
        let count = crate::message::modules(py);
        if LOOKED.swap(count, Ordering::Relaxed) == count {
            return None;
        }
        let loaded = py.import("sys").and_then(|sys| sys.getattr("modules")?.contains("numpy"));
        if loaded.unwrap_or(false) { Numpy::import(py).ok() } else { None }
    }

    /// numpy, imported if need be.
    pub fn import(py: Python<'_>) -> PyResult<&'static Numpy> {
        if let Some(numpy) = NUMPY.get() {
            return Ok(numpy);
        }
        py.import("numpy")?;
        let capsule = py.import("numpy._core._multiarray_umath")?.getattr("_ARRAY_API")?.cast_into::<PyCapsule>()?;
        // SAFETY: a valid capsule; numpy's has no name.
        let table = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), std::ptr::null()) }.cast::<*mut c_void>();
        if table.is_null() {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: numpy's table has all these places since numpy 1.22.
        let at = |place: usize| unsafe { *table.wrapping_add(place) };
        // SAFETY: the type of the function at that place, by numpy's headers.
        let descr_from_type = unsafe { std::mem::transmute::<*mut c_void, DescrFromType>(at(place::DESCR_FROM_TYPE)) };
        // SAFETY: as above.
        let new_from_descr = unsafe { std::mem::transmute::<*mut c_void, NewFromDescr>(at(place::NEW_FROM_DESCR)) };
        // SAFETY: as above.
        let set_base_object = unsafe { std::mem::transmute::<*mut c_void, SetBaseObject>(at(place::SET_BASE_OBJECT)) };
        // SAFETY: as above.
        let set_handler = unsafe { std::mem::transmute::<*mut c_void, SetHandler>(at(place::SET_HANDLER)) };
        // SAFETY: as above.
        let get_handler = unsafe { std::mem::transmute::<*mut c_void, GetHandler>(at(place::GET_HANDLER)) };
        let array_type = at(place::ARRAY_TYPE).cast();
        let numpy = Numpy { array_type, descr_from_type, new_from_descr, set_base_object, set_handler, get_handler };
        Ok(NUMPY.get_or_init(|| numpy))
    }

    /// The layout of an object that is exactly an `ndarray`, not of a subclass.
    pub fn layout<'a>(&self, object: &'a Bound<'_, PyAny>) -> Option<Layout<'a>> {
        if object.get_type_ptr() != self.array_type {
            return None;
        }
        // SAFETY: it is an array, and begins with these fields.
        let fields = unsafe { &*object.as_ptr().cast::<Fields>() };
        let shape = match fields.dimensions {
            0 => &[],
            // SAFETY: numpy keeps as many numbers there, as long as the array has that shape.
            count => unsafe { std::slice::from_raw_parts(fields.shape, count as usize) },
        };
        let order = match fields.flags {
            flags if flags & C_CONTIGUOUS != 0 => Some(Order::C),
            flags if flags & F_CONTIGUOUS != 0 => Some(Order::Fortran),
            _ => None,
        };
        let writeable = fields.flags & WRITEABLE != 0;
        Some(Layout { data: fields.data, shape, order, writeable, descr: fields.descr })
    }

    /// The dtype of one of numpy's own types, by its number.
    pub fn dtype<'py>(&self, py: Python<'py>, number: i32) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: attached; returns a new reference, or null with an exception.
        let descr = unsafe { (self.descr_from_type)(number) };
        // SAFETY: as above.
        unsafe { Bound::from_owned_ptr_or_err(py, descr) }
    }

    /// An array over `data`, which `base` keeps alive, writable, its items one behind the other.
    ///
    /// # Safety
    /// `data` is good for the items as long as `base` lives.
    pub unsafe fn array<'py>(
        &self,
        dtype: Bound<'py, PyAny>,
        shape: &[isize],
        strides: &[isize],
        data: *mut u8,
        base: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = dtype.py();
        let (count, none) = (shape.len() as c_int, std::ptr::null_mut());
        // SAFETY: attached; a dtype, whose reference is taken over; as many numbers as dimensions; memory that the caller
        // answers for. Returns a new reference, or null with an exception.
        let array = unsafe {
            (self.new_from_descr)(
                self.array_type,
                dtype.into_ptr(),
                count,
                shape.as_ptr(),
                strides.as_ptr(),
                data.cast(),
                WRITEABLE,
                none,
            )
        };
        // SAFETY: as above.
        let array = unsafe { Bound::from_owned_ptr_or_err(py, array) }?;
        // SAFETY: a new array without a base; takes over the reference to `base` in any case.
        match unsafe { (self.set_base_object)(array.as_ptr(), base.into_ptr()) } {
            0 => Ok(array),
            _ => Err(PyErr::fetch(py)),
        }
    }

    /// The data allocator of this thread of the interpreter.
    pub fn allocator(&self, py: Python<'_>) -> PyResult<Allocator> {
        // SAFETY: attached; returns a new reference, or null with an exception.
        let capsule = unsafe { (self.get_handler)() };
        // SAFETY: as above.
        let capsule = unsafe { Bound::from_owned_ptr_or_err(py, capsule) }?;
        // SAFETY: a capsule of that name, by numpy's word.
        let handler = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), HANDLER.as_ptr()) }.cast::<Handler>();
        if handler.is_null() {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: such capsules hold a handler, alive as long as the capsule; numpy's own lives for ever.
        let handler = unsafe { &*handler };
        if handler.version != 1 {
            return Err(PyRuntimeError::new_err("numpy's data allocator is of another version"));
        }
        Ok(handler.allocator)
    }

    /// Makes `handler` the data allocator of this thread of the interpreter.
    pub fn set_allocator(&self, py: Python<'_>, handler: &'static Handler) -> PyResult<()> {
        let at = std::ptr::from_ref(handler).cast_mut().cast::<c_void>();
        // SAFETY: attached; the handler and the name live for ever. Returns a new reference, or null with an exception.
        let capsule = unsafe { ffi::PyCapsule_New(at, HANDLER.as_ptr(), None) };
        // SAFETY: as above.
        let capsule = unsafe { Bound::from_owned_ptr_or_err(py, capsule) }?;
        // SAFETY: attached, with a capsule of the right name. Returns the former one, or null with an exception.
        let former = unsafe { (self.set_handler)(capsule.as_ptr()) };
        // SAFETY: as above.
        unsafe { Bound::from_owned_ptr_or_err(py, former) }.map(drop)
    }
}

/// The strides of an array whose items lie one behind the other.
pub fn strides(shape: &[isize], item: isize, order: Order) -> Vec<isize> {
    let mut strides = vec![0; shape.len()];
    let mut step = item;
    let indices: Box<dyn Iterator<Item = usize>> = match order {
        Order::C => Box::new((0..shape.len()).rev()),
        Order::Fortran => Box::new(0..shape.len()),
    };
    for index in indices {
        strides[index] = step;
        step *= shape[index].max(1);
    }
    strides
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
pub fn dtype_of(py: Python<'_>, numpy: &Numpy, descr: *mut ffi::PyObject) -> PyResult<(i32, usize, bool)> {
    let lock = || LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(last) = lock().as_ref().filter(|last| last.descr.as_ptr() == descr) {
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
    // Dropped when nothing is locked any more: what goes with it may run Python code.
    let former = lock().replace(Dtype { descr: dtype.unbind(), number, item, plain });
    drop(former);
    Ok((number, item, plain))
}
