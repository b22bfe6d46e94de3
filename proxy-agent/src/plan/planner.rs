use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use proxy_common::Family;

use super::{
    HealthCheck, HealthCheckChange, NodePortAddresses, ObjectRef, PlanChange, PlannedFrontend, Problem,
    ProblemReason, ServicePortId, ServicePortPlan,
    claims::{Claim, Claims, Place, Right},
    draft::{Draft, Wanted, draft, protocol_name},
    health_check::differences,
    here::Here,
};
use crate::state::{Dirty, ObjectName, Store};

#[cfg(test)]
mod tests;

/// What the planner is told about how to plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannerConfig {
    /// Which of the node's addresses serve node ports.
    pub node_port_addresses: NodePortAddresses,
    /// Whether the loopback addresses may be among them.
    pub loopback_node_ports: bool,
    /// Whether Services are served at their external IPs.
    pub external_ips: bool,
    /// The node's own address, in the place of the first of its family in the Node object.
    pub node_address: Option<IpAddr>,
    /// Every TCP endpoint in a slice keeps its backend, in whatever state it is: one that has none is then gone.
    pub keep_tcp_endpoints: bool,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        Self {
            node_port_addresses: NodePortAddresses::default(),
            loopback_node_ports: true,
            external_ips: true,
            node_address: None,
            keep_tcp_endpoints: false,
        }
    }
}

/// Plans what a change touched, and remembers what was planned before.
///
/// The result does not depend on the order of changes: planning step by step leaves the same plans as
/// planning everything at once. It reads nothing but the store.
#[derive(Debug)]
pub struct Planner {
    config: PlannerConfig,
    here: Here,
    services: HashMap<ObjectName, Planned>,
    claims: Claims,
    /// Service ports with a node port, IPv4 and IPv6.
    node_ports: [usize; 2],
    node_problems: Vec<Problem>,
}

/// The result of one step of planning.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Every service port whose plan differs from the one before, by id.
    pub changes: Vec<PlanChange>,
    /// Every health check that differs from the one before, by id.
    pub health_checks: Vec<HealthCheckChange>,
    /// What was not wrong before, or not known to be. Not repeated while it stays.
    pub problems: Vec<Problem>,
}

#[derive(Debug, Default)]
struct Planned {
    /// Without the spare room that a vector has: there is one a Service, for as long as the agent runs.
    ports: Box<[PlannedPort]>,
    health_checks: Box<[(Family, HealthCheck)]>,
    problems: Vec<Problem>,
    clashes: Vec<Problem>,
}

#[derive(Debug)]
struct PlannedPort {
    id: ServicePortId,
    wanted: Wanted,
    plan: Arc<ServicePortPlan>,
}

impl Planner {
    /// A planner that has planned nothing yet.
    #[must_use]
    pub fn new(config: PlannerConfig) -> Self {
        Self {
            here: Here::new(&config, None, None),
            config,
            services: HashMap::new(),
            claims: Claims::default(),
            node_ports: [0; 2],
            node_problems: Vec::new(),
        }
    }

    /// Plans the dirty Services again, and those that win or lose an address by it.
    pub fn plan(&mut self, store: &Store, dirty: &Dirty) -> Outcome {
        self.here.refresh(&self.config, store);
        let mut before: HashMap<ObjectName, Planned> = HashMap::new();
        let mut affected: HashSet<ObjectName> = HashSet::new();
        for name in self.names(store, dirty) {
            let draft = draft(store, &name, &self.here, &self.config);
            let old = self.services.remove(&name).unwrap_or_default();
            self.exchange(name.clone(), &old, draft, &mut affected);
            before.insert(name, old);
        }
        for name in affected {
            // Nothing of these but what they win has changed.
            let Some(planned) = self.services.get(&name) else { continue };
            before.entry(name).or_insert_with(|| planned.snapshot());
        }

        let mut outcome = Outcome::default();
        for (name, old) in before {
            self.finish(&name, old, &mut outcome);
        }
        outcome.changes.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        outcome.health_checks.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        outcome.problems.sort_unstable();
        self.check_node(store, &mut outcome.problems);
        outcome
    }

    /// Everything that is planned, in no order.
    pub fn plans(&self) -> impl Iterator<Item = (&ServicePortId, &Arc<ServicePortPlan>)> {
        self.services.values().flat_map(|planned| &planned.ports).map(|port| (&port.id, &port.plan))
    }

    /// On which addresses load balancers may ask for the health of Services, as of the last step: the wildcard
    /// address of a family unless the addresses of node ports are limited.
    #[must_use]
    pub fn health_check_addresses(&self) -> &[IpAddr] {
        self.here.health_checks()
    }

    fn names(&self, store: &Store, dirty: &Dirty) -> HashSet<ObjectName> {
        if dirty.is_everything() {
            self.services.keys().chain(store.service_names()).chain(dirty.services()).cloned().collect()
        } else {
            dirty.services().cloned().collect()
        }
    }

