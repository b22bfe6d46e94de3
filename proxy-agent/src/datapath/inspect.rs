use std::{collections::HashMap, net::IpAddr, path::Path};

use proxy_common::{
    Counters, EndpointList, FRONTEND_SOURCE_RANGES, Family, Frontend, FrontendKind, ServicePort, SlotRange,
    WhenEmpty, is_live,
};
use serde::Serialize;

use super::{
    Error,
    maps::{Maps, hash::HashTable},
    pins,
    programmer::{Contents, identity},
    sys,
    tables::{FrontendKey, SourceRange, Tables, protocol_name},
};
use crate::plan::ServicePortId;

/// What the pinned maps held when they were read; a change in between may show half.
#[derive(Debug)]
pub struct Snapshot {
    /// Sums over all CPUs since the maps were made.
    pub counters: Counters,
    /// By service, port name, address, port and protocol. The entries for unknown ports are left out.
    pub frontends: Vec<FrontendView>,
    /// By service, port name, protocol, address and port.
    pub backends: Vec<BackendView>,
}

/// A frontend entry, its slots looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendView {
    /// `namespace/name`; `?` when the maps do not name it.
    pub service: String,
    /// Name of the port; may be empty.
    pub port_name: String,
    /// Address.
    pub address: IpAddr,
    /// Host order.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    /// `ClusterIP`, `ExternalIP`, `LoadBalancer` or `NodePort`.
    pub kind: &'static str,
    /// Key in the map `SERVICES`.
    pub service_port: u32,
    /// Endpoints for clients in the cluster.
    pub internal: Vec<EndpointView>,
    /// Endpoints for traffic from outside; `None` for a cluster IP.
    pub external: Option<Vec<EndpointView>>,
    /// What a client meets while there is no endpoint.
    pub when_empty: WhenEmptyView,
    /// Session affinity timeout; `None` without affinity.
    pub affinity_seconds: Option<u32>,
    /// The clients that are let in, in CIDR notation; empty for everybody. Load-balancer addresses only; the
    /// Service's own ones may be among them.
    pub source_ranges: Vec<String>,
}

/// An endpoint of a frontend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct EndpointView {
    /// Address.
    pub address: IpAddr,
    /// Host order.
    pub port: u16,
    /// Backend id.
    pub backend: u32,
}

/// `reject` or `drop`, by where the traffic comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct WhenEmptyView {
    /// For clients in the cluster.
    pub internal: &'static str,
    /// For traffic from outside; `None` for a cluster IP.
    pub external: Option<&'static str>,
}

/// A backend record in use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    /// `namespace/name`; `?` when the maps do not name it.
    pub service: String,
    /// Name of the port; may be empty.
    pub port_name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    /// Address.
    pub address: IpAddr,
    /// Host order.
    pub port: u16,
    /// `cluster`, `local`; empty for an endpoint that takes no new flows.
    pub lists: Vec<&'static str>,
    /// Backend id.
    pub backend: u32,
    /// Odd; changes whenever the id is given out or taken back.
    pub generation: u32,
    /// Open sockets of this node's processes; 0 unless connections are counted.
    pub active: u64,
}

/// Reads the maps that are pinned below `bpffs`, whether or not an agent is running.
///
/// # Errors
/// [`Error::NothingPinned`], or maps that are not readable.
pub fn inspect(bpffs: &Path) -> Result<Snapshot, Error> {
    let maps = Maps::open(&pins::current_maps(bpffs)?, true)?;
    let Contents { services, frontends, mut source_ranges } = maps.contents()?;
    source_ranges.sort_unstable();
    let names = names(&services);
    let mut frontends: Vec<_> = frontends
        .iter()
        .filter(|(key, _)| !key.is_any_port())
        .map(|(key, value)| frontend(&maps, &names, &source_ranges, key, value))
        .collect();
    frontends.sort();
    let mut backends = backends(&maps, &names, |_| true)?;
    backends.sort();
    Ok(Snapshot { counters: maps.counters()?, frontends, backends })
}

/// The backends that have open sockets, in no order, for those who look often: frontends and source ranges are not
/// read.
///
/// # Errors
/// As [`inspect`].
pub fn busy_backends(bpffs: &Path) -> Result<Vec<BackendView>, Error> {
    let maps = Maps::open(&pins::current_maps(bpffs)?, true)?;
    backends(&maps, &names(&maps.services()?), |sockets| sockets > 0)
}

/// The service ports by their key in `SERVICES`, from the maps that are pinned below `bpffs`.
///
/// # Errors
/// As [`inspect`].
pub fn service_names(bpffs: &Path) -> Result<HashMap<u32, ServicePortId>, Error> {
    let pin = pins::current_maps(bpffs)?.join("SERVICES");
    let map = sys::open_pin(&pin).map_err(Error::path("opening", pin))?;
    let services: HashTable<u32, ServicePort> = HashTable::new("SERVICES", map)?;
    Ok(names(&services.entries()?))
}

