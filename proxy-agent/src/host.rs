//! What of the machine the agent sets at its start, as kube-proxy does: the kernel's connection tracking, for the
//! others that use it, and how willingly the kernel kills the agent. All paths are below a root, so that a test
//! never touches its machine.

use std::{fs, io, path::Path};

use anyhow::{Context, Result};
use tracing::{info, warn};

use crate::config::{Conntrack, GoDuration};

const SYSCTLS: &str = "proc/sys/net/netfilter";
const BUCKETS: &str = "sys/module/nf_conntrack/parameters/hashsize";
const PROCESSORS: &str = "sys/devices/system/cpu/online";
/// More entries than this are asked for only by `conntrack.min`.
const MOST_ENTRIES: u64 = 1_048_576;
/// Entries for each bucket of the table.
const ENTRIES_A_BUCKET: u64 = 4;

/// Sets the kernel's connection tracking as asked (KUBE-PROXY.md 3.2): what is 0 stays as it is, and what is
/// right already is not written. On a node without connection tracking there is nothing to set.
///
/// # Errors
/// A value that cannot be written.
pub fn set_conntrack(root: &Path, asked: &Conntrack) -> Result<()> {
    let wanted = wanted(asked, || processors(root));
    if wanted.is_empty() {
        return Ok(());
    }
    if !root.join(SYSCTLS).join("nf_conntrack_max").exists() {
        info!("this kernel tracks no connections for anybody: nothing of conntrack is set");
        return Ok(());
    }
    for (name, value) in &wanted {
        let path = root.join(SYSCTLS).join(name);
        set(&path, *value).with_context(|| {
            format!(
                "setting {name} to {value}, as conntrack in the configuration asks for: it can be left as it is \
                 with 0 there (maxPerCore, min, the time-outs) or false (tcpBeLiberal)"
            )
        })?;
        if *name == "nf_conntrack_max" {
            enlarge_table(root, *value);
        }
    }
    Ok(())
}

/// Names below [`SYSCTLS`] and their values, without those that are to stay.
fn wanted(asked: &Conntrack, processors: impl FnOnce() -> u64) -> Vec<(&'static str, u64)> {
    let seconds = |timeout: GoDuration| match timeout.0.as_secs() {
        // Less than a second is a second: 0 would end every connection.
        0 if !timeout.is_zero() => 1,
        seconds => seconds,
    };
    let most = match u64::try_from(asked.max_per_core) {
        Err(_) | Ok(0) => 0,
        Ok(each) => {
            let least = u64::try_from(asked.min).unwrap_or(0);
            each.saturating_mul(processors()).min(MOST_ENTRIES).max(least)
        }
    };
    let all = [
        ("nf_conntrack_max", most),
        ("nf_conntrack_tcp_timeout_established", seconds(asked.tcp_established_timeout)),
        ("nf_conntrack_tcp_timeout_close_wait", seconds(asked.tcp_close_wait_timeout)),
        ("nf_conntrack_tcp_be_liberal", asked.tcp_be_liberal.into()),
        ("nf_conntrack_udp_timeout", seconds(asked.udp_timeout)),
        ("nf_conntrack_udp_timeout_stream", seconds(asked.udp_stream_timeout)),
    ];
    all.into_iter().filter(|(_, value)| *value > 0).collect()
}

/// A table with too few buckets is only slow: not worth an end.
fn enlarge_table(root: &Path, entries: u64) {
    let (path, buckets) = (root.join(BUCKETS), entries / ENTRIES_A_BUCKET);
    let enlarged = match read(&path) {
        Ok(now) if now >= buckets => Ok(()),
        Ok(_) => fs::write(&path, buckets.to_string()),
        Err(error) => Err(error),
    };
    if let Err(error) = enlarged {
        warn!(
            "the table of connection tracking keeps its size: setting {} to {buckets}: {error}",
            path.display()
        );
    }
}

fn set(path: &Path, value: u64) -> io::Result<()> {
    if read(path)? == value {
        return Ok(());
    }
    fs::write(path, value.to_string())?;
    info!(path = %path.display(), value, "set");
    Ok(())
}

