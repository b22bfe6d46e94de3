use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::durations::duration;

/// Flags about what the agent says of its health, by kube-proxy's names.
#[derive(clap::Args, Debug)]
pub(super) struct HealthArgs {
    /// Address, with a port or without, where load balancers and the kubelet ask for /healthz, /livez and /readyz.
    #[arg(long, value_name = "IP[:PORT]", value_parser = Place::parse, default_value = "0.0.0.0:10256")]
    healthz_bind_address: Place,

    /// Its port where --healthz-bind-address has none; 0 is no server at all.
    #[arg(long, value_name = "PORT", default_value_t = HEALTHZ_PORT)]
    healthz_port: u16,

    /// End when an address to serve on cannot be had, instead of trying again every 5 s.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    bind_address_hard_fail: bool,

    /// /healthz and /livez answer 503 when a change waits for twice as long to be programmed, as with kube-proxy's
    /// syncPeriod.
    #[arg(long, value_name = "DURATION", value_parser = sync_period, default_value = "30s")]
    sync_period: Duration,
}

/// The port of `/healthz`, which cloud load balancers know.
const HEALTHZ_PORT: u16 = 10_256;

/// An address to serve on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// With a port,
    Whole(SocketAddr),
    /// and without.
    Address(IpAddr),
}

impl HealthArgs {
    /// Where to serve `/healthz`; `None` is nowhere.
    pub(super) fn healthz(&self) -> Option<SocketAddr> {
        match self.healthz_bind_address {
            _ if self.healthz_port == 0 => None,
            Place::Whole(address) => Some(address),
            Place::Address(address) => Some(SocketAddr::new(address, self.healthz_port)),
        }
    }

    /// Whether an address that cannot be had ends the agent.
    pub(super) fn bind_hard_fail(&self) -> bool {
        self.bind_address_hard_fail
    }

    /// Half of how long a change may wait.
    pub(super) fn sync_period(&self) -> Duration {
        self.sync_period
    }
}

impl Place {
    fn parse(text: &str) -> Result<Self, String> {
        // kube-proxy takes an empty text for the default without a word.
        if text.is_empty() {
            return Ok(Self::Address(std::net::Ipv4Addr::UNSPECIFIED.into()));
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Address(address));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Ok(Self::Whole(address)),
            Ok(_) => Err("port 0 is none; --healthz-port 0 serves nowhere".into()),
            Err(_) => Err("it is not an address such as 0.0.0.0:10256, 192.0.2.1, [::]:10256 or ::".into()),
        }
    }
}

fn sync_period(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("no time is too short: give a duration such as 30s".into()),
        period => Ok(period),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Command {
        #[command(flatten)]
        args: HealthArgs,
    }

    fn parse(flags: &[&str]) -> Result<HealthArgs, clap::Error> {
        Command::try_parse_from([&["run"], flags].concat()).map(|command| command.args)
    }

    #[test]
    fn the_address_is_read_as_kube_proxy_reads_it() {
        for (flags, expected) in [
            (&[][..], Some("0.0.0.0:10256")),
            (&["--healthz-bind-address="], Some("0.0.0.0:10256")),
            (&["--healthz-bind-address", "192.0.2.1"], Some("192.0.2.1:10256")),
            (&["--healthz-bind-address", "::"], Some("[::]:10256")),
            (&["--healthz-bind-address", "[::1]"], Some("[::1]:10256")),
            (&["--healthz-bind-address", "[::1]:99"], Some("[::1]:99")),
            // The port of the address is the one that counts.
            (&["--healthz-bind-address", "192.0.2.1:99", "--healthz-port", "98"], Some("192.0.2.1:99")),
            (&["--healthz-bind-address", "192.0.2.1", "--healthz-port", "98"], Some("192.0.2.1:98")),
            (&["--healthz-port", "0"], None),
            (&["--healthz-bind-address", "192.0.2.1:99", "--healthz-port", "0"], None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(parse(flags).unwrap().healthz(), expected, "{flags:?}");
        }
        for text in ["localhost", "1.2.3", "1.2.3.4:0", "1.2.3.4:70000", ":10256"] {
            assert!(parse(&["--healthz-bind-address", text]).is_err(), "{text}");
        }
    }

    #[test]
    fn failing_hard_and_the_period_are_asked_for() {
        let args = parse(&[]).unwrap();
        assert!(!args.bind_hard_fail());
        assert_eq!(args.sync_period(), Duration::from_secs(30));
        assert!(parse(&["--bind-address-hard-fail"]).unwrap().bind_hard_fail());
        assert!(!parse(&["--bind-address-hard-fail=false"]).unwrap().bind_hard_fail());
        assert_eq!(parse(&["--sync-period", "1m"]).unwrap().sync_period(), Duration::from_secs(60));
        assert!(parse(&["--sync-period", "0"]).is_err());
    }
}
