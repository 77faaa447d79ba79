//! What becomes of a heap when its process forks: the child makes it its own.
//!
//! Right before the fork the child is entered as a holder of all that the parent holds, under the number that was
//! claimed for it, and the books are locked: so what the child finds in them is exactly what it holds. In the child it is
//! put into new ones, with locks that nobody has, an arena without segments (the parent's are the parent's to
//! allocate in), and another way to the host. See `docs/design/leases.md`.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError, RwLockWriteGuard, Weak};

use super::{Books, Branch, Heap, Held, Leased, Segments, key, lock};

/// A thing that a fork replaces, whatever state a thread that is not there any more has left it in.
pub(super) struct Own<T>(AtomicPtr<T>, PhantomData<Box<T>>);

impl<T> Own<T> {
    pub(super) fn new(thing: T) -> Own<T> {
        Own(AtomicPtr::new(Box::into_raw(Box::new(thing))), PhantomData)
    }

    #[inline]
    pub(super) fn get(&self) -> &T {
        // SAFETY: made by `new` or `replace` from a box that is not freed before `self` is.
        unsafe { &*self.0.load(Ordering::Acquire) }
    }

    /// What was there before stays where it is, for good: it is a copy of what the parent goes on to use, and somebody
    /// may have a reference.
    fn replace(&self, thing: T) {
        self.0.store(Box::into_raw(Box::new(thing)), Ordering::Release);
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        // SAFETY: made by `new` or `replace`, and nobody has a reference any more.
        drop(unsafe { Box::from_raw(*self.0.get_mut()) });
    }
}

/// A heap that is held still while its process forks.
pub struct Still {
    heap: &'static Arc<Heap>,
    branch: Option<Branch>,
    _held: MutexGuard<'static, Held>,
    segments: RwLockWriteGuard<'static, Segments>,
    /// What is inherited. Behind the locks: these may be the last references when they go, and whoever drops the last one
    /// locks.
    leases: Vec<Arc<Leased>>,
}

impl Heap {
    /// Holds the heap still. If anything is held in it that a fork inherits, a number is claimed for the child, which
    /// holds it too from now on. If there is no number left, the child will have only what its parent has.
    ///
    /// In the parent the heap goes on when what this returns is dropped.
    pub fn hold_still(heap: &'static Arc<Heap>) -> Still {
        let books = heap.books();
        let held = lock(&books.held);
        let segments = books.segments.write().unwrap_or_else(PoisonError::into_inner);
        let leases: Vec<_> = held.values().filter_map(Weak::upgrade).collect();
        let inherited = |lease: &&Arc<Leased>| !lease.stays();
        let branch = leases.iter().find(inherited).and_then(|_| books.source.branch());
        if let Some(Branch { claim, .. }) = &branch {
            leases.iter().filter(inherited).for_each(|lease| lease.entry().share(claim.holder));
        }
        Still { heap, branch, _held: held, segments, leases }
    }
}

impl Still {
    /// In the child: the heap is its own. `None`: nothing was inherited, or it can't be had.
    pub fn make_own(mut self) -> Option<&'static Arc<Heap>> {
        let parents = &self.heap.books().source;
        parents.close_copies();
        let branch = self.branch.take()?;
        let me = branch.claim.holder;
        let mut books = Books::new(parents.inherit(branch)?);
        let inherited = self.leases.iter().filter(|lease| !lease.stays());
        let held = inherited.map(|lease| (key(lease.segment.id(), lease.index), Arc::downgrade(lease)));
        books.held.get_mut().unwrap_or_else(PoisonError::into_inner).extend(held);
        let segments = std::mem::take(&mut *self.segments);
        segments.values().for_each(|segment| segment.disown());
        *books.segments.get_mut().unwrap_or_else(PoisonError::into_inner) = segments;
        // What the parent's envelopes name, the parent holds. Its arena is in the middle of something only if another thread was.
        let _let_go = self.heap.books().arena.try_lock().map(|mut arena| arena.let_go_of_enclosed());
        self.heap.me.store(me, Ordering::Relaxed);
        self.heap.books.replace(books);
        self.heap.pid.store(shoal_sys::process::pid(), Ordering::Relaxed);
        Some(self.heap)
    }
}
