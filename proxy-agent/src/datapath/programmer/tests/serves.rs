//! Who still has an endpoint, as sockets are judged by.

use std::net::SocketAddr;

use super::*;

fn endpoint(plan: &ServicePortPlan, at: usize) -> SocketAddr {
    SocketAddr::new(plan.endpoints[at].address, plan.endpoints[at].port)
}

#[test]
fn an_endpoint_is_served_by_the_owner_of_a_frontend_and_by_no_other() {
    let mut programmer = programmer(Capacities::default());
    // The second endpoint is in no list.
    let (one, two) = (plan(&[(1, 80)], &[(1, 1), (2, 0)]), plan(&[(2, 80)], &[(3, 1)]));
    let (first, second, third) = (endpoint(&one, 0), endpoint(&one, 1), endpoint(&two, 0));
    programmer.apply(&[change("a", one.clone()), change("b", two)]);
    let asked = [
        (key(1, 80), first),
        (key(1, 80), second),
        (key(1, 80), third),
        (key(2, 80), first),
        (key(2, 80), third),
        (key(9, 80), first),
    ];
    assert_eq!(programmer.serves(&asked), [true, true, false, false, true, false]);
    assert!(programmer.serves(&[]).is_empty());

    let restarted = restarted(programmer);
    assert_eq!(restarted.serves(&asked[..3]), [true, true, false]);
    let mut programmer = restarted;
    let report = programmer.apply(&[change("a", plan(&[(1, 80)], &[(1, 1)]))]);
    assert_eq!((report.tcp_backends_removed, report.udp_backends_removed), (1, 0));
    assert_eq!(programmer.serves(&asked[..2]), [true, false]);
    programmer.apply(&[gone("a")]);
    assert_eq!(programmer.serves(&asked[..2]), [false, false]);
}
