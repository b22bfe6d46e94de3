//! The packet path: traffic that no local socket was asked about. Clients outside the cluster, SCTP, and pods
//! whose sockets the node's cgroup does not see.
//!
//! Every packet takes the same way, at TC and at XDP. Its headers are read ([`headers`]); a filter tells in two
//! array reads that it belongs to no flow, or its flow is followed ([`flow`]) or opened ([`open`]); it is rewritten
//! ([`rewrite`]) and sent on ([`onward`]). What XDP cannot do it leaves to the same code at TC.
#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths, offsets and ports of packets, and what helpers return"
)]

mod clock;
mod context;
mod direct;
mod flow;
mod fragment;
mod headers;
mod icmp;
mod notice;
mod onward;
mod open;
mod rewrite;
mod route;
mod tables;
mod tc;
mod work;
mod xdp;

use proxy_common::Hook;

pub(crate) use self::{tc::Tc, xdp::Xdp};

use self::{
    context::Context,
    flow::Step,
    headers::Kind,
    notice::{Notice, Problem},
    open::Decision,
    work::{Desk, Work},
};
use crate::ip::{V4, V6};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// What becomes of a packet: the program's return value.
#[inline(always)]
pub(crate) fn process<C: Context>(ctx: C, hook: Hook) -> i32 {
    match ctx.ethertype() {
        Some(ETHERTYPE_IPV4) => family::<V4, C>(ctx, hook),
        Some(ETHERTYPE_IPV6) => family::<V6, C>(ctx, hook),
        // A tagged frame comes by again, without its tag, on the VLAN's own link.
        _ => C::PASS,
    }
}

#[inline(always)]
fn family<I: Notice + Desk, C: Context>(ctx: C, hook: Hook) -> i32 {
    let Some(work) = I::work() else { return C::PASS };
    if ctx.is_rewritten() {
        if hook != Hook::WorkloadIngress {
            return C::PASS;
        }
        // A pod that is a router has let it through.
        ctx.set_rewritten(false);
    }
    if !work.headers.read::<I, C>(ctx) {
        return C::PASS;
    }
    let verdict = match work.headers.kind {
        Kind::Transport => transport::<I, C>(ctx, hook, work),
        // XDP has no means to shorten or lengthen what it answers; TC sees it next.
        _ if C::XDP => C::PASS,
        Kind::IcmpError => icmp::translate::<I, C>(ctx, hook, work),
        Kind::Other if open::is_refused::<I, C>(ctx, hook, &work.headers) => {
            notice::owe::<C, _>(work, Problem::PortUnreachable, 0)
        }
        Kind::Other => C::PASS,
    };
    if verdict == notice::OWED { ctx.answer::<I>(&work.headers, work.message) } else { verdict }
}

#[inline(always)]
fn transport<I: Notice, C: Context>(ctx: C, hook: Hook, work: &mut Work<I::Words>) -> i32 {
    if work.headers.is_fragment() && C::XDP {
        return C::PASS;
    }
    let known = flow::may_have_one::<I>(&work.headers);
    if work.headers.is_later_fragment() && !known {
        return C::PASS;
    }
    if !fragment::set_key::<I>(work) {
        return C::PASS;
    }
    work.may_keep_port = true;
    match if known { flow::follow::<I, C>(ctx, work, hook) } else { Step::None } {
        Step::Found => {}
        Step::NotHere => return C::PASS,
        Step::None => match open::ask::<I, C>(ctx, hook, work) {
            Decision::Opened => {}
            Decision::Pass => return C::PASS,
            Decision::Drop => return C::DROP,
            Decision::Refuse => return notice::owe::<C, _>(work, Problem::PortUnreachable, 0),
        },
    }
    if work.headers.is_first_fragment() {
        fragment::remember::<I>(&work.headers);
    }
    onward::send::<I, C>(ctx, work)
}
