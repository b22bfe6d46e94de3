use std::net::IpAddr;

use proxy_common::FrontendKind;

/// One address and port that a service port answers on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlannedFrontend {
    /// What kind of Service address it is.
    pub kind: FrontendKind,
    /// Address.
    pub address: IpAddr,
    /// The service port's number, or the node port.
    pub port: u16,
    /// Whether the address is one of the node's own.
    pub local: bool,
}
