//! What the death of a process means to each kind of thing that processes wait for.

use super::barrier::Barrier;
use super::condition::Condition;
use super::semaphore::Semaphore;
use super::{event, lock, rlock};
use crate::aside;
use crate::error::Result;
use crate::memory::lease::{Entry, Kind};
use crate::memory::segment::Segment;

/// Process `dead` has died: tells the thing in `entry`, which somebody holds.
pub(crate) fn tell(segment: &Segment, entry: &Entry, kind: Kind, dead: u16) {
    let cell = entry.cell();
    match kind {
        Kind::Lock => lock::abandon(cell, dead),
        Kind::RLock => rlock::abandon(cell, dead),
        Kind::Event => event::stir(cell),
        Kind::Block | Kind::Cell | Kind::Value | Kind::Semaphore | Kind::Condition | Kind::Barrier => {}
        // Those come first: see `queue::recover`.
        Kind::Queue | Kind::Envelope => {}
    }
    let told: Result<()> = match kind {
        Kind::Semaphore => segment.words(entry.offset()).map(|held| Semaphore::new(cell, held).abandon(dead)),
        Kind::Condition => segment.words(entry.offset()).map(|words| Condition::new(cell, words).abandon(dead)),
        Kind::Barrier => segment.words(entry.offset()).map(|inside| Barrier::new(cell, inside).abandon(dead)),
        _ => Ok(()),
    };
    if let Err(error) = told {
        // Somebody has written over the table, or there is no memory to map the block in.
        aside::say(format_args!("after a death: {error}"));
    }
}
