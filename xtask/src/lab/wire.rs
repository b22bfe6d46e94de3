//! Wires between namespaces: a routed veth pair, or a VLAN on one; its addresses and its routes, by netlink.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Context;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, LinkVlan, RouteMessageBuilder};

use super::addr::{Addresses, Gateway};
use super::netlink::{add_address, add_route, index_of, netlink, up};
use super::netns::Netns;

/// The loopback interface has this index in every namespace.
const LOOPBACK: u32 = 1;

/// What a wire is made of.
#[derive(Clone)]
pub(super) enum Medium {
    /// A veth pair.
    Veth,
    /// A VLAN on a veth pair that is there.
    Vlan {
        /// Its number, from 1 to 4094.
        id: u16,
        /// The pair's upper end.
        upper: String,
        /// The pair's lower end.
        lower: &'static str,
    },
}

/// A wire from an upper namespace (a router to its children) to a lower one.
pub(super) struct Wire<'a> {
    pub(super) medium: Medium,
    /// Who routes: the router for nodes, a node for its pods.
    pub(super) upper: &'a Netns,
    /// The upper end's own addresses: the source of what it sends down itself.
    pub(super) upper_addresses: Addresses,
    /// Interface name of the upper end.
    pub(super) upper_name: String,
    /// How the lower end names the upper one as its gateway.
    pub(super) gateway: Gateway,
    /// Who is connected.
    pub(super) lower: &'a Netns,
    /// Interface name of the lower end.
    pub(super) lower_name: &'a str,
    /// Metric of the lower end's default route: the lowest of a namespace is the one in use.
    pub(super) metric: u32,
    /// The lower end's addresses.
    pub(super) lower_addresses: Addresses,
    /// Networks that are reached through the lower end: the pods of a node.
    pub(super) behind: Option<Networks>,
}

/// One network of each family.
#[derive(Clone, Copy)]
pub(super) struct Networks {
    pub(super) v4: (Ipv4Addr, u8),
    pub(super) v6: (Ipv6Addr, u8),
}

impl Wire<'_> {
    /// Lays the wire. Both namespaces end with every route they need for it.
    pub(super) fn lay(&self) -> anyhow::Result<()> {
        let name = &self.upper_name;
        netlink(self.upper, async |handle| self.lay_upper(&handle).await)
            .with_context(|| format!("laying the upper end of the wire {name}"))?;
        netlink(self.lower, async |handle| self.lay_lower(&handle).await)
            .with_context(|| format!("laying the lower end of the wire {name}"))
    }

    async fn lay_upper(&self, handle: &Handle) -> anyhow::Result<()> {
        match &self.medium {
            Medium::Veth => add_pair(handle, &self.upper_name, self.lower, self.lower_name).await?,
            Medium::Vlan { id, upper, .. } => add_vlan(handle, &self.upper_name, upper, *id).await?,
        }
        let index = index_of(handle, &self.upper_name).await?;
        add_address(handle, index, self.gateway.v4.into(), 32).await?;
        add_address(handle, index, self.gateway.v6.into(), 64).await?;
        up(handle, index).await?;
        let (upper, lower) = (self.upper_addresses, self.lower_addresses);
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(lower.v4, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .pref_source(upper.v4);
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(lower.v6, 128)
            .output_interface(index)
            .pref_source(upper.v6);
        add_route(handle, v4.build()).await?;
        add_route(handle, v6.build()).await?;
        if let Some(behind) = self.behind {
            let v4 = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(behind.v4.0, behind.v4.1)
                .output_interface(index)
                .gateway(lower.v4)
                .pref_source(upper.v4)
                .onlink();
            let v6 = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(behind.v6.0, behind.v6.1)
                .output_interface(index)
                .gateway(lower.v6)
                .pref_source(upper.v6)
                .onlink();
            add_route(handle, v4.build()).await?;
            add_route(handle, v6.build()).await?;
        }
        Ok(())
    }

    async fn lay_lower(&self, handle: &Handle) -> anyhow::Result<()> {
        if let Medium::Vlan { id, lower, .. } = &self.medium {
            add_vlan(handle, self.lower_name, lower, *id).await?;
        }
        let index = index_of(handle, self.lower_name).await?;
        add_address(handle, index, self.lower_addresses.v4.into(), 32).await?;
        add_address(handle, index, self.lower_addresses.v6.into(), 128).await?;
        up(handle, index).await?;
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(self.gateway.v4)
            .output_interface(index)
            .pref_source(self.lower_addresses.v4)
            .priority(self.metric)
            .onlink();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new()
            .gateway(self.gateway.v6)
            .output_interface(index)
            .pref_source(self.lower_addresses.v6)
            .priority(self.metric);
        add_route(handle, v4.build()).await?;
        add_route(handle, v6.build()).await
    }
}

/// Connects two namespaces by a veth pair without addresses, for VLANs.
pub(super) fn trunk(upper: &Netns, upper_name: &str, lower: &Netns, lower_name: &str) -> anyhow::Result<()> {
    netlink(upper, async |handle| {
        add_pair(&handle, upper_name, lower, lower_name).await?;
        up(&handle, index_of(&handle, upper_name).await?).await
    })?;
    netlink(lower, async |handle| up(&handle, index_of(&handle, lower_name).await?).await)
}

/// Adds a veth pair; the other end gets its name when it is in its namespace.
async fn add_pair(handle: &Handle, name: &str, lower: &Netns, lower_name: &str) -> anyhow::Result<()> {
    let peer = format!("{name}p");
    let pair = LinkVeth::new(name, &peer).build();
    handle.link().add(pair).execute().await.context("adding a veth pair")?;
    let peer = index_of(handle, &peer).await?;
    let moved = LinkUnspec::new_with_index(peer).name(lower_name).setns_by_fd(lower.raw_fd()).build();
    handle.link().set(moved).execute().await.context("moving the lower end to its namespace")
}

async fn add_vlan(handle: &Handle, name: &str, parent: &str, id: u16) -> anyhow::Result<()> {
    let vlan = LinkVlan::new(name, index_of(handle, parent).await?, id).build();
    handle.link().add(vlan).execute().await.with_context(|| format!("adding VLAN {id} to {parent}"))
}

/// Brings the loopback interface of a namespace up, and gives it addresses that are not of any wire.
pub(super) fn loopback_up(netns: &Netns, extra: Option<Addresses>) -> anyhow::Result<()> {
    netlink(netns, async |handle| {
        up(&handle, LOOPBACK).await?;
        if let Some(addresses) = extra {
            add_address(&handle, LOOPBACK, addresses.v4.into(), 32).await?;
            add_address(&handle, LOOPBACK, addresses.v6.into(), 128).await?;
        }
        Ok(())
    })
}
