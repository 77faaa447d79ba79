//! Locks, semaphores, conditions, events and barriers, and real processes that are killed by SIGKILL at every one of the
//! engine's `crash` points, while the host that they are guests of goes on.
#![cfg(feature = "crash-points")]

mod acts;
mod child;

use std::time::{Duration, Instant};

use child::{Child, Things};
use shoal_core::sync::barrier::Broken;
use shoal_core::sync::condition::Waited;
use shoal_core::sync::lock::Acquired;
use shoal_core::sync::patience::Patience;

/// All points of these modules, as they are written there.
const SOURCES: [&str; 6] = [
    include_str!("../../src/sync/lock.rs"),
    include_str!("../../src/sync/rlock.rs"),
    include_str!("../../src/sync/event.rs"),
    include_str!("../../src/sync/semaphore.rs"),
    include_str!("../../src/sync/condition.rs"),
    include_str!("../../src/sync/barrier.rs"),
];

const LOCK: [&str; 4] = ["lock: marked", "lock: woken", "lock: taken", "lock: freed"];
const RLOCK: [&str; 3] = ["lock: taken", "rlock: entered", "rlock: cleared"];
const PERMITS: [&str; 4] =
    ["semaphore: acquired", "semaphore: acquisition entered", "semaphore: released", "semaphore: release entered"];
const SIGNALS: [&str; 2] = ["semaphore: signalled", "semaphore: signal entered"];
const CONDITION: [&str; 5] =
    ["condition: entered", "condition: let go", "condition: woken", "condition: read", "condition: back"];
const PARTY: [&str; 4] = ["barrier: inside", "barrier: arrived", "barrier: ended", "barrier: left"];
const LAST_PARTY: [&str; 3] = ["barrier: inside", "barrier: arrived", "barrier: changed"];

/// Those that only whoever cleans up comes by, or who gives up: the host itself, here.
const HOSTS: [&str; 3] = ["semaphore: buried", "semaphore: death entered", "condition: passed on"];

fn patience() -> Patience<'static> {
    Patience::within(Some(Duration::from_secs(50)))
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(50);
    while !so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_point_has_a_death() {
    let others = ["semaphore: woken", "event: set", "event: marked", "condition: notified"];
    let killed: Vec<&str> =
        [&LOCK[..], &RLOCK, &PERMITS, &SIGNALS, &CONDITION, &PARTY, &LAST_PARTY, &HOSTS, &others].concat();
    let quoted = SOURCES.iter().flat_map(|source| source.split('"').skip(1).step_by(2));
    let kinds = ["lock: ", "rlock: ", "event: ", "semaphore: ", "condition: ", "barrier: "];
    let points: Vec<&str> = quoted.filter(|text| kinds.iter().any(|kind| text.starts_with(kind))).collect();
    assert!(points.len() >= killed.len() - 3, "{points:?}");
    for point in points {
        assert!(killed.contains(&point), "{point}");
    }
}

/// Whoever waits gets the lock, and learns of a death in it; who died elsewhere has not died in it.
#[test]
fn a_lock_passes_on_wherever_one_is_killed() {
    for point in LOCK {
        let things = Things::new();
        assert!(things.lock().try_acquire(things.me()));
        let child = Child::start("lock", &things, point);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                assert_eq!(things.lock().acquire_with(things.me(), &mut patience()), Acquired::Yes, "{point}");
                assert!(things.lock().release());
            });
            // Whether it takes the lock without having slept is open: so it has until its sleep ends by itself.
            let sleeps = ["lock: marked", "lock: woken"].contains(&point);
            until(point, || child.has_ended() || !sleeps && child.is_there());
            assert!(things.lock().release());
            child.dies();
            waiter.join().expect("ends");
        });
        assert_eq!(things.lock().acquire_with(things.me(), &mut patience()), Acquired::Yes, "{point}");
        assert_eq!(things.deaths(), u32::from(point == "lock: taken"), "{point}");
    }
}

#[test]
fn a_reentrant_lock_passes_on_whole_wherever_its_holder_is_killed() {
    for point in RLOCK {
        let things = Things::new();
        Child::start("rlock", &things, point).dies();
        let lock = things.rlock();
        assert_eq!(lock.acquire(things.owner(), &mut patience()), Acquired::Yes, "{point}");
        assert_eq!(lock.times(things.owner()), 1, "{point}");
        assert!(lock.lock().is_abandoned(), "{point}: it died in it");
        assert!(lock.release(things.owner()) && !lock.lock().is_locked(), "{point}");
    }
}

#[test]
fn all_permits_are_there_again_wherever_one_is_killed() {
    for point in PERMITS {
        let things = Things::new();
        things.make_semaphore(2);
        Child::start("permits", &things, point).dies();
        for _ in 0..2 {
            assert_eq!(things.semaphore().acquire(things.me(), &mut patience()), Ok(()), "{point}");
        }
        assert!(!things.semaphore().try_acquire(things.me()), "{point}: none is there twice");
    }
}

