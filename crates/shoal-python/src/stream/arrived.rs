//! Results that have come and were not taken: kept as they came, read when they are wanted.

use std::collections::BTreeMap;

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::PyList;
use shoal_core::pool::batches::Weight;
use shoal_core::pool::tasks::Outcome;

use crate::errors::{self, OrRaise, is_interrupt};
use crate::message::Reader;
use crate::pool::{Label, load, resolve};
use crate::wire::{self, EACH_HEAD, result};

/// The results of one task.
pub struct Arrived {
    first: u64,
    /// Items whose results are still to be taken.
    left: usize,
    weight: Weight,
    body: Body,
}

enum Body {
    /// One for each of a batch, from that byte on.
    Each(Outcome, usize),
    /// The same for all: an error, mostly of one item.
    Same(Outcome),
    /// A chunk as the user cut it, not read yet.
    Chunk(Outcome),
    /// Results of a chunk, from that one on.
    List(Py<PyList>, usize),
    /// Could not be sent.
    Refused(PyErr),
}

impl Arrived {
    /// What became of the `count` items of a task; `whole` if the user wants them in one piece.
    pub fn new(first: u64, count: usize, outcome: Outcome, whole: bool) -> Arrived {
        let weight = match &outcome {
            Outcome::Done { payload, leases, .. } => Weight::new(payload.bytes().map_or(0, <[u8]>::len), leases.iter()),
            _ => Weight::default(),
        };
        let body = match &outcome {
            Outcome::Done { kind: result::EACH, .. } => Body::Each(outcome, 0),
            _ if whole => Body::Chunk(outcome),
            _ => Body::Same(outcome),
        };
        Arrived { first, left: count, weight, body }
    }

    /// Items that could not be sent: one, or a chunk.
    pub fn refused(first: u64, count: usize, error: PyErr) -> Arrived {
        Arrived { first, left: count, weight: Weight::default(), body: Body::Refused(error) }
    }

    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    /// The next result, and of how many items: of none, if reading it was interrupted. Then it is still the next.
    fn next(&mut self, py: Python<'_>, label: &Label) -> (PyResult<Py<PyAny>>, usize) {
        if let Body::Chunk(outcome) = &self.body {
            let list =
                resolve(py, label.pool.heap(), outcome, &label.name).and_then(|value| Ok(value.cast_into::<PyList>()?));
            match list {
                Ok(list) if list.len() == self.left => self.body = Body::List(list.unbind(), 0),
                Ok(_) => return (Err(damaged()), std::mem::take(&mut self.left)),
                Err(error) if is_interrupt(py, &error) => return (Err(error), 0),
                // As in the standard library: one exception for all of the chunk.
                Err(error) => return (Err(error), std::mem::take(&mut self.left)),
            }
        }
        if let Body::Refused(error) = &self.body {
            return (Err(error.clone_ref(py)), std::mem::take(&mut self.left));
        }
        let value = match &mut self.body {
            Body::Each(outcome, at) => {
                let before = *at;
                each(py, label, outcome, at).inspect_err(|error| {
                    if is_interrupt(py, error) {
                        *at = before;
                    }
                })
            }
            Body::Same(outcome) => resolve(py, label.pool.heap(), outcome, &label.name).map(Bound::unbind),
            Body::List(list, at) => {
                *at += 1;
                list.bind(py).get_item(*at - 1).map(Bound::unbind)
            }
            Body::Chunk(_) | Body::Refused(_) => Err(damaged()),
        };
        if value.as_ref().is_err_and(|error| is_interrupt(py, error)) {
            return (value, 0);
        }
        self.left -= 1;
        (value, 1)
    }
}

fn damaged() -> PyErr {
    errors::damaged("result")
}

fn each(py: Python<'_>, label: &Label, outcome: &Outcome, at: &mut usize) -> PyResult<Py<PyAny>> {
    let Outcome::Done { payload, .. } = outcome else { return Err(damaged()) };
    let rest = payload.bytes().or_raise(py)?.get(*at..).ok_or_else(damaged)?;
    let (head, rest) = rest.split_first_chunk::<EACH_HEAD>().ok_or_else(damaged)?;
    let [kind, len @ ..] = *head;
    let len = u32::from_le_bytes(len) as usize;
    let bytes = rest.get(..len).ok_or_else(damaged)?;
    *at += EACH_HEAD + len;
    if u16::from(kind) == result::VALUE {
        wire::decode(py, bytes, &Reader { heap: label.pool.heap(), views: None }).map(Bound::unbind)
    } else {
        Err(load(py, bytes)?)
    }
}

/// All that have arrived, in the order in which they are to be taken.
pub struct Arrivals {
    ordered: bool,
    /// What is being handed out.
    current: Option<Arrived>,
    /// By their place in the stream, or by their coming.
    waiting: BTreeMap<u64, Arrived>,
    /// The place in the stream of what comes next.
    next: u64,
    count: u64,
}

impl Arrivals {
    pub fn new(ordered: bool) -> Arrivals {
        Arrivals { ordered, current: None, waiting: BTreeMap::new(), next: 0, count: 0 }
    }

    pub fn insert(&mut self, arrived: Arrived) {
        self.count += 1;
        self.waiting.insert(if self.ordered { arrived.first } else { self.count }, arrived);
    }

    /// Tasks whose results wait.
    pub fn pieces(&self) -> usize {
        self.waiting.len() + usize::from(self.current.is_some())
    }

    /// Whether there is a result to hand out; if nothing more is `coming`, any is the next.
    pub fn is_ready(&self, coming: bool) -> bool {
        self.current.is_some()
            || self.waiting.first_key_value().is_some_and(|(place, _)| !self.ordered || !coming || *place == self.next)
    }

    /// The next result, of how many items it is, and what of their message is done with.
    pub fn take(
        &mut self,
        py: Python<'_>,
        coming: bool,
        label: &Label,
    ) -> Option<(PyResult<Py<PyAny>>, usize, Option<Arrived>)> {
        if self.current.is_none() && self.is_ready(coming) {
            self.current = self.waiting.pop_first().map(|(_, arrived)| arrived);
            let current = self.current.as_ref()?;
            self.next = current.first + current.left as u64;
        }
        let current = self.current.as_mut()?;
        let (value, items) = current.next(py, label);
        let value = value.map_err(|error| {
            if !error.is_instance_of::<PyStopIteration>(py) {
                return error;
            }
            // To whoever iterates it would look like the end.
            let stopped = PyRuntimeError::new_err(format!("{} raised StopIteration", label.name));
            stopped.set_cause(py, Some(error));
            stopped
        });
        let spent = if current.left == 0 { self.current.take() } else { None };
        Some((value, items, spent))
    }
}
