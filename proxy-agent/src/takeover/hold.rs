//! What lets connections that kube-proxy has translated go on when its rules are gone.
//!
//! The kernel keeps the translation with the connection, not with the rule. But it looks for connections only while a
//! rule in the network namespace needs that, and translates only while there is a chain for NAT: without kube-proxy's
//! there may be neither. So a table of our own has both, and does nothing else.

use std::collections::BTreeSet;

use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::{
    error::Error,
    leftovers::{Leftover, Leftovers},
    netlink::Attributes,
    nft::{Change, Command, delete_table, family, header, read_without_rules, transact},
    tables::{Ip, Ruleset, Table},
};

/// The table.
pub(super) const TABLE: &str = "ferroute-connections";
const CHAIN: &str = "postrouting";

/// Families from which a rule goes that may have translated a connection.
pub(super) fn needed(found: &Leftovers, ruleset: &Ruleset) -> BTreeSet<Ip> {
    let translating = found.remove.iter().filter_map(|one| match one {
        Leftover::Table { family, .. } => Some(*family),
        Leftover::Chain { family, table, .. } => (table == "nat").then_some(*family),
        _ => None,
    });
    translating.filter(|ip| !ruleset.tables.iter().any(|table| is_ours(table) && table.ip == *ip)).collect()
}

/// The changes that make it.
pub(super) fn changes(ip: Ip) -> [Change; 3] {
    /// `NF_INET_POST_ROUTING`, and where others translate sources.
    const HOOK: (u32, u32) = (4, 100);
    let doing = || format!("adding table {ip} {TABLE}");
    let start = || header(family(ip)).text(1, TABLE);
    let hook = Attributes::default().number(1, HOOK.0).number(2, HOOK.1);
    // `ct state 0x0`: what asks for connections to be looked for. No packet has no state.
    let load = Attributes::default().number(1, 1).number(2, 0);
    let zero = Attributes::default().put(1, &[0; 4]);
    let compare = Attributes::default().number(1, 1).number(2, 0).nest(3, zero);
    let expression = |name, data| Attributes::default().text(1, name).nest(2, data);
    let expressions =
        Attributes::default().nest(1, expression("ct", load)).nest(1, expression("cmp", compare));
    let create = NLM_F_CREATE;
    [
        Change::new(doing(), Command::NewTable, create, start()),
        Change::new(doing(), Command::NewChain, create, start().text(3, CHAIN).nest(4, hook).text(7, "nat")),
        Change::new(
            doing(),
            Command::NewRule,
            create | NLM_F_APPEND,
            start().text(2, CHAIN).nest(4, expressions).put(7, &comment()),
        ),
    ]
}

/// What nft shows beside the rule: a kind, a length, and a string that ends in zero.
fn comment() -> Vec<u8> {
    let text = b"kube-proxy's open connections need it; gone with: proxy-agent cleanup\0";
    [&[0, u8::try_from(text.len()).unwrap_or(0)], &text[..]].concat()
}

/// Removes it: connections that kube-proxy has translated end then, unless other rules keep them. Returns what was
/// removed, one line each.
///
/// # Errors
/// The kernel's.
pub fn release() -> Result<Vec<String>, Error> {
    let ours: Vec<Ip> =
        read_without_rules()?.iter().filter(|table| is_ours(table)).map(|table| table.ip).collect();
    if ours.is_empty() {
        return Ok(Vec::new());
    }
    let changes: Vec<Change> = ours.iter().map(|ip| delete_table(*ip, TABLE)).collect();
    transact(&changes, None)?;
    Ok(ours.iter().map(|ip| format!("table {ip} {TABLE}")).collect())
}

fn is_ours(table: &Table) -> bool {
    table.name == TABLE
}
