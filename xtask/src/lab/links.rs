//! What tests change about the links of a place while the lab runs: sizes, offloads, addresses, routes.

use std::net::IpAddr;

use anyhow::Context;
use futures::TryStreamExt;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteMetric, RouteType};
use rtnetlink::packet_route::tc::TcAttribute;
use rtnetlink::{LinkUnspec, RouteMessageBuilder};

use super::netlink::{add_address, index_of, netlink, up};
use super::place::Place;
use super::sys;

/// The only link of a pod and of an outside client, and the first of a node.
pub const ETH0: &str = "eth0";

/// Number of the metric among those of a route, in linux/rtnetlink.h.
const RTAX_MTU: u32 = 2;

/// An address and how many of its bits name a network.
pub type Network = (IpAddr, u8);

/// Work that a link does in place of the network stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Checksums of packets that are sent. A veth pair does not compute them at all: the other end trusts it.
    /// XDP programs of the other end do not see that, and must not meet such a link.
    TransmitChecksum,
    /// Segments that are received are merged. A veth takes frames that others redirect to its peer only with this, or
    /// with an XDP program of its own.
    ReceiveMerge,
    /// Tags of VLANs. Without it the kernel writes them into the frames; of a veth pair the other end then finds them there.
    TransmitTag,
    /// The tags of received frames are taken off. A veth never does so itself.
    ReceiveTag,
}

impl Place {
    /// Takes a link up or down.
    pub fn set_up(&self, link: &str, on: bool) -> anyhow::Result<()> {
        self.change_link(link, |change| if on { change.up() } else { change.down() })
    }

    /// Switches an offload.
    pub fn set_offload(&self, link: &str, offload: Offload, on: bool) -> anyhow::Result<()> {
        self.run(|| sys::set_offload(link, offload, on))
            .with_context(|| format!("switching {offload:?} of {link} in {}", self.name()))
    }

    /// Gives a link another address, usable at once.
    pub fn add_address(&self, link: &str, address: IpAddr) -> anyhow::Result<()> {
        netlink(self.netns(), async |handle| {
            let index = index_of(&handle, link).await?;
            add_address(&handle, index, address, whole(address)).await
        })
    }

    /// Takes an address from whatever link has it.
    pub fn remove_address(&self, address: IpAddr) -> anyhow::Result<()> {
        netlink(self.netns(), async |handle| {
            let found = handle.address().get().set_address_filter(address).execute().try_next().await;
            let found = found.with_context(|| format!("looking for the address {address}"))?;
            let found = found.with_context(|| format!("no link has the address {address}"))?;
            let removed = handle.address().del(found).execute().await;
            removed.with_context(|| format!("removing the address {address}"))
        })
    }

    /// Removes a link, and with it the other end of its wire.
    pub fn remove_link(&self, link: &str) -> anyhow::Result<()> {
        netlink(self.netns(), async |handle| {
            let index = index_of(&handle, link).await?;
            handle.link().del(index).execute().await.with_context(|| format!("removing the link {link}"))
        })
    }

    /// Sends packets to a network out of a link, to a gateway there; in place of an older route.
    pub fn route(&self, network: Network, link: &str, gateway: IpAddr) -> anyhow::Result<()> {
        self.put_route(network, link, gateway, None)
    }

    /// The same for packets of at most so many bytes, with their IP header: about larger ones the sender is told.
    ///
    /// A link that takes less would not do: a veth drops what is larger than what it takes itself.
    pub fn narrow_route(
        &self,
        network: Network,
        link: &str,
        gateway: IpAddr,
        mtu: u32,
    ) -> anyhow::Result<()> {
        self.put_route(network, link, gateway, Some(mtu))
    }

    /// Drops packets to a network, silently.
    pub fn route_nowhere(&self, network: Network) -> anyhow::Result<()> {
        netlink(self.netns(), async |handle| {
            let route = RouteMessageBuilder::<IpAddr>::new().destination_prefix(network.0, network.1)?;
            replace_route(&handle, route.kind(RouteType::BlackHole).build()).await
        })
    }

    /// The kinds of queueing disciplines on a link.
    pub fn qdiscs(&self, link: &str) -> anyhow::Result<Vec<String>> {
        netlink(self.netns(), async |handle| {
            let index = index_of(&handle, link).await?;
            let index = i32::try_from(index).context("a number of a link beyond its type")?;
            let found = handle.qdisc().get().index(index).execute().try_collect::<Vec<_>>().await;
            let found = found.with_context(|| format!("asking for the queueing disciplines of {link}"))?;
            let kinds = found.into_iter().flat_map(|qdisc| qdisc.attributes).filter_map(|attribute| {
                if let TcAttribute::Kind(kind) = attribute { Some(kind) } else { None }
            });
            Ok(kinds.collect())
        })
    }

    /// Adds a veth pair of which both ends stay here, both up: a link that leads nowhere.
    pub fn add_idle_link(&self, name: &str) -> anyhow::Result<()> {
        netlink(self.netns(), async |handle| {
            let peer = format!("{name}p");
            let pair = rtnetlink::LinkVeth::new(name, &peer).build();
            handle.link().add(pair).execute().await.with_context(|| format!("adding the link {name}"))?;
            for end in [name, &peer] {
                up(&handle, index_of(&handle, end).await?).await?;
            }
            Ok(())
        })
    }

    fn put_route(
        &self,
        network: Network,
        link: &str,
        gateway: IpAddr,
        mtu: Option<u32>,
    ) -> anyhow::Result<()> {
        netlink(self.netns(), async |handle| {
            let index = index_of(&handle, link).await?;
            let route = RouteMessageBuilder::<IpAddr>::new().destination_prefix(network.0, network.1)?;
            let route = route.pref_source(self.addresses().like(network.0))?;
            let mut route = route.output_interface(index).gateway(gateway)?.onlink().build();
            if let Some(mtu) = mtu {
                // Locked: what is forwarded keeps to it too.
                let metrics = vec![RouteMetric::Lock(1 << RTAX_MTU), RouteMetric::Mtu(mtu)];
                route.attributes.push(RouteAttribute::Metrics(metrics));
            }
            replace_route(&handle, route).await
        })
    }

    fn change_link(
        &self,
        link: &str,
        change: impl Fn(LinkBuilder) -> LinkBuilder + Sync,
    ) -> anyhow::Result<()> {
        netlink(self.netns(), async |handle| {
            let index = index_of(&handle, link).await?;
            let change = change(LinkUnspec::new_with_index(index)).build();
            let changed = handle.link().set(change).execute().await;
            changed.with_context(|| format!("changing the link {link} in {}", self.name()))
        })
    }
}

type LinkBuilder = rtnetlink::LinkMessageBuilder<LinkUnspec>;

async fn replace_route(handle: &rtnetlink::Handle, route: RouteMessage) -> anyhow::Result<()> {
    let described = format!("{:?}", route.attributes);
    let added = handle.route().add(route).replace().execute().await;
    added.with_context(|| format!("adding the route {described}"))
}

fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
