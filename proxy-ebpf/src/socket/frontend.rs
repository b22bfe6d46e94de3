//! Which frontend a socket asks for.

use proxy_common::{FRONTEND_SOURCE_RANGES, Frontend, Protocol};

use crate::{context::SockAddr, ip::Ip, lookup, maps::HOST_NETNS};

/// The frontend of a destination, if it is served here. Host-order port.
///
/// A frontend that serves only some clients is left to the packet path: a socket has no source address yet by which
/// they could be told apart. One on a loopback address is the host's; in a pod that address is the pod's own.
#[inline(always)]
pub(super) fn find<I: Ip>(
    ctx: &SockAddr,
    address: I::Address,
    port: u16,
    protocol: Protocol,
) -> Option<Frontend> {
    let frontend = lookup::frontend::<I>(address, port, protocol)?;
    if frontend.flags & FRONTEND_SOURCE_RANGES != 0 {
        return None;
    }
    (!I::is_loopback(address) || ctx.netns_cookie() == HOST_NETNS.load()).then_some(frontend)
}
