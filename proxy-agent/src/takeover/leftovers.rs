use std::{collections::BTreeSet, fmt};

use serde::Serialize;

use super::{
    hold::TABLE,
    tables::{Ip, RuleId},
};

/// Everything of kube-proxy's that was found.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leftovers {
    /// What is removed.
    pub remove: Vec<Leftover>,
    /// What looks like kube-proxy's and stays.
    pub kept: Vec<Kept>,
    /// What could not be looked into.
    pub unread: Vec<Unread>,
    /// Families for which translated connections need something that stands in for the rules.
    #[serde(skip)]
    pub(super) hold: BTreeSet<Ip>,
    /// Of the rules of nftables, when they were read.
    #[serde(skip)]
    pub(super) generation: u32,
}

impl Leftovers {
    /// What is added so that connections go on which kube-proxy has translated.
    pub fn stand_ins(&self) -> impl Iterator<Item = String> {
        let say =
            |ip: &Ip| format!("table {ip} {TABLE}: connections that kube-proxy has translated go on by it");
        self.hold.iter().map(say)
    }
}

/// Where rules are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Backend {
    /// nf_tables, which today's iptables writes to as well.
    Nft,
    /// The tables of iptables before that.
    Legacy,
}

/// One thing that kube-proxy made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Leftover {
    /// A rule that leads from a chain of the kernel's hooks to one of kube-proxy's.
    Rule {
        /// Where it is kept.
        backend: Backend,
        /// Of its table.
        family: Ip,
        /// Its table.
        table: String,
        /// The chain that it stands in.
        chain: String,
        /// kube-proxy's chain.
        leads_to: String,
        /// As kube-proxy wrote it.
        comment: Option<String>,
        /// Its name.
        #[serde(skip)]
        id: RuleId,
    },
    /// A chain with all of its rules.
    Chain {
        /// Where it is kept.
        backend: Backend,
        /// Of its table.
        family: Ip,
        /// Its table.
        table: String,
        /// Its name.
        chain: String,
        /// How many rules are in it.
        rules: usize,
        /// The chain itself stays, without a rule: a rule that is not kube-proxy's leads to it.
        stays_empty: bool,
    },
    /// A table of nftables mode, with all that is in it.
    Table {
        /// Its family.
        family: Ip,
        /// Its name.
        table: String,
        /// How many chains are in it.
        chains: usize,
    },
    /// A set of IPVS mode.
    Set {
        /// Its name.
        set: String,
    },
    /// A virtual server of IPVS mode.
    VirtualServer {
        /// `tcp`, `udp` or `sctp`.
        protocol: &'static str,
        /// Address and port.
        address: std::net::SocketAddr,
        /// Number of the protocol.
        #[serde(skip)]
        number: u16,
    },
    /// The link of IPVS mode.
    Link {
        /// Its name.
        link: String,
        /// How many addresses it has.
        addresses: usize,
        /// Its number.
        #[serde(skip)]
        index: u32,
    },
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { backend, family, table, chain, leads_to, comment, .. } => {
                write!(f, "rule {}{family} {table} {chain} -> {leads_to}", backend.prefix())?;
                comment.iter().try_for_each(|comment| write!(f, " ({comment})"))
            }
            Self::Chain { backend, family, table, chain, rules, stays_empty } => {
                let plural = if *rules == 1 { "" } else { "s" };
                let prefix = backend.prefix();
                if *stays_empty {
                    write!(
                        f,
                        "the {rules} rule{plural} of chain {prefix}{family} {table} {chain}, which others use"
                    )
                } else {
                    write!(f, "chain {prefix}{family} {table} {chain} with {rules} rule{plural}")
                }
            }
            Self::Table { family, table, chains } => write!(f, "table {family} {table} with {chains} chains"),
            Self::Set { set } => write!(f, "IP set {set}"),
            Self::VirtualServer { protocol, address, .. } => write!(f, "virtual server {protocol} {address}"),
            Self::Link { link, addresses, .. } => write!(f, "link {link} with {addresses} addresses"),
        }
    }
}

impl Backend {
    fn prefix(self) -> &'static str {
        match self {
            Self::Nft => "",
            Self::Legacy => "legacy ",
        }
    }
}

/// Something that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its name.
    pub what: String,
    /// Why it stays.
    pub why: String,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// Something that may hold what is kube-proxy's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// Its name.
    pub what: String,
    /// Why it could not be read.
    pub why: String,
    /// What to do.
    pub commands: Vec<String>,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; look, and remove what is kube-proxy's:", self.what, self.why)?;
        self.commands.iter().try_for_each(|command| write!(f, "\n    {command}"))
    }
}
