//! What the workers of these tests can do, by name.

use std::sync::atomic::Ordering;

use shoal_core::domain;
use shoal_core::error::{Error, Result};
use shoal_core::memory::handle::{self, Handle};
use shoal_core::memory::heap::Lease;
use shoal_core::pool::worker::Worker;
use shoal_core::sync::lock::{Acquired, Lock};
use shoal_sys::pipe;
use shoal_sys::process::{self, Signal};

use crate::client::{kill, number};
use crate::support::{self, Answer};

/// What the pool's setup says when workers are to end before they are ready.
pub const REFUSE: &[u8] = b"refuse";

/// Before the first task.
pub fn start(worker: &Worker) -> Result<()> {
    if &*worker.setup()? == REFUSE {
        std::process::exit(5);
    }
    Ok(())
}

/// One task.
pub fn run(_: &mut (), worker: &Worker) -> Result<Answer> {
    let payload = worker.payload()?;
    let bytes = match &*worker.function()? {
        b"square" => number(&payload).pow(2).to_le_bytes().to_vec(),
        b"echo" => payload.to_vec(),
        // As many bytes as the first number says, all like the second.
        b"fill" => vec![number(&payload[8..]) as u8; number(&payload) as usize],
        b"who" => u64::from(process::pid()).to_le_bytes().to_vec(),
        b"zygote" => u64::from(process::parent_pid()).to_le_bytes().to_vec(),
        b"exit" => std::process::exit(number(&payload) as i32),
        b"panic" => std::panic::resume_unwind(Box::new("not to be seen")),
        b"kill" => die(),
        b"sleep" => loop {
            std::thread::sleep(std::time::Duration::MAX);
        },
        // As many bytes as the number says, touched and kept; then it waits.
        b"hoard" => {
            std::hint::black_box(vec![1u8; number(&payload) as usize]).leak();
            std::thread::sleep(std::time::Duration::from_secs(3600));
            vec![]
        }
        b"nap" => {
            std::thread::sleep(std::time::Duration::from_micros(number(&payload)));
            vec![]
        }
        // Its place among all that ask the same cell.
        b"place" => named(&payload)?.cell().number.fetch_add(1, Ordering::SeqCst).to_le_bytes().to_vec(),
        // The first so many times, by the cell's count; then tells how often it was called.
        b"die at first" | b"fail at first" => {
            let calls = named(&payload[8..])?.cell().number.fetch_add(1, Ordering::SeqCst) as u64 + 1;
            if calls <= number(&payload) {
                match &*worker.function()? {
                    b"die at first" => die(),
                    _ => return Err(Error::CannotStart(format!("call {calls}"))),
                }
            }
            calls.to_le_bytes().to_vec()
        }
        b"mutter and die" => {
            eprintln!("first line\n{}", String::from_utf8_lossy(&payload));
            eprint!("and no end");
            die()
        }
        b"report" | b"report and die" => {
            worker.reporter().report(&payload)?;
            match &*worker.function()? {
                b"report" => vec![],
                _ => die(),
            }
        }
        // To both streams, as it is.
        b"print" => {
            pipe::write_to_stdout(&payload).map_err(Error::Os)?;
            pipe::write_to_stderr(&payload).map_err(Error::Os)?;
            worker.reporter().spoke();
            vec![]
        }
        // Counts itself, then waits until the cell's word is no longer 0.
        b"count and wait" => {
            let gate = named(&payload)?;
            gate.cell().number.fetch_add(1, Ordering::SeqCst);
            while gate.cell().word.load(Ordering::SeqCst) == 0 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            vec![]
        }
        b"increment bytes" => {
            let block = named(&payload)?;
            // SAFETY: tests run one such task at a time and look only when it has ended.
            unsafe { &mut *support::part(&block, 0..block.len() as usize)? }.iter_mut().for_each(|byte| *byte += 1);
            vec![]
        }
        b"make a block" => {
            let block = worker.heap().allocate(payload.len() as u64)?;
            // SAFETY: nobody knows of it yet.
            unsafe { &mut *support::part(&block, 0..payload.len())? }.copy_from_slice(&payload);
            return Ok((domain::handle_of(&block)?.to_bytes().to_vec(), vec![block]));
        }
        b"die with a lease" => {
            let _lease = named(&payload)?;
            die()
        }
        b"die in the lock" => {
            let lock = named(&payload)?;
            while Lock::new(lock.cell()).acquire(worker.heap().me(), None) != Acquired::Yes {}
            die()
        }
        b"add under the lock" => {
            let (lock, counter) = (named(&payload[..handle::SIZE])?, named(&payload[handle::SIZE..])?);
            while Lock::new(lock.cell()).acquire(worker.heap().me(), None) != Acquired::Yes {}
            // In two steps: without the lock some would be lost.
            let seen = counter.cell().number.load(Ordering::Relaxed);
            std::thread::yield_now();
            counter.cell().number.store(seen + 1, Ordering::Relaxed);
            Lock::new(lock.cell()).release();
            vec![]
        }
        other => return Err(Error::CannotStart(format!("no function {}", String::from_utf8_lossy(other)))),
    };
    Ok((bytes, vec![]))
}

fn named(handle: &[u8]) -> Result<Lease> {
    domain::resolve(&Handle::from_bytes(handle)?)
}

/// Ends this process as the kernel's memory killer would.
fn die() -> ! {
    kill(process::pid(), Signal::KILL);
    unreachable!("SIGKILL can't be ignored")
}
