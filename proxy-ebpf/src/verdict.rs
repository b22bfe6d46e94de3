//! What becomes of a connect() or a datagram, and how the kernel is told.

use aya_ebpf::helpers::generated::bpf_set_retval;
use proxy_common::{map_to_v6, unmap_v4};

use crate::{context::SockAddr, maps::HAS_SET_RETVAL};

const ECONNREFUSED: i32 = 111;
const ETIMEDOUT: i32 = 110;

const PROCEED: i32 = 1;
const FAIL: i32 = 0;

const LOOPBACK4: [u8; 4] = [127, 0, 0, 1];
const LOOPBACK6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Nothing listens on it: the registry reserves it for a service (tcpmux, RFC 1078) that is no longer run.
const REFUSING_PORT: u16 = 1;

/// What a socket program decided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on, with the destination as it now stands in the context.
    Proceed,
    /// Fail with `ECONNREFUSED`.
    Refuse,
    /// Fail with `ETIMEDOUT`, which is how a connection ends whose packets are dropped, but at once.
    TimeOut,
}

impl Verdict {
    /// The program's return value, for a hook whose destination is an IPv4 address.
    #[inline(always)]
    pub(crate) fn conclude4(self, ctx: &SockAddr) -> i32 {
        self.conclude(|| ctx.set_destination4(LOOPBACK4, REFUSING_PORT))
    }

    /// The program's return value, for a hook whose destination is an IPv6 address, IPv4-mapped or not.
    #[inline(always)]
    pub(crate) fn conclude6(self, ctx: &SockAddr) -> i32 {
        self.conclude(|| {
            let mapped = unmap_v4(ctx.destination6().0).is_some();
            ctx.set_destination6(if mapped { map_to_v6(LOOPBACK4) } else { LOOPBACK6 }, REFUSING_PORT);
        })
    }

    /// A bare failure would be EPERM, at which kernel clients such as NFS retry for ever. A kernel that
    /// cannot be given another error is sent to a local address that refuses.
    #[inline(always)]
    fn conclude(self, send_to_refusing: impl FnOnce()) -> i32 {
        let error = match self {
            Self::Proceed => return PROCEED,
            Self::Refuse => ECONNREFUSED,
            Self::TimeOut => ETIMEDOUT,
        };
        if HAS_SET_RETVAL.load() == 0 {
            send_to_refusing();
            return PROCEED;
        }
        // SAFETY: the helper takes a plain number and exists, as the agent has found by probing.
        unsafe { bpf_set_retval(-error) };
        FAIL
    }
}
