use std::time::Duration;

use proxy_common::{Protocol, seen};

use super::entry::Side;

/// For how long a flow is kept without a packet. Those that are not here are fixed, and the kernel's own
/// connection tracking has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// TCP, established.
    pub tcp_established: Duration,
    /// TCP, after one side has ended its part.
    pub tcp_close_wait: Duration,
    /// UDP, until the client goes on after an answer.
    pub udp: Duration,
    /// UDP, from then on.
    pub udp_stream: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_secs(86_400),
            tcp_close_wait: Duration::from_secs(3600),
            udp: Duration::from_secs(30),
            udp_stream: Duration::from_secs(120),
        }
    }
}

/// What a flow has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The client has not gone on after an answer, or one of the two entries is missing.
    HalfOpen,
    Established,
    /// One side has ended its part.
    Closing,
    /// Both have.
    Closed,
    /// One side has broken it off.
    Reset,
}

impl State {
    /// The state of a flow by what its two directions have shown.
    pub(crate) fn of(confirmed: bool, one: u8, other: u8) -> Self {
        if (one | other) & seen::RST != 0 {
            Self::Reset
        } else if !confirmed {
            Self::HalfOpen
        } else if one & other & seen::FIN != 0 {
            Self::Closed
        } else if (one | other) & seen::FIN != 0 {
            Self::Closing
        } else {
            Self::Established
        }
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half-open",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed | Self::Reset => "closed",
        }
    }
}

impl Lifetimes {
    /// How long a flow in this state is kept after its last packet.
    pub(crate) fn of(&self, protocol: Protocol, state: State) -> Duration {
        match (protocol, state) {
            (Protocol::Tcp, State::HalfOpen) => Duration::from_secs(60),
            (Protocol::Tcp, State::Established) => self.tcp_established,
            (Protocol::Tcp, State::Closing) => self.tcp_close_wait,
            (Protocol::Tcp, State::Closed) => Duration::from_secs(120),
            (Protocol::Tcp, State::Reset) => Duration::from_secs(10),
            (Protocol::Sctp, State::Established) => Duration::from_secs(210),
            (Protocol::Sctp, _) => Duration::from_secs(10),
            (Protocol::Udp | Protocol::Any, State::HalfOpen) => self.udp,
            (Protocol::Udp | Protocol::Any, _) => self.udp_stream,
        }
    }

    /// How long a flow is kept yet, `now` being nanoseconds of the monotonic clock; `None` once it has expired.
    /// A flow whose other entry is missing is kept as a half-open one.
    pub(crate) fn left(
        &self,
        protocol: Protocol,
        confirmed: bool,
        one: Side,
        other: Option<Side>,
        now: u64,
    ) -> Option<Duration> {
        let state = State::of(confirmed && other.is_some(), one.seen, other.map_or(0, |other| other.seen));
        let left = self.of(protocol, state).checked_sub(idle(one, other, now))?;
        Some(left).filter(|left| !left.is_zero())
    }

    /// Whether an entry may have expired, which takes a look at the other one to know; with `halves`, also
    /// whether it may be one without another, which all idle flows have to be looked at for.
    ///
    /// That the other one may show an end which this one does not is no reason to look: the other one is met
    /// too.
    pub(crate) fn may_have_expired(
        &self,
        protocol: Protocol,
        confirmed: bool,
        side: Side,
        now: u64,
        halves: bool,
    ) -> bool {
        self.left(protocol, confirmed, side, Some(side), now).is_none()
            || halves && self.left(protocol, confirmed, side, None, now).is_none()
    }
}