    /// Puts a draft in the place of what was planned, and moves the claims along. Who wins is not yet
    /// settled: other drafts follow.
    fn exchange(
        &mut self,
        name: ObjectName,
        old: &Planned,
        draft: Draft,
        affected: &mut HashSet<ObjectName>,
    ) {
        let Draft { ports, health_checks, problems } = draft;
        let unchanged = old.ports.len() == ports.len()
            && old.ports.iter().zip(&ports).all(|(old, new)| old.id == new.id && old.wanted == new.wanted);
        if !unchanged {
            for port in &old.ports {
                self.count_node_port(port.id.family, &port.wanted, false);
                for (place, claim) in port.wanted.claims(&port.id) {
                    affected.extend(self.claims.remove(place, &claim).map(|next| next.service.clone()));
                }
            }
            for port in &ports {
                self.count_node_port(port.id.family, &port.wanted, true);
                for (place, claim) in port.wanted.claims(&port.id) {
                    affected.extend(self.claims.add(place, claim).map(|last| last.service.clone()));
                }
            }
        }
        let ports: Box<[PlannedPort]> = ports
            .into_iter()
            .map(|port| PlannedPort { id: port.id, wanted: port.wanted, plan: Arc::new(port.plan) })
            .collect();
        if !ports.is_empty() || !problems.is_empty() {
            let planned =
                Planned { ports, health_checks: health_checks.into(), problems, clashes: Vec::new() };
            self.services.insert(name, planned);
        }
    }

    fn count_node_port(&mut self, family: Family, wanted: &Wanted, here: bool) {
        let count = &mut self.node_ports[usize::from(family == Family::V6)];
        match (wanted.node_port, here) {
            (false, _) => {}
            (true, true) => *count += 1,
            (true, false) => *count -= 1,
        }
    }

    /// Settles which frontends the service ports of a Service have, and says what is new.
    fn finish(&mut self, name: &ObjectName, old: Planned, outcome: &mut Outcome) {
        let checks = self.services.get(name).map(|planned| &*planned.health_checks).unwrap_or_default();
        outcome.health_checks.extend(differences(name, &old.health_checks, checks));
        let mut gone: HashMap<ServicePortId, Arc<ServicePortPlan>> =
            old.ports.into_iter().map(|port| (port.id, port.plan)).collect();
        if let Some(planned) = self.services.get_mut(name) {
            planned.clashes.clear();
            for port in &mut planned.ports {
                let frontends = won(&self.claims, port, &mut planned.clashes);
                if port.plan.frontends != frontends {
                    Arc::make_mut(&mut port.plan).frontends = frontends;
                }
                match gone.remove(&port.id) {
                    Some(before) if before == port.plan => port.plan = before,
                    _ => outcome
                        .changes
                        .push(PlanChange { id: port.id.clone(), plan: Some(Arc::clone(&port.plan)) }),
                }
            }
            let is_new =
                |problem: &&Problem| !old.problems.contains(*problem) && !old.clashes.contains(*problem);
            let problems = planned.problems.iter().chain(&planned.clashes).filter(is_new);
            outcome.problems.extend(problems.cloned());
        }
        outcome.changes.extend(gone.into_keys().map(|id| PlanChange { id, plan: None }));
    }

    /// Says when Services have node ports that no address of the node serves. Not before the Node has been
    /// heard of: at the start it may come last.
    fn check_node(&mut self, store: &Store, problems: &mut Vec<Problem>) {
        let node = store.node().into_iter().flat_map(|node| node.problems.clone());
        let mut now: Vec<Problem> =
            node.map(|message| of_node(ProblemReason::InvalidField, message)).collect();
        let (setting, here) = (&self.config.node_port_addresses, &self.here);
        for (family, ports) in [Family::V4, Family::V6].into_iter().zip(self.node_ports) {
            if ports > 0 && store.is_node_known() {
                let why = setting.why_none(here.node_ports(), family, here.are_links_known());
                now.extend(why.map(|message| of_node(ProblemReason::NoNodeAddress, message)));
            }
        }
        problems.extend(now.iter().filter(|problem| !self.node_problems.contains(*problem)).cloned());
        self.node_problems = now;
    }
}

impl Planned {
    fn snapshot(&self) -> Self {
        let ports = self.ports.iter().map(|port| PlannedPort {
            id: port.id.clone(),
            wanted: port.wanted.clone(),
            plan: Arc::clone(&port.plan),
        });
        Self {
            ports: ports.collect(),
            health_checks: self.health_checks.clone(),
            problems: self.problems.clone(),
            clashes: self.clashes.clone(),
        }
    }
}

fn of_node(reason: ProblemReason, message: String) -> Problem {
    Problem { object: ObjectRef::Node, reason, message }
}

/// The frontends that a service port has won, and a problem for each that it has not.
fn won(claims: &Claims, port: &PlannedPort, clashes: &mut Vec<Problem>) -> Vec<PlannedFrontend> {
    let mut frontends = Vec::with_capacity(port.wanted.frontends.len());
    for (frontend, (place, claim)) in port.wanted.frontends.iter().zip(port.wanted.claims(&port.id)) {
        match claims.winner(place) {
            Some(winner) if *winner != claim => clashes.push(clash(port, place, &claim, winner)),
            _ => frontends.push(*frontend),
        }
    }
    frontends
}

fn clash(port: &PlannedPort, place: Place, claim: &Claim, winner: &Claim) -> Problem {
    let why = match () {
        () if winner.service == claim.service => format!("spec.ports[{}], which comes first", winner.index),
        () if winner.right != claim.right => {
            let what =
                if winner.right == Right::ClusterIp { "its cluster IP" } else { "an address of its own" };
            format!("Service {}, which has it as {what}", winner.service)
        }
        () if winner.created != claim.created => format!("Service {}, which is older", winner.service),
        () => format!("Service {}, which is as old and first by name", winner.service),
    };
    let kind = if claim.right == Right::NodePort { "node port " } else { "" };
    Problem {
        object: ObjectRef::Service(port.id.service.clone()),
        reason: ProblemReason::AddressConflict,
        message: format!(
            "spec.ports[{}] is not served on {kind}{}/{}: it belongs to {why}; change either of them",
            claim.index,
            SocketAddr::new(place.address, place.port),
            protocol_name(place.protocol),
        ),
    }
}
