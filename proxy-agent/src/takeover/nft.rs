//! nf_tables over netlink: nftables mode, and what today's iptables writes.

use std::collections::BTreeMap;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::{
    error::Error,
    hold,
    leftovers::{Backend, Leftover, Leftovers},
    names::{is_chain, is_classic_table},
    netlink::{Attributes, Failure, Message, Socket, find, number32, number64, text},
    tables::{Chain, Ip, Rule, RuleId, Ruleset, Table},
};

mod expressions;

/// From linux/netfilter/nfnetlink.h and nf_tables.h.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const BATCH_GENERATION: u16 = 1;
const GENERATION_ID: u16 = 1;
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;

/// What is asked of nf_tables.
#[derive(Clone, Copy)]
#[repr(u16)]
pub(super) enum Command {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    DeleteChain = 5,
    NewRule = 6,
    GetRule = 7,
    DeleteRule = 8,
    GetGeneration = 16,
}

/// Bytes of the header before the attributes: family, version, and a number.
const HEADER: usize = 4;

pub(super) fn open() -> Result<Socket, Error> {
    Socket::open(NETLINK_NETFILTER).map_err(Error::kernel(OPENING))
}

/// None on a kernel without netfilter.
pub(super) fn open_if_there() -> Result<Option<Socket>, Error> {
    match Socket::open(NETLINK_NETFILTER) {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(None),
        opened => opened.map(Some).map_err(Error::kernel(OPENING)),
    }
}

const OPENING: &str = "opening a netlink socket to netfilter";

/// Every table, with the rules of those that kube-proxy shares with others; none when the kernel has no nf_tables.
pub(super) fn read() -> Result<Option<Ruleset>, Error> {
    let Some(mut socket) = open_if_there()? else { return Ok(None) };
    let Some(generation) = generation(&mut socket)? else { return Ok(None) };
    let mut tables = read_tables(&mut socket)?;
    for table in tables.values_mut().filter(|table| is_classic_table(&table.name)) {
        if table.chains.iter().any(|chain| is_chain(&table.name, &chain.name)) {
            read_rules(&mut socket, table)?;
        }
    }
    Ok(Some(Ruleset { generation, tables: tables.into_values().collect() }))
}

/// Every table with its chains, without rules; none when the kernel has no nf_tables.
pub(super) fn read_without_rules() -> Result<Vec<Table>, Error> {
    let Some(mut socket) = open_if_there()? else { return Ok(Vec::new()) };
    if generation(&mut socket)?.is_none() {
        return Ok(Vec::new());
    }
    Ok(read_tables(&mut socket)?.into_values().collect())
}

fn generation(socket: &mut Socket) -> Result<Option<u32>, Error> {
    let doing = "asking nf_tables for its generation";
    let answers = match socket.ask(&message(Command::GetGeneration, 0, header(0))) {
        Ok(answers) => answers,
        // nfnetlink knows no nf_tables.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::kernel(doing)(error)),
    };
    let number = |body: &Vec<u8>| number32(find(body.get(HEADER..)?, GENERATION_ID)?);
    answers.iter().find_map(number).map(Some).ok_or_else(|| Error::Answer { doing: doing.to_owned() })
}

fn read_tables(socket: &mut Socket) -> Result<BTreeMap<(Ip, String), Table>, Error> {
    let mut tables: BTreeMap<(Ip, String), Table> = BTreeMap::new();
    for ip in Ip::BOTH {
        let get = |command| (command_number(command), header(family(ip)).into_bytes());
        let (kind, body) = get(Command::GetTable);
        let read = socket.dump(kind, body, |body| {
            let Some(name) = body.get(HEADER..).and_then(|body| find(body, TABLE_NAME)).map(text) else {
                return;
            };
            let table = Table { ip, name: name.clone(), chains: Vec::new(), rules: Vec::new() };
            tables.insert((ip, name), table);
        });
        read.map_err(Error::kernel(format!("reading the tables of family {ip}")))?;
        let (kind, body) = get(Command::GetChain);
        let read = socket.dump(kind, body, |body| {
            let Some((table, chain)) = body.get(HEADER..).and_then(chain) else { return };
            if let Some(table) = tables.get_mut(&(ip, table)) {
                table.chains.push(chain);
            }
        });
        read.map_err(Error::kernel(format!("reading the chains of family {ip}")))?;
    }
    Ok(tables)
}

fn read_rules(socket: &mut Socket, table: &mut Table) -> Result<(), Error> {
    let body = header(family(table.ip)).text(RULE_TABLE, &table.name).into_bytes();
    let (ip, name) = (table.ip, table.name.clone());
    let read = socket.dump(command_number(Command::GetRule), body, |body| {
        let Some((of, rule)) = body.get(HEADER..).and_then(rule) else { return };
        // Not every kernel asks which table is meant.
        if of == name {
            table.rules.push(rule);
        }
    });
    read.map_err(Error::kernel(format!("reading the rules of table {ip} {name}")))
}

fn chain(body: &[u8]) -> Option<(String, Chain)> {
    let name = text(find(body, CHAIN_NAME)?);
    Some((text(find(body, CHAIN_TABLE)?), Chain { name, hooked: find(body, CHAIN_HOOK).is_some() }))
}

