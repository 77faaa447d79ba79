//! How many CPUs this process may use.

use crate::cgroup::{Group, groups};

/// Room for the affinity of 65 536 CPUs, eight times what a kernel can be built for.
const MASK_WORDS: usize = 1024;

/// The CPUs that the calling thread may run on, or fewer if a control group's quota grants less time than that.
///
/// A quota of 1.5 CPUs counts as 2: one process would not use it up. At least 1.
pub fn cpu_count() -> usize {
    let quotas = groups("cpu").into_iter().filter_map(|group| match group {
        Group::V2(_) => parse_max(&group.read("cpu.max")?),
        Group::V1(_) => parse_cfs(&group.read("cpu.cfs_quota_us")?, &group.read("cpu.cfs_period_us")?),
    });
    quotas.fold(affinity(), usize::min).max(1)
}

/// The number of CPUs in this thread's affinity mask.
fn affinity() -> usize {
    // By libc: rustix has a mask of 1024 CPUs, which kernels for more refuse to fill.
    let mut mask = [0u64; MASK_WORDS];
    // SAFETY: the address and size of a live buffer, for which any bytes are valid.
    let code = unsafe { libc::sched_getaffinity(0, size_of_val(&mask), (&raw mut mask).cast()) };
    assert_eq!(code, 0, "the affinity can be read: {}", std::io::Error::last_os_error());
    mask.iter().map(|word| word.count_ones() as usize).sum()
}

/// The CPUs that version 2 grants: "quota period", or "max period" for no limit.
fn parse_max(max: &str) -> Option<usize> {
    let (quota, period) = max.trim().split_once(' ')?;
    parse_cfs(quota, period)
}

/// The CPUs that version 1 grants: two numbers, the quota negative for no limit.
fn parse_cfs(quota: &str, period: &str) -> Option<usize> {
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok().filter(|&period| period > 0)?;
    usize::try_from(quota.div_ceil(period)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::testing::in_child;

    #[test]
    fn a_quota_is_rounded_up_to_whole_cpus() {
        assert_eq!(parse_max("200000 100000\n"), Some(2));
        assert_eq!(parse_max("150000 100000\n"), Some(2));
        assert_eq!(parse_max("5000 100000\n"), Some(1));
        assert_eq!(parse_cfs("350000\n", "100000\n"), Some(4));
    }

    #[test]
    fn no_quota_is_no_limit() {
        assert_eq!(parse_max("max 100000\n"), None);
        assert_eq!(parse_cfs("-1\n", "100000\n"), None);
    }

    #[test]
    fn what_is_no_quota_is_no_limit() {
        for text in ["", "max", "100000", "1 0", "a b"] {
            assert_eq!(parse_max(text), None);
        }
    }

    #[test]
    fn there_is_a_cpu_and_no_more_than_the_affinity_allows() {
        assert!((1..=affinity()).contains(&cpu_count()));
    }

    #[test]
    fn a_process_bound_to_one_cpu_has_one() {
        in_child(|| {
            // SAFETY: takes no arguments that could be wrong.
            let here = unsafe { libc::sched_getcpu() } as usize;
            let mut mask = [0u64; MASK_WORDS];
            mask[here / 64] = 1 << (here % 64);
            // SAFETY: the address and size of a live buffer.
            let code = unsafe { libc::sched_setaffinity(0, size_of_val(&mask), (&raw const mask).cast()) };
            code == 0 && cpu_count() == 1
        })
        .assert_ok();
    }
}
