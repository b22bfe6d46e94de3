//! An agent that is killed between any two writes.

use super::*;

const ROOMY: Capacities =
    Capacities { frontends: 256, slots: 512, backends4: 512, backends6: 8, affinity: 16, services: 64 };

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

/// Where each frontend leads to in a plan.
fn wanted(plans: &Plans) -> BTreeMap<FrontendKey, Endpoints> {
    let endpoints = |plan: &ServicePortPlan| {
        let list = plan.internal_list(FrontendKind::ClusterIp);
        plan.list(list).map(|endpoint| (endpoint.address, endpoint.port)).collect::<Endpoints>()
    };
    plans
        .iter()
        .flat_map(|(_, plan)| plan.frontends.iter().map(move |frontend| (frontend, plan)))
        .map(|(frontend, plan)| {
            (FrontendKey::new(frontend.address, frontend.port, Protocol::Tcp), endpoints(plan))
        })
        .collect()
}

/// Where each frontend leads to in the tables: to endpoints that are in use, and in sight of the filter.
fn found(tables: &Memory) -> BTreeMap<FrontendKey, Endpoints> {
    let frontends = tables.frontends.iter().filter(|(key, _)| !key.is_any_port());
    frontends
        .map(|(key, value)| {
            let SlotRange { base, len } = value.internal;
            for slot in base..base + len {
                let backend = &tables.backends[&(0, tables.slots[&slot])];
                assert!(is_live(backend.generation), "{key} leads to an endpoint that is taken back");
            }
            let (word, mask) = filter_position(key.address());
            assert!(tables.filter_word(word) & mask != 0, "{key} is behind the filter");
            (*key, tables.endpoints(0, value.internal))
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
            programmer.tables.left = Some(writes);
            programmer.apply(&changes(&before, &after));
            let new = wanted(&after);
            for (key, endpoints) in found(&programmer.tables) {
                let known = [old.get(&key), new.get(&key)].contains(&Some(&endpoints));
                prop_assert!(known, "{} leads to {:?}", key, endpoints);
            }
            programmer.tables.check_readers();

            programmer.tables.left = None;
            programmer = restarted(programmer);
            let report = programmer.reconcile(&after);
            prop_assert!(report.refused.is_empty() && report.problems.is_empty(), "{:?}", report);
            check(&programmer, false);
            prop_assert_eq!(found(&programmer.tables), new);
            before = after;
        }
    }
}
