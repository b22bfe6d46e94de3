//! Clients whose endpoint is no longer to be had.

use xtask::lab::{available, objects::ServiceBuilder};

use super::{LONG, PORTS, Setup};
use crate::{
    fixture::Member,
    world::{From, SOURCES, eventually},
};

#[test]
fn clients_of_an_endpoint_that_leaves_move_and_stay_away() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let setup = Setup::new("affinity-leave", from, LONG);
        let active = setup.endpoints(&setup.client);
        let idle = setup.endpoints(&setup.other);

        // One leaves: its clients move, those of the others do not.
        setup.world.apply(&setup.slices(&[&setup.pods[0], &setup.pods[1], &setup.pods[2]]));
        let moved = setup.until_none_of(&setup.client, &["web-4"]);
        for (before, after) in active.iter().zip(&moved) {
            assert!(before == "web-4" || before == after, "{before} is there, but {after} answers");
        }

        // Two more, while the other client says nothing.
        setup.world.apply(&setup.slices(&[&setup.pods[0]]));
        setup.until_none_of(&setup.client, &["web-2", "web-3", "web-4"]);

        setup.world.apply(&setup.slices(&setup.pods.each_ref()));
        let mut newcomers = 0;
        eventually("all endpoints", || {
            newcomers += 1;
            let seen = setup.endpoints(&setup.newcomer(newcomers));
            let spread = |group: &[String]| group.iter().any(|endpoint| endpoint != &group[0]);
            let all = seen.chunks(usize::from(PORTS)).all(spread);
            if all { Ok(()) } else { Err(format!("{seen:?}")) }
        });
        for _ in 0..3 {
            let now = setup.endpoints(&setup.client);
            assert!(now.iter().all(|endpoint| endpoint == "web-1"), "{from:?}: clients were stolen: {now:?}");
        }

        // What was remembered of an endpoint ended with it, although it came back.
        let now = setup.endpoints(&setup.other);
        let kept = idle.iter().zip(&now).filter(|(before, _)| *before == "web-1");
        assert!(kept.clone().all(|(before, after)| before == after), "{from:?}: {now:?}");
        let gone = idle.iter().zip(&now).filter(|(before, _)| *before != "web-1");
        assert!(gone.clone().any(|(before, after)| before != after), "{from:?}: {now:?}");
    }
}

#[test]
fn clients_of_a_terminating_endpoint_move() {
    if !available() {
        return;
    }
    let setup = Setup::new("affinity-terminating", From::Manifests, LONG);
    let before = setup.endpoints(&setup.client);
    // It still serves, and finishes what it has.
    let leaving = Member::pod(&setup.pods[3]).with(|endpoint| endpoint.terminating(true));
    let others = setup.pods[..3].iter().map(Member::pod);
    setup.world.apply(&setup.slices_of(&others.chain([leaving]).collect::<Vec<_>>()));
    let after = setup.until_none_of(&setup.client, &["web-4"]);
    for (before, after) in before.iter().zip(&after) {
        assert!(before == "web-4" || before == after, "{before} is there, but {after} answers");
    }
}

#[test]
fn a_client_only_stays_where_the_policy_lets_it() {
    if !available() {
        return;
    }
    // With a node port the endpoints of other nodes are still known when the policy is Local.
    for kind in ["ClusterIP", "NodePort"] {
        let setup = Setup::new("affinity-policy", From::Api, LONG);
        let policy = |policy: &str| {
            let change = |service: ServiceBuilder| service.affinity(LONG).kind(kind);
            let mut object = setup.service(change);
            object["spec"]["internalTrafficPolicy"] = policy.into();
            if kind == "NodePort" {
                for port in object["spec"]["ports"].as_array_mut().expect("ports") {
                    port["nodePort"] = (30_000 + port["port"].as_u64().expect("a port")).into();
                }
            }
            setup.world.apply(&[object]);
        };
        policy("Cluster");
        let spread = setup.endpoints(&setup.client);
        assert!(spread.iter().any(|endpoint| endpoint != "web-1"));
        policy("Local");
        setup.until_none_of(&setup.client, &["web-2", "web-3", "web-4"]);
        policy("Cluster");
        let mut newcomers = 0;
        eventually("all endpoints", || {
            newcomers += 1;
            let seen = setup.endpoints(&setup.newcomer(newcomers));
            if seen.iter().any(|endpoint| endpoint != "web-1") { Ok(()) } else { Err(format!("{seen:?}")) }
        });
        // Entries are kept for each endpoint: web-1 is in both lists.
        let now = setup.endpoints(&setup.client);
        assert!(now.iter().all(|endpoint| endpoint == "web-1"), "{kind}: {now:?}");
    }
}
