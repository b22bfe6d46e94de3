/// A place in the kernel where one of the programs is attached.
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
