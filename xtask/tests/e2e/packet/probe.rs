//! Requests that are made to see what they meet, many at a time.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use xtask::lab::{Answer, Failure, Place, Via, ask_within};

use crate::world::{SOON, TRY};

/// So many are tried at the same time; most wait.
const AT_ONCE: usize = 16;

/// A request, and what it is to meet.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) from: Place,
    pub(crate) via: Via,
    pub(crate) to: SocketAddr,
    pub(crate) meets: Meets,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meets {
    /// An answer of this endpoint, to which the client seems to have this address.
    Answer(String, IpAddr),
    /// A refusal at once: by ICMP, or for TCP by a reset.
    Refused,
    /// Nothing at all, or what the socket path makes of that: ETIMEDOUT.
    Silence,
}

impl Meets {
    /// The order in which kinds of probes are tried: an answer shows that the change is in effect.
    fn turn(&self) -> usize {
        match self {
            Self::Answer(..) => 0,
            Self::Refused => 1,
            Self::Silence => 2,
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, via, to, meets } = self;
        write!(f, "{} by {via:?} to {to}: {meets:?}", from.name())
    }
}

impl Probe {
    /// Tries once.
    fn attempt(&self) -> Result<(), String> {
        // Unconnected sockets do not hear of ICMP errors.
        let via = match self.via {
            Via::Udp if !matches!(self.meets, Meets::Answer(..)) => Via::UdpConnected,
            via => via,
        };
        let outcome = self.from.run(|| ask_within(via, self.to, TRY));
        if self.is_met_by(&outcome) { Ok(()) } else { Err(described(&outcome)) }
    }

    fn is_met_by(&self, outcome: &Result<Answer, Failure>) -> bool {
        match (&self.meets, outcome) {
            (Meets::Answer(endpoint, peer), Ok(answer)) => {
                let whole = answer.echo == b"who are you?" && answer.remote == self.to;
                whole && answer.endpoint == *endpoint && answer.peer.ip() == *peer
            }
            (Meets::Refused, Err(failure)) => failure.refused(),
            (Meets::Silence, Err(failure)) => failure.timed_out(),
            _ => false,
        }
    }
}

fn described(outcome: &Result<Answer, Failure>) -> String {
    match outcome {
        Ok(Answer { endpoint, peer, remote, .. }) => {
            format!("{endpoint} answered from {remote} to {peer}")
        }
        Err(failure) => format!("{failure}"),
    }
}

/// Every probe meets what it is to meet, soon.
pub(crate) fn check(probes: &[Probe]) {
    let wrong: Vec<String> = (0..3).flat_map(|turn| wrong(probes, turn)).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), probes.len(), wrong.join("\n"));
}

fn wrong(probes: &[Probe], turn: usize) -> Vec<String> {
    let deadline = Instant::now() + SOON;
    let left = Mutex::new(probes.iter().filter(|probe| probe.meets.turn() == turn));
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(probe) = left.lock().expect("no panic meanwhile").next() else { break };
                    if let Err(met) = until(deadline, || probe.attempt()) {
                        wrong.lock().expect("no panic meanwhile").push(format!("  {probe}, but: {met}"));
                    }
                }
            });
        }
    });
    wrong.into_inner().expect("no panic before")
}

/// Tries until it works or the time is over, once at least.
fn until(deadline: Instant, attempt: impl Fn() -> Result<(), String>) -> Result<(), String> {
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            outcome => return outcome,
        }
    }
}

/// Probes of each of these frontends by each way, all from one place and to the same end.
pub(crate) fn probes(
    from: &Place,
    vias: &[Via],
    tos: &[SocketAddr],
    meets: impl Fn(IpAddr) -> Meets,
) -> Vec<Probe> {
    let all = tos.iter().flat_map(|to| vias.iter().map(move |via| (*via, *to)));
    all.map(|(via, to)| Probe { from: from.clone(), via, to, meets: meets(to.ip()) }).collect()
}

/// An answer of an endpoint to which the client seems to be `seen_as`.
pub(crate) fn answer_of(endpoint: &Place, seen_as: &Place) -> impl Fn(IpAddr) -> Meets + use<> {
    let (name, addresses) = (endpoint.name().to_owned(), seen_as.addresses());
    move |to| Meets::Answer(name.clone(), addresses.like(to))
}
