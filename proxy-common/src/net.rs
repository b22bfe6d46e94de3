use bytemuck::{CheckedBitPattern, NoUninit, Zeroable};

/// Transport protocol of a frontend, by its IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(u8)]
pub enum Protocol {
    /// Stands for every protocol, in the entry that answers for the ports a cluster IP does not have.
    Any = 0,
    /// TCP, and the subflows of MPTCP with it.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// SCTP.
    Sctp = 132,
}

/// IP family, by its version number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(u8)]
pub enum Family {
    /// Not set.
    None = 0,
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

impl Family {
    /// As in `ipFamilies` of a Service; empty where it is not set.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The IPv4-mapped IPv6 form (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2) of an IPv4 address.
#[inline(always)]
#[must_use]
pub const fn map_to_v6(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The IPv4 address inside an IPv4-mapped IPv6 address, or `None` for any other address.
#[inline(always)]
#[must_use]
pub const fn unmap_v4(v6: [u8; 16]) -> Option<[u8; 4]> {
    match v6 {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([a, b, c, d]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapping_and_back() {
        assert_eq!(unmap_v4(map_to_v6([10, 96, 0, 1])), Some([10, 96, 0, 1]));
        assert_eq!(unmap_v4([0; 16]), None);
        assert_eq!(unmap_v4([0xfd; 16]), None);
    }
}
