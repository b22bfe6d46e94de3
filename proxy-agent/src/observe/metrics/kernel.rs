use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, Result};
use proxy_common::Counters;

use super::{
    raise,
    register::{counter, counters, gauge, gauges, number},
};
use crate::datapath::{AttachedProgram, MapUsage, Probe, SocketTotals};

/// What the programs count, and how full their maps are.
#[derive(Debug)]
pub(super) struct Kernel {
    probe: Option<(Probe, Arc<SocketTotals>)>,
    sockets: [Mirror<SocketTotals>; 4],
    counts: Vec<Mirror<Counters>>,
    entries: IntGaugeVec,
    capacity: IntGaugeVec,
    attached: IntGaugeVec,
    expired: IntCounter,
    passes: IntCounter,
    unreadable: IntGauge,
}

/// A counter, and where it is found what it has become.
type Mirror<T> = (IntCounter, fn(&T) -> u64);

/// A counter of the programs: name, label and value, if it has one, what it counts, and where that is found.
type Count = (&'static str, Option<(&'static str, &'static str)>, &'static str, fn(&Counters) -> u64);

const REJECTED: &str = "Connections and flows that were refused, by reason";
const DROPPED: &str = "Packets that were dropped, by reason";
const PASSED: &str = "Packets that were passed as they are, by reason";
const ICMP: &str = "ICMP errors, by what was done";
const ERRORS: &str = "Errors of the programs, by kind";

/// One row for each field of [`Counters`].
const COUNTS: [Count; 20] = [
    ("ferroute_connections_total", None, "Sockets that were given an endpoint", |c| c.translated),
    ("ferroute_rejected_total", Some(("reason", "no_endpoint")), REJECTED, |c| c.no_endpoint),
    ("ferroute_rejected_total", Some(("reason", "no_local_endpoint")), REJECTED, |c| c.no_local_endpoint),
    ("ferroute_rejected_total", Some(("reason", "unknown_port")), REJECTED, |c| c.unknown_port),
    ("ferroute_affinity_hits_total", None, "Endpoints that session affinity named", |c| c.affinity_hit),
    ("ferroute_udp_repicked_total", None, "UDP sockets that left an endpoint that is gone", |c| c.repicked),
    ("ferroute_datapath_errors_total", Some(("error", "no_socket_storage")), ERRORS, |c| c.no_socket_storage),
    ("ferroute_datapath_errors_total", Some(("error", "bad_slot")), ERRORS, |c| c.bad_slot),
    ("ferroute_flows_opened_total", None, "Flows of the packet path that were opened", |c| c.flows_opened),
    ("ferroute_flows_confirmed_total", None, "Flows whose client went on after an answer", |c| {
        c.flows_confirmed
    }),
    ("ferroute_flow_map_full_total", None, "Flows that could not be confirmed for want of room", |c| {
        c.flow_map_full
    }),
    ("ferroute_dropped_packets_total", Some(("reason", "source_ports_exhausted")), DROPPED, |c| {
        c.source_ports_exhausted
    }),
    ("ferroute_dropped_packets_total", Some(("reason", "source_range")), DROPPED, |c| c.source_range_denied),
    ("ferroute_icmp_errors_total", Some(("action", "sent")), ICMP, |c| c.icmp_sent),
    ("ferroute_dropped_packets_total", Some(("reason", "icmp_limit")), DROPPED, |c| c.icmp_suppressed),
    ("ferroute_icmp_errors_total", Some(("action", "translated")), ICMP, |c| c.icmp_translated),
    ("ferroute_passed_packets_total", Some(("reason", "fragment")), PASSED, |c| c.fragment_unknown),
    ("ferroute_passed_packets_total", Some(("reason", "malformed")), PASSED, |c| c.malformed),
    ("ferroute_dropped_packets_total", Some(("reason", "unroutable")), DROPPED, |c| c.unroutable),
    ("ferroute_xdp_forwarded_packets_total", None, "Packets that were forwarded from XDP", |c| {
        c.xdp_forwarded
    }),
];