fn rule(body: &[u8]) -> Option<(String, Rule)> {
    let expressions = find(body, RULE_EXPRESSIONS).unwrap_or_default();
    let comment = expressions::comment(expressions)
        .or_else(|| find(body, RULE_USERDATA).and_then(expressions::comment_of_userdata));
    let rule = Rule {
        chain: text(find(body, RULE_CHAIN)?),
        id: RuleId::Handle(number64(find(body, RULE_HANDLE)?)?),
        leads_to: expressions::leads_to(expressions),
        comment,
    };
    Some((text(find(body, RULE_TABLE)?), rule))
}

/// Removes what was found of nf_tables, in one transaction, unless anything has changed since it was read. In the
/// same transaction comes what stands in for it.
///
/// # Errors
/// [`Error::Changed`], and the kernel's.
pub(super) fn remove(found: &Leftovers) -> Result<(), Error> {
    let mut changes = changes(&found.remove);
    for ip in &found.hold {
        changes.extend(hold::changes(*ip));
    }
    if changes.is_empty() {
        return Ok(());
    }
    transact(&changes, Some(found.generation))
}

/// Makes changes in one transaction; if a generation is given, only when it is still the kernel's.
pub(super) fn transact(changes: &[Change], generation: Option<u32>) -> Result<(), Error> {
    let number = [0, 0, 0, 10];
    let begin = Attributes::after(&number);
    let begin = generation.into_iter().fold(begin, |begin, number| begin.number(BATCH_GENERATION, number));
    let bracket = |kind, body: Attributes| Message { kind, flags: 0, body: body.into_bytes() };
    let mut messages = vec![bracket(BATCH_BEGIN, begin)];
    messages.extend(changes.iter().map(|change| change.message.clone()));
    messages.push(bracket(BATCH_END, Attributes::after(&number)));
    open()?.transact(&messages).map_err(|Failure { index, error }| {
        if error.raw_os_error() == Some(libc::ERESTART) {
            return Error::Changed;
        }
        let doing = index
            .checked_sub(1)
            .and_then(|index| changes.get(index))
            .map_or("changing rules", |change| &change.doing);
        Error::kernel(format!("{doing} (nothing was changed)"))(error)
    })
}

/// One change, and what it is called when it is refused.
pub(super) struct Change {
    doing: String,
    message: Message,
}

impl Change {
    pub(super) fn new(doing: String, command: Command, flags: u16, body: Attributes) -> Self {
        Self { doing, message: message(command, flags, body) }
    }
}

/// In this order: rules that lead to chains, what is in the chains, the chains. A chain to which a rule leads cannot go.
fn changes(found: &[Leftover]) -> Vec<Change> {
    let (mut rules, mut flushed, mut chains) = (Vec::new(), Vec::new(), Vec::new());
    for one in found {
        let doing = |what: &str| format!("{what} {one}");
        match one {
            Leftover::Rule {
                backend: Backend::Nft,
                family: ip,
                table,
                chain,
                id: RuleId::Handle(handle),
                ..
            } => {
                let body = of_chain(*ip, table, chain).put(RULE_HANDLE, &handle.to_be_bytes());
                rules.push(Change::new(doing("removing"), Command::DeleteRule, 0, body));
            }
            Leftover::Chain { backend: Backend::Nft, family: ip, table, chain, stays_empty, .. } => {
                let body = of_chain(*ip, table, chain);
                flushed.push(Change::new(doing("emptying"), Command::DeleteRule, 0, body));
                if !stays_empty {
                    let body = header(family(*ip)).text(CHAIN_TABLE, table).text(CHAIN_NAME, chain);
                    chains.push(Change::new(doing("removing"), Command::DeleteChain, 0, body));
                }
            }
            Leftover::Table { family: ip, table, .. } => {
                chains.push(delete_table(*ip, table));
            }
            _ => {}
        }
    }
    rules.into_iter().chain(flushed).chain(chains).collect()
}

/// The removal of a table and all that is in it.
pub(super) fn delete_table(ip: Ip, table: &str) -> Change {
    let body = header(family(ip)).text(TABLE_NAME, table);
    Change::new(format!("removing table {ip} {table}"), Command::DeleteTable, 0, body)
}

fn of_chain(ip: Ip, table: &str, chain: &str) -> Attributes {
    header(family(ip)).text(RULE_TABLE, table).text(RULE_CHAIN, chain)
}

/// `NFPROTO_*`.
pub(super) fn family(ip: Ip) -> u8 {
    match ip {
        Ip::V4 => 2,
        Ip::V6 => 10,
    }
}

pub(super) fn header(family: u8) -> Attributes {
    Attributes::after(&[family, 0, 0, 0])
}

fn message(command: Command, flags: u16, body: Attributes) -> Message {
    Message { kind: command_number(command), flags, body: body.into_bytes() }
}

fn command_number(command: Command) -> u16 {
    /// Number of nf_tables among the parts of netfilter.
    const NF_TABLES: u16 = 10;
    NF_TABLES << 8 | command as u16
}