#[test]
fn a_permit_that_was_released_as_a_signal_wakes_who_waits_for_it() {
    for point in SIGNALS {
        let things = Things::new();
        things.make_semaphore(0);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| things.semaphore().acquire(things.me(), &mut patience()));
            Child::start("signal", &things, point).dies();
            assert_eq!(waiter.join().expect("ends"), Ok(()), "{point}");
        });
        assert!(!things.semaphore().try_acquire(things.me()), "{point}: there was one");
    }
}

#[test]
fn a_permit_that_one_was_woken_for_that_is_killed_goes_to_another() {
    let things = Things::new();
    things.make_semaphore(0);
    std::thread::scope(|scope| {
        let child = Child::start("permits", &things, "semaphore: woken");
        let waiter = scope.spawn(|| things.semaphore().acquire(things.me(), &mut patience()));
        until("it comes", || child.is_there());
        std::thread::sleep(Duration::from_millis(20));
        things.semaphore().release(things.me()).expect("there is room");
        child.dies();
        assert_eq!(waiter.join().expect("ends"), Ok(()));
    });
}

#[test]
fn who_waits_for_an_event_hears_of_it_though_the_one_that_set_it_is_killed() {
    let things = Things::new();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| things.event().wait(&mut patience()));
        Child::start("set", &things, "event: set").dies();
        assert_eq!(waiter.join().expect("ends"), Ok(()));
    });
    assert!(things.event().is_set());
}

#[test]
fn who_waits_for_an_event_hears_of_it_though_another_that_waited_is_killed() {
    let things = Things::new();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| things.event().wait(&mut patience()));
        Child::start("wait", &things, "event: marked").dies();
        things.event().set();
        assert_eq!(waiter.join().expect("ends"), Ok(()));
    });
}

/// Of two that wait for one thing, the one that is notified is killed on its way to it: the other gets it.
#[test]
fn a_notification_reaches_somebody_wherever_one_is_killed() {
    for point in CONDITION {
        let things = Things::new();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| (0..2).for_each(|_| things.take_one()));
            until("it waits", || things.condition().waiting() == 1);
            let child = Child::start("take", &things, point);
            // One that is notified at once has not slept.
            let sleeps = point == "condition: woken";
            until(point, || child.has_ended() || !sleeps && things.condition().waiting() == 2);
            // The one that has waited longest is notified: the next time that is the other.
            things.put_one();
            let both = || if child.has_ended() { 1 } else { 2 };
            until("it has one, and waits", || things.left() == 0 && things.condition().waiting() >= both());
            things.put_one();
            child.dies();
            waiter.join().expect("ends");
        });
    }
}

#[test]
fn who_is_notified_hears_of_it_though_the_notifier_is_killed() {
    let things = Things::new();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let guard = things.guard();
            assert_eq!(things.lock().acquire_with(things.me(), &mut patience()), Acquired::Yes);
            things.condition().wait(things.me(), &guard, &mut patience(), &mut patience())
        });
        until("it waits", || things.condition().waiting() == 1);
        Child::start("put", &things, "condition: notified").dies();
        assert_eq!(waiter.join().expect("ends"), (Waited::Notified, Acquired::Yes));
    });
    assert_eq!(things.deaths(), 1, "it died in the lock");
}

#[test]
fn a_barrier_breaks_or_lets_the_others_through_wherever_one_is_killed() {
    for point in PARTY {
        let things = Things::new();
        things.barrier().make(2);
        let child = Child::start("party", &things, point);
        until(point, || things.barrier().waiting() == 1 || child.has_ended());
        let passed = things.pass();
        child.dies();
        match point {
            "barrier: inside" => assert_eq!(passed, Err(Broken::Died), "{point}"),
            // It had come. Whether the other comes before its death is known, or after, is open.
            "barrier: arrived" => assert!(matches!(passed, Ok(()) | Err(Broken::Died)), "{point}: {passed:?}"),
            _ => assert_eq!(passed, Ok(()), "{point}"),
        }
        assert_eq!(things.barrier().is_broken(), passed.is_err(), "{point}");
    }
}

#[test]
fn a_barrier_breaks_or_lets_the_others_through_wherever_the_last_to_come_is_killed() {
    for point in LAST_PARTY {
        let things = Things::new();
        things.barrier().make(2);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| things.pass());
            until(point, || things.barrier().waiting() == 1);
            Child::start("party", &things, point).dies();
            let expected = if point == "barrier: changed" { Ok(()) } else { Err(Broken::Died) };
            assert_eq!(other.join().expect("ends"), expected, "{point}");
        });
    }
}