fn names(services: &[(u32, ServicePort)]) -> HashMap<u32, ServicePortId> {
    services.iter().filter_map(|(id, entry)| Some((*id, identity(entry)?))).collect()
}

fn frontend(
    maps: &Maps,
    names: &HashMap<u32, ServicePortId>,
    source_ranges: &[SourceRange],
    key: &FrontendKey,
    value: &Frontend,
) -> FrontendView {
    let (service, port_name) = name(names, value.service_port);
    let family = key.family();
    let is_external = value.external_list != EndpointList::None;
    FrontendView {
        service,
        port_name,
        address: key.address(),
        port: key.port(),
        protocol: protocol_name(key.protocol()),
        kind: match value.kind {
            FrontendKind::ClusterIp => "ClusterIP",
            FrontendKind::ExternalIp => "ExternalIP",
            FrontendKind::LoadBalancer => "LoadBalancer",
            FrontendKind::NodePort => "NodePort",
        },
        service_port: value.service_port,
        internal: endpoints(maps, family, value.internal),
        external: is_external.then(|| endpoints(maps, family, value.external)),
        when_empty: WhenEmptyView {
            internal: when_empty(value.when_internal_empty),
            external: is_external.then(|| when_empty(value.when_external_empty)),
        },
        affinity_seconds: Some(value.affinity_seconds).filter(|seconds| *seconds > 0),
        source_ranges: if value.flags & FRONTEND_SOURCE_RANGES == 0 {
            Vec::new()
        } else {
            allowed(source_ranges, value.service_port)
        },
    }
}

/// The ranges of a service port, of all of them in order.
fn allowed(source_ranges: &[SourceRange], service_port: u32) -> Vec<String> {
    let first = source_ranges.partition_point(|range| range.service_port < service_port);
    let own = source_ranges[first..].iter().take_while(|range| range.service_port == service_port);
    own.map(|range| range.clients.to_string()).collect()
}

/// Slots that name no live backend are left out: they are about to change.
fn endpoints(maps: &Maps, family: Family, range: SlotRange) -> Vec<EndpointView> {
    let slots = range.base..range.base.saturating_add(range.len);
    let mut endpoints: Vec<_> = slots
        .filter_map(|slot| {
            let id = maps.slot(slot)?;
            let backend = maps.backend(family, id).filter(|backend| is_live(backend.generation))?;
            Some(EndpointView { address: backend.address, port: backend.port, backend: id })
        })
        .collect();
    endpoints.sort();
    endpoints
}

/// Those with a `wanted` number of open sockets.
fn backends(
    maps: &Maps,
    names: &HashMap<u32, ServicePortId>,
    wanted: impl Fn(u64) -> bool,
) -> Result<Vec<BackendView>, Error> {
    let mut backends = backends_of(maps, names, Family::V4, &wanted)?;
    backends.append(&mut backends_of(maps, names, Family::V6, &wanted)?);
    Ok(backends)
}

fn backends_of(
    maps: &Maps,
    names: &HashMap<u32, ServicePortId>,
    family: Family,
    wanted: &impl Fn(u64) -> bool,
) -> Result<Vec<BackendView>, Error> {
    let capacity = maps.backend_capacity(family);
    let live: Vec<_> = (0..capacity)
        .filter(|id| is_live(maps.generation(family, *id)))
        .filter_map(|id| Some((id, maps.backend(family, id)?)))
        .collect();
    let ids: Vec<_> = live.iter().map(|(id, _)| *id).collect();
    let loads = maps.loads(family, &ids)?;
    Ok(live
        .into_iter()
        .zip(loads)
        .filter(|(_, active)| wanted(*active))
        .map(|((id, backend), active)| {
            let (service, port_name) = name(names, backend.service_port);
            let lists = [(EndpointList::Cluster, "cluster"), (EndpointList::Local, "local")];
            BackendView {
                service,
                port_name,
                protocol: protocol_name(backend.protocol),
                address: backend.address,
                port: backend.port,
                lists: lists
                    .into_iter()
                    .filter(|(list, _)| backend.lists & *list as u8 != 0)
                    .map(|(_, name)| name)
                    .collect(),
                backend: id,
                generation: backend.generation,
                active,
            }
        })
        .collect())
}

fn name(names: &HashMap<u32, ServicePortId>, service_port: u32) -> (String, String) {
    match names.get(&service_port) {
        Some(id) => (id.service.to_string(), id.port_name.to_string()),
        None => ("?".to_owned(), String::new()),
    }
}

fn when_empty(when_empty: WhenEmpty) -> &'static str {
    match when_empty {
        WhenEmpty::Reject => "reject",
        WhenEmpty::Drop => "drop",
    }
}
