//! The acceptance checklist of kube-proxy's end-to-end tests, KUBE-PROXY.md section 7, by its row numbers:
//! every row that is not for the metrics server, the API server or the kubelet. `docs/acceptance.md` has all.
//!
//! Rows that tests elsewhere cover:
//!
//! | row | test |
//! | --- | --- |
//! | 5 hairpin | `socket_path::a_pod_reaches_itself` |
//! | 23, 77, 78 affinity | `affinity::a_client_stays_with_one_endpoint` |
//! | 24 affinity timeout | `affinity::it_ends_after_the_timeout_and_each_request_renews_it` |
//! | 25 switch affinity | `affinity::switched_off_it_spreads_and_switched_on_it_starts_empty` |
//! | 31 no endpoints | `socket_path::no_endpoints_is_a_refusal_at_once` |
//! | 33, 34 internalTrafficPolicy Local | `policies::local_serves_the_endpoints_node_and_fails_fast_elsewhere` |
//! | 35 with endpoints in the host's network | `policies::local_with_an_endpoint_in_the_hosts_network` |
//! | 38, 39 terminating endpoints | `policies::terminating_endpoints_serve_when_no_other_does` |
//! | 49, 50 ports of sidecars | `services::row_051_one_name_for_different_target_ports` |
//! | 52 UDP, pod replaced, NodePort | `packet::udp::a_socket_moves_when_its_endpoint_is_replaced` |
//! | 61 healthz | `health::row_061_healthz_on_the_node_itself` |
//! | 99 source ranges | `packet::policies::source_ranges_are_for_load_balancer_addresses_and_for_everyone` |
//! | 113 to 117 hints | `hints::*` |

mod balancers;
mod endpoints;
mod flows;
mod node_ports;
mod segments;
mod services;
mod traffic;
mod visibility;
