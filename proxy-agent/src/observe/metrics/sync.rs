use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntGauge, IntGaugeVec, Opts,
    Registry, Result, exponential_buckets,
};
use proxy_common::{EndpointList, Family};

use super::{IP_FAMILY, family_name};
use crate::{
    plan::{ServicePortId, ServicePortPlan},
    state::{AddressType, Change},
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
    gauges: IntGaugeVec,
    lacking: std::sync::Mutex<HashMap<ServicePortId, Lacks>>,
}

/// Which traffic a service port has no local endpoint for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let no_local = Opts::new(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "Service ports with policy Local and endpoints, none of them on this node",
        );
        let gauges = IntGaugeVec::new(no_local, &["traffic_policy", IP_FAMILY])?;
        registry.register(Box::new(gauges.clone()))?;
        let sync = Self {
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
            no_local: NoLocal { gauges, lacking: std::sync::Mutex::default() },
            started: Timestamp::now(),
        };
        sync.no_local.set();
        Ok(sync)
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
            touched[usize::from(id.family != Family::V4)] = true;
            self.no_local.update(id, plan);
        }
        self.no_local.set();
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
                self.latency[usize::from(family != Family::V4)].observe(took.max(0.0));
            }
        }
    }
}

impl Changes {
    fn new(registry: &Registry, kind: &str, objects: &str) -> Result<Self> {
        let name = |end: &str| format!("kubeproxy_sync_proxy_rules_{kind}_changes_{end}");
        let pending =
            IntGauge::new(name("pending"), format!("Changes of {objects} that are not programmed yet"))?;
        let total = IntCounter::new(name("total"), format!("Changes of {objects}"))?;
        registry.register(Box::new(pending.clone()))?;
        registry.register(Box::new(total.clone()))?;
        Ok(Self { pending, total })
    }

    fn add(&self, changes: usize) {
        self.total.inc_by(changes as u64);
        self.pending.add(i64::try_from(changes).unwrap_or(i64::MAX));
    }
}

impl NoLocal {
    fn update(&self, id: &ServicePortId, plan: Option<&ServicePortPlan>) {
        let lacks = plan.map(Lacks::of).filter(|lacks| lacks.internal || lacks.external);
        let mut lacking = self.lacking();
        match lacks {
            Some(lacks) => drop(lacking.insert(id.clone(), lacks)),
            None => drop(lacking.remove(id)),
        }
    }

    fn set(&self) {
        let lacking = self.lacking();
        for family in FAMILIES {
            let of_family = || lacking.iter().filter(|(id, _)| id.family == family).map(|(_, lacks)| lacks);
            let counts = [
                ("internal", of_family().filter(|lacks| lacks.internal).count()),
                ("external", of_family().filter(|lacks| lacks.external).count()),
            ];
            for (policy, count) in counts {
                let gauge = self.gauges.with_label_values(&[policy, family_name(family)]);
                gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }

    fn lacking(&self) -> std::sync::MutexGuard<'_, HashMap<ServicePortId, Lacks>> {
        self.lacking.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
        let family = match slice.address_type {
            AddressType::V4 => Family::V4,
            AddressType::V6 => Family::V6,
            AddressType::Other => return,
        };
        self.0.extend(slice.triggered.map(|triggered| (family, triggered)));
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
    let histograms = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &[IP_FAMILY])?;
    registry.register(Box::new(histograms.clone()))?;
    Ok(FAMILIES.map(|family| histograms.with_label_values(&[family_name(family)])))
}

fn timestamps(registry: &Registry, name: &str, help: &str) -> Result<[Gauge; 2]> {
    let gauges = GaugeVec::new(Opts::new(name, help), &[IP_FAMILY])?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(FAMILIES.map(|family| gauges.with_label_values(&[family_name(family)])))
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
