mod lifetimes;

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
};

use anyhow::bail;
use proxy_common::NO_SERVICE_PORT;
use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeSeq as _},
};

use self::lifetimes::LifetimeArgs;
use super::output::{Format, ViewArgs, print_json};
use crate::{
    datapath::{self, FlowView, Flows, Lifetimes},
    plan::ServicePortId,
};

/// Arguments of `proxy-agent flows`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    view: ViewArgs,
    /// Only the flows of one Service.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    service: Option<String>,
    /// Only the flows of one client.
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// For the time left of each flow: as the agent was given them.
    #[command(flatten, next_help_heading = "As given to `proxy-agent run`")]
    lifetimes: LifetimeArgs,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let bpffs = &args.view.pins.bpffs;
    let listing = Listing {
        flows: Flows::open(bpffs)?,
        services: datapath::service_names(bpffs)?,
        lifetimes: args.lifetimes.lifetimes(),
        service: args.service,
        client: args.client,
    };
    if let Some(service) = &listing.service
        && !service.contains('/')
    {
        bail!("--service {service}: write it as NAMESPACE/NAME, such as default/{service}");
    }
    match args.view.output {
        Format::Json => print_json(&Document { flows: &listing }),
        Format::Table => {
            let mut out = io::BufWriter::new(io::stdout().lock());
            listing.table(&mut out)?;
            Ok(out.flush()?)
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    flows: &'a Listing,
}

/// The flows that were asked for. There may be half a million: they are printed as they are read.
struct Listing {
    flows: Flows,
    services: HashMap<u32, ServicePortId>,
    lifetimes: Lifetimes,
    service: Option<String>,
    client: Option<IpAddr>,
}

/// A flow with the names of its service port.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// `namespace/name`; `?` when the maps do not name it any more, `-` for a connection to an endpoint's own address.
    service: String,
    port_name: String,
    #[serde(flatten)]
    flow: FlowView,
}

impl Listing {
    /// Hands each flow to `show`; its first error ends it.
    fn each<E>(&self, mut show: impl FnMut(Row) -> Result<(), E>) -> Result<Result<(), E>, datapath::Error> {
        let mut outcome = Ok(());
        self.flows.list(&self.lifetimes, datapath::monotonic_now(), |flow| {
            let Some(row) = self.row(flow) else { return ControlFlow::Continue(()) };
            outcome = show(row);
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(outcome)
    }

    /// `None` for one that was not asked for.
    fn row(&self, flow: FlowView) -> Option<Row> {
        let (service, port_name) = match self.services.get(&flow.service_port) {
            Some(id) => (id.service.to_string(), id.port_name.to_string()),
            None if flow.service_port == NO_SERVICE_PORT => ("-".to_owned(), String::new()),
            None => ("?".to_owned(), String::new()),
        };
        let is_wanted = self.service.as_ref().is_none_or(|wanted| *wanted == service)
            && self.client.is_none_or(|wanted| wanted == flow.client.ip());
        is_wanted.then_some(Row { service, port_name, flow })
    }

    /// Columns wide enough for IPv4. Wider cells push the others aside: to line up, all of them had to be kept.
    fn table(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let header = [
            "CLIENT",
            "FRONTEND",
            "ENDPOINT",
            "PROTOCOL",
            "MASQUERADED-AS",
            "STATE",
            "IDLE",
            "EXPIRES",
            "HOOKS",
            "SERVICE",
        ];
        line(out, &header)?;
        self.each(|row| line(out, &cells(&row)))??;
        Ok(())
    }
}

impl Serialize for Listing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = RefCell::new(serializer.serialize_seq(None)?);
        self.each(|row| rows.borrow_mut().serialize_element(&row)).map_err(S::Error::custom)??;
        rows.into_inner().end()
    }
}

fn cells(row: &Row) -> [String; 10] {
    let Row { service, port_name, flow } = row;
    let source = |source: SocketAddr| source.to_string();
    [
        flow.client.to_string(),
        flow.frontend.to_string(),
        flow.endpoint.to_string(),
        flow.protocol.to_owned(),
        flow.masqueraded_as.map_or_else(|| "-".to_owned(), source),
        flow.state.to_owned(),
        format!("{}s", flow.idle_seconds),
        format!("{}s", flow.expires_in_seconds),
        format!("{},{}", flow.forward_hook, flow.reply_hook),
        if port_name.is_empty() { service.clone() } else { format!("{service}:{port_name}") },
    ]
}

fn line(out: &mut impl Write, cells: &[impl AsRef<str>; 10]) -> io::Result<()> {
    const WIDTHS: [usize; 10] = [21, 21, 21, 8, 21, 11, 6, 7, 33, 0];
    let cells = cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{:width$}", cell.as_ref()));
    writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())
}
