//! What the arena's bookkeeping costs in time, in private memory and in fragmentation.
//!
//! The figures on memory and fragmentation come first, as plain lines; then the times, by criterion. No page of any
//! arena is touched here, but for the last group: `Space` only reckons.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use shoal_core::domain::host::Host;
use shoal_core::memory::space::{Piece, Space};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// SplitMix64: all runs see the same history.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A length from `2^low` up to `2^high`, every doubling equally likely.
    fn length(&mut self, low: u32, high: u32) -> u64 {
        let floor = 1 << (u64::from(low) + self.below(u64::from(high - low)));
        floor + self.below(floor)
    }
}

fn space_of(len: u64) -> Space {
    let mut space = Space::new();
    space.add_segment(0, 4 * KIB, len);
    space
}

/// A space that grows by segments of 64 MiB, and the pieces in use.
#[derive(Default)]
struct Growing {
    space: Space,
    pieces: Vec<Piece>,
}

impl Growing {
    fn allocate(&mut self, len: u64) {
        let piece = self.space.allocate(len).or_else(|| {
            let segment = self.space.stats().segments as u32;
            self.space.add_segment(segment, 4 * KIB, 64 * MIB);
            self.space.allocate(len)
        });
        self.pieces.push(piece.expect("a new segment has room"));
    }

    fn free_any(&mut self, random: &mut Random) {
        let piece = self.pieces.swap_remove(random.below(self.pieces.len() as u64) as usize);
        self.space.free(piece.segment, piece.offset).expect("it is in use");
    }
}

fn pairs(criterion: &mut Criterion) {
    for (group, lengths) in [("pair/small", [64, 1000, 32 * KIB]), ("pair/large", [33 * KIB, MIB, 100_000_000])] {
        let mut group = criterion.benchmark_group(group);
        for len in lengths {
            group.bench_with_input(BenchmarkId::from_parameter(len), &len, |bencher, &len| {
                let mut space = space_of(GIB);
                bencher.iter(|| {
                    let piece = space.allocate(black_box(len)).expect("there is room");
                    space.free(piece.segment, piece.offset).expect("it is in use")
                });
            });
        }
        group.finish();
    }
}

/// One piece out and one in, both random, among many.
fn steady_state(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("steady state");
    for (name, count, low, high) in [
        ("100k pieces, 64 B to 32 KiB", 100_000, 6, 15),
        ("100k pieces, 64 B to 1 MiB", 100_000, 6, 20),
        ("1k pieces, 32 KiB to 16 MiB", 1_000, 15, 24),
        ("100k pieces, 32 KiB to 1 MiB", 100_000, 15, 20),
    ] {
        group.bench_function(name, |bencher| {
            let (mut random, mut growing) = (Random(1), Growing::default());
            for _ in 0..count {
                growing.allocate(random.length(low, high));
            }
            bencher.iter(|| {
                growing.free_any(&mut random);
                growing.allocate(random.length(low, high));
            });
        });
    }
    group.finish();
}

/// A block out and back by its owner, the lease included; its pages are warm and stay where they are.
fn blocks(criterion: &mut Criterion) {
    let host = Host::current().expect("a host");
    let mut group = criterion.benchmark_group("block");
    for len in [64 * KIB, MIB, 100_000_000] {
        group.bench_with_input(BenchmarkId::from_parameter(len), &len, |bencher, &len| {
            bencher.iter(|| host.heap().allocate(black_box(len)).expect("memory"));
        });
    }
    group.finish();
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux has it");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a figure in KiB") * KIB
}

fn private_memory() {
    for len in [64, 1024, 8 * KIB] {
        let mut space = space_of(16 * GIB);
        let before = resident();
        for _ in 0..1_000_000 {
            space.allocate(len).expect("there is room");
        }
        println!("private memory of 1M pieces of {len} B: {:.1} B each", (resident() - before) as f64 / 1e6);
    }
}

/// Capacity over use after 300,000 random allocations, freeing at random what exceeds 1 GiB in use.
fn fragmentation() {
    for (name, low, high) in [("64 B to 16 MiB", 6, 24), ("64 B to 64 KiB", 6, 16), ("64 KiB to 16 MiB", 16, 24)] {
        let (mut random, mut growing, mut asked) = (Random(2), Growing::default(), 0.0);
        for _ in 0..300_000 {
            let len = random.length(low, high);
            growing.allocate(len);
            asked += len as f64 / growing.pieces.last().expect("just pushed").len as f64 / 300_000.0;
            while growing.space.stats().used > GIB {
                growing.free_any(&mut random);
            }
        }
        growing.space.trim();
        let stats = growing.space.stats();
        println!(
            "fragmentation, {name}: capacity/used {:.2}, {} pieces, {} MiB used, {} free extents, asked/granted {asked:.2}",
            stats.capacity as f64 / stats.used as f64,
            stats.pieces,
            stats.used / MIB,
            stats.free_extents,
        );
    }
}

fn figures(_: &mut Criterion) {
    private_memory();
    fragmentation();
}

criterion_group!(benches, figures, pairs, steady_state, blocks);
criterion_main!(benches);
