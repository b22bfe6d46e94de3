/// Number of 64-bit words of `ADDRESS_FILTER`.
pub const FILTER_WORDS: u32 = 1 << 14;

/// Odd, with well spread bits: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where an IPv4 address (network order) stands in `ADDRESS_FILTER`: word index and bit mask.
///
/// The filter has a bit set for the hash of each address that has a frontend. It answers "surely no
/// frontend" in one array read, which is what every connection that is not to a Service pays.
#[inline(always)]
#[must_use]
pub const fn filter_position4(address: [u8; 4]) -> (u32, u64) {
    position(u32::from_be_bytes(address) as u64)
}

/// Where an IPv6 address (network order) stands in `ADDRESS_FILTER`: word index and bit mask.
#[inline(always)]
#[must_use]
pub const fn filter_position6(address: [u8; 16]) -> (u32, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    let high = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let low = u64::from_be_bytes([i, j, k, l, m, n, o, p]);
    position(high.wrapping_mul(SPREAD) ^ low)
}

/// Number of bytes of `FLOW_FILTER`.
pub const FLOW_FILTER_BYTES: u32 = 1 << 17;

/// In what role an address stands in `FLOW_FILTER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Packets of some flow go to it: a frontend.
    Frontend = 0,
    /// Packets of some flow come from it: an endpoint.
    Endpoint = 1,
}

/// Index in `FLOW_FILTER` of an IPv4 address, a word in network order.
///
/// The programs set the byte when they open a flow, and never clear one: it answers "surely no flow" in one
/// array read, which is what every packet that is not of a flow pays, for each of its two addresses. Bytes
/// rather than bits, because not every kernel has an atomic or.
#[inline(always)]
#[must_use]
pub const fn flow_filter_position4([word]: [u32; 1], role: Role) -> u32 {
    flow_position(word as u64, role)
}

/// Index in `FLOW_FILTER` of an IPv6 address, four words in network order; see [`flow_filter_position4`].
#[inline(always)]
#[must_use]
pub const fn flow_filter_position6([a, b, c, d]: [u32; 4], role: Role) -> u32 {
    let (high, low) = ((b as u64) << 32 | a as u64, (d as u64) << 32 | c as u64);
    flow_position(high.wrapping_mul(SPREAD) ^ low, role)
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "17 bits are left after the shift")]
const fn flow_position(value: u64, role: Role) -> u32 {
    ((value ^ (role as u64) << 40).wrapping_mul(SPREAD) >> (64 - FLOW_FILTER_BYTES.trailing_zeros())) as u32
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "20 bits are left after the shift")]
const fn position(value: u64) -> (u32, u64) {
    let bit = (value.wrapping_mul(SPREAD) >> (64 - FILTER_WORDS.trailing_zeros() - 6)) as u32;
    (bit / 64, 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn positions_are_inside_the_filter() {
        for last in 0..=255 {
            let (word, mask) = filter_position4([255, 255, last, last]);
            assert!(word < FILTER_WORDS && mask.is_power_of_two());
            let (word, mask) = filter_position6([last; 16]);
            assert!(word < FILTER_WORDS && mask.is_power_of_two());
        }
    }

    #[test]
    fn a_service_range_spreads_over_the_filter() {
        let v4: HashSet<_> =
            (0..50_000_u32).map(|n| filter_position4((0x0a60_0000 + n).to_be_bytes())).collect();
        let v6: HashSet<_> = (0..50_000_u128)
            .map(|n| filter_position6(((0xfd00_0010_0096_u128 << 80) + n).to_be_bytes()))
            .collect();
        // 50,000 random draws from 2^20 bits would collide about 1,180 times.
        assert!(v4.len() > 48_000, "{}", v4.len());
        assert!(v6.len() > 48_000, "{}", v6.len());
    }
}
