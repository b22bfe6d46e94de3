/// A slot index in `0..len`, uniform over a uniform 32-bit `random`; 0 when `len` is 0.
///
/// Multiply-and-shift (Lemire, "Fast Random Integer Generation in an Interval", 2019): no index is
/// favoured for being low, as `random % len` would, and no index differs from another by more than
/// `len / 2^32`.
#[inline(always)]
#[must_use]
pub const fn pick(random: u32, len: u32) -> u32 {
    ((random as u64 * len as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::pick;

    #[test]
    fn stays_in_range_and_reaches_both_ends() {
        for len in [1, 2, 3, 7, 1000, u32::MAX] {
            assert_eq!(pick(0, len), 0);
            assert_eq!(pick(u32::MAX, len), len - 1);
        }
        assert_eq!(pick(u32::MAX, 0), 0);
    }

    #[test]
    fn every_index_gets_its_share() {
        let mut seen = [0_u32; 7];
        for random in (0..=u32::MAX).step_by(65_521) {
            seen[pick(random, 7) as usize] += 1;
        }
        let (low, high) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
        assert!(high - low <= 1, "{seen:?}");
    }
}
