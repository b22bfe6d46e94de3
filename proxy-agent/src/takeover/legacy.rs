//! The tables of iptables from before nf_tables, which netlink does not reach: with the programs of iptables-legacy where
//! they are, else by telling what to do.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use super::{
    decide::decide,
    error::Error,
    leftovers::{Backend, Leftover, Leftovers, Unread},
    names::is_classic_table,
    read_proc,
    tables::{Ip, RuleId, Table},
};

mod text;

/// Adds what of a family's tables is kube-proxy's, or that they cannot be looked into.
pub(super) fn read(ip: Ip, found: &mut Leftovers) -> Result<(), Error> {
    let names = table_names(ip)?;
    if names.is_empty() {
        return Ok(());
    }
    let save = program(ip, "save");
    let Some(path) = on_path(&save) else {
        found.unread.push(Unread {
            what: format!("tables {} of legacy {}", names.join(", "), iptables(ip)),
            why: format!("{save} is not on the PATH"),
            commands: by_hand(ip),
        });
        return Ok(());
    };
    for table in tables(ip, &path, &names)? {
        decide(Backend::Legacy, &table, found);
    }
    Ok(())
}

/// The same tables with their rules; none where they cannot be looked into.
pub(super) fn read_tables(ip: Ip) -> Result<Vec<Table>, Error> {
    let names = table_names(ip)?;
    match on_path(&program(ip, "save")) {
        Some(path) if !names.is_empty() => tables(ip, &path, &names),
        _ => Ok(Vec::new()),
    }
}

/// Removes what was found of them, each table in one step. What fails is returned.
pub(super) fn remove(found: &Leftovers) -> Vec<Error> {
    let mut failed = Vec::new();
    for ip in Ip::BOTH {
        let input = removal(ip, &found.remove);
        if input.is_empty() {
            continue;
        }
        let restore = program(ip, "restore");
        let done = match on_path(&restore) {
            // Somebody else may be at them: there is a lock.
            Some(path) => run(&path, &["--noflush", "--wait", "10"], &input).map(drop),
            None => Err(Error::Command { command: restore, problem: "it is not on the PATH".to_owned() }),
        };
        failed.extend(done.err());
    }
    failed
}

/// Tables that there are now: to ask for another would make it.
fn table_names(ip: Ip) -> Result<Vec<String>, Error> {
    let path = match ip {
        Ip::V4 => "/proc/net/ip_tables_names",
        Ip::V6 => "/proc/net/ip6_tables_names",
    };
    let names = read_proc(path)?.unwrap_or_default();
    Ok(names.lines().filter(|name| is_classic_table(name)).map(str::to_owned).collect())
}

fn tables(ip: Ip, save: &Path, names: &[String]) -> Result<Vec<Table>, Error> {
    let mut tables = Vec::new();
    for name in names {
        tables.extend(text::parse(ip, &run(save, &["-t", name], "")?));
    }
    Ok(tables)
}

/// What iptables-restore has to be told.
fn removal(ip: Ip, found: &[Leftover]) -> String {
    let mut input = String::new();
    for table in ["nat", "filter", "mangle"] {
        // To name a chain empties it, which takes away what leads from one to another.
        let (mut named, mut rules, mut chains) = (String::new(), String::new(), String::new());
        for one in found {
            match one {
                Leftover::Chain {
                    backend: Backend::Legacy, family, table: of, chain, stays_empty, ..
                } if *family == ip && of == table => {
                    named += &format!(":{chain} - [0:0]\n");
                    if !stays_empty {
                        chains += &format!("-X {chain}\n");
                    }
                }
                Leftover::Rule {
                    backend: Backend::Legacy,
                    family,
                    table: of,
                    chain,
                    id: RuleId::Words(words),
                    ..
                } if *family == ip && of == table => rules += &format!("-D {chain} {words}\n"),
                _ => {}
            }
        }
        if !named.is_empty() || !rules.is_empty() {
            input += &format!("*{table}\n{named}{rules}{chains}COMMIT\n");
        }
    }
    input
}

/// What somebody does who has the programs elsewhere.
fn by_hand(ip: Ip) -> Vec<String> {
    let [save, restore] = ["save", "restore"].map(|what| program(ip, what));
    vec![
        format!("{save} | grep KUBE-"),
        format!("{save} | grep -v -E -e '-(j|g) KUBE-|^:KUBE-|-A KUBE-' > /tmp/without-kube-proxy"),
        format!("{restore} < /tmp/without-kube-proxy    # after reading it"),
    ]
}

fn run(program: &Path, arguments: &[&str], input: &str) -> Result<String, Error> {
    let failed = |problem: String| Error::Command {
        command: format!("{} {}", program.display(), arguments.join(" ")),
        problem,
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let stdin = child.stdin.take();
    thread::scope(|scope| {
        // It writes while it reads: neither waits for the other.
        let writer = scope.spawn(move || stdin.map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
        // That it did not want to hear all of it shows in how it ended.
        let _written = writer.join();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(failed(format!("{}: {}", output.status, said.trim())))
        }
    })
}

fn program(ip: Ip, what: &str) -> String {
    format!("{}-legacy-{what}", iptables(ip))
}

fn iptables(ip: Ip) -> &'static str {
    match ip {
        Ip::V4 => "iptables",
        Ip::V6 => "ip6tables",
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = r#"# Generated by iptables-save v1.8.9
*nat
:PREROUTING ACCEPT [3:180]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-ERIFXISQEP7F7OF4 - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A KUBE-SERVICES -d 10.96.0.10/32 -j KUBE-SVC-ERIFXISQEP7F7OF4
COMMIT
*filter
:FORWARD DROP [0:0]
COMMIT
"#;

    #[test]
    fn what_is_removed_is_said_in_the_words_of_iptables() {
        let mut found = Leftovers::default();
        for table in text::parse(Ip::V4, SAVED) {
            decide(Backend::Legacy, &table, &mut found);
        }
        assert_eq!(
            removal(Ip::V4, &found.remove),
            "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-ERIFXISQEP7F7OF4 - [0:0]\n\
             -D PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
             -X KUBE-SERVICES\n-X KUBE-SVC-ERIFXISQEP7F7OF4\nCOMMIT\n"
        );
        assert_eq!(removal(Ip::V6, &found.remove), "");
    }
}
