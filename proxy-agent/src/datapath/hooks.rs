use proxy_common::LinkRole;

/// A place in the kernel where one of the programs of the socket path is attached to a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Close of a socket.
    SockRelease,
    /// Receiving on an unconnected IPv4 socket.
    Recvmsg4,
    /// Receiving on an unconnected IPv6 socket.
    Recvmsg6,
    /// getpeername() of an IPv4 socket.
    Getpeername4,
    /// getpeername() of an IPv6 socket.
    Getpeername6,
    /// connect() of an IPv4 socket.
    Connect4,
    /// connect() of an IPv6 socket.
    Connect6,
    /// Sending on an unconnected IPv4 socket.
    Sendmsg4,
    /// Sending on an unconnected IPv6 socket.
    Sendmsg6,
}

impl Hook {
    /// Every hook, in the order of attachment: what translates replies is there before the first request.
    pub const ALL: [Self; 9] = [
        Self::SockRelease,
        Self::Recvmsg4,
        Self::Recvmsg6,
        Self::Getpeername4,
        Self::Getpeername6,
        Self::Connect4,
        Self::Connect6,
        Self::Sendmsg4,
        Self::Sendmsg6,
    ];

    /// Name of the program, and of the link's pin.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SockRelease => "sock_release",
            Self::Recvmsg4 => "recvmsg4",
            Self::Recvmsg6 => "recvmsg6",
            Self::Getpeername4 => "getpeername4",
            Self::Getpeername6 => "getpeername6",
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
        }
    }

    /// `BPF_CGROUP_*` of linux/bpf.h.
    pub(crate) fn attach_type(self) -> u32 {
        match self {
            Self::Connect4 => 10,
            Self::Connect6 => 11,
            Self::Sendmsg4 => 14,
            Self::Sendmsg6 => 15,
            Self::Recvmsg4 => 19,
            Self::Recvmsg6 => 20,
            Self::Getpeername4 => 29,
            Self::Getpeername6 => 30,
            Self::SockRelease => 34,
        }
    }

    /// First kernel that has the hook.
    pub(crate) fn since(self) -> &'static str {
        match self {
            Self::Connect4 | Self::Connect6 => "4.17",
            Self::Sendmsg4 | Self::Sendmsg6 => "4.18",
            Self::Recvmsg4 | Self::Recvmsg6 => "5.2",
            Self::Getpeername4 | Self::Getpeername6 => "5.8",
            Self::SockRelease => "5.9",
        }
    }

    /// What is missing where the kernel does not have the hook; `None` when nothing works without it.
    pub(crate) fn cost(self) -> Option<&'static str> {
        match self {
            Self::Connect4 | Self::Connect6 | Self::Sendmsg4 | Self::Sendmsg6 => None,
            Self::Recvmsg4 | Self::Recvmsg6 => Some("UDP replies show the endpoint's address"),
            Self::Getpeername4 | Self::Getpeername6 => Some("getpeername() shows the endpoint's address"),
            Self::SockRelease => Some("open connections are not counted"),
        }
    }
}

/// A place on a network link where one of the programs of the packet path is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinkHook {
    /// What leaves by an uplink.
    UplinkEgress,
    /// What comes in by an uplink.
    UplinkIngress,
    /// What pods receive.
    WorkloadEgress,
    /// What pods send.
    WorkloadIngress,
    /// What comes in by an uplink, before the kernel has a packet of it.
    UplinkXdp,
}

impl LinkHook {
    /// Every hook, in the order of attachment: what translates replies is there before the first request.
    pub const ALL: [Self; 5] = [
        Self::UplinkEgress,
        Self::UplinkIngress,
        Self::WorkloadEgress,
        Self::WorkloadIngress,
        Self::UplinkXdp,
    ];

    /// Name of the program.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UplinkEgress => "uplink_egress",
            Self::UplinkIngress => "uplink_ingress",
            Self::WorkloadEgress => "workload_egress",
            Self::WorkloadIngress => "workload_ingress",
            Self::UplinkXdp => "uplink_xdp",
        }
    }

    /// Links of which role it belongs to.
    pub(crate) fn role(self) -> LinkRole {
        match self {
            Self::WorkloadEgress | Self::WorkloadIngress => LinkRole::Workload,
            _ => LinkRole::Uplink,
        }
    }

    /// Whether it is on the way out of the link.
    pub(crate) fn is_egress(self) -> bool {
        matches!(self, Self::UplinkEgress | Self::WorkloadEgress)
    }

    /// Name of the pin of its link to an interface. Not by the interface's name, which can change and hold
    /// what a file name on a bpffs cannot.
    pub(crate) fn pin(self, interface: u32) -> String {
        format!("{}-if{interface}", self.name())
    }

    /// The hook and the interface of a pin; `None` for one of another kind.
    pub(crate) fn of_pin(name: &str) -> Option<(Self, u32)> {
        let (program, interface) = name.split_once("-if")?;
        let hook = Self::ALL.into_iter().find(|hook| hook.name() == program)?;
        Some((hook, interface.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_of_links_to_interfaces_are_told_from_others() {
        for hook in LinkHook::ALL {
            assert_eq!(LinkHook::of_pin(&hook.pin(4)), Some((hook, 4)));
        }
        for name in ["connect4", "uplink_xdp", "uplink_xdp-if", "other-if4", "uplink_xdp-if4-new"] {
            assert_eq!(LinkHook::of_pin(name), None, "{name}");
        }
    }
}
