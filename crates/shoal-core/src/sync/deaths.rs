//! What the death of a process means to each kind of thing that processes wait for.

use super::barrier::Barrier;
use super::condition::Condition;
use super::semaphore::Semaphore;
use super::{event, lock, rlock};
use crate::error::Result;
use crate::memory::lease::{Entry, Kind};
use crate::memory::segment::Segment;

/// Process `dead` has died: tells the thing in `entry`, which somebody holds.
pub(crate) fn tell(segment: &Segment, entry: &Entry, kind: Kind, dead: u16) {
    let cell = entry.cell();
    let told: Result<()> = match kind {
        Kind::Block | Kind::Cell | Kind::Value => Ok(()),
        Kind::Lock => Ok(lock::abandon(cell, dead)),
        Kind::RLock => Ok(rlock::abandon(cell, dead)),
        Kind::Event => Ok(event::stir(cell)),
        Kind::Semaphore => segment.words(entry.offset()).map(|held| Semaphore::new(cell, held).abandon(dead)),
        Kind::Condition => segment.words(entry.offset()).map(|words| Condition::new(cell, words).abandon(dead)),
        Kind::Barrier => segment.words(entry.offset()).map(|inside| Barrier::new(cell, inside).abandon(dead)),
    };
    if let Err(error) = told {
        // Somebody has written over the table, or there is no memory to map the block in.
        eprintln!("shoal: after a death: {error}");
    }
}
