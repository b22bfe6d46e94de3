use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
use proxy_common::{Family, Protocol};

use super::ObjectName;

/// What the agent keeps of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: ObjectName,
    /// Name of the Service in the same namespace: label `kubernetes.io/service-name`. A slice without it
    /// is kept with `None`, so that an update that takes the label away is a change.
    pub service: Option<Arc<str>>,
    /// Family of the addresses.
    pub address_type: AddressType,
    /// Ports with a name and a number.
    pub ports: Vec<SlicePort>,
    /// Endpoints with a usable first address.
    pub endpoints: Vec<Endpoint>,
    /// Annotation `endpoints.kubernetes.io/last-change-trigger-time`.
    pub triggered: Option<Timestamp>,
    /// What of the object was refused, in words for an operator; each names the field.
    pub problems: Vec<String>,
}

/// `addressType` of an EndpointSlice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressType {
    /// IPv4 addresses.
    V4,
    /// IPv6 addresses.
    V6,
    /// FQDN or a type unknown to us: the slice has no endpoints for a proxy.
    Other,
}

impl AddressType {
    /// The IP family, if it is one.
    #[must_use]
    pub fn family(self) -> Option<Family> {
        match self {
            Self::V4 => Some(Family::V4),
            Self::V6 => Some(Family::V6),
            Self::Other => None,
        }
    }
}

/// One usable entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port; may be empty.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port, 1 to 65,535.
    pub port: u16,
}

/// One usable entry of `endpoints`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The first address.
    pub address: IpAddr,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, ready or not.
    pub serving: bool,
    /// Is shutting down.
    pub terminating: bool,
    /// `nodeName` is this node.
    pub local: bool,
    /// Topology hints, shared between endpoints that have the same.
    pub hints: Option<Arc<Hints>>,
}

/// `hints` of an endpoint. Both sets may be there; either may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hints {
    /// `forZones[].name`.
    pub zones: Vec<Arc<str>>,
    /// Whether `forNodes` has any name.
    pub has_nodes: bool,
    /// Whether `forNodes` has this node's name.
    pub this_node: bool,
}
