//! Workers out of the program itself: all that a Rust program adds to the engine to have a pool.
//!
//! A pool's zygote is a program that is started afresh and forks the workers. Here it is this same executable, which
//! knows by its first argument that it is to be one:
//!
//! ```text
//! fn main() {
//!     support::enter(start, run);                       // returns in the client only
//!     let pool = Pool::new(&Config { launch: support::launch()?, … })?;
//! }
//! ```
//!
//! Functions travel by name, as code is the same in all these processes: [`shoal_core::pool::worker::Worker::function`]
//! is the name, `payload` are the arguments, in whatever form the program likes.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::fd::AsFd;
use std::process::exit;

use shoal_core::domain;
use shoal_core::domain::host::Launch;
use shoal_core::error::{Error, Result};
use shoal_core::memory::heap::Lease;
use shoal_core::pool::terms::AGAIN;
use shoal_core::pool::worker::{Seat, Waited, Worker};
use shoal_core::pool::zygote::{Request, Zygote};
use shoal_sys::process;
use shoal_sys::socket::Seqpacket;

/// The first argument of a zygote.
const ZYGOTE: &str = "shoal-zygote";

/// The kind of a result: the task's own bytes.
pub const VALUE: u16 = 0;
/// The kind of a result: the text of an error.
pub const ERROR: u16 = 1;

/// What a task gives back: its bytes, and the leases of blocks whose handles are among them.
pub type Answer = (Vec<u8>, Vec<Lease>);

/// Part of a shared block. It stays where it is as long as the lease lives; who may read or write it when is for the
/// caller to know.
///
/// # Panics
/// If the block has fewer bytes.
pub fn part(block: &Lease, bytes: Range<usize>) -> Result<*mut [u8]> {
    assert!(bytes.start <= bytes.end && bytes.end as u64 <= block.len(), "bytes: {bytes:?} of {}", block.len());
    Ok(std::ptr::slice_from_raw_parts_mut(block.address()?.wrapping_add(bytes.start), bytes.len()))
}

/// Starts this executable as a zygote.
pub fn launch() -> Result<Launch> {
    Ok(Launch { program: std::env::current_exe()?.into(), args: vec![ZYGOTE.into()], envs: vec![] })
}

/// To be called first in `main`: returns in the client, and never in a zygote or worker.
///
/// `start` makes what a worker keeps between its tasks; a worker in which it fails could not be started. `run` runs one
/// task. Its error ends this try of the task, not the worker; a panic ends both.
pub fn enter<S>(start: fn(&Worker) -> Result<S>, run: fn(&mut S, &Worker) -> Result<Answer>) {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == ZYGOTE) {
        match be_zygote(start, run) {
            Ok(()) => exit(0),
            // The client or the zygote has ended while this worker was starting: nobody cares any more.
            Err(Error::Gone) => exit(1),
            Err(Error::Os(error)) if error.kind() == ErrorKind::BrokenPipe => exit(1),
            Err(error) => {
                eprintln!("{} (process {}): {error}", std::env::args().next().unwrap_or_default(), process::pid());
                exit(1);
            }
        }
    }
}

/// Forks until the client is gone. Returns in the zygote at its end, and in every worker at its end.
fn be_zygote<S>(start: fn(&Worker) -> Result<S>, run: fn(&mut S, &Worker) -> Result<Answer>) -> Result<()> {
    // Tasks must not find the socket where they look for their standard input.
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?).map_err(std::io::Error::from)?;
    let mut zygote = Zygote::new(Seqpacket::from_fd(socket))?;
    zygote.ready()?;
    loop {
        match zygote.next_request()? {
            Request::Preload(_) => {}
            Request::End => return Ok(()),
            Request::Fork(seat) => {
                // SAFETY: this is the main thread, and nothing in a zygote starts another.
                match unsafe { process::fork() } {
                    Ok(Some(pid)) => zygote.forked(seat, pid)?,
                    Ok(None) => {
                        // With its socket: the client must see the end of it when the zygote dies.
                        drop(zygote);
                        return be_worker(seat, start, run);
                    }
                    Err(error) => zygote.failed(seat.place, &error)?,
                }
            }
        }
    }
}

/// Runs tasks until the pool is over.
fn be_worker<S>(seat: Seat, start: fn(&Worker) -> Result<S>, run: fn(&mut S, &Worker) -> Result<Answer>) -> Result<()> {
    let mut worker = Worker::new(seat)?;
    domain::settle(worker.heap().clone());
    let mut state = start(&worker)?;
    worker.ready();
    loop {
        if worker.try_next() {
            let ended = match run(&mut state, &worker) {
                Ok((bytes, leases)) => worker.finish(VALUE, 1, &bytes, leases),
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                worker.finish(ERROR | AGAIN, 1, error.to_string().as_bytes(), vec![])?;
            }
        } else if worker.wait(false) == Waited::Over {
            return Ok(());
        }
    }
}