fn read(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)
}

/// Processors of the machine, whichever of them this process may use: `0-3,8`.
fn processors(root: &Path) -> u64 {
    let count = |list: &str| {
        list.trim().split(',').try_fold(0, |count: u64, range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            Some(count + last.checked_sub(first)? + 1)
        })
    };
    fs::read_to_string(root.join(PROCESSORS)).ok().and_then(|list| count(&list)).unwrap_or(1)
}

/// Says how willingly the kernel kills the agent when memory runs out; a failure is only logged.
pub fn set_oom_score(root: &Path, score: i32) {
    let path = root.join("proc/self/oom_score_adj");
    if let Err(error) = fs::write(&path, score.to_string()) {
        warn!("setting {} to {score}: {error}; the agent goes on as killable as it is", path.display());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A machine of four processors whose connection tracking is as the kernel has it at first.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
            ("proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "432000\n"),
            ("proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait", "60\n"),
            ("proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", "0\n"),
            ("proc/sys/net/netfilter/nf_conntrack_udp_timeout", "30\n"),
            ("proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream", "120\n"),
            (BUCKETS, "16384\n"),
            (PROCESSORS, "0-2,6\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn now(root: &Path) -> Vec<u64> {
        let names =
            ["max", "tcp_timeout_established", "tcp_timeout_close_wait", "tcp_be_liberal", "udp_timeout"];
        let path = |name: &str| root.join(SYSCTLS).join(format!("nf_conntrack_{name}"));
        names
            .iter()
            .map(|name| read(&path(name)).unwrap())
            .chain([read(&root.join(BUCKETS)).unwrap()])
            .collect()
    }

    #[test]
    fn defaults_are_those_of_kube_proxy() {
        let machine = machine();
        set_conntrack(machine.path(), &Conntrack::default()).unwrap();
        assert_eq!(now(machine.path()), [131_072, 86_400, 3600, 0, 30, 32_768]);
    }

    #[test]
    fn what_is_zero_stays() {
        let machine = machine();
        set_conntrack(machine.path(), &Conntrack::untouched()).unwrap();
        assert_eq!(now(machine.path()), [65_536, 432_000, 60, 0, 30, 16_384]);
        let some = Conntrack {
            tcp_be_liberal: true,
            udp_timeout: GoDuration(Duration::from_millis(300)),
            min: 1_000_000,
            ..Conntrack::untouched()
        };
        set_conntrack(machine.path(), &some).unwrap();
        assert_eq!(now(machine.path()), [65_536, 432_000, 60, 1, 1, 16_384], "min alone is nothing");
    }

    #[test]
    fn entries_are_counted_by_processors() {
        for (max_per_core, min, entries) in
            [(65_536, 131_072, 262_144), (10_000_000, 0, MOST_ENTRIES), (10_000_000, 2_000_000, 2_000_000)]
        {
            let asked = Conntrack { max_per_core, min, ..Conntrack::untouched() };
            assert_eq!(wanted(&asked, || 4), [("nf_conntrack_max", entries)]);
        }
        let machine = machine();
        assert_eq!(processors(machine.path()), 4);
    }

    /// Root may write any file, so nothing but a folder in its place refuses to be written.
    #[test]
    fn what_is_right_is_not_written_and_what_cannot_be_is_an_error() {
        let machine = machine();
        let asked =
            Conntrack { tcp_established_timeout: GoDuration::seconds(432_000), ..Conntrack::untouched() };
        let path = machine.path().join(SYSCTLS).join("nf_conntrack_tcp_timeout_established");
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        set_conntrack(machine.path(), &asked).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = format!("{:#}", set_conntrack(machine.path(), &asked).unwrap_err());
        assert!(error.contains("nf_conntrack_tcp_timeout_established to 432000"), "{error}");
        assert!(error.contains("with 0 there"), "{error}");
    }

    #[test]
    fn a_kernel_without_connection_tracking_is_left_alone() {
        let nothing = tempfile::tempdir().unwrap();
        set_conntrack(nothing.path(), &Conntrack::default()).unwrap();
    }
}
