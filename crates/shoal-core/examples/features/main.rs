//! Features of photographs in one shared block, by all cores, and a reset of millions of them under a lock: the engine
//! used from Rust, without Python.
//!
//! ```text
//! cargo run --release -p shoal-core --example features -- [--size-mb N] [--positions N] [--workers N] PHOTO...
//! ```
//!
//! PHOTO is a .jpg or .png file. All are used again and again until their features fill N MB (default 200). Then the
//! features at N positions (default 5 000 000) anywhere in the block are set to 0, 10 000 a task. Everything is compared
//! with what one process computes alone; the exit code is 1 if a byte differs.
//!
//! Where to look: [`main`] and [`Desk`] for how functions get to workers, [`on_all_cores`] for blocks, a lock, a counter
//! and the pool, [`run_all`] for submitting and waiting. The picture processing itself is in `filters.rs`.

#![allow(unsafe_code, reason = "payloads in shared memory")]

#[path = "../support/mod.rs"]
mod support;

mod filters;
mod options;
mod photos;
mod report;

use std::error::Error;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use filters::{CHANNELS, FEATURES, Photo, features};
use options::Options;
use photos::Decoded;
use report::{Line, Step};
use shoal_core::domain;
use shoal_core::domain::host::{Host, Output};
use shoal_core::memory::handle::{self, Handle};
use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;
use shoal_core::pool::client::{Config, Limits, Pool};
use shoal_core::pool::tasks::{Inbox, Outcome, Reply};
use shoal_core::pool::worker::Worker;
use shoal_core::sync::bell::Tone;
use shoal_core::sync::lock::{Acquired, Lock};
use support::Answer;

/// Rows of a task. The serial run cuts elsewhere, which must not make a difference.
const BAND_ROWS: usize = 64;
const SERIAL_ROWS: usize = 80;
/// Positions of a task.
const PER_TASK: usize = 10_000;

fn main() -> ExitCode {
    support::enter(Desk::start, Desk::run);
    match Options::parse(std::env::args().skip(1)).map_err(Into::into).and_then(|options| job(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("features: {error}");
            ExitCode::from(2)
        }
    }
}

/// The whole job. `false`: the results differ.
fn job(options: &Options) -> Result<bool, Box<dyn Error>> {
    let photos = options.photos.iter().map(|path| photos::decode(path)).collect::<Result<Vec<_>, _>>()?;
    let mut random = SplitMix64(0);
    let size = bands(&photos, options.bytes, BAND_ROWS).iter().map(Band::bytes).sum();
    let positions: Vec<u64> = (0..options.positions).map(|_| random.next() % size as u64).collect();
    let pixels: usize = photos.iter().map(|photo| photo.pixels.len() / CHANNELS).sum();
    println!(
        "{} photographs, {:.1} million pixels; {:.0} MB of features; {} positions to reset; {} workers",
        photos.len(),
        pixels as f64 / 1e6,
        size as f64 / 1e6,
        positions.len(),
        options.workers
    );
    let (shared, shoal) = on_all_cores(options, &photos, size, &positions)?;
    let (alone, serial) = on_one_core(options, &photos, size, &positions);
    // SAFETY: the pool is gone, and nobody else ever had a handle.
    let different = unsafe { shared.bytes() }?.iter().zip(&alone).filter(|(ours, theirs)| ours != theirs).count();
    print!("{}", report::table(&serial, &shoal));
    if different == 0 {
        println!("all {size} bytes are those of the serial run");
    } else {
        println!("{different} of {size} bytes are not those of the serial run");
    }
    Ok(different == 0)
}

// ---- what is to be done --------------------------------------------------------------------------------------------

/// Some rows of a photograph, and where their features go.
struct Band {
    photo: usize,
    width: usize,
    rows: Range<usize>,
    out: usize,
}

impl Band {
    fn bytes(&self) -> usize {
        self.rows.len() * self.width * FEATURES
    }
}

