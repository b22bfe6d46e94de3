use std::net::SocketAddr;

use proxy_common::Counters;
use serde_json::json;

use super::output::{Format, ViewArgs, print_json, print_table};
use crate::datapath::{self, EndpointView, FrontendView, Snapshot};

pub(super) fn run(args: ViewArgs) -> anyhow::Result<()> {
    let Snapshot { counters, frontends, .. } = datapath::inspect(&args.pins.bpffs)?;
    match args.output {
        Format::Json => print_json(&json!({ "counters": counters_json(&counters), "frontends": frontends })),
        Format::Table => {
            let rows: Vec<_> = frontends.iter().map(row).collect();
            let titles =
                ["SERVICE", "PORT", "KIND", "FRONTEND", "AFFINITY", "ENDPOINTS", "FROM OUTSIDE", "CLIENTS"];
            print_table(&titles, &rows)
        }
    }
}

fn row(frontend: &FrontendView) -> Vec<String> {
    let FrontendView { service, port_name, address, port, protocol, kind, .. } = frontend;
    let from_outside = match (&frontend.external, frontend.when_empty.external) {
        // What is the same for everybody is not said twice.
        (Some(external), _) if *external == frontend.internal && !external.is_empty() => {
            "the same".to_owned()
        }
        (Some(external), Some(when_empty)) => endpoints(external, when_empty),
        _ => String::new(),
    };
    vec![
        service.clone(),
        port_name.clone(),
        (*kind).to_owned(),
        format!("{}/{protocol}", SocketAddr::new(*address, *port)),
        frontend.affinity_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds}s")),
        endpoints(&frontend.internal, frontend.when_empty.internal),
        from_outside,
        some_of(&frontend.source_ranges),
    ]
}

fn endpoints(endpoints: &[EndpointView], when_empty: &str) -> String {
    if endpoints.is_empty() {
        return format!("none: {when_empty}");
    }
    let texts: Vec<_> = endpoints
        .iter()
        .map(|endpoint| SocketAddr::new(endpoint.address, endpoint.port).to_string())
        .collect();
    some_of(&texts)
}

/// As many as fit on a line, and how many more there are.
fn some_of(texts: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown = texts[..texts.len().min(SHOWN)].join(",");
    match texts.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn counters_json(counters: &Counters) -> serde_json::Value {
    let Counters {
        translated,
        no_endpoint,
        no_local_endpoint,
        unknown_port,
        affinity_hit,
        repicked,
        no_socket_storage,
        bad_slot,
        flows_opened,
        flows_confirmed,
        flow_map_full,
        source_ports_exhausted,
        source_range_denied,
        icmp_sent,
        icmp_suppressed,
        icmp_translated,
        fragment_unknown,
        malformed,
        unroutable,
        xdp_forwarded,
    } = counters;
    json!({
        "translated": translated,
        "noEndpoint": no_endpoint,
        "noLocalEndpoint": no_local_endpoint,
        "unknownPort": unknown_port,
        "affinityHit": affinity_hit,
        "repicked": repicked,
        "noSocketStorage": no_socket_storage,
        "badSlot": bad_slot,
        "flowsOpened": flows_opened,
        "flowsConfirmed": flows_confirmed,
        "flowMapFull": flow_map_full,
        "sourcePortsExhausted": source_ports_exhausted,
        "sourceRangeDenied": source_range_denied,
        "icmpSent": icmp_sent,
        "icmpSuppressed": icmp_suppressed,
        "icmpTranslated": icmp_translated,
        "fragmentUnknown": fragment_unknown,
        "malformed": malformed,
        "unroutable": unroutable,
        "xdpForwarded": xdp_forwarded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::WhenEmptyView;

    #[test]
    fn long_lists_are_cut_short_in_a_table() {
        let all: Vec<_> = (1..=6)
            .map(|n| EndpointView { address: [10, 0, 0, n].into(), port: 80, backend: n.into() })
            .collect();
        assert_eq!(endpoints(&all[..1], "reject"), "10.0.0.1:80");
        assert!(endpoints(&all, "reject").ends_with("10.0.0.4:80 and 2 more"));
        assert_eq!(endpoints(&[], "drop"), "none: drop");
    }

    #[test]
    fn a_row_says_what_clients_outside_meet() {
        let endpoint = |last| EndpointView { address: [10, 244, 0, last].into(), port: 8080, backend: 1 };
        let mut view = FrontendView {
            service: "shop/web".into(),
            port_name: "http".into(),
            address: [203, 0, 113, 1].into(),
            port: 80,
            protocol: "TCP",
            kind: "LoadBalancer",
            service_port: 1,
            internal: vec![endpoint(1), endpoint(2)],
            external: Some(vec![endpoint(2)]),
            when_empty: WhenEmptyView { internal: "reject", external: Some("drop") },
            affinity_seconds: None,
            source_ranges: vec!["192.0.2.0/24".into(), "198.51.100.0/24".into()],
        };
        let both = "10.244.0.1:8080,10.244.0.2:8080";
        let last = |view: &FrontendView| row(view)[5..].to_vec();
        assert_eq!(row(&view)[..4], ["shop/web", "http", "LoadBalancer", "203.0.113.1:80/TCP"]);
        assert_eq!(last(&view), [both, "10.244.0.2:8080", "192.0.2.0/24,198.51.100.0/24"]);
        view.external = Some(Vec::new());
        assert_eq!(last(&view)[1], "none: drop");
        view.external = Some(view.internal.clone());
        assert_eq!(last(&view)[1], "the same");
        view.external = None;
        view.source_ranges.clear();
        assert_eq!(last(&view), [both, "", ""]);
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!((&json["kind"], &json["external"]), (&json!("LoadBalancer"), &json!(null)));
        assert_eq!(json["sourceRanges"], json!([]));
    }
}
