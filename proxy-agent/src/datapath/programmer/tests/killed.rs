//! An agent that is killed between any two writes.

use super::*;

const ROOMY: Capacities = Capacities {
    frontends: 256,
    slots: 512,
    backends4: 512,
    backends6: 8,
    affinity: 16,
    services: 64,
    source_ranges: 256,
    flows: 8,
    new_flows: 8,
};

type Plans = Vec<(ServicePortId, Arc<ServicePortPlan>)>;

/// What three service ports are to be. Who comes first has an address and port that several claim: the
/// planner gives each to one.
fn any_state() -> impl Strategy<Value = Plans> {
    prop::collection::vec(prop::option::weighted(0.8, any_plan()), 3).prop_map(|plans| {
        let mut claimed = BTreeSet::new();
        let mut resolved = Plans::new();
        for (number, plan) in plans.into_iter().enumerate() {
            let Some(mut plan) = plan else { continue };
            plan.frontends.retain(|frontend| claimed.insert((frontend.address, frontend.port)));
            if !plan.frontends.is_empty() {
                resolved.push((id(&format!("s{number}")), Arc::new(plan)));
            }
        }
        resolved
    })
}

fn changes(from: &Plans, to: &Plans) -> Vec<PlanChange> {
    let gone = from.iter().filter(|(id, _)| to.iter().all(|(other, _)| other != id));
    let gone = gone.map(|(id, _)| PlanChange { id: id.clone(), plan: None });
    let new = to.iter().filter(|entry| !from.contains(entry));
    gone.chain(new.map(|(id, plan)| PlanChange { id: id.clone(), plan: Some(Arc::clone(plan)) })).collect()
}

/// Where each frontend leads to in a plan: clients inside the cluster, and those outside.
fn wanted(plans: &Plans) -> BTreeMap<FrontendKey, [Endpoints; 2]> {
    let endpoints = |plan: &ServicePortPlan, kind| {
        [plan.internal_list(kind), plan.external_list(kind)].map(|list| {
            plan.list(list).map(|endpoint| (endpoint.address, endpoint.port)).collect::<Endpoints>()
        })
    };
    plans
        .iter()
        .flat_map(|(_, plan)| plan.frontends.iter().map(move |frontend| (frontend, plan)))
        .map(|(frontend, plan)| {
            let key = FrontendKey::new(frontend.address, frontend.port, Protocol::Tcp);
            (key, endpoints(plan, frontend.kind))
        })
        .collect()
}

/// Whom each frontend lets in, in a plan.
fn wanted_clients(plans: &Plans) -> BTreeMap<FrontendKey, Allowed> {
    let all = plans.iter().flat_map(|(_, plan)| plan.frontends.iter().map(move |frontend| (frontend, plan)));
    all.map(|(frontend, plan)| {
        let key = FrontendKey::new(frontend.address, frontend.port, Protocol::Tcp);
        let limited = frontend.kind == FrontendKind::LoadBalancer && !plan.source_ranges.is_empty();
        (key, limited.then(|| plan.allowed_sources().into_iter().collect()))
    })
    .collect()
}

/// Whom each frontend lets in, in the tables.
fn found_clients(tables: &Memory) -> BTreeMap<FrontendKey, Allowed> {
    let frontends = tables.frontends.iter().filter(|(key, _)| !key.is_any_port());
    frontends.map(|(key, value)| (*key, tables.allowed(value))).collect()
}

/// Between two states nobody is turned away whom both let in at a frontend, and nobody is let in whom neither
/// lets in at any frontend of the service port.
fn check_clients(tables: &Memory, old: &BTreeMap<FrontendKey, Allowed>, before: &Plans, after: &Plans) {
    let new = wanted_clients(after);
    for (key, found) in found_clients(tables) {
        let known: Vec<&Allowed> = old.get(&key).into_iter().chain(new.get(&key)).collect();
        let Some(found) = found else {
            assert!(known.contains(&&None), "{key} lets everybody in");
            continue;
        };
        let owner = identity(&tables.services[&tables.frontends[&key].service_port]);
        let plans = before.iter().chain(after).filter(|(id, _)| Some(id) == owner.as_ref());
        let ranges: BTreeSet<_> = plans.flat_map(|(_, plan)| &plan.source_ranges).collect();
        for clients in (0..3).map(range) {
            let is_known =
                |allowed: &&Allowed| allowed.as_ref().is_none_or(|allowed| allowed.contains(&clients));
            assert!(
                found.contains(&clients) || !known.iter().all(is_known),
                "{clients} is turned away at {key}"
            );
            assert!(ranges.contains(&clients) || !found.contains(&clients), "{clients} is let in at {key}");
        }
    }
}

/// Where each frontend leads to in the tables: to endpoints that are in use, and in sight of the filter.
fn found(tables: &Memory) -> BTreeMap<FrontendKey, [Endpoints; 2]> {
    let frontends = tables.frontends.iter().filter(|(key, _)| !key.is_any_port());
    frontends
        .map(|(key, value)| {
            for SlotRange { base, len } in [value.internal, value.external] {
                for slot in base..base + len {
                    let backend = &tables.backends[&(0, tables.slots[&slot])];
                    assert!(is_live(backend.generation), "{key} leads to an endpoint that is taken back");
                }
            }
            let (word, mask) = filter_position(key.address());
            assert!(tables.filter_word(word) & mask != 0, "{key} is behind the filter");
            (*key, tables.both_endpoints(0, value))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn an_agent_killed_between_any_two_writes_leaves_each_frontend_old_or_new(
        states in prop::collection::vec((any_state(), 0..80_usize), 2..8),
    ) {
        let mut programmer = programmer(ROOMY);
        let mut before = Plans::new();
        for (after, writes) in states {
            let old = found(&programmer.tables);
            let old_clients = found_clients(&programmer.tables);
            programmer.tables.left = Some(writes);
            programmer.apply(&changes(&before, &after));
            let new = wanted(&after);
            for (key, endpoints) in found(&programmer.tables) {
                let known = [old.get(&key), new.get(&key)].contains(&Some(&endpoints));
                prop_assert!(known, "{} leads to {:?}", key, endpoints);
            }
            check_clients(&programmer.tables, &old_clients, &before, &after);
            programmer.tables.check_readers();

            programmer.tables.left = None;
            programmer = restarted(programmer);
            let report = programmer.reconcile(&after);
            prop_assert!(report.refused.is_empty() && report.problems.is_empty(), "{:?}", report);
            check(&programmer, false);
            prop_assert_eq!(found(&programmer.tables), new);
            prop_assert_eq!(found_clients(&programmer.tables), wanted_clients(&after));
            before = after;
        }
    }
}