/// Cuts the photographs into bands, again and again, until their features fill `wanted` bytes and no more than a row
/// above.
fn bands(photos: &[Decoded], wanted: usize, rows_of_band: usize) -> Vec<Band> {
    let (mut bands, mut out) = (vec![], 0);
    for (index, photo) in photos.iter().enumerate().cycle() {
        let row_bytes = photo.width * FEATURES;
        let rows = photo.height().min((wanted - out).div_ceil(row_bytes));
        for first in (0..rows).step_by(rows_of_band) {
            let band = first..rows.min(first + rows_of_band);
            bands.push(Band { photo: index, width: photo.width, rows: band.clone(), out });
            out += band.len() * row_bytes;
        }
        if out >= wanted {
            break;
        }
    }
    bands
}

/// Random enough, and the same for all.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

// ---- by one process ------------------------------------------------------------------------------------------------

fn on_one_core(options: &Options, photos: &[Decoded], size: usize, positions: &[u64]) -> (Vec<u8>, Vec<Step>) {
    let started = Instant::now();
    let mut all = vec![0; size];
    for band in bands(photos, options.bytes, SERIAL_ROWS) {
        let out = &mut all[band.out..][..band.bytes()];
        features(&photos[band.photo].photo(), band.rows, out);
    }
    let computed = Instant::now();
    for position in positions {
        all[*position as usize] = 0;
    }
    let reset = computed.elapsed();
    (all, vec![("share", Duration::ZERO), ("features", computed - started), ("reset", reset)])
}

// ---- by all workers ------------------------------------------------------------------------------------------------

/// Does the job with a pool; returns the block of features.
fn on_all_cores(
    options: &Options,
    photos: &[Decoded],
    size: usize,
    positions: &[u64],
) -> Result<(Lease, Vec<Step>), Box<dyn Error>> {
    let started = Instant::now();
    let heap = Host::current()?.heap().clone();
    let desk = Desk {
        photos: heap.allocate(photos.iter().map(|photo| photo.pixels.len() as u64).sum())?,
        features: heap.allocate(size as u64)?,
        lock: heap.allocate_cell(Kind::Lock)?,
        done: heap.allocate_cell(Kind::Cell)?,
    };
    let (mut starts, mut end) = (vec![], 0);
    for photo in photos {
        let start = end;
        starts.push(start);
        end += photo.pixels.len();
        // SAFETY: nobody else has a handle yet.
        unsafe { &mut *support::part(&desk.photos, start..end)? }.copy_from_slice(&photo.pixels);
    }
    let (launch, setup) = (support::launch()?, desk.handles()?);
    let pool = Pool::new(&Config {
        workers: options.workers,
        launch,
        preload: vec![],
        setup,
        memory_limit: None,
        limits: Limits::default(),
        output: Output::Shared,
        speakers: None,
    })?;
    let shared = Instant::now();

    let bands = bands(photos, options.bytes, BAND_ROWS);
    let calls = bands.iter().map(|band| {
        let len = photos[band.photo].pixels.len();
        let numbers = [starts[band.photo], len, band.width, band.rows.start, band.rows.end, band.out];
        to_bytes(&numbers.map(|number| number as u64))
    });
    let pixels = size / FEATURES;
    run_all(&pool, b"features", calls, &Line::new("features", "pixels", pixels), &desk.done)?;
    let computed = Instant::now();

    desk.done.cell().number.store(0, Ordering::Relaxed);
    let calls = positions.chunks(PER_TASK).map(to_bytes);
    run_all(&pool, b"reset", calls, &Line::new("reset", "positions", positions.len()), &desk.done)?;
    let reset = computed.elapsed();
    Ok((desk.features.clone(), vec![("share", shared - started), ("features", computed - shared), ("reset", reset)]))
}

