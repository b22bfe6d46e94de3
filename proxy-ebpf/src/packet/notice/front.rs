//! The IP header of an answer.

use proxy_common::checksum;

use super::Problem;
use crate::{
    ip::{V4, V6},
    packet::{headers::Headers, rewrite::WriteIp, tables::PacketIp},
};

const HOPS: u8 = 64;

/// An IP family, for writing answers.
pub(crate) trait Notice: WriteIp {
    /// An IP header.
    type Header: Copy;

    /// The header of an answer to a packet with these headers, with `length` bytes behind it.
    fn header(headers: &Headers<Self::Words>, protocol: u8, length: u32) -> Self::Header;

    /// Type and code of the ICMP message.
    fn kind_and_code(problem: Problem) -> [u8; 2];

    /// Sum of the pseudo-header between the two ends, either way.
    #[inline(always)]
    fn pseudo(headers: &Headers<Self::Words>, protocol: u8, length: u32) -> u64 {
        Self::sum(headers.source)
            + Self::sum(headers.destination)
            + u64::from(length.to_be())
            + u64::from(u32::from(protocol).to_be())
    }
}

impl Notice for V4 {
    type Header = [u32; 5];

    #[inline(always)]
    fn header(headers: &Headers<[u32; 1]>, protocol: u8, length: u32) -> [u32; 5] {
        let [high, low] = ((length + Self::HEADER) as u16).to_be_bytes();
        let first = u32::from_ne_bytes([0x45, 0, high, low]);
        let ([source], [destination]) = (headers.destination, headers.source);
        let unsummed = u32::from_ne_bytes([HOPS, protocol, 0, 0]);
        let sum = u64::from(first) + u64::from(unsummed) + u64::from(source) + u64::from(destination);
        let [check_high, check_low] = checksum::of(sum).to_ne_bytes();
        [first, 0, u32::from_ne_bytes([HOPS, protocol, check_high, check_low]), source, destination]
    }

    #[inline(always)]
    fn kind_and_code(problem: Problem) -> [u8; 2] {
        match problem {
            Problem::PortUnreachable => [3, 3],
            Problem::TimeExceeded => [11, 0],
            Problem::TooBig => [3, 4],
        }
    }
}

impl Notice for V6 {
    type Header = [u32; 10];

    #[inline(always)]
    fn header(headers: &Headers<[u32; 4]>, protocol: u8, length: u32) -> [u32; 10] {
        let [high, low] = (length as u16).to_be_bytes();
        let [a, b, c, d] = headers.destination;
        let [e, f, g, h] = headers.source;
        [
            u32::from_ne_bytes([0x60, 0, 0, 0]),
            u32::from_ne_bytes([high, low, protocol, HOPS]),
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
        ]
    }

    #[inline(always)]
    fn kind_and_code(problem: Problem) -> [u8; 2] {
        match problem {
            Problem::PortUnreachable => [1, 4],
            Problem::TimeExceeded => [3, 0],
            Problem::TooBig => [2, 0],
        }
    }
}
