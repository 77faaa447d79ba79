//! Values as bytes: a few plain types in a form of their own, everything else pickled.
//!
//! A call into the pickler costs about 200 ns each way, which is more than all the rest of a small task's way through
//! the engine; numbers, short texts and None do without it.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyString, PyTuple};
use shoal_core::Error;

use shoal_core::memory::heap::{Heap, Lease};
use shoal_core::pool::client::Pool;

use crate::errors;
use crate::message::{self, Pickled, Reader};

/// First byte of a value.
mod tag {
    pub const NONE: u8 = 0;
    pub const FALSE: u8 = 1;
    pub const TRUE: u8 = 2;
    pub const INT: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const STR: u8 = 5;
    pub const BYTES: u8 = 6;
    pub const PICKLE: u8 = 7;
}

/// Longest text that is copied rather than pickled: beyond, the copy is all that matters.
const SHORT: usize = 4096;

/// How a task is to be run: what its payload means. Travels as the task's kind.
pub mod call {
    use crate::terms::RIDER;

    /// The payload is a pickle of (args, kwargs).
    pub const PICKLED: u16 = 0;
    /// No arguments at all.
    pub const EMPTY: u16 = 1;
    /// One positional argument, as a value.
    pub const ONE: u16 = 2;
    /// An iterable of positional arguments, as a value.
    pub const STAR: u16 = 3;
    /// A sequence of items, each an argument; the worker may give the rest back.
    pub const CHUNK: u16 = 4;
    /// A sequence of items, each an iterable of arguments; the worker may give the rest back.
    pub const STAR_CHUNK: u16 = 5;
    /// As CHUNK, all to be done by the one who takes it.
    pub const FIXED_CHUNK: u16 = 6;
    /// As STAR_CHUNK, all to be done by the one who takes it.
    pub const FIXED_STAR_CHUNK: u16 = 7;
    /// Several arguments, each a value by itself, as `packed` writes them; the worker may give the rest back.
    pub const BATCH: u16 = 8;
    /// As BATCH, each an iterable of arguments.
    pub const STAR_BATCH: u16 = 9;
    /// Added to a CHUNK of any kind: each item is a value by itself, as `packed` writes them.
    pub const APART: u16 = 16;
    /// Added to any: the function may hold state of this one call, the worker shall not keep it.
    pub const ONCE: u16 = 0x8000;

    const _: () = assert!((STAR_BATCH | APART) & (ONCE | RIDER) == 0);

    /// How a task is to be run, without what was added to that; and whether the function is not to be kept.
    pub fn split(kind: u16) -> (u16, bool) {
        (kind & !(ONCE | RIDER), kind & ONCE != 0)
    }

    /// Whether a task is a piece of a map whose results come back as one list.
    pub fn is_chunk(kind: u16) -> bool {
        (CHUNK..=FIXED_STAR_CHUNK).contains(&(kind & !APART))
    }
}

/// What a result's payload means. Travels as the completion's kind.
pub mod result {
    /// A value.
    pub const VALUE: u16 = 0;
    /// An exception, as `shoal.serialize.dump_exception` writes it.
    pub const ERROR: u16 = 1;
    /// What became of each item of a batch: VALUE or ERROR (1 byte), length (4 bytes), the value or exception.
    pub const EACH: u16 = 2;
}

/// Bytes before each value or exception of an `EACH` result.
pub const EACH_HEAD: usize = 5;

