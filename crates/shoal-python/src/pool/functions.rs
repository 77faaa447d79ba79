//! Functions as workers get them: serialized once for many calls, and anew when they may have changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use shoal_core::pool::client::Pool;
use shoal_core::pool::tasks::Function;

use super::lock;
use crate::errors::OrRaise;
use crate::in_flight;
use crate::terms::{RIDER, Terms};
use crate::wire::{self, Writer, call};

/// Kept serialized; beyond, all are forgotten and begin anew.
const FUNCTIONS: usize = 256;

/// A function in its serialized form, with its name for messages.
#[derive(Debug)]
pub struct Named {
    pub label: Arc<Label>,
    pub function: Arc<Function>,
    /// Said in the kind of each task: ONCE, unless it is the same at every call; RIDER, if its terms have one.
    pub flags: u16,
}

impl Named {
    /// The same function, on terms.
    fn on(&self, terms: &Terms) -> Arc<Named> {
        let rider = if terms.0.rider.is_empty() { 0 } else { RIDER };
        let function = self.function.on(terms.0.clone());
        Arc::new(Named { label: self.label.clone(), function, flags: self.flags | rider })
    }
}

/// Which function in which pool a result is of. Unlike the function itself, it keeps no memory that the function refers to.
#[derive(Debug)]
pub struct Label {
    pub pool: Arc<Pool>,
    pub name: String,
}

struct Known {
    /// Keeps the function alive, so that its address stays its own.
    _function: Py<PyAny>,
    /// Asked whether it is still as it was serialized; `None`: always.
    snapshot: Option<Py<PyAny>>,
    named: Arc<Named>,
}

struct OnTerms {
    without: Arc<Named>,
    terms: Py<Terms>,
    with: Arc<Named>,
}

/// The functions that a pool was given lately.
#[derive(Default)]
pub struct Functions {
    /// By the address of the Python object.
    known: Mutex<HashMap<usize, Known>>,
    /// The last function that was called on terms, without them and with them.
    on_terms: Mutex<Option<OnTerms>>,
}

static STABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static ALWAYS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

impl Functions {
    /// The function in serialized form, serialized anew only if it may have changed.
    pub fn named(&self, pool: &Arc<Pool>, function: &Bound<'_, PyAny>) -> PyResult<Arc<Named>> {
        let py = function.py();
        if let Ok(prepared) = function.cast_exact::<Prepared>() {
            return Ok(prepared.get().0.clone());
        }
        let key = function.as_ptr() as usize;
        // Out of the map while it is asked: the question runs Python code, which may come back here.
        let known =
            lock(&self.known).get(&key).map(|k| (k.snapshot.as_ref().map(|s| s.clone_ref(py)), k.named.clone()));
        match known {
            Some((None, named)) => return Ok(named),
            Some((Some(snapshot), named)) if snapshot.call_method0(py, "unchanged")?.is_truthy(py)? => {
                return Ok(named);
            }
            _ => {}
        }
        if !function.is_callable() {
            return Err(PyTypeError::new_err(format!("func must be callable, not {}", function.get_type().name()?)));
        }
        let serialize = |name: &str| PyResult::Ok(py.import("shoal.serialize.function")?.getattr(name)?.unbind());
        let stable = STABLE.get_or_try_init(py, || serialize("stable"))?;
        let always = ALWAYS.get_or_try_init(py, || serialize("_ALWAYS"))?;
        // Before it is pickled, so that a change in between is noticed.
        let snapshot = stable.call1(py, (function,))?;
        let name = wire::name_of(function);
        let mut bytes = Vec::new();
        let writer = Writer::Task(pool);
        let (pickled, leases) = in_flight::noting(|| writer.pickle(function, &mut bytes, || name.clone()));
        pickled?;
        let function_in_pool = pool.function_named(&name, &bytes, leases).or_raise(py)?;
        let stable = !snapshot.is_none(py);
        let named = Arc::new(Named {
            label: Arc::new(Label { pool: pool.clone(), name }),
            function: function_in_pool,
            flags: if stable { 0 } else { call::ONCE },
        });
        if stable {
            let entry = Known {
                _function: function.clone().unbind(),
                snapshot: if snapshot.is(always) { None } else { Some(snapshot) },
                named: named.clone(),
            };
            let mut known = lock(&self.known);
            let forgotten = if known.len() >= FUNCTIONS { std::mem::take(&mut *known) } else { HashMap::new() };
            let former = known.insert(key, entry);
            // With nothing locked any more: what goes here may run Python code.
            drop(known);
            drop((forgotten, former));
        }
        Ok(named)
    }

    /// As [`named`](Self::named), to be called on terms.
    pub fn named_on(
        &self,
        pool: &Arc<Pool>,
        function: &Bound<'_, PyAny>,
        terms: Option<&Bound<'_, Terms>>,
    ) -> PyResult<Arc<Named>> {
        let named = self.named(pool, function)?;
        let Some(terms) = terms else { return Ok(named) };
        let mut last = lock(&self.on_terms);
        if let Some(last) = last.as_ref().filter(|last| Arc::ptr_eq(&last.without, &named) && last.terms.is(terms)) {
            return Ok(last.with.clone());
        }
        let with = named.on(terms.get());
        let former = last.replace(OnTerms { without: named, terms: terms.clone().unbind(), with: with.clone() });
        drop(last);
        // With nothing locked any more.
        drop(former);
        Ok(with)
    }
}

/// A function as it was serialized, for many calls. Only for the pool that it was prepared by.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Prepared(pub Arc<Named>);