/// Time since the last packet of either direction. A packet that has come meanwhile is one of now.
pub(crate) fn idle(one: Side, other: Option<Side>, now: u64) -> Duration {
    let last_seen = one.last_seen.max(other.map_or(0, |other| other.last_seen));
    Duration::from_nanos(now.saturating_sub(last_seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const HALVES: bool = true;

    fn side(last_seen: u64, seen: u8) -> Side {
        Side { last_seen: last_seen * SECOND, seen: seen | seen::PACKET }
    }

    #[test]
    fn each_state_has_its_lifetime() {
        use Protocol::{Sctp, Tcp, Udp};
        let (fin, rst) = (seen::FIN, seen::RST);
        for (protocol, confirmed, one, other, state, seconds) in [
            (Tcp, false, 0, 0, State::HalfOpen, 60),
            (Tcp, false, 0, rst, State::Reset, 10),
            (Tcp, false, fin, 0, State::HalfOpen, 60),
            (Tcp, true, 0, 0, State::Established, 86_400),
            (Tcp, true, fin, 0, State::Closing, 3600),
            (Tcp, true, 0, fin, State::Closing, 3600),
            (Tcp, true, fin, fin, State::Closed, 120),
            (Tcp, true, rst, 0, State::Reset, 10),
            (Tcp, true, fin, fin | rst, State::Reset, 10),
            (Udp, false, 0, 0, State::HalfOpen, 30),
            (Udp, true, 0, 0, State::Established, 120),
            (Sctp, false, 0, 0, State::HalfOpen, 10),
            (Sctp, true, 0, 0, State::Established, 210),
            (Sctp, true, fin, 0, State::Closing, 10),
            (Sctp, true, fin, fin, State::Closed, 10),
            (Sctp, true, rst, 0, State::Reset, 10),
        ] {
            let case = format!("{protocol:?}, confirmed {confirmed}, {one:b} and {other:b}");
            assert_eq!(State::of(confirmed, one, other), state, "{case}");
            let lifetimes = Lifetimes::default();
            let left = |now: u64| {
                lifetimes.left(protocol, confirmed, side(0, one), Some(side(0, other)), now * SECOND)
            };
            assert_eq!(left(seconds - 1), Some(Duration::from_secs(1)), "{case}");
            assert_eq!(left(seconds), None, "{case}");
            // The one that shows more is the one that finds it.
            let found = [one, other].into_iter().any(|seen| {
                lifetimes.may_have_expired(protocol, confirmed, side(0, seen), seconds * SECOND, HALVES)
            });
            assert!(found, "{case}");
        }
    }

    #[test]
    fn a_flow_is_as_young_as_its_younger_entry() {
        let lifetimes = Lifetimes::default();
        let left = |one, other| lifetimes.left(Protocol::Udp, true, side(one, 0), other, 200 * SECOND);
        assert_eq!(left(80, Some(side(80, 0))), None);
        assert_eq!(left(80, Some(side(190, 0))), Some(Duration::from_secs(110)));
        assert_eq!(left(190, Some(side(80, 0))), Some(Duration::from_secs(110)));
        assert_eq!(left(80, Some(side(300, 0))), Some(Duration::from_secs(120)), "a packet of just now");
    }

    #[test]
    fn an_entry_alone_is_kept_as_a_half_open_flow() {
        let lifetimes = Lifetimes::default();
        for (protocol, seen, seconds) in [
            (Protocol::Tcp, 0, 60),
            (Protocol::Tcp, seen::RST, 10),
            (Protocol::Udp, 0, 30),
            (Protocol::Sctp, 0, 10),
        ] {
            let left = |now: u64| lifetimes.left(protocol, true, side(0, seen), None, now * SECOND);
            assert!(left(seconds - 1).is_some() && left(seconds).is_none(), "{protocol:?}");
            assert!(lifetimes.may_have_expired(protocol, true, side(0, seen), seconds * SECOND, HALVES));
        }
    }

    #[test]
    fn a_young_entry_is_taken_for_alive_without_another_look() {
        let lifetimes = Lifetimes::default();
        let looks = |seen, now: u64, halves| {
            lifetimes.may_have_expired(Protocol::Tcp, true, side(0, seen), now * SECOND, halves)
        };
        assert!(!looks(0, 59, HALVES) && !looks(seen::FIN, 59, HALVES) && !looks(seen::RST, 9, HALVES));
        assert!(looks(0, 60, HALVES) && looks(seen::FIN, 60, HALVES) && looks(seen::RST, 10, HALVES));
        assert!(!looks(0, 86_399, !HALVES) && !looks(seen::FIN, 119, !HALVES));
        assert!(looks(0, 86_400, !HALVES) && looks(seen::FIN, 120, !HALVES) && looks(seen::RST, 10, !HALVES));
    }
}