/// Who writes: where large buffers go.
#[derive(Clone, Copy, Debug)]
pub enum Writer<'a> {
    /// A client, a task for this pool.
    Task(&'a Pool),
    /// A client, for a pool that is to be.
    Setup(&'a Arc<Heap>),
    /// Anybody, an item for a queue in that heap.
    Item(&'a Arc<Heap>),
    /// A worker, a result: what lies in its arena already may be handed over.
    Result(&'a Arc<Heap>),
}

impl Writer<'_> {
    /// Allocates a block for buffers.
    pub fn allocate(&self, len: u64) -> Result<Lease, Error> {
        match self {
            Writer::Task(pool) => pool.allocate(len),
            Writer::Setup(heap) | Writer::Item(heap) | Writer::Result(heap) => heap.allocate(len),
        }
    }

    /// Pickles `object` behind what `out` holds. `what` names it in an error.
    pub fn pickle(
        &self,
        object: &Bound<'_, PyAny>,
        out: &mut Vec<u8>,
        what: impl FnOnce() -> String,
    ) -> PyResult<Pickled> {
        message::pickle(self, object, out, what)
    }
}

/// Puts `object` behind what `out` holds. `what` names it in an error. Whether there are numpy arrays in it.
pub fn encode(
    writer: &Writer<'_>,
    object: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    what: impl FnOnce() -> String,
) -> PyResult<bool> {
    if object.is_none() {
        out.push(tag::NONE);
    } else if let Ok(number) = object.cast_exact::<PyInt>() {
        match number.extract::<i64>() {
            Ok(number) => {
                out.push(tag::INT);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Err(_) => {
                out.push(tag::PICKLE);
                writer.pickle(object, out, what)?;
            }
        }
    } else if let Ok(truth) = object.cast_exact::<PyBool>() {
        out.push(if truth.is_true() { tag::TRUE } else { tag::FALSE });
    } else if let Ok(number) = object.cast_exact::<PyFloat>() {
        out.push(tag::FLOAT);
        out.extend_from_slice(&number.value().to_le_bytes());
    } else if let Some(text) =
        object.cast_exact::<PyString>().ok().and_then(|text| text.to_str().ok()).filter(|text| text.len() <= SHORT)
    {
        out.push(tag::STR);
        out.extend_from_slice(text.as_bytes());
    } else if let Some(bytes) =
        object.cast_exact::<PyBytes>().ok().map(|bytes| bytes.as_bytes()).filter(|bytes| bytes.len() <= SHORT)
    {
        out.push(tag::BYTES);
        out.extend_from_slice(bytes);
    } else {
        out.push(tag::PICKLE);
        return Ok(writer.pickle(object, out, what)?.arrays);
    }
    Ok(false)
}

/// The pickle that a value is, if it is one.
pub fn pickle_in(bytes: &[u8]) -> Option<&[u8]> {
    bytes.split_first().filter(|(tag, _)| **tag == tag::PICKLE).map(|(_, rest)| rest)
}

/// The object of a value.
pub fn decode<'py>(py: Python<'py>, bytes: &[u8], reader: &Reader<'_>) -> PyResult<Bound<'py, PyAny>> {
    let damaged = || errors::damaged("value");
    let (tag, rest) = bytes.split_first().ok_or_else(damaged)?;
    let eight = || rest.try_into().map_err(|_| damaged());
    Ok(match *tag {
        tag::NONE => py.None().into_bound(py),
        tag::FALSE => PyBool::new(py, false).to_owned().into_any(),
        tag::TRUE => PyBool::new(py, true).to_owned().into_any(),
        tag::INT => i64::from_le_bytes(eight()?).into_pyobject(py)?.into_any(),
        tag::FLOAT => PyFloat::new(py, f64::from_le_bytes(eight()?)).into_any(),
        tag::STR => PyString::new(py, std::str::from_utf8(rest).map_err(|_| damaged())?).into_any(),
        tag::BYTES => PyBytes::new(py, rest).into_any(),
        tag::PICKLE => message::unpickle(py, rest, reader)?,
        _ => return Err(damaged()),
    })
}

/// How a function is called in messages; a `functools.partial` as what it calls.
pub fn name_of(function: &Bound<'_, PyAny>) -> String {
    let of_its_own = |thing: &Bound<'_, PyAny>| thing.getattr("__qualname__")?.extract::<String>();
    if let Ok(name) = of_its_own(function) {
        return name;
    }
    let kind = of_its_own(function.get_type().as_any()).unwrap_or_else(|_| "function".to_owned());
    // One made of another one has that one's function: there is no more than one to look into.
    let within = (kind == "partial").then(|| function.getattr("func").and_then(|func| of_its_own(&func)));
    within.and_then(Result::ok).unwrap_or(kind)
}

/// The arguments of a call, and how the worker reads them.
pub fn encode_call(
    writer: &Writer<'_>,
    name: &str,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
    out: &mut Vec<u8>,
) -> PyResult<u16> {
    let plain = kwargs.is_none_or(|kwargs| kwargs.is_empty());
    match (plain, args.len()) {
        (true, 0) => return Ok(call::EMPTY),
        (true, 1) => {
            encode(writer, &args.get_item(0)?, out, || format!("argument 0 of {name}"))?;
            return Ok(call::ONE);
        }
        _ => {}
    }
    let py = args.py();
    let kwargs = kwargs.cloned().unwrap_or_else(|| PyDict::new(py));
    let both = PyTuple::new(py, [args.as_any(), kwargs.as_any()])?;
    match writer.pickle(both.as_any(), out, || format!("arguments of {name}")) {
        Ok(_) => Ok(call::PICKLED),
        Err(error) => {
            // Again, one by one: then the error can say which argument it was.
            for (index, argument) in args.iter().enumerate() {
                writer.pickle(&argument, &mut Vec::new(), || format!("argument {index} of {name}"))?;
            }
            for (key, argument) in kwargs.iter() {
                writer.pickle(&argument, &mut Vec::new(), || format!("argument {key} of {name}"))?;
            }
            Err(error)
        }
    }
}
