use anyhow::Context;
use serde_json::json;

use super::output::{Format, ViewArgs, print_json, print_table};
use crate::{
    datapath::{self, LinkView},
    links,
};

pub(super) fn run(args: ViewArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let facts = runtime.context("starting a runtime for netlink")?.block_on(links::read_once())?;
    let links = datapath::inspect_links(&args.pins.bpffs, &facts)?;
    match args.output {
        Format::Json => print_json(&json!({ "links": links })),
        Format::Table => {
            let rows: Vec<_> = links.iter().map(row).collect();
            print_table(&["INDEX", "LINK", "ROLE", "ADDRESSES", "SOURCES", "PROGRAMS"], &rows)
        }
    }
}

fn row(link: &LinkView) -> Vec<String> {
    let LinkView { index, name, parent, role, addresses, sources, attached, .. } = link;
    let name = match (index, name, parent) {
        (0, ..) => "(any other)".to_owned(),
        // As `ip link` shows it.
        (_, Some(name), Some(parent)) => format!("{name}@{parent}"),
        (_, Some(name), None) => name.clone(),
        (_, None, _) => "(gone)".to_owned(),
    };
    let list = |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join(",") };
    vec![
        index.to_string(),
        name,
        (*role).to_owned(),
        list(addresses.iter().map(ToString::to_string).collect()),
        list(sources.iter().map(ToString::to_string).collect()),
        list(attached.iter().map(|one| format!("{}/{}", one.program, one.how)).collect()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::AttachedView;

    #[test]
    fn a_row_says_what_is_attached_and_what_is_missing() {
        let attached = vec![AttachedView { program: "uplink_ingress", how: "tcx", id: 7 }];
        let mut link = LinkView {
            index: 4,
            name: Some("eth0".into()),
            parent: None,
            role: "uplink",
            addresses: vec!["10.0.0.1".parse().unwrap()],
            sources: vec!["10.0.0.1".parse().unwrap()],
            xdp_redirect: false,
            attached,
        };
        assert_eq!(row(&link), ["4", "eth0", "uplink", "10.0.0.1", "10.0.0.1", "uplink_ingress/tcx"]);
        link = LinkView { name: Some("eth0.7".into()), parent: Some("eth0".into()), ..link };
        assert_eq!(row(&link)[1], "eth0.7@eth0");
        link = LinkView { name: None, attached: Vec::new(), ..link };
        assert_eq!(row(&link)[1..], ["(gone)", "uplink", "10.0.0.1", "10.0.0.1", "-"]);
    }
}
