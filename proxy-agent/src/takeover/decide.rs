//! Which rules and chains of a table are kube-proxy's. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    leftovers::{Backend, Kept, Leftover, Leftovers},
    names::{MARK_MASQ, POSTROUTING, TABLE, is_chain, is_classic_table, is_entry},
    tables::{Rule, Table},
};

#[cfg(test)]
mod tests;

/// Adds what of a table is removed, and what of it stays though it bears a name of kube-proxy's.
pub(super) fn decide(backend: Backend, table: &Table, found: &mut Leftovers) {
    if backend == Backend::Nft && table.name == TABLE {
        found.remove.push(Leftover::Table {
            family: table.ip,
            table: table.name.clone(),
            chains: table.chains.len(),
        });
    } else if is_classic_table(&table.name) {
        classic(backend, table, found);
    }
}

/// A table that kube-proxy shares with others, in iptables mode and IPVS mode.
fn classic(backend: Backend, table: &Table, found: &mut Leftovers) {
    let mut ours: BTreeSet<&str> = table
        .chains
        .iter()
        .map(|chain| chain.name.as_str())
        .filter(|name| is_chain(&table.name, name))
        .collect();
    let mut used = used_by_others(table, &ours);
    // A plug-in for host ports asks for masquerading so. What carries it out stays with it.
    if let Some(user) = used.remove(MARK_MASQ) {
        for chain in [MARK_MASQ, POSTROUTING] {
            if ours.remove(chain) {
                found.kept.push(Kept {
                    what: format!("chain {} {} {chain}", table.ip, table.name),
                    why: format!("a rule in {user} that is not kube-proxy's asks for masquerading by it"),
                });
            }
        }
    }
    let rules = table.rules.iter().filter_map(|rule| {
        let leads_to = rule.leads_to.as_deref().filter(|to| ours.contains(to))?;
        is_jump(table, rule).then(|| Leftover::Rule {
            backend,
            family: table.ip,
            table: table.name.clone(),
            chain: rule.chain.clone(),
            leads_to: leads_to.to_owned(),
            comment: rule.comment.clone(),
            id: rule.id.clone(),
        })
    });
    found.remove.extend(rules);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for rule in &table.rules {
        *counts.entry(&rule.chain).or_default() += 1;
    }
    for chain in ours {
        let rules = counts.get(chain).copied().unwrap_or(0);
        let stays_empty = used.contains_key(chain);
        if stays_empty && rules == 0 {
            continue;
        }
        found.remove.push(Leftover::Chain {
            backend,
            family: table.ip,
            table: table.name.clone(),
            chain: chain.to_owned(),
            rules,
            stays_empty,
        });
    }
}

/// A rule of kube-proxy's in a chain of the kernel's hooks.
fn is_jump(table: &Table, rule: &Rule) -> bool {
    let hooked = || table.chains.iter().any(|chain| chain.hooked && chain.name == rule.chain);
    rule.leads_to.as_deref().is_some_and(|to| is_entry(&table.name, to)) && hooked()
}

/// Chains of kube-proxy's that rules of others lead to, each with the chain of such a rule.
fn used_by_others<'a>(table: &'a Table, ours: &BTreeSet<&str>) -> BTreeMap<&'a str, &'a str> {
    let others =
        table.rules.iter().filter(|rule| !ours.contains(rule.chain.as_str()) && !is_jump(table, rule));
    others
        .filter_map(|rule| {
            let to = rule.leads_to.as_deref()?;
            ours.contains(to).then_some((to, rule.chain.as_str()))
        })
        .collect()
}