impl Kernel {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let counter = |name: &str, help: &str| counter(registry, name, help);
        let by = |label: &str, name: &str, help: &str| gauges(registry, name, help, &[label]);
        Ok(Self {
            probe: None,
            sockets: sockets(registry)?,
            counts: counts(registry)?,
            entries: by("map", "ferroute_map_entries", "Entries in use, by map")?,
            capacity: by("map", "ferroute_map_capacity", "Entries there can be, by map")?,
            attached: by(
                "program",
                "ferroute_program_attachments",
                "Links, or the cgroup, that a program is on",
            )?,
            expired: counter("ferroute_flows_expired_total", "Flows that had expired and were let go of")?,
            passes: counter("ferroute_flow_passes_total", "Times that all flows were looked at")?,
            unreadable: gauge(
                registry,
                "ferroute_counters_unreadable",
                "1 when the programs' counters cannot be read",
            )?,
        })
    }

    pub(super) fn set_probe(&mut self, probe: Probe, sockets: Arc<SocketTotals>) {
        self.probe = Some((probe, sockets));
    }

    /// Looks up what they have become; before the data path is open there is nothing.
    pub(super) fn look(&self) {
        let Some((probe, sockets)) = &self.probe else { return };
        for (counter, count) in &self.sockets {
            raise(counter, count(sockets));
        }
        let counters = probe.counters();
        self.unreadable.set(counters.is_err().into());
        for (counter, count) in &self.counts {
            if let Ok(counters) = &counters {
                raise(counter, count(counters));
            }
        }
        let collected = probe.collected();
        raise(&self.expired, collected.expired);
        raise(&self.passes, collected.passes);
        for AttachedProgram { program, places } in probe.attached() {
            self.attached.with_label_values(&[program]).set(number(places));
        }
        for MapUsage { map, entries, capacity } in probe.usage() {
            self.entries.with_label_values(&[map]).set(number(entries));
            self.capacity.with_label_values(&[map]).set(number(capacity));
        }
    }
}

/// What became of sockets whose endpoint is gone.
fn sockets(registry: &Registry) -> Result<[Mirror<SocketTotals>; 4]> {
    let help = "Sockets that were closed because their endpoint is gone";
    let closed = counters(registry, "ferroute_gone_endpoint_sockets_closed_total", help, &["protocol"])?;
    let help = "Sockets whose endpoint is gone and that could not be closed, each time it was tried";
    let failed = counters(registry, "ferroute_gone_endpoint_sockets_failed_total", help, &["reason"])?;
    Ok([
        (closed.with_label_values(&["UDP"]), SocketTotals::closed_udp),
        (closed.with_label_values(&["TCP"]), SocketTotals::closed_tcp),
        (failed.with_label_values(&["namespace"]), SocketTotals::unreachable),
        (failed.with_label_values(&["refused"]), SocketTotals::refused),
    ])
}

fn counts(registry: &Registry) -> Result<Vec<Mirror<Counters>>> {
    let mut families: Vec<(&str, IntCounterVec)> = Vec::new();
    let mut all = Vec::with_capacity(COUNTS.len());
    for (name, label, help, count) in COUNTS {
        let Some((label, value)) = label else {
            all.push((counter(registry, name, help)?, count));
            continue;
        };
        let family = match families.iter().find(|(known, _)| *known == name) {
            Some((_, family)) => family.clone(),
            None => {
                let family = counters(registry, name, help, &[label])?;
                families.push((name, family.clone()));
                family
            }
        };
        all.push((family.with_label_values(&[value]), count));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_of_the_programs_has_a_metric() {
        let words: Vec<u64> = (1..=(size_of::<Counters>() / 8) as u64).collect();
        let counters: Counters = bytemuck::pod_read_unaligned(bytemuck::cast_slice(&words));
        let mut found: Vec<u64> = COUNTS.iter().map(|(_, _, _, count)| count(&counters)).collect();
        found.sort_unstable();
        assert_eq!(found, words);
        assert_eq!(counts(&Registry::new()).unwrap().len(), COUNTS.len(), "no two of one name and label");
    }
}
