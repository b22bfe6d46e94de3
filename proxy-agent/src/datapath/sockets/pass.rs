use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use proxy_common::{Family, Protocol, StaleSocket, Translation, map_to_v6, unmap_v4};

use super::{
    SocketTotals,
    destroy::{Destroyed, destroy},
    finder::Finder,
    namespaces::{Found, Namespaces, enter},
};
use crate::datapath::{maps::Maps, programmer::Programmer, sys, tables::FrontendKey};

const AF_INET: u16 = 2;

/// All that looking through the sockets takes.
pub(super) struct Work {
    finder: Finder,
    namespaces: Namespaces,
    programmer: Arc<Mutex<Programmer<Maps>>>,
    totals: Arc<SocketTotals>,
    /// Whether it has been said that something could not be done, which comes back with every pass.
    said: bool,
}

/// What one pass has done.
#[derive(Debug, Default)]
struct Done {
    udp: usize,
    tcp: usize,
    namespaces: BTreeSet<u32>,
    unreachable: usize,
    refused: usize,
    hidden: usize,
    error: Option<io::Error>,
}

impl Work {
    pub(super) fn new(
        finder: Finder,
        namespaces: Namespaces,
        programmer: Arc<Mutex<Programmer<Maps>>>,
        totals: Arc<SocketTotals>,
    ) -> Self {
        Self { finder, namespaces, programmer, totals, said: false }
    }

    /// Closes all sockets whose endpoint is gone. Returns how long it was at work.
    ///
    /// A program that has read a frontend before it was replaced may store the old choice until a grace period has
    /// passed. On a busy machine that takes longer than all the rest, so most sockets are closed before it, and those
    /// few after it. A kernel without this barrier is left with the later looks.
    pub(super) fn pass(&mut self) -> Duration {
        let before = self.look();
        if sys::grace_period().is_err() {
            return before;
        }
        before + self.look()
    }

    fn look(&mut self) -> Duration {
        let start = Instant::now();
        let mut done = Done::default();
        let mut found = 0;
        let mut left_before = usize::MAX;
        loop {
            match self.round(&mut done, &mut found) {
                Ok(0) => break,
                // Nothing has come of the round before.
                Ok(left) if left >= left_before => {
                    done.refused += left;
                    break;
                }
                Ok(left) => left_before = left,
                Err(error) => {
                    done.error = Some(error);
                    break;
                }
            }
        }
        self.report(&done, found, start.elapsed());
        start.elapsed()
    }

    /// How many sockets the kernel did not find by their addresses: closed meanwhile, or behind another that has the
    /// same ones. The next round sees.
    fn round(&self, done: &mut Done, found: &mut usize) -> io::Result<usize> {
        (done.unreachable, done.refused) = (0, 0);
        let mut sockets = self.finder.find()?;
        sockets.retain(is_at_its_endpoint);
        self.keep_the_unserved(&mut sockets);
        *found += sockets.len();
        let mut by_namespace: BTreeMap<u32, Vec<&StaleSocket>> = BTreeMap::new();
        for socket in &sockets {
            by_namespace.entry(socket.namespace).or_default().push(socket);
        }
        if by_namespace.is_empty() {
            return Ok(0);
        }
        let Found { opened, missing, hidden, refused } =
            self.namespaces.find(by_namespace.keys().copied().collect());
        done.unreachable = missing.iter().map(|number| by_namespace[number].len()).sum::<usize>();
        done.hidden = hidden;
        if !missing.is_empty() {
            done.error = refused;
        }
        let mut left = 0;
        for (number, namespace) in &opened {
            let sockets = &by_namespace[number];
            match enter(namespace).and_then(|()| destroy_all(sockets, done)) {
                Ok(not_found) => {
                    left += not_found;
                    done.namespaces.insert(*number);
                }
                Err(error) => {
                    done.refused += sockets.len();
                    done.error = Some(error);
                }
            }
        }
        self.namespaces.leave()?;
        Ok(left)
    }

    /// Leaves those out whose Service has the endpoint all the same: under another id, of other maps.
    fn keep_the_unserved(&self, sockets: &mut Vec<StaleSocket>) {
        let mut numbers: HashMap<(FrontendKey, SocketAddr), usize> = HashMap::new();
        for socket in &*sockets {
            let next = numbers.len();
            numbers.entry(question(socket)).or_insert(next);
        }
        if numbers.is_empty() {
            return;
        }
        let mut asked: Vec<_> = numbers.keys().copied().collect();
        asked.sort_unstable_by_key(|question| numbers[question]);
        let served = self.programmer.lock().unwrap_or_else(PoisonError::into_inner).serves(&asked);
        sockets.retain(|socket| !served[numbers[&question(socket)]]);
    }

