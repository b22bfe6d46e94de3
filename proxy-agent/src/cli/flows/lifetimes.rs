use crate::{config::GoDuration, datapath::Lifetimes};

/// Flags that say for how long flows are kept, by kube-proxy's names, for a subcommand that shows them.
#[derive(clap::Args, Debug)]
pub(super) struct LifetimeArgs {
    /// How long an established TCP connection of the packet path is kept without a packet; 0 is the default.
    #[arg(long, value_name = "DURATION", default_value = "24h0m0s")]
    conntrack_tcp_timeout_established: GoDuration,

    /// The same after one side has closed it; 0 is the default.
    #[arg(long, value_name = "DURATION", default_value = "1h0m0s")]
    conntrack_tcp_timeout_close_wait: GoDuration,

    /// How long a UDP exchange of the packet path is kept without a packet until the client has gone on after an
    /// answer; 0 is 30s.
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    conntrack_udp_timeout: GoDuration,

    /// The same from then on; 0 is 2m0s.
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    conntrack_udp_timeout_stream: GoDuration,
}

impl LifetimeArgs {
    pub(super) fn lifetimes(&self) -> Lifetimes {
        let default = Lifetimes::default();
        let or = |asked: GoDuration, default| asked.or(GoDuration(default)).0;
        Lifetimes {
            tcp_established: or(self.conntrack_tcp_timeout_established, default.tcp_established),
            tcp_close_wait: or(self.conntrack_tcp_timeout_close_wait, default.tcp_close_wait),
            udp: or(self.conntrack_udp_timeout, default.udp),
            udp_stream: or(self.conntrack_udp_timeout_stream, default.udp_stream),
        }
    }
}
