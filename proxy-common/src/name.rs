use bytemuck::{CheckedBitPattern, NoUninit, Zeroable};

use crate::{Family, Protocol};

/// Room for the name of a service port, in bytes: two 63-byte labels, a 63-byte port name and two
/// separators fit.
pub const SERVICE_NAME_LEN: usize = 192;

/// Value of `SERVICES`: which service port an id stands for. Not read by the programs: it is how a
/// restarted agent, `proxy-agent services` and a person with bpftool know what an id means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, CheckedBitPattern, Zeroable)]
#[repr(C)]
pub struct ServicePort {
    /// `namespace/name:port`, UTF-8, filled up with zero bytes.
    pub name: [u8; SERVICE_NAME_LEN],
    /// Protocol of the service port.
    pub protocol: Protocol,
    /// Family of the service port.
    pub family: Family,
    /// Zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<ServicePort>() == 196);
