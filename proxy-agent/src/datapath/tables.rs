use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use ipnet::IpNet;
use proxy_common::{
    Family, Frontend, FrontendKey4, FrontendKey6, Protocol, ServicePort, filter_position4, filter_position6,
};

/// Key of a frontend of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum FrontendKey {
    /// In `FRONTENDS4`.
    V4(FrontendKey4),
    /// In `FRONTENDS6`.
    V6(FrontendKey6),
}

impl FrontendKey {
    /// The key of one address and port. An IPv4-mapped IPv6 address stays IPv6.
    pub(crate) fn new(address: IpAddr, port: u16, protocol: Protocol) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(FrontendKey4::new(v4.octets(), port, protocol)),
            IpAddr::V6(v6) => Self::V6(FrontendKey6::new(v6.octets(), port, protocol)),
        }
    }

    /// The key of the entry that answers for the ports an address does not serve.
    pub(crate) fn any_port(address: IpAddr) -> Self {
        Self::new(address, proxy_common::ANY_PORT, Protocol::Any)
    }

    pub(crate) fn address(&self) -> IpAddr {
        match self {
            Self::V4(key) => key.address.into(),
            Self::V6(key) => key.address.into(),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::V4(key) => key.port,
            Self::V6(key) => key.port,
        }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self {
            Self::V4(key) => key.protocol,
            Self::V6(key) => key.protocol,
        }
    }

    pub(crate) fn family(&self) -> Family {
        family_of(self.address())
    }

    pub(crate) fn is_any_port(&self) -> bool {
        self.protocol() == Protocol::Any
    }

    /// `value` with its seal for this key.
    pub(crate) fn seal(&self, value: Frontend) -> Frontend {
        match self {
            Self::V4(key) => value.sealed4(key),
            Self::V6(key) => value.sealed6(key),
        }
    }
}

/// `address:port/protocol`, as an operator writes it.
impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any_port() {
            return write!(f, "{} (other ports)", self.address());
        }
        let protocol = protocol_name(self.protocol());
        write!(f, "{}/{protocol}", SocketAddr::new(self.address(), self.port()))
    }
}

/// The family of an address; an IPv4-mapped IPv6 address is IPv6.
pub(crate) fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// As Kubernetes spells it.
pub(crate) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Any => "any",
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// A record of `BACKENDS4` or `BACKENDS6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// Or-ed `EndpointList` bits.
    pub(crate) lists: u8,
    pub(crate) protocol: Protocol,
    pub(crate) generation: u32,
    pub(crate) service_port: u32,
}

/// Clients that the load-balancer addresses of a service port let in: an entry of `SOURCE_RANGES4` or
/// `SOURCE_RANGES6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SourceRange {
    pub(crate) service_port: u32,
    pub(crate) clients: IpNet,
}

impl SourceRange {
    pub(crate) fn family(&self) -> Family {
        family_of(self.clients.addr())
    }
}

/// How many entries each table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// `FRONTENDS4` and `FRONTENDS6`, each: one entry a frontend and one more a cluster IP.
    pub frontends: u32,
    /// `SLOTS`: one for each endpoint in each list of a service port that is in use.
    pub slots: u32,
    /// `BACKENDS4` and `BACKEND_LOAD4`.
    pub backends4: u32,
    /// `BACKENDS6` and `BACKEND_LOAD6`.
    pub backends6: u32,
    /// `AFFINITY4` and `AFFINITY6`, each.
    pub affinity: u32,
    /// `SERVICES`: one a service port of one family. Raised together with `frontends`.
    pub services: u32,
    /// `SOURCE_RANGES4` and `SOURCE_RANGES6`, each: one a range of a service port.
    pub source_ranges: u32,
    /// `FLOWS4` and `FLOWS6`, each, in flows: two entries.
    pub flows: u32,
    /// `NEW_FLOWS4` and `NEW_FLOWS6`, each, in flows: two entries.
    pub new_flows: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            frontends: 131_072,
            slots: 1_048_576,
            backends4: 524_288,
            backends6: 262_144,
            affinity: 65_536,
            services: 131_072,
            source_ranges: 65_536,
            flows: 262_144,
            new_flows: 32_768,
        }
    }
}

impl Capacities {
    /// Capacity of the backend table of a family.
    pub(crate) fn backends(&self, family: Family) -> u32 {
        if family == Family::V4 { self.backends4 } else { self.backends6 }
    }
}

/// Where the bit of an address stands in the address filter: word and mask.
pub(crate) fn filter_position(address: IpAddr) -> (u32, u64) {
    match address {
        IpAddr::V4(v4) => filter_position4(v4.octets()),
        IpAddr::V6(v6) => filter_position6(v6.octets()),
    }
}

/// What could not be written, by its place in what was asked for.
pub(crate) type Failures = Vec<(usize, io::Error)>;

/// The tables that a [`super::programmer::Programmer`] keeps in step with a plan: the kernel's maps, or
/// memory in a test. What is stored is seen by readers in the order in which it was stored.
pub(crate) trait Tables {
    /// A backend record, or `None` outside the table or when it makes no sense.
    fn backend(&self, family: Family, id: u32) -> Option<Backend>;
    /// The generation of a record, also of one that makes no sense otherwise; 0 outside the table.
    fn generation(&self, family: Family, id: u32) -> u32;
    /// Writes a whole record, its generation last.
    fn write_backend(&mut self, family: Family, id: u32, backend: &Backend);
    fn store_lists(&mut self, family: Family, id: u32, lists: u8);
    fn store_generation(&mut self, family: Family, id: u32, generation: u32);
    fn store_service_port(&mut self, family: Family, id: u32, service_port: u32);
    /// Sets the load of backends to nothing.
    fn reset_loads(&mut self, family: Family, ids: &[u32]) -> Failures;
    /// The backend id in a slot, or `None` outside the table.
    fn slot(&self, slot: u32) -> Option<u32>;
    fn write_slot(&mut self, slot: u32, backend: u32);
    fn filter_word(&self, word: u32) -> u64;
    fn write_filter_word(&mut self, word: u32, bits: u64);
    fn put_services(&mut self, entries: &[(u32, ServicePort)]) -> Failures;
    fn remove_services(&mut self, ids: &[u32]) -> Failures;
    fn put_source_ranges(&mut self, ranges: &[SourceRange]) -> Failures;
    fn remove_source_ranges(&mut self, ranges: &[SourceRange]) -> Failures;
    /// Inserts or replaces each entry in one atomic step of its own.
    fn put_frontends(&mut self, entries: &[(FrontendKey, Frontend)]) -> Failures;
    fn remove_frontends(&mut self, keys: &[FrontendKey]) -> Failures;
    /// Waits until no program run is left that began before `since`, the last time something was freed.
    fn wait_for_readers(&mut self, since: Instant);
}
