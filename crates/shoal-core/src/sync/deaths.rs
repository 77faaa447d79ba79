//! What the death of a process means to each kind of thing that processes wait for.

use super::barrier::Barrier;
use super::condition::Condition;
use super::semaphore::Semaphore;
use super::{event, lock, rlock};
use crate::aside;
use crate::error::Result;
use crate::memory::heap::Lease;
use crate::memory::lease::Kind;

/// Process `dead` has died: tells the thing of that kind, on which the caller has a lease.
pub(crate) fn tell(lease: &Lease, kind: Kind, dead: u16) {
    let cell = lease.cell();
    match kind {
        Kind::Lock => lock::abandon(cell, dead),
        Kind::RLock => rlock::abandon(cell, dead),
        Kind::Event => event::stir(cell),
        _ => {}
    }
    let told: Result<()> = match kind {
        Kind::Semaphore => lease.words().map(|held| Semaphore::new(cell, held).abandon(dead)),
        Kind::Condition => lease.words().map(|words| Condition::new(cell, words).abandon(dead)),
        Kind::Barrier => lease.words().map(|inside| Barrier::new(cell, inside).abandon(dead)),
        _ => Ok(()),
    };
    if let Err(error) = told {
        // Somebody has written over the table, or there is no memory to map the block in.
        aside::say(format_args!("after a death: {error}"));
    }
}
