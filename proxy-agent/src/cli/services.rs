use std::net::SocketAddr;

use proxy_common::Counters;
use serde_json::json;

use super::output::{Format, PinArgs, print_json, print_table};
use crate::datapath::{self, EndpointView, FrontendView, Snapshot};

/// Arguments of `proxy-agent services`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    pins: PinArgs,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let Snapshot { counters, frontends, .. } = datapath::inspect(&args.pins.bpffs)?;
    match args.output {
        Format::Json => print_json(&json!({ "counters": counters_json(&counters), "frontends": frontends })),
        Format::Table => {
            let rows: Vec<_> = frontends.iter().map(row).collect();
            print_table(&["SERVICE", "PORT", "KIND", "FRONTEND", "AFFINITY", "ENDPOINTS"], &rows)
        }
    }
}

fn row(frontend: &FrontendView) -> Vec<String> {
    let FrontendView { service, port_name, address, port, protocol, kind, .. } = frontend;
    vec![
        service.clone(),
        port_name.clone(),
        (*kind).to_owned(),
        format!("{}/{protocol}", SocketAddr::new(*address, *port)),
        frontend.affinity_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds}s")),
        endpoints(&frontend.internal, frontend.when_empty.internal),
    ]
}

/// As many as fit on a line, and how many more there are.
fn endpoints(endpoints: &[EndpointView], when_empty: &str) -> String {
    const SHOWN: usize = 4;
    if endpoints.is_empty() {
        return format!("none: {when_empty}");
    }
    let shown: Vec<String> = endpoints
        .iter()
        .take(SHOWN)
        .map(|endpoint| SocketAddr::new(endpoint.address, endpoint.port).to_string())
        .collect();
    let shown = shown.join(",");
    match endpoints.len().saturating_sub(SHOWN) {
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

    #[test]
    fn long_lists_are_cut_short_in_a_table() {
        let all: Vec<_> = (1..=6)
            .map(|n| EndpointView { address: [10, 0, 0, n].into(), port: 80, backend: n.into() })
            .collect();
        assert_eq!(endpoints(&all[..1], "reject"), "10.0.0.1:80");
        assert!(endpoints(&all, "reject").ends_with("10.0.0.4:80 and 2 more"));
        assert_eq!(endpoints(&[], "drop"), "none: drop");
    }
}