    fn report(&mut self, done: &Done, found: usize, took: Duration) {
        let totals = &self.totals;
        SocketTotals::add(&totals.closed_udp, done.udp);
        SocketTotals::add(&totals.closed_tcp, done.tcp);
        SocketTotals::add(&totals.unreachable, done.unreachable);
        SocketTotals::add(&totals.refused, done.refused);
        let took_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
        if done.udp + done.tcp > 0 {
            tracing::info!(
                udp = done.udp,
                tcp = done.tcp,
                namespaces = done.namespaces.len(),
                took_ms,
                "closed sockets whose endpoint is gone"
            );
        } else {
            tracing::debug!(found, took_ms, "looked for sockets whose endpoint is gone");
        }
        self.complain(done);
    }

    fn complain(&mut self, done: &Done) {
        let Done { unreachable, refused, hidden, error, .. } = done;
        if *unreachable == 0 && *refused == 0 && error.is_none() {
            self.said = false;
            return;
        }
        if std::mem::replace(&mut self.said, true) {
            return;
        }
        let reason = error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        if *unreachable > 0 {
            let advice = if *hidden > 0 {
                "run the agent in the host's process namespace (hostPID), or mount the host's /run/netns into its \
                 container with mountPropagation HostToContainer"
            } else {
                "the agent needs CAP_SYS_PTRACE for that, or the host's /run/netns"
            };
            tracing::warn!(
                sockets = unreachable,
                "sockets whose endpoint is gone stay open, as their network namespace is not to be found{reason}: {advice}"
            );
        } else {
            tracing::warn!(
                sockets = refused,
                "sockets whose endpoint is gone stay open{reason}: that needs CAP_SYS_ADMIN, CAP_NET_ADMIN and a kernel \
                 with CONFIG_INET_DIAG_DESTROY and CONFIG_INET_UDP_DIAG"
            );
        }
    }
}

/// Destroys sockets of the thread's network namespace; how many it did not find.
fn destroy_all(sockets: &[&StaleSocket], done: &mut Done) -> io::Result<usize> {
    let mut not_found = 0;
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let sockets: Vec<_> = sockets.iter().copied().filter(|socket| socket.protocol == protocol).collect();
        if sockets.is_empty() {
            continue;
        }
        let Destroyed { destroyed, missed, refused, error } = destroy(&sockets)?;
        *(if protocol == Protocol::Udp { &mut done.udp } else { &mut done.tcp }) += destroyed;
        done.refused += refused;
        not_found += missed;
        if error.is_some() {
            done.error = error;
        }
    }
    Ok(not_found)
}

/// Whether the socket is connected to the endpoint that it was given. One that goes elsewhere since, or to many, is
/// none of ours.
fn is_at_its_endpoint(socket: &StaleSocket) -> bool {
    let peer = if socket.family == AF_INET {
        let [a, b, c, d, ..] = socket.remote_address;
        map_to_v6([a, b, c, d])
    } else {
        socket.remote_address
    };
    peer == socket.translation.backend_address && socket.remote_port == socket.translation.backend_port
}

/// Which endpoint the socket has, and by which frontend it got it.
fn question(socket: &StaleSocket) -> (FrontendKey, SocketAddr) {
    let Translation { frontend_address, backend_address, frontend_port, backend_port, family, .. } =
        socket.translation;
    let address = |bytes: [u8; 16]| -> IpAddr {
        match unmap_v4(bytes).filter(|_| family == Family::V4) {
            Some(v4) => v4.into(),
            None => bytes.into(),
        }
    };
    (
        FrontendKey::new(address(frontend_address), frontend_port, socket.protocol),
        SocketAddr::new(address(backend_address), backend_port),
    )
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    fn socket() -> StaleSocket {
        let translation = Translation {
            frontend_address: map_to_v6([10, 96, 0, 10]),
            backend_address: map_to_v6([10, 0, 0, 7]),
            frontend_port: 53,
            backend_port: 5353,
            family: Family::V4,
            ..Translation::zeroed()
        };
        let mut remote_address = [0; 16];
        remote_address[..4].copy_from_slice(&[10, 0, 0, 7]);
        let (family, protocol) = (AF_INET, Protocol::Udp);
        StaleSocket {
            translation,
            remote_address,
            remote_port: 5353,
            family,
            protocol,
            ..StaleSocket::zeroed()
        }
    }

    #[test]
    fn a_socket_that_goes_elsewhere_is_left_alone() {
        let at_home = socket();
        assert!(is_at_its_endpoint(&at_home));
        let mapped = StaleSocket { family: 10, remote_address: map_to_v6([10, 0, 0, 7]), ..at_home };
        assert!(is_at_its_endpoint(&mapped));
        assert!(!is_at_its_endpoint(&StaleSocket { remote_port: 53, ..at_home }));
        assert!(!is_at_its_endpoint(&StaleSocket { remote_address: [0; 16], ..at_home }));
    }

    #[test]
    fn frontends_and_endpoints_of_mapped_addresses_are_ipv4() {
        let (frontend, endpoint) = question(&socket());
        assert_eq!(frontend, FrontendKey::new([10, 96, 0, 10].into(), 53, Protocol::Udp));
        assert_eq!(endpoint, "10.0.0.7:5353".parse().unwrap());
    }
}
