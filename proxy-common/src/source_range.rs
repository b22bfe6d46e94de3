use bytemuck::{Pod, Zeroable};

/// Bits of the service port id, which every prefix of `SOURCE_RANGES4` and `SOURCE_RANGES6` covers.
pub const SOURCE_RANGE_ID_BITS: u32 = 32;

/// What a prefix of `SOURCE_RANGES4` is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct SourceRange4 {
    /// Service port id, in native order.
    pub service_port: [u8; 4],
    /// Network order.
    pub address: [u8; 4],
}

/// What a prefix of `SOURCE_RANGES6` is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct SourceRange6 {
    /// Service port id, in native order.
    pub service_port: [u8; 4],
    /// Network order.
    pub address: [u8; 16],
}

/// Key of `SOURCE_RANGES4`, a longest-prefix map: the clients that may use a service port's load-balancer
/// addresses (KUBE-PROXY.md 1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct SourceRangeKey4 {
    /// [`SOURCE_RANGE_ID_BITS`] and the bits of the range.
    pub prefix_len: u32,
    /// The service port and the first address of the range.
    pub range: SourceRange4,
}

/// Key of `SOURCE_RANGES6`: as [`SourceRangeKey4`], for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct SourceRangeKey6 {
    /// [`SOURCE_RANGE_ID_BITS`] and the bits of the range.
    pub prefix_len: u32,
    /// The service port and the first address of the range.
    pub range: SourceRange6,
}

const _: () = assert!(size_of::<SourceRangeKey4>() == 12);
const _: () = assert!(size_of::<SourceRangeKey6>() == 24);
