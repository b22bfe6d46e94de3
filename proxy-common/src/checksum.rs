//! The Internet checksum (RFC 1071), changed rather than made anew (RFC 1624). Sums are over words as they stand in
//! memory: one's complement addition does not mind the byte order.

/// What takes a sum from words that add up to `old` to words that add up to `new`; `words` is how many there are.
#[inline(always)]
#[must_use]
pub const fn difference(old: u64, new: u64, words: u64) -> u32 {
    fold32(new + (words * 0xffff_ffff - old))
}

/// Both differences in one.
#[inline(always)]
#[must_use]
pub const fn both(one: u32, other: u32) -> u32 {
    fold32(one as u64 + other as u64)
}

/// A checksum after what it covers has changed by `difference`.
#[inline(always)]
#[must_use]
pub const fn changed(checksum: u16, difference: u32) -> u16 {
    !fold16((!checksum) as u64 + difference as u64)
}

/// The checksum of words that add up to `sum`.
#[inline(always)]
#[must_use]
pub const fn of(sum: u64) -> u16 {
    !fold16(sum)
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "folded")]
const fn fold32(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "folded")]
const fn fold16(sum: u64) -> u16 {
    let sum = fold32(sum) as u64;
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As RFC 1071 section 4.1 has it.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum: u32 =
            bytes.chunks_exact(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum();
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    fn words(bytes: &[u8]) -> u64 {
        bytes.chunks_exact(4).map(|word| u64::from(u32::from_ne_bytes(word.try_into().unwrap()))).sum()
    }

    #[test]
    fn changing_is_as_good_as_making_anew() {
        let mut packet = [0_u8; 40];
        let mut state = 1_u32;
        for round in 0..10_000 {
            for byte in &mut packet {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
            let before = plain(&packet);
            assert_eq!(of(words(&packet)), before);
            let old = words(&packet[8..16]);
            packet[8..16].copy_from_slice(&(u64::from(state) * round).to_le_bytes());
            assert_eq!(changed(before, difference(old, words(&packet[8..16]), 2)), plain(&packet));
        }
    }

    #[test]
    fn two_differences_are_one() {
        let (one, other) = (difference(0xffff_fffe, 7, 1), difference(3, 0xffff_ffff, 1));
        assert_eq!(changed(changed(0x1234, one), other), changed(0x1234, both(one, other)));
    }
}
