use std::net::SocketAddr;

use serde_json::json;

use super::output::{Format, ViewArgs, print_json, print_table};
use crate::datapath::{self, BackendView};

pub(super) fn run(args: ViewArgs) -> anyhow::Result<()> {
    let backends = datapath::inspect(&args.pins.bpffs)?.backends;
    match args.output {
        Format::Json => print_json(&json!({ "backends": backends })),
        Format::Table => {
            let rows: Vec<_> = backends.iter().map(row).collect();
            print_table(&["SERVICE", "PORT", "ENDPOINT", "LISTS", "ACTIVE", "ID", "GENERATION"], &rows)
        }
    }
}

fn row(backend: &BackendView) -> Vec<String> {
    let BackendView { service, port_name, protocol, address, port, lists, .. } = backend;
    vec![
        service.clone(),
        port_name.clone(),
        format!("{}/{protocol}", SocketAddr::new(*address, *port)),
        if lists.is_empty() { "-".to_owned() } else { lists.join(",") },
        backend.active.to_string(),
        backend.backend.to_string(),
        backend.generation.to_string(),
    ]
}
