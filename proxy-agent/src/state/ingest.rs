mod intern;
mod node;
mod service;
mod slice;

#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proxy_common::Protocol;

use super::{Hints, ObjectName, address::parse_ip};
use intern::Interner;

/// Makes the slim objects of [`crate::state`] out of API objects (KUBE-PROXY.md 1.2 and 2.1).
///
/// Never fails: what cannot be read is skipped and said in the `problems` of the result. Names and hints
/// that many objects share are held once, so one `Ingest` should see all objects of a source.
#[derive(Debug)]
pub struct Ingest {
    node_name: Box<str>,
    strings: Interner<str>,
    hints: Interner<Hints>,
}

impl Ingest {
    /// For the node of this name, which decides which endpoints are local and which hints are ours.
    #[must_use]
    pub fn new(node_name: &str) -> Self {
        Self { node_name: node_name.into(), strings: Interner::default(), hints: Interner::default() }
    }

    /// The API server always sets both; a hand-written manifest may leave the namespace out.
    fn name(&mut self, metadata: &ObjectMeta) -> ObjectName {
        let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        ObjectName {
            namespace: self.string(namespace.unwrap_or("default")),
            name: self.string(metadata.name.as_deref().unwrap_or_default()),
        }
    }

    fn string(&mut self, text: &str) -> Arc<str> {
        self.strings.get(text)
    }
}

/// A missing protocol is TCP, as the API server would fill in.
fn protocol(field: &str, text: Option<&str>, problems: &mut Vec<String>) -> Option<Protocol> {
    match text {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(other) => {
            problems.push(format!("{field} {other:?} is not TCP, UDP or SCTP: the port is skipped"));
            None
        }
    }
}

fn port(field: &str, number: i32, problems: &mut Vec<String>) -> Option<u16> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Some(port),
        _ => {
            problems.push(format!("{field} {number} is not in 1 to 65535: the port is skipped"));
            None
        }
    }
}

/// An address that traffic can be sent to, or `None` and a problem.
fn address(field: &str, text: &str, problems: &mut Vec<String>) -> Option<IpAddr> {
    match parse_ip(text) {
        Some(address) if !address.is_unspecified() && !address.is_multicast() => Some(address),
        Some(address) => {
            problems.push(format!("{field} {address} is not the address of one host: it is skipped"));
            None
        }
        None => {
            problems.push(format!("{field} {text:?} is not an IP address: it is skipped"));
            None
        }
    }
}
