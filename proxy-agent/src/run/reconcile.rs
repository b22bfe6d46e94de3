use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};

use anyhow::Result;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, sleep_until},
};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{Counters, Links, Programmer, barrier};
use crate::{
    datapath::{Refused, RefusedReason, Report},
    observe::{Event, Observer},
    plan::{ObjectRef, PlanChange, Planner, PlannerConfig, Problem, ServicePortId},
    said::Said,
    state::{Change, Dirty, ObjectName, Store},
};

/// Before the kernel is asked again for what it has refused: doubled with each failure, up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(30);

/// Service ports that one step names in the log: a map that is full may refuse thousands.
const NAMED: usize = 20;

/// How soon the same problem is named again, and how many are remembered.
const REPEAT: Duration = Duration::from_secs(60);
const MOST: usize = 16_384;

/// Keeps a programmer in step with a source until the source ends.
///
/// Nothing is programmed before all objects are known. Then the difference to what is programmed already is,
/// and after that each change as it comes: whatever has arrived while one was worked on is taken together.
///
/// # Errors
/// When the programmer cannot serve at all.
pub async fn reconcile<P: Programmer>(
    programmer: &mut P,
    config: PlannerConfig,
    mut changes: Receiver<Change>,
    mut links: Links,
    counters: Arc<Counters>,
    observer: Observer,
) -> Result<()> {
    let mut store = Store::default();
    let Some(listed) = barrier::wait(&mut store, &mut changes).await else { return Ok(()) };
    links.arrive().await;
    let mut reconciler = Reconciler {
        programmer,
        planner: Planner::new(config.clone()),
        store,
        links,
        counters,
        observer,
        said: Said::new(REPEAT, MOST),
        again: HashSet::new(),
        wait: RETRY_FIRST,
        due: listed,
    };
    reconciler.complete(listed)?;
    let mut addresses_due = Some(listed + barrier::NODE);
    loop {
        let due = reconciler.due;
        let change = tokio::select! {
            change = changes.recv() => change,
            () = sleep_until(due), if !reconciler.again.is_empty() => {
                reconciler.try_again();
                reconciler.done();
                continue;
            }
            () = sleep_until(addresses_due.unwrap_or(due)), if addresses_due.is_some() => {
                addresses_due = None;
                reconciler.look_for_addresses(config.node_address);
                continue;
            }
            () = reconciler.links.news() => {
                reconciler.links_changed();
                continue;
            }
        };
        let Some(change) = change else { return Ok(()) };
        reconciler.step(change, &mut changes).await;
    }
}

struct Reconciler<'a, P> {
    programmer: &'a mut P,
    planner: Planner,
    store: Store,
    links: Links,
    counters: Arc<Counters>,
    observer: Observer,
    said: Said,
    /// Service ports that the kernel has refused.
    again: HashSet<ServicePortId>,
    /// The wait after the next refusal.
    wait: Duration,
    /// When they are tried again.
    due: Instant,
}

