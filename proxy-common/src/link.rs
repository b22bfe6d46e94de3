use bytemuck::{CheckedBitPattern, NoUninit, Zeroable};

/// What a network link of the node leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(u8)]
pub enum LinkRole {
    /// Nothing that matters here.
    None = 0,
    /// Other nodes and what is outside the cluster; overlay devices to other nodes are uplinks too.
    Uplink = 1,
    /// Pods of this node.
    Workload = 2,
}

/// Value of `LINKS`, by interface index: how the packet programs see a link of the node. Index 0 stands for
/// links that the agent has not heard of yet: a pod that is just being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct Link {
    /// Source address of what is sent out there in a client's place, in network order; all zero when there is
    /// none.
    pub address4: [u8; 4],
    /// As [`Self::address4`], for IPv6.
    pub address6: [u8; 16],
    /// What the link leads to.
    pub role: LinkRole,
    /// 1 when frames may be redirected to it from XDP: it has an XDP program in native mode itself.
    pub xdp: u8,
    /// 1 when an XDP program of ours may see what comes in there before TC does.
    pub xdp_first: u8,
    /// Zero.
    pub reserved: u8,
}

const _: () = assert!(size_of::<Link>() == 24);
