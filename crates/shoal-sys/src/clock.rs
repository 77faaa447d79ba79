//! The clock that all processes of a machine share.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on the monotonic clock: the same in every process at the same moment, and never going back.
pub fn nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // It counts from boot: neither part is negative, and nanoseconds last for 584 years.
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::testing::in_child;

    #[test]
    fn another_process_has_the_same_time() {
        let before = nanos();
        in_child(|| nanos() >= before).assert_ok();
        assert!(nanos() >= before);
    }
}
