use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntGauge, Opts, Registry, Result,
    exponential_buckets,
};
use proxy_common::{EndpointList, Family};

use super::{
    IP_FAMILY,
    register::{counter, gauge, gauges, number, register},
};
use crate::{
    plan::{ServicePortId, ServicePortPlan},
    state::Change,
};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// What kube-proxy measures of its sync loop, which here is one step from what has changed to what is programmed.
#[derive(Debug)]
pub(in crate::observe) struct Sync {
    all: [Histogram; 2],
    full: [Histogram; 2],
    partial: [Histogram; 2],
    last: [Gauge; 2],
    queued: [Gauge; 2],
    latency: [Histogram; 2],
    endpoints: Changes,
    services: Changes,
    no_local: NoLocal,
    started: Timestamp,
}

/// Changes of one kind of object.
#[derive(Debug)]
struct Changes {
    pending: IntGauge,
    total: IntCounter,
}

/// Service ports that have endpoints, but none on this node, by policy and family.
#[derive(Debug)]
struct NoLocal {
    internal: [IntGauge; 2],
    external: [IntGauge; 2],
    lacking: Mutex<HashMap<ServicePortId, Lacks>>,
}

/// Which traffic a service port has no local endpoint for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lacks {
    internal: bool,
    external: bool,
}

/// The slices in a step, by when the change that made the controller write them happened.
#[derive(Debug, Default)]
pub struct Triggers(Vec<(Family, Timestamp)>);

impl Sync {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let duration =
            |name: &str, help: &str| by_family(registry, name, help, exponential_buckets(0.001, 2.0, 15)?);
        Ok(Self {
            all: duration(
                "kubeproxy_sync_proxy_rules_duration_seconds",
                "Steps from changes to what is programmed",
            )?,
            full: duration(
                "kubeproxy_sync_full_proxy_rules_duration_seconds",
                "Steps in which every Service was looked at",
            )?,
            partial: duration("kubeproxy_sync_partial_proxy_rules_duration_seconds", "All other steps")?,
            last: timestamps(
                registry,
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "When everything was last programmed",
            )?,
            queued: timestamps(
                registry,
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "When a change last came",
            )?,
            latency: by_family(
                registry,
                "kubeproxy_network_programming_duration_seconds",
                "From the change that made a controller write an EndpointSlice to what is programmed",
                programming_buckets(),
            )?,
            endpoints: Changes::new(registry, "endpoint", "EndpointSlices")?,
            services: Changes::new(registry, "service", "Services")?,
            no_local: NoLocal::new(registry)?,
            started: Timestamp::now(),
        })
    }

    /// A change has come, and waits.
    pub(crate) fn queued(&self, change: &Change) {
        self.touched();
        match change {
            Change::Service(_) | Change::ServiceGone(_) => self.services.add(1),
            Change::Slice(_) | Change::SliceGone(_) => self.endpoints.add(1),
            Change::Services(list) => self.services.add(list.len()),
            Change::Slices(list) => self.endpoints.add(list.len()),
            Change::Node(_) | Change::LocalAddresses(_) => {}
        }
    }

    /// A reason to look again has come, of the links or of time.
    pub(crate) fn touched(&self) {
        let now = seconds(SystemTime::now());
        self.queued.iter().for_each(|gauge| gauge.set(now));
    }

    /// A step is over: `full` when every Service was looked at, else only those of the families in `planned` were.
    pub(crate) fn stepped<'a>(
        &self,
        full: bool,
        planned: impl Iterator<Item = (&'a ServicePortId, Option<&'a ServicePortPlan>)>,
        took: Duration,
    ) {
        let mut touched = [full; 2];
        for (id, plan) in planned {
            touched[index(id.family)] = true;
            self.no_local.update(id, plan);
        }
        let took = took.as_secs_f64();
        let kind = if full { &self.full } else { &self.partial };
        for (index, _) in touched.into_iter().enumerate().filter(|(_, touched)| *touched) {
            self.all[index].observe(took);
            kind[index].observe(took);
        }
    }

    /// All that has come was looked at; what `is_complete` is as it should be.
    pub(crate) fn done(&self, is_complete: impl Fn(Family) -> bool, triggers: Triggers) {
        self.services.pending.set(0);
        self.endpoints.pending.set(0);
        let now = SystemTime::now();
        for (index, family) in FAMILIES.into_iter().enumerate() {
            if is_complete(family) {
                self.last[index].set(seconds(now));
            }
        }
        let now = Timestamp::now();
        for (family, triggered) in triggers.0 {
            // What happened before this process did was not for it to program.
            if triggered >= self.started && is_complete(family) {
                let took = (now.as_nanosecond() - triggered.as_nanosecond()) as f64 / 1e9;
                self.latency[index(family)].observe(took.max(0.0));
            }
        }
    }
}

