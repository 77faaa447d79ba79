//! All segments of a domain, kept by its host: made here, whoever they are for, and within the limits of memory.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};

use shoal_sys::socket::Seqpacket;

use super::adopted::Adopted;
use super::guest::Member;
use super::host::Host;
use crate::aside;
use crate::crash;
use crate::error::{Error, Limit, Result};
use crate::memory::heap::{Branch, Heap, Source};
use crate::memory::lease::Kind;
use crate::memory::roster::Roster;
use crate::memory::segment::{GRANULE, Segment};
use crate::memory::vault::Vault;
use crate::queue;

/// The segments by number, and the limit for all of them together.
#[derive(Debug)]
pub(crate) struct Registry {
    state: Mutex<State>,
    roster: Arc<Roster>,
    vault: Vault,
    adopted: Adopted,
}

#[derive(Debug, Default)]
struct State {
    segments: HashMap<u32, Made>,
    limit: Option<u64>,
    /// Bytes that are being made at this moment.
    pending: u64,
}

#[derive(Debug)]
struct Made {
    segment: Arc<Segment>,
    /// The holder that allocates in it, as long as that lives.
    owner: Option<u16>,
    /// The pool that it counts for.
    budget: Option<Arc<Budget>>,
}

impl Made {
    /// Bytes that have pages.
    fn resident(&self) -> u64 {
        self.segment.len() - self.segment.released()
    }
}

/// What the tasks of one pool may take.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    /// Bytes of functions and arguments that lie in the host's own arena.
    sent: AtomicU64,
    registry: Arc<Registry>,
}

