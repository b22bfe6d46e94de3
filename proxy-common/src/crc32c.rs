//! The checksum of SCTP (RFC 9260 appendix A): CRC32c over the whole packet. It is linear: when the first four bytes
//! change, it changes by what their difference contributes, which depends on nothing but the packet's length.

/// Castagnoli's polynomial, lowest power first.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// A packet's length in bytes has at most so many digits to the base of 16.
const DIGITS: usize = 4;

/// For each digit of a length and each value of it: what each nibble becomes when it is multiplied by x^(8·value·16^digit),
/// which is that many zero bytes more.
static SHIFTS: [[[[u32; 16]; 8]; 16]; DIGITS] = shifts();

/// How much the checksum of a packet of `length` bytes, less than 2^16, changes when its first four bytes, read with the
/// lowest first, change by `difference` (an exclusive or).
///
/// By tables and without a branch, for the verifier's sake: of a choice for each bit it would follow every combination.
#[inline(always)]
#[must_use]
pub fn change(difference: u32, length: u32) -> u32 {
    let mut crc = difference;
    for (digit, values) in SHIFTS.iter().enumerate() {
        let mut shifted = 0;
        for (number, nibble) in values[(length >> (4 * digit) & 0xf) as usize].iter().enumerate() {
            shifted ^= nibble[(crc >> (4 * number) & 0xf) as usize];
        }
        crc = shifted;
    }
    crc
}

const fn times_x(value: u32) -> u32 {
    value >> 1 ^ if value & 1 == 1 { POLYNOMIAL } else { 0 }
}

const fn product(one: u32, other: u32) -> u32 {
    let (mut sum, mut term, mut bit) = (0, other, 0);
    while bit < 32 {
        if one >> (31 - bit) & 1 == 1 {
            sum ^= term;
        }
        term = times_x(term);
        bit += 1;
    }
    sum
}

#[allow(clippy::cast_possible_truncation, reason = "a nibble")]
const fn shifts() -> [[[[u32; 16]; 8]; 16]; DIGITS] {
    const ONE: u32 = 1 << 31;
    // x^8; the highest bit is x^0.
    let mut unit = ONE >> 8;
    let mut all = [[[[0; 16]; 8]; 16]; DIGITS];
    let mut digit = 0;
    while digit < DIGITS {
        let (mut value, mut shift) = (0, ONE);
        while value < 16 {
            let mut number = 0;
            while number < 8 {
                let mut nibble = 0;
                while nibble < 16 {
                    all[digit][value][number][nibble] = product(shift, (nibble as u32) << (4 * number));
                    nibble += 1;
                }
                number += 1;
            }
            shift = product(shift, unit);
            value += 1;
        }
        unit = shift;
        digit += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, as the definition has it.
    fn plain(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            }
        }
        !crc
    }

    #[test]
    fn the_definition_knows_the_check_value() {
        assert_eq!(plain(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn changing_is_as_good_as_making_anew() {
        let mut packet = [0_u8; 3000];
        for (at, byte) in packet.iter_mut().enumerate() {
            *byte = u8::try_from(at * 7 % 251).unwrap();
        }
        for length in [4, 5, 12, 13, 16, 100, 1499, 1500, 3000] {
            let packet = &mut packet[..length];
            let before = plain(packet);
            let old = u32::from_le_bytes(packet[..4].try_into().unwrap());
            let new = old.rotate_left(7) ^ 0x5a5a_0001;
            packet[..4].copy_from_slice(&new.to_le_bytes());
            assert_eq!(
                before ^ change(old ^ new, u32::try_from(length).unwrap()),
                plain(packet),
                "{length} bytes"
            );
        }
    }
}
