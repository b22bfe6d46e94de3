//! Checksums, computed over everything and with plain arithmetic: independent of the programs, which add up
//! only what changed.

use crc::{CRC_32_ISCSI, Crc};

static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The 16-bit words of `bytes` as one number, modulo 65,535: in this arithmetic adding words in any order,
/// with carries folded back in, is plain addition. An odd byte at the end stands high in its word.
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    let words =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)));
    words.fold(0, |sum, word| (sum + word) % 65_535)
}

/// The Internet checksum (RFC 1071) over these parts, of which each but the last has an even length.
pub(crate) fn internet(parts: &[&[u8]]) -> u16 {
    let total = parts.iter().fold(0, |total, part| (total + sum(part)) % 65_535);
    u16::try_from(65_535 - total).unwrap()
}

/// What a checksum becomes when what it covers goes from the sum `old` to the sum `new`: wrong by as much as
/// it was before.
pub(crate) fn moved(checksum: u16, old: u32, new: u32) -> u16 {
    u16::try_from((u32::from(checksum) + old + 65_535 - new) % 65_535).unwrap()
}

/// Whether two checksums say the same: 0 and 65,535 are two names of one number.
pub(crate) fn same(one: u16, other: u16) -> bool {
    one % 65_535 == other % 65_535
}

/// The CRC32c of SCTP (RFC 9260 appendix A) over a packet whose checksum field is taken for zero.
pub(crate) fn crc32c(packet: &[u8]) -> u32 {
    let mut digest = CRC32C.digest();
    digest.update(&packet[..8]);
    digest.update(&[0; 4]);
    digest.update(&packet[12..]);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(internet(&[&bytes]), !0xddf2);
        assert_eq!(internet(&[&bytes[..4], &bytes[4..]]), !0xddf2);
        assert!(same(0, 65_535) && !same(0, 1));
    }

    #[test]
    fn a_moved_checksum_is_that_of_the_new_content() {
        let (old, new) = ([1, 2, 3, 4, 5], [9, 9, 9, 0, 1]);
        assert!(same(moved(internet(&[&old]), sum(&old), sum(&new)), internet(&[&new])));
    }
}
