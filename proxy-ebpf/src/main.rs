//! The Ferroute eBPF programs. The agent loads them and attaches them: those of the socket path to a cgroup, those of the
//! packet path to links.
//!
//! Entry points only: each hands its context to the module that knows what to do.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod affinity;
mod atomic;
mod choose;
mod context;
mod count;
mod ip;
mod lookup;
mod maps;
mod packet;
mod socket;
mod storage;
mod verdict;

use aya_ebpf::{
    macros::{cgroup_sock, cgroup_sock_addr, classifier, xdp},
    programs::{SockAddrContext, SockContext, TcContext, XdpContext},
};
use context::{SockAddr, StoredSocket};
use packet::{Tc, Xdp};
use proxy_common::Hook;

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    let ctx = SockAddr::new(&ctx);
    socket::connect4(&ctx).conclude4(&ctx)
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    let ctx = SockAddr::new(&ctx);
    socket::connect6(&ctx).conclude6(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    let ctx = SockAddr::new(&ctx);
    socket::sendmsg4(&ctx).conclude4(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    let ctx = SockAddr::new(&ctx);
    socket::sendmsg6(&ctx).conclude6(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    socket::show_frontend4(&SockAddr::new(&ctx))
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    socket::show_frontend6(&SockAddr::new(&ctx))
}

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    socket::show_frontend4(&SockAddr::new(&ctx))
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    socket::show_frontend6(&SockAddr::new(&ctx))
}

#[cgroup_sock(sock_release)]
fn sock_release(ctx: SockContext) -> i32 {
    storage::release(ctx.sock)
}

/// Run by the agent over all sockets that were ever translated, in every network namespace.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
extern "C" fn stale_sockets(ctx: *const StoredSocket) -> i32 {
    socket::report_if_stale(ctx)
}

#[classifier]
fn uplink_ingress(ctx: TcContext) -> i32 {
    packet::process(Tc::new(&ctx), Hook::UplinkIngress)
}

#[classifier]
fn uplink_egress(ctx: TcContext) -> i32 {
    packet::process(Tc::new(&ctx), Hook::UplinkEgress)
}

#[classifier]
fn workload_ingress(ctx: TcContext) -> i32 {
    packet::process(Tc::new(&ctx), Hook::WorkloadIngress)
}

#[classifier]
fn workload_egress(ctx: TcContext) -> i32 {
    packet::process(Tc::new(&ctx), Hook::WorkloadEgress)
}

#[xdp]
fn uplink_xdp(ctx: XdpContext) -> u32 {
    packet::process(Xdp::new(&ctx), Hook::UplinkIngress).cast_unsigned()
}

/// Linked only if something can panic, and then the verifier refuses the program: there is no way out.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers used are for GPL programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