/// Bytes of a function or of arguments that count for a pool's limit until they are dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// Counts bytes that lie in the host's own arena.
    pub(crate) fn charge(self: &Arc<Budget>, bytes: u64) -> Result<Charge> {
        // Under the lock, so that two that fit one by one don't exceed the limit together.
        let state = self.registry.lock();
        state.check_pool(self, bytes)?;
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        Ok(Charge { budget: self.clone(), bytes })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.sent.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl State {
    fn check(&self, wanted: u64, budget: Option<&Arc<Budget>>) -> Result<()> {
        if let Some(limit) = self.limit {
            let taken = self.pending + self.segments.values().map(Made::resident).sum::<u64>();
            fits(wanted, taken, limit, Limit::Process(limit))?;
        }
        budget.map_or(Ok(()), |budget| self.check_pool(budget, wanted))
    }

    fn check_pool(&self, budget: &Arc<Budget>, wanted: u64) -> Result<()> {
        let its = |made: &&Made| {
            // What a dead worker has left is not its tasks' any more, but of whoever holds it.
            made.owner.is_some() && made.budget.as_ref().is_some_and(|of| Arc::ptr_eq(of, budget))
        };
        let segments: u64 = self.segments.values().filter(its).map(Made::resident).sum();
        let taken = segments + budget.sent.load(Ordering::Relaxed);
        fits(wanted, taken, budget.limit, Limit::Pool(budget.limit))
    }
}

fn fits(wanted: u64, taken: u64, most: u64, limit: Limit) -> Result<()> {
    let available = most.saturating_sub(taken);
    if wanted > available { Err(Error::OutOfSharedMemory { wanted, available, limit }) } else { Ok(()) }
}

impl Registry {
    /// A registry of no segments.
    pub(super) fn new(roster: Arc<Roster>) -> Registry {
        Registry { state: Mutex::default(), roster, vault: Vault::default(), adopted: Adopted::default() }
    }

    /// The registry of a domain whose host has ended, for the holder that follows. It holds from now on what that held for
    /// envelopes of the dead, so this comes before anything else of the dead is given back.
    pub(super) fn take_over(roster: Arc<Roster>, heap: &Arc<Heap>) -> Result<Registry> {
        let mapped: HashMap<u32, Arc<Segment>> =
            heap.segments().into_iter().map(|segment| (segment.id(), segment)).collect();
        let vault = Vault::take_over(roster.vault(), |id| mapped.get(&id).cloned())?;
        let mut segments = mapped;
        for segment in vault.segments() {
            // It looks through all of them after each death.
            heap.know(&segment);
            segments.insert(segment.id(), segment);
        }
        let made = |segment: Arc<Segment>| Made { owner: segment.owner(), segment, budget: None };
        let segments: HashMap<u32, Made> = segments.into_iter().map(|(id, segment)| (id, made(segment))).collect();
        crash::point("follow: mapped");
        let adopted = Adopted::default();
        for orphan in segments.values().filter(|made| made.owner.is_none()) {
            if let Err(error) = adopted.adopt(heap, &orphan.segment) {
                aside::say(format_args!("what lies in queues of the dead: {error}"));
            }
        }
        crash::point("follow: adopted");
        let state = State { segments, ..State::default() };
        Ok(Registry { state: Mutex::new(state), roster, vault, adopted })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A budget for a new pool.
    pub(super) fn budget(self: &Arc<Registry>, limit: u64) -> Arc<Budget> {
        Arc::new(Budget { limit, sent: AtomicU64::new(0), registry: self.clone() })
    }

    /// Sets the limit for all segments; returns the one before.
    pub(super) fn set_limit(&self, limit: Option<u64>) -> Option<u64> {
        std::mem::replace(&mut self.lock().limit, limit)
    }

    /// The limit for all segments.
    pub(super) fn limit(&self) -> Option<u64> {
        self.lock().limit
    }

    /// Does something that takes `wanted` bytes, if the limits allow.
    fn within_limits<T>(
        &self,
        wanted: u64,
        budget: Option<&Arc<Budget>>,
        make: impl FnOnce() -> Result<T>,
        keep: impl FnOnce(&mut State, &T),
    ) -> Result<T> {
        {
            let mut state = self.lock();
            state.check(wanted, budget)?;
            state.pending += wanted;
        }
        let made = make();
        let mut state = self.lock();
        state.pending -= wanted;
        if let Ok(made) = &made {
            keep(&mut state, made);
        }
        made
    }

    /// Makes a segment for `owner`.
    pub(super) fn create(
        &self,
        (data, backed, entries): (u64, u64, u32),
        owner: u16,
        budget: Option<&Arc<Budget>>,
    ) -> Result<Arc<Segment>> {
        let id = self.roster.next_segment();
        self.within_limits(
            Segment::cost(data, backed, entries)?,
            budget,
            || {
                let segment = Arc::new(Segment::create(id, data, backed, entries)?);
                segment.set_domain(self.roster.domain());
                segment.set_owner(Some(owner));
                crash::point("segment: made");
                if let Err(error) = self.vault.add(self.roster.vault(), &segment) {
                    // Should this host end, it lives on only with those who have mapped it.
                    static TOLD: Once = Once::new();
                    TOLD.call_once(|| {
                        aside::say(format_args!("some memory can't be kept for when this process has ended: {error}"))
                    });
                }
                crash::point("segment: kept");
                Ok(segment)
            },
            |state, segment| {
                let made = Made { segment: segment.clone(), owner: Some(owner), budget: budget.cloned() };
                state.segments.insert(id, made);
            },
        )
    }

    /// Nobody has heard of that segment, nor will.
    pub(super) fn discard(&self, heap: &Heap, id: u32) {
        self.lock().segments.remove(&id);
        heap.forget(id);
        self.take_out(&[id]);
    }

    fn take_out(&self, ids: &[u32]) {
        if let Err(error) = self.vault.remove(self.roster.vault(), ids) {
            // It takes memory for longer than it should, until another change of that drawer.
            aside::say(format_args!("segments {ids:?} are still kept: {error}"));
        }
    }

    /// Gives released granules of a segment of `owner` pages again.
    pub(super) fn restore(&self, id: u32, granules: Range<usize>, owner: u16) -> Result<()> {
        let (segment, budget) = match self.lock().segments.get(&id) {
            Some(made) if made.owner == Some(owner) => (made.segment.clone(), made.budget.clone()),
            _ => return Err(Error::Gone),
        };
        let wanted = granules.len() as u64 * GRANULE;
        self.within_limits(wanted, budget.as_ref(), || segment.restore(granules), |_, ()| ())
    }

    /// The segment of that number.
    pub(super) fn open(&self, id: u32) -> Result<Arc<Segment>> {
        self.lock().segments.get(&id).map(|made| made.segment.clone()).ok_or(Error::Gone)
    }

    /// The owner has died: nobody allocates in its segments any more. The host holds what is named by the envelopes in them
    /// from now on, so this comes before anything else of the dead one is given back.
    pub(super) fn orphan(&self, heap: &Arc<Heap>, owner: u16) -> Result<()> {
        let segments: Vec<_> = {
            let state = self.lock();
            let its = state.segments.values().filter(|made| made.owner == Some(owner));
            its.map(|made| made.segment.clone()).collect()
        };
        let mut outcome = Ok(());
        for segment in &segments {
            outcome = outcome.and(self.adopted.adopt(heap, segment));
        }
        // Only now, as `bury` closes what lies in segments without an owner.
        let mut state = self.lock();
        state.segments.values_mut().filter(|made| made.owner == Some(owner)).for_each(|made| {
            made.owner = None;
            made.segment.set_owner(None);
        });
        outcome
    }

    /// In the child of a fork: what is adopted, its parent holds.
    pub(super) fn forked(&self) {
        self.adopted.forked();
    }

    /// How many segments that holder has.
    #[cfg(all(test, not(loom)))]
    pub(super) fn count_of(&self, owner: u16) -> usize {
        self.lock().segments.values().filter(|made| made.owner == Some(owner)).count()
    }

    /// Lets go of orphaned segments that nobody uses any more, and of the unused parts of the others. Whether others
    /// are left.
    pub(super) fn bury(&self, heap: &Arc<Heap>) -> bool {
        let (mut closed, mut left, mut gone) = (vec![], vec![], vec![]);
        let remain = {
            let mut state = self.lock();
            state.segments.retain(|id, made| {
                let keep = made.owner.is_some() || close_unused(&made.segment, &mut closed, &mut left);
                if !keep {
                    heap.forget(*id);
                    gone.push(*id);
                }
                keep
            });
            state.segments.values().any(|made| made.owner.is_none())
        };
        self.take_out(&gone);
        // Unlocked: this may be the end of other things, and ask for segments.
        for (segment, index) in left {
            // What could not be cleared is tried again next time.
            if queue::clear(heap, &segment, index).is_ok_and(|cleared| cleared) {
                segment.entries()[index as usize].retire();
            }
        }
        closed.into_iter().for_each(|(segment, index)| self.adopted.part(segment, index));
        remain
    }
}

/// In the place of a dead owner: closes what nobody holds any more, and gives back what no open block lies in. Whether
/// anything is open. `closed` gets the envelopes that were closed, `left` the queues that are to be cleared first.
fn close_unused(segment: &Arc<Segment>, closed: &mut Vec<(u32, u32)>, left: &mut Vec<(Arc<Segment>, u32)>) -> bool {
    let mut used = vec![false; segment.granules()];
    let mut open = false;
    for (index, entry) in segment.used_entries().iter().enumerate() {
        let Some(kind) = entry.kind() else { continue };
        if entry.close() {
            match kind {
                Kind::Queue => left.push((segment.clone(), index as u32)),
                kind => {
                    entry.retire();
                    if kind == Kind::Envelope {
                        closed.push((segment.id(), index as u32));
                    }
                    continue;
                }
            }
        }
        open = true;
        if !entry.is_empty() {
            let end = entry.offset().saturating_add(entry.len()).min(segment.len());
            let (first, last) = ((entry.offset() / GRANULE) as usize, end.div_ceil(GRANULE) as usize);
            used.iter_mut().take(last).skip(first).for_each(|used| *used = true);
        }
    }
    if open {
        for granule in (0..used.len()).filter(|&granule| !used[granule] && !segment.is_released(granule)) {
            // What the system does not take stays until all of the segment goes.
            let _kept = segment.release(granule..granule + 1);
        }
    }
    open
}

/// How the host's own heap gets segments.
#[derive(Debug)]
pub(super) struct Local(pub(super) Weak<Host>);

impl Local {
    fn host(&self) -> Result<Arc<Host>> {
        self.0.upgrade().ok_or(Error::Gone)
    }
}

impl Source for Local {
    fn create(&self, data: u64, backed: u64, entries: u32, patient: bool) -> Result<Arc<Segment>> {
        let host = self.host()?;
        let attempt = || host.registry.create((data, backed, entries), host.heap().me(), None);
        if patient { host.pressing(attempt) } else { attempt() }
    }

    fn restore(&self, segment: &Arc<Segment>, granules: Range<usize>) -> Result<()> {
        let host = self.host()?;
        host.pressing(|| host.registry.restore(segment.id(), granules.clone(), host.heap().me()))
    }

    fn open(&self, id: u32) -> Result<Arc<Segment>> {
        self.host()?.registry.open(id)
    }

    fn freed(&self) {
        if let Ok(host) = self.host() {
            host.look_again();
        }
    }

    fn branch(&self) -> Option<Branch> {
        let host = self.host().ok()?;
        let claim = host.claim().ok()?;
        let (ours, theirs) = Seqpacket::pair().ok().unzip();
        if let Some(ours) = ours {
            host.expect(claim, ours);
        }
        Some(Branch { claim, socket: theirs })
    }

    fn inherit(&self, branch: Branch) -> Option<Box<dyn Source>> {
        let host = self.host().ok()?;
        host.forked();
        Member::forked(host.address(), branch, host.roster.clone())
    }
}
