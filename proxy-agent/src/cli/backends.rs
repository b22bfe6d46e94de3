use std::net::SocketAddr;

use serde_json::json;

use super::output::{Format, PinArgs, print_json, print_table};
use crate::datapath::{self, BackendView};

/// Arguments of `proxy-agent backends`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    pins: PinArgs,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
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
