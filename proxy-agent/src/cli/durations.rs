use std::time::Duration;

use jiff::SignedDuration;

use crate::datapath::Lifetimes;

/// Flags that say for how long flows are kept, by kube-proxy's names.
#[derive(clap::Args, Debug)]
pub(super) struct LifetimeArgs {
    /// How long an established TCP connection of the packet path is kept without a packet; 0 is the default.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "24h0m0s")]
    conntrack_tcp_timeout_established: Duration,

    /// The same after one side has closed it; 0 is the default.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h0m0s")]
    conntrack_tcp_timeout_close_wait: Duration,

    /// How long a UDP exchange of the packet path is kept without a packet until the client has gone on after an
    /// answer; 0 is 30s.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    conntrack_udp_timeout: Duration,

    /// The same from then on; 0 is 2m0s.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    conntrack_udp_timeout_stream: Duration,
}

impl LifetimeArgs {
    pub(super) fn lifetimes(&self) -> Lifetimes {
        let default = Lifetimes::default();
        let or = |asked: Duration, default| if asked.is_zero() { default } else { asked };
        Lifetimes {
            tcp_established: or(self.conntrack_tcp_timeout_established, default.tcp_established),
            tcp_close_wait: or(self.conntrack_tcp_timeout_close_wait, default.tcp_close_wait),
            udp: or(self.conntrack_udp_timeout, default.udp),
            udp_stream: or(self.conntrack_udp_timeout_stream, default.udp_stream),
        }
    }
}

/// As Go writes durations, which jiff reads too: `24h0m0s`, `1.5s`, `300ms`, and a bare `0`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let refused = |why: &dyn std::fmt::Display| format!("{why}; write a duration such as 24h0m0s, 90s or 0");
    let duration: SignedDuration = text.parse().map_err(|error: jiff::Error| refused(&error))?;
    Duration::try_from(duration).map_err(|_| refused(&"it is negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, milliseconds) in [
            ("24h0m0s", 86_400_000),
            ("1h", 3_600_000),
            ("2m30s", 150_000),
            ("1.5s", 1500),
            ("300ms", 300),
            ("0s", 0),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "24", "-1s", "1x", "soon"] {
            let error = duration(text).unwrap_err();
            assert!(error.ends_with("24h0m0s, 90s or 0"), "{text}: {error}");
        }
    }
}
