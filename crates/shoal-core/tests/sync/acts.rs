//! What children do.

use shoal_core::sync::lock::Acquired;

use crate::child::Things;
use crate::patience;

/// Does what `name` says, with `things`.
pub fn act(name: &str, things: &Things) {
    let me = things.me();
    match name {
        "lock" => {
            assert_eq!(things.lock().acquire_with(me, &mut patience()), Acquired::Yes);
            assert!(things.lock().release());
        }
        "rlock" => {
            let (lock, owner) = (things.rlock(), things.owner());
            (0..2).for_each(|_| assert_eq!(lock.acquire(owner, &mut patience()), Acquired::Yes));
            (0..2).for_each(|_| assert!(lock.release(owner)));
        }
        "permits" => {
            (0..2).for_each(|_| assert_eq!(things.semaphore().acquire(me, &mut patience()), Ok(())));
            (0..2).for_each(|_| assert_eq!(things.semaphore().release(me), Ok(())));
        }
        "signal" => assert_eq!(things.semaphore().release(me), Ok(())),
        "set" => things.event().set(),
        "wait" => assert_eq!(things.event().wait(&mut patience()), Ok(())),
        "take" => things.take_one(),
        "put" => things.put_one(),
        "party" => assert_eq!(things.pass(), Ok(())),
        other => panic!("no act is called {other}"),
    }
}