impl Changes {
    fn new(registry: &Registry, kind: &str, objects: &str) -> Result<Self> {
        let name = |end: &str| format!("kubeproxy_sync_proxy_rules_{kind}_changes_{end}");
        let help = format!("Changes of {objects} that are not programmed yet");
        let pending = gauge(registry, &name("pending"), &help)?;
        let total = counter(registry, &name("total"), &format!("Changes of {objects}"))?;
        Ok(Self { pending, total })
    }

    fn add(&self, changes: usize) {
        self.total.inc_by(changes as u64);
        self.pending.add(number(changes));
    }
}

impl NoLocal {
    fn new(registry: &Registry) -> Result<Self> {
        let gauges = gauges(
            registry,
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "Service ports with policy Local and endpoints, none of them on this node",
            &["traffic_policy", IP_FAMILY],
        )?;
        let of = |policy| FAMILIES.map(|family| gauges.with_label_values(&[policy, family.name()]));
        Ok(Self { internal: of("internal"), external: of("external"), lacking: Mutex::default() })
    }

    fn update(&self, id: &ServicePortId, plan: Option<&ServicePortPlan>) {
        let now = plan.map(Lacks::of).unwrap_or_default();
        let mut lacking = self.lacking.lock().unwrap_or_else(PoisonError::into_inner);
        let before =
            if now == Lacks::default() { lacking.remove(id) } else { lacking.insert(id.clone(), now) };
        let before = before.unwrap_or_default();
        let family = index(id.family);
        self.internal[family].add(i64::from(now.internal) - i64::from(before.internal));
        self.external[family].add(i64::from(now.external) - i64::from(before.external));
    }
}

impl Lacks {
    fn of(plan: &ServicePortPlan) -> Self {
        let none_here = plan.has_any && plan.list(EndpointList::Local).next().is_none();
        Self { internal: none_here && plan.internal_local, external: none_here && plan.external_local }
    }
}

impl Triggers {
    /// Notes when what made this change happened. A slice that is gone is nobody's wait.
    pub(crate) fn note(&mut self, change: &Change) {
        let Change::Slice(slice) = change else { return };
        self.0.extend(slice.address_type.family().zip(slice.triggered));
    }
}

/// A quarter, half, and each of the first 60 seconds, then ever wider up to five minutes.
fn programming_buckets() -> Vec<f64> {
    let steps = |from: u32, to: u32, step: usize| (from..=to).step_by(step).map(f64::from);
    [0.25, 0.5]
        .into_iter()
        .chain(steps(1, 59, 1))
        .chain(steps(60, 115, 5))
        .chain(steps(120, 300, 30))
        .collect()
}

fn by_family(registry: &Registry, name: &str, help: &str, buckets: Vec<f64>) -> Result<[Histogram; 2]> {
    let options = HistogramOpts::new(name, help).buckets(buckets);
    let histograms = register(registry, HistogramVec::new(options, &[IP_FAMILY])?)?;
    Ok(FAMILIES.map(|family| histograms.with_label_values(&[family.name()])))
}

fn timestamps(registry: &Registry, name: &str, help: &str) -> Result<[Gauge; 2]> {
    let gauges = register(registry, GaugeVec::new(Opts::new(name, help), &[IP_FAMILY])?)?;
    Ok(FAMILIES.map(|family| gauges.with_label_values(&[family.name()])))
}

/// Of a family in arrays by family.
fn index(family: Family) -> usize {
    usize::from(family != Family::V4)
}

/// Since 1970.
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_kube_proxys() {
        let buckets = programming_buckets();
        assert_eq!(buckets.len(), 2 + 59 + 12 + 7);
        assert_eq!(buckets[..4], [0.25, 0.5, 1.0, 2.0]);
        assert_eq!(buckets[60..64], [59.0, 60.0, 65.0, 70.0]);
        assert_eq!(buckets[buckets.len() - 8..], [115.0, 120.0, 150.0, 180.0, 210.0, 240.0, 270.0, 300.0]);
        assert!(buckets.is_sorted());
    }
}