impl<P: Programmer> Reconciler<'_, P> {
    /// The first state.
    fn complete(&mut self, listed: Instant) -> Result<()> {
        let start = Instant::now();
        self.observer.touched();
        self.observer.node(&self.store);
        self.find_links();
        let outcome = self.planner.plan(&self.store, &Dirty::everything());
        self.tell(&outcome.problems);
        // To a planner that has planned nothing yet everything is a change.
        let plans: Vec<_> =
            outcome.changes.into_iter().filter_map(|change| Some((change.id, change.plan?))).collect();
        let report = self.programmer.reconcile(&plans)?;
        self.take_in(&report);
        self.links.attach(self.programmer);
        let planned = plans.iter().map(|(id, plan)| (id, Some(&**plan)));
        self.observer.stepped(true, planned, start.elapsed());
        self.observer.health_checks(self.planner.health_check_addresses(), outcome.health_checks);
        self.done();
        info!(
            service_ports = plans.len(),
            frontends = report.frontends_written + report.frontends_unchanged,
            backends = report.backends_added + report.backends_kept,
            frontends_written = report.frontends_written,
            frontends_removed = report.frontends_removed,
            refused = report.refused.len(),
            took_ms = millis(start),
            list_to_programmed_ms = millis(listed),
            "ready"
        );
        // systemd starts then what waits for Services; without systemd nobody is told.
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            warn!("telling systemd that the agent is ready: {error}");
        }
        Ok(())
    }

    /// kube-proxy waits this long for addresses of the Node; here everything else is served meanwhile.
    fn look_for_addresses(&self, given: Option<IpAddr>) {
        let known = self.store.node().is_some_and(|node| !node.addresses.is_empty());
        if given.is_none() && !known {
            warn!(
                "this node's Node object has no address after {} s: until it has one, node ports limited to primary \
                 addresses are not served, and load balancers' source ranges exempt nobody; check the node's name, \
                 or give --bind-address",
                barrier::NODE.as_secs()
            );
        }
    }

    /// A change, and all that have come with it.
    async fn step(&mut self, first: Change, changes: &mut Receiver<Change>) {
        let start = Instant::now();
        self.observer.received(&first);
        let mut taken = 1;
        let mut dirty = self.store.apply(first);
        // Once around the scheduler, so that the source can hand over what it has read already: no time is
        // spent waiting for more.
        tokio::task::yield_now().await;
        while let Ok(change) = changes.try_recv() {
            self.observer.received(&change);
            dirty.merge(self.store.apply(change));
            taken += 1;
        }
        self.observer.node(&self.store);
        dirty.merge(self.find_links());
        self.program(&dirty, taken, start);
        self.links.attach(self.programmer);
        self.done();
    }

    /// The links, their addresses or their routes are not what they were.
    fn links_changed(&mut self) {
        let start = Instant::now();
        self.observer.touched();
        let dirty = self.find_links();
        self.program(&dirty, 1, start);
        self.links.attach(self.programmer);
        self.done();
    }

    /// All that has come is programmed, but for what the kernel refuses. A map without room is no lag: every
    /// node lacks it alike, and traffic that goes to none of them helps nobody.
    fn done(&mut self) {
        let attached = self.links.are_attached();
        self.observer.programmed(|family| attached && !self.again.iter().any(|id| id.family == family));
    }

    /// The roles of the links depend on what the Node object says too.
    fn find_links(&mut self) -> Dirty {
        let node = self.store.node().map(|node| node.addresses.as_slice()).unwrap_or_default();
        match self.links.find(node) {
            Some(local) => self.store.apply(Change::LocalAddresses(local)),
            None => Dirty::default(),
        }
    }

    fn program(&mut self, dirty: &Dirty, changes: usize, start: Instant) {
        if dirty.is_empty() {
            return;
        }
        let services =
            if dirty.is_everything() { self.store.service_names().count() } else { dirty.services().len() };
        let outcome = self.planner.plan(&self.store, dirty);
        self.tell(&outcome.problems);
        if !outcome.changes.is_empty() {
            self.apply(&outcome.changes, changes, services, start);
            let planned = outcome.changes.iter().map(|change| (&change.id, change.plan.as_deref()));
            self.observer.stepped(dirty.is_everything(), planned, start.elapsed());
        }
        // After the endpoints that they speak of.
        self.observer.health_checks(self.planner.health_check_addresses(), outcome.health_checks);
    }

    fn apply(&mut self, plan_changes: &[PlanChange], changes: usize, services: usize, start: Instant) {
        let report = self.programmer.apply(plan_changes);
        // Those that are refused again come back in the report.
        for change in plan_changes {
            self.again.remove(&change.id);
        }
        self.take_in(&report);
        debug!(
            changes,
            services,
            service_ports = plan_changes.len(),
            frontends_written = report.frontends_written,
            frontends_removed = report.frontends_removed,
            backends_added = report.backends_added,
            backends_removed = report.backends_removed,
            took_ms = millis(start),
            "programmed"
        );
    }

    /// Asks the kernel again for what it has refused, as it is planned by now.
    fn try_again(&mut self) {
        let mut again = std::mem::take(&mut self.again);
        let mut changes = Vec::with_capacity(again.len());
        for (id, plan) in self.planner.plans() {
            if again.remove(id) {
                changes.push(PlanChange { id: id.clone(), plan: Some(Arc::clone(plan)) });
            }
        }
        changes.extend(again.into_iter().map(|id| PlanChange { id, plan: None }));
        let report = self.programmer.apply(&changes);
        let retried = changes.len();
        self.take_in(&report);
        if self.again.is_empty() {
            info!(service_ports = retried, "programmed what the kernel had refused before");
        }
    }

    /// What a step of the programmer means for the log, the counters and the next try.
    fn take_in(&mut self, report: &Report) {
        self.counters.add_batch();
        self.counters.set_waiting(report.waiting);
        for (index, refused) in report.refused.iter().enumerate() {
            if let RefusedReason::Kernel { .. } = refused.reason {
                self.counters.add_sync_error();
                self.again.insert(refused.id.clone());
            } else {
                self.counters.add_refused();
            }
            if index < NAMED {
                warn!(service_port = %refused.id, waiting = report.waiting, "not programmed: {}", refused.reason);
                self.tell_of_refusal(refused);
            }
        }
        if let more @ 1.. = report.refused.len().saturating_sub(NAMED) {
            warn!(waiting = report.waiting, "{more} more service ports are not programmed, not named here");
        }
        for problem in &report.problems {
            self.counters.add_sync_error();
            warn!("{problem}");
        }
        if self.again.is_empty() {
            self.wait = RETRY_FIRST;
        } else {
            self.due = Instant::now() + self.wait;
            self.wait = (self.wait * 2).min(RETRY_LAST);
        }
    }

    fn tell_of_refusal(&self, refused: &Refused) {
        let service = &refused.id.service;
        let note = format!("node {}: {}", self.observer.events().node(), refused.reason);
        let event = Event::of_service(service, refused.reason.name(), "Program", note);
        self.observer.events().send(event.with_uid(self.uid(service)));
    }

    fn uid(&self, service: &ObjectName) -> Option<Uuid> {
        self.store.service(service)?.uid
    }

    fn tell(&mut self, problems: &[Problem]) {
        for problem in problems {
            self.counters.add_problem();
            if self.said.is_news(problem).is_some() {
                warn!(object = %problem.object, "{}", problem.message);
                let uid = match &problem.object {
                    ObjectRef::Service(name) => self.uid(name),
                    ObjectRef::EndpointSlice(_) | ObjectRef::Node => None,
                };
                self.observer.events().send(Event::of_problem(problem, uid));
            } else {
                debug!(object = %problem.object, "once more: {}", problem.message);
            }
        }
    }
}

/// Milliseconds since `start`, with three digits behind the point.
fn millis(start: Instant) -> f64 {
    (start.elapsed().as_secs_f64() * 1e6).round() / 1e3
}
