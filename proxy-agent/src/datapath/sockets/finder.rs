use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::maps::MapData;
use aya_obj::Object;
use bytemuck::checked::try_pod_read_unaligned;
use proxy_common::{SocketFields, StaleSocket};
use thiserror::Error;

use crate::datapath::{
    kernel_types::{self, KernelTypes, Missing},
    pins::Layout,
    sys::{self, TracingProgram},
};

const PROGRAM: &str = "stale_sockets";
const FUNCTION: &str = "bpf_iter_bpf_sk_storage_map";

/// Why sockets cannot be looked for.
#[derive(Debug, Error)]
pub(super) enum Unavailable {
    /// No description of the kernel's types.
    #[error("reading /sys/kernel/btf/vmlinux: {0}")]
    NoTypes(io::Error),
    /// A description without what is needed.
    #[error(transparent)]
    Types(#[from] Missing),
    /// The object is not what it should be.
    #[error("the embedded eBPF object: {0}")]
    Object(String),
    /// A system call failed.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// The kernel does not take the program.
    #[error("loading program stale_sockets: {0} {1}")]
    Refused(io::Error, String),
}

/// Finds the sockets whose endpoint is gone, in all network namespaces at once: it is their storage that is gone
/// through, of which the kernel has one list for all.
#[derive(Debug)]
pub(super) struct Finder {
    iterator: OwnedFd,
}

impl Finder {
    /// Loads the program that judges a socket. TCP connections are found only `with_tcp`.
    pub(super) fn new(object: &[u8], layout: &Layout, with_tcp: bool) -> Result<Self, Unavailable> {
        let types = fs::read(kernel_types::RUNNING).map_err(Unavailable::NoTypes)?;
        let types = KernelTypes::find(&types, &["sock", "sock_common", "net"], &[FUNCTION])?;
        let (fields, function) = (fields(&types)?, types.function(FUNCTION)?);
        drop(types);
        let load = |has_cookie| load(object, layout, fields, function, with_tcp, has_cookie);
        let program = match load(true) {
            // Before 5.12.
            Err(Unavailable::Refused(..)) => load(false)?,
            loaded => loaded?,
        };
        let sockets = sys::open_pin(&layout.path("SOCKETS"))
            .map_err(|error| Unavailable::System("opening map SOCKETS", error))?;
        let iterator = sys::iterator_over_map(program, sockets)
            .map_err(|error| Unavailable::System("making an iterator over sockets", error))?;
        Ok(Self { iterator })
    }

    /// All sockets that are connected to the endpoint that they were given, whose backend is gone.
    pub(super) fn find(&self) -> io::Result<Vec<StaleSocket>> {
        let bytes = sys::iterate(&self.iterator)?;
        Ok(parse(&bytes))
    }
}

fn parse(bytes: &[u8]) -> Vec<StaleSocket> {
    let records = bytes.chunks_exact(size_of::<StaleSocket>());
    records.filter_map(|record| try_pod_read_unaligned(record).ok()).collect()
}

fn fields(types: &KernelTypes<'_>) -> Result<SocketFields, Missing> {
    let common = |name| types.offset("sock_common", name);
    Ok(SocketFields {
        protocol: types.offset("sock", "sk_protocol")?,
        family: common("skc_family")?,
        state: common("skc_state")?,
        local_port: common("skc_num")?,
        remote_port: common("skc_dport")?,
        local_v4: common("skc_rcv_saddr")?,
        remote_v4: common("skc_daddr")?,
        local_v6: common("skc_v6_rcv_saddr")?,
        remote_v6: common("skc_v6_daddr")?,
        interface: common("skc_bound_dev_if")?,
        cookie: common("skc_cookie")?,
        namespace: common("skc_net.net")?,
        namespace_inode: types.offset("net", "ns.inum")?,
    })
}

/// Loads the program against the pinned maps. aya's own loader would read all of the kernel's types for it, and cannot
/// make an iterator over a map.
fn load(
    object: &[u8],
    layout: &Layout,
    fields: SocketFields,
    function: u32,
    with_tcp: bool,
    has_cookie: bool,
) -> Result<OwnedFd, Unavailable> {
    let broken = |error: &dyn std::fmt::Display| Unavailable::Object(error.to_string());
    let mut object = Object::parse(object).map_err(|error| broken(&error))?;
    let key = object.programs.get(PROGRAM).map(aya_obj::Program::function_key);
    let key = key.ok_or_else(|| broken(&format!("it has no program {PROGRAM}")))?;
    object.functions.retain(|function, _| *function == key);
    object.programs.retain(|name, _| name == PROGRAM);
    let (with_tcp, has_cookie) = (u32::from(with_tcp), u32::from(has_cookie));
    let globals = [
        ("SOCKET_FIELDS", sys::bytes(&fields)),
        ("STALE_TCP", sys::bytes(&with_tcp)),
        ("HAS_SOCKET_COOKIE", sys::bytes(&has_cookie)),
    ];
    let globals: HashMap<_, _> = globals.into_iter().map(|(name, bytes)| (name, (bytes, true))).collect();
    object.patch_map_data(globals).map_err(|error| broken(&error))?;

    let constants = object.maps.get(".rodata").ok_or_else(|| broken(&"it has no constants"))?;
    let constants_map =
        MapData::create(constants.clone(), ".rodata", None).map_err(|error| broken(&error))?;
    let constants_fd = constants_map.fd().as_fd();
    sys::update(constants_fd, &0_u32.to_ne_bytes(), constants.data())
        .and_then(|()| sys::freeze_map(constants_fd))
        .map_err(|error| Unavailable::System("writing constants of a program", error))?;
    let mut maps = vec![(".rodata", constants_fd.as_raw_fd(), constants.clone())];
    // Open until the program is loaded.
    let mut pins = Vec::new();
    for name in ["BACKENDS4", "BACKENDS6"] {
        let pin = sys::open_pin(&layout.path(name))
            .map_err(|error| Unavailable::System("opening the maps of backends", error))?;
        let map = object.maps.get(name).ok_or_else(|| broken(&format!("it has no map {name}")))?;
        maps.push((name, pin.as_raw_fd(), map.clone()));
        pins.push(pin);
    }
    let text_sections: HashSet<usize> = [key.0].into();
    object
        .relocate_maps(maps.iter().map(|(name, fd, map)| (*name, *fd, map)), &text_sections)
        .and_then(|()| object.relocate_calls(&text_sections))
        .map_err(|error| broken(&error))?;
    let code = object.functions.get(&key).ok_or_else(|| broken(&"its program has no code"))?;
    let program = TracingProgram { name: PROGRAM, instructions: &code.instructions, attach_btf_id: function };
    sys::load_iterator(program).map_err(|(error, log)| Unavailable::Refused(error, log))
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use proxy_common::Protocol;

    use super::*;

    #[test]
    fn a_record_that_makes_no_sense_is_skipped() {
        let good = StaleSocket { cookie: 7, protocol: Protocol::Udp, ..StaleSocket::zeroed() };
        let mut bytes = sys::bytes(&good).repeat(3);
        let protocol = std::mem::offset_of!(StaleSocket, protocol);
        bytes[size_of::<StaleSocket>() + protocol] = 99;
        assert_eq!(parse(&bytes), [good, good]);
        assert_eq!(parse(&bytes[..103]), []);
    }
}
