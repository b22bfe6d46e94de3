//! SCTP packets (RFC 9260): a common header with a CRC32c, and chunks.

use crc::{CRC_32_ISCSI, Crc};

/// Number of the protocol in an IP header.
pub(super) const PROTOCOL: i32 = 132;

/// Chunk types.
pub(super) const DATA: u8 = 0;
pub(super) const INIT: u8 = 1;
pub(super) const INIT_ACK: u8 = 2;
pub(super) const SACK: u8 = 3;
pub(super) const ABORT: u8 = 6;
pub(super) const SHUTDOWN: u8 = 7;
pub(super) const SHUTDOWN_ACK: u8 = 8;
pub(super) const COOKIE_ECHO: u8 = 10;
pub(super) const COOKIE_ACK: u8 = 11;
pub(super) const SHUTDOWN_COMPLETE: u8 = 14;

/// Bytes before the first chunk.
const COMMON: usize = 12;

/// A message in one chunk, the first and last of it.
const WHOLE: u8 = 3;

/// Parameter of INIT ACK.
const STATE_COOKIE: u16 = 7;

/// How much is taken before it is acknowledged, in bytes.
const WINDOW: u32 = 1 << 16;

const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// A packet of one chunk; that is all that is sent here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    /// The tag that its receiver has chosen; 0 with INIT.
    pub(super) tag: u32,
    pub(super) chunk: Chunk,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) body: Vec<u8>,
}

/// Why bytes are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// A header or chunk is cut short.
    Short,
    /// Another CRC32c than its content has.
    Checksum,
}

impl Packet {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let length = u16::try_from(4 + self.chunk.body.len()).unwrap_or(u16::MAX);
        let mut bytes = Vec::new();
        bytes.extend(self.source_port.to_be_bytes());
        bytes.extend(self.destination_port.to_be_bytes());
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend([self.chunk.kind, self.chunk.flags]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(&self.chunk.body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        // Alone in the packet, the checksum is the other way round.
        let checksum = CHECKSUM.checksum(&bytes).to_le_bytes();
        bytes[8..COMMON].copy_from_slice(&checksum);
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Broken> {
        let mut zeroed = bytes.to_vec();
        zeroed.get_mut(8..COMMON).ok_or(Broken::Short)?.fill(0);
        if bytes[8..COMMON] != CHECKSUM.checksum(&zeroed).to_le_bytes() {
            return Err(Broken::Checksum);
        }
        let short = |at: usize| number16(bytes, at).ok_or(Broken::Short);
        let length = usize::from(short(COMMON + 2)?);
        let body = bytes.get(COMMON + 4..COMMON + length).ok_or(Broken::Short)?;
        Ok(Self {
            source_port: short(0)?,
            destination_port: short(2)?,
            tag: number(bytes, 4).ok_or(Broken::Short)?,
            chunk: Chunk { kind: bytes[COMMON], flags: bytes[COMMON + 1], body: body.to_vec() },
        })
    }
}

impl Chunk {
    /// One that is no more than its type.
    pub(super) fn bare(kind: u8) -> Self {
        Self { kind, flags: 0, body: Vec::new() }
    }

    /// INIT: the tag for packets to its sender, and the number of its first DATA.
    pub(super) fn init(tag: u32, first: u32) -> Self {
        Self { kind: INIT, flags: 0, body: beginning(tag, first) }
    }

    /// INIT ACK: the same, and a cookie to be sent back.
    pub(super) fn init_ack(tag: u32, first: u32, cookie: [u8; 8]) -> Self {
        let mut body = beginning(tag, first);
        body.extend(STATE_COOKIE.to_be_bytes());
        body.extend(12_u16.to_be_bytes());
        body.extend(cookie);
        Self { kind: INIT_ACK, flags: 0, body }
    }

    pub(super) fn cookie_echo(cookie: &[u8]) -> Self {
        Self { kind: COOKIE_ECHO, flags: 0, body: cookie.to_vec() }
    }

    /// A whole message on stream 0.
    pub(super) fn data(sequence: u32, message: &[u8]) -> Self {
        let mut body = sequence.to_be_bytes().to_vec();
        // Stream, number in it, payload protocol: all zero.
        body.extend([0; 8]);
        body.extend(message);
        Self { kind: DATA, flags: WHOLE, body }
    }

    /// Everything to this number has arrived; no gaps, no duplicates.
    pub(super) fn sack(sequence: u32) -> Self {
        let body = [sequence, WINDOW, 0].iter().flat_map(|word| word.to_be_bytes()).collect();
        Self { kind: SACK, flags: 0, body }
    }

    pub(super) fn shutdown(sequence: u32) -> Self {
        Self { kind: SHUTDOWN, flags: 0, body: sequence.to_be_bytes().to_vec() }
    }

    /// The tag and the first number of INIT and INIT ACK.
    pub(super) fn beginning(&self) -> Option<(u32, u32)> {
        Some((number(&self.body, 0)?, number(&self.body, 12)?))
    }

    /// The cookie of INIT ACK, where it is the first parameter.
    pub(super) fn cookie(&self) -> Option<&[u8]> {
        let length = usize::from(number16(&self.body, 18)?);
        self.body.get(20..16 + length).filter(|_| number16(&self.body, 16) == Some(STATE_COOKIE))
    }

    /// The number and the message of DATA; the number of SACK and SHUTDOWN.
    pub(super) fn sequence(&self) -> Option<u32> {
        number(&self.body, 0)
    }

    /// The message of DATA.
    pub(super) fn message(&self) -> &[u8] {
        self.body.get(12..).unwrap_or_default()
    }
}

fn beginning(tag: u32, first: u32) -> Vec<u8> {
    let streams = 1 << 16 | 1;
    [tag, WINDOW, streams, first].iter().flat_map(|word: &u32| word.to_be_bytes()).collect()
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chunk: Chunk) -> Packet {
        Packet { source_port: 1000, destination_port: 80, tag: 0x0102_0304, chunk }
    }

    #[test]
    fn what_is_written_is_read() {
        for chunk in [Chunk::data(7, b"hello"), Chunk::init_ack(1, 2, [9; 8]), Chunk::bare(COOKIE_ACK)] {
            let packet = packet(chunk);
            assert_eq!(Packet::parse(&packet.bytes()), Ok(packet));
        }
        assert_eq!(Chunk::init_ack(1, 2, [9; 8]).cookie(), Some(&[9; 8][..]));
        assert_eq!(Chunk::init_ack(1, 2, [9; 8]).beginning(), Some((1, 2)));
        assert_eq!(Chunk::data(7, b"hello").message(), b"hello");
    }

    #[test]
    fn a_changed_bit_is_seen() {
        let mut bytes = packet(Chunk::data(7, b"hello")).bytes();
        bytes[1] ^= 1;
        assert_eq!(Packet::parse(&bytes), Err(Broken::Checksum));
        assert_eq!(Packet::parse(&bytes[..5]), Err(Broken::Short));
    }

    /// From RFC 3720 B.4: 32 bytes of zero.
    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(CHECKSUM.checksum(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    }
}