/// Submits a call of `function` for each of `payloads` and waits for all of them.
fn run_all(
    pool: &Pool,
    function: &[u8],
    payloads: impl Iterator<Item = Vec<u8>>,
    line: &Line,
    done: &Lease,
) -> Result<(), Box<dyn Error>> {
    let (function, inbox) = (pool.function(function, vec![])?, Inbox::new());
    let mut left = 0;
    for payload in payloads {
        pool.submit(&function, 0, &payload, vec![], Reply::Inbox(inbox.clone(), left))?;
        left += 1;
    }
    let mut shown = Instant::now();
    while left > 0 {
        // Lazily: there is nothing to do here until all is done, but to show how far they are.
        pool.wait(
            Tone::Idle,
            || !inbox.is_empty(),
            None,
            || {
                if shown.elapsed() >= Duration::from_millis(100) {
                    line.show(done.cell().number.load(Ordering::Relaxed));
                    shown = Instant::now();
                }
                false
            },
        );
        for (_, outcome) in inbox.take_all() {
            left -= 1;
            match outcome {
                Outcome::Done { kind: support::VALUE, .. } => {}
                Outcome::Done { payload, .. } => return Err(String::from_utf8_lossy(payload.bytes()?).into()),
                other => return Err(format!("{other:?}").into()),
            }
        }
    }
    line.end(done.cell().number.load(Ordering::Relaxed));
    Ok(())
}

/// What everybody shares. A worker has one from its start to its end; the client hands it over as handles.
struct Desk {
    photos: Lease,
    features: Lease,
    lock: Lease,
    /// A cell whose number counts pixels, then positions.
    done: Lease,
}

impl Desk {
    fn handles(&self) -> shoal_core::Result<Vec<u8>> {
        let handles = [&self.photos, &self.features, &self.lock, &self.done].map(domain::handle_of);
        handles.into_iter().try_fold(vec![], |bytes, handle| Ok([&bytes[..], &handle?.to_bytes()].concat()))
    }

    /// In a worker, before its first task.
    fn start(worker: &Worker) -> shoal_core::Result<Desk> {
        let setup = worker.setup()?;
        let mut leases = setup.chunks(handle::SIZE).map(|bytes| domain::resolve(&Handle::from_bytes(bytes)?));
        let mut next = || leases.next().unwrap_or(Err(shoal_core::Error::Damaged("setup")));
        Ok(Desk { photos: next()?, features: next()?, lock: next()?, done: next()? })
    }

    /// In a worker, for each task.
    fn run(&mut self, worker: &Worker) -> shoal_core::Result<Answer> {
        let numbers = from_bytes(&worker.payload()?);
        let done = match &*worker.function()? {
            b"features" => self.compute(&numbers)?,
            b"reset" => self.reset(&numbers, worker.heap().me())?,
            _ => return Err(shoal_core::Error::Damaged("function")),
        };
        self.done.cell().number.fetch_add(done as u64, Ordering::Relaxed);
        Ok(Answer::default())
    }

    fn compute(&self, numbers: &[usize]) -> shoal_core::Result<usize> {
        let &[start, len, width, first, end, out] = numbers else {
            return Err(shoal_core::Error::Damaged("arguments"));
        };
        // SAFETY: the photographs were written before the pool was there, and never again.
        let pixels = &unsafe { self.photos.bytes() }?[start..start + len];
        let rows = first..end;
        let bytes = rows.len() * width * FEATURES;
        // SAFETY: no other task is about these rows.
        let out = unsafe { &mut *support::part(&self.features, out..out + bytes)? };
        features(&Photo { width, pixels }, rows, out);
        Ok(bytes / FEATURES)
    }

    fn reset(&self, positions: &[usize], me: u16) -> shoal_core::Result<usize> {
        let lock = Lock::new(self.lock.cell());
        // A signal ends a wait, and none means anything here.
        while lock.acquire(me, None) != Acquired::Yes {}
        // SAFETY: whoever writes now holds the lock, and nobody reads.
        let all = unsafe { &mut *support::part(&self.features, 0..self.features.len() as usize)? };
        for position in positions {
            all[*position] = 0;
        }
        lock.release();
        Ok(positions.len())
    }
}

fn to_bytes(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn from_bytes(bytes: &[u8]) -> Vec<usize> {
    bytes.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number) as usize).collect()
}
