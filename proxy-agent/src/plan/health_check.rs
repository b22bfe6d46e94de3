use std::net::IpAddr;

use proxy_common::Family;

use crate::state::{EndpointSlice, ObjectName};

/// Which health check: each family of a Service has one of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HealthCheckId {
    /// The Service.
    pub service: ObjectName,
    /// IP family.
    pub family: Family,
}

/// Where load balancers ask this node whether it has endpoints of a Service, and the answer
/// (KUBE-PROXY.md 1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// `spec.healthCheckNodePort`.
    pub port: u16,
    /// How many addresses on this node have an endpoint that is ready. One that only finishes what it has does
    /// not count, although it may still serve: the load balancer is to go elsewhere first.
    pub endpoints: usize,
}

/// One step from the health checks of before to those of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckChange {
    /// Which one.
    pub id: HealthCheckId,
    /// What it is now; `None` when it is gone.
    pub check: Option<HealthCheck>,
}

/// How many addresses of a family on this node have a ready endpoint in these slices, on any port.
pub(super) fn local_ready<'a>(slices: impl Iterator<Item = &'a EndpointSlice>, family: Family) -> usize {
    let of_family =
        slices.filter(|slice| slice.address_type.family() == Some(family) && !slice.ports.is_empty());
    let ready =
        of_family.flat_map(|slice| &slice.endpoints).filter(|endpoint| endpoint.local && endpoint.ready);
    let mut addresses: Vec<IpAddr> = ready.map(|endpoint| endpoint.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.len()
}

/// What the health checks of a Service have become; each list has a family at most once.
pub(super) fn differences(
    service: &ObjectName,
    before: &[(Family, HealthCheck)],
    now: &[(Family, HealthCheck)],
) -> impl Iterator<Item = HealthCheckChange> {
    let change = |family: Family, check| {
        let id = HealthCheckId { service: service.clone(), family };
        HealthCheckChange { id, check }
    };
    let has = |list: &[(Family, HealthCheck)], family| list.iter().any(|(known, _)| *known == family);
    let gone = before.iter().filter(move |(family, _)| !has(now, *family));
    let new = now.iter().filter(|check| !before.contains(check));
    gone.map(move |(family, _)| change(*family, None))
        .chain(new.map(move |(family, check)| change(*family, Some(*check))))
}
