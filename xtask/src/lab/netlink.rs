//! Netlink requests inside the lab's namespaces.

use std::net::IpAddr;

use anyhow::Context;
use futures::TryStreamExt;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{Handle, LinkUnspec, new_connection};

use super::netns::Netns;

/// Runs netlink requests inside a namespace: a netlink socket belongs to the one it was made in.
pub(super) fn netlink<T: Send>(
    netns: &Netns,
    requests: impl AsyncFnOnce(Handle) -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            netns.enter()?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .context("starting a runtime for netlink")?;
            runtime.block_on(async {
                let (connection, handle, _) = new_connection().context("opening a netlink socket")?;
                tokio::spawn(connection);
                requests(handle).await
            })
        });
        done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(super) async fn index_of(handle: &Handle, name: &str) -> anyhow::Result<u32> {
    let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    let link = found.with_context(|| format!("looking for link {name}"))?;
    let link = link.with_context(|| format!("no link {name} in this namespace"))?;
    Ok(link.header.index)
}

pub(super) async fn up(handle: &Handle, index: u32) -> anyhow::Result<()> {
    let change = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(change).execute().await.with_context(|| format!("bringing link {index} up"))
}

pub(super) async fn add_address(
    handle: &Handle,
    index: u32,
    address: IpAddr,
    prefix: u8,
) -> anyhow::Result<()> {
    let mut add = handle.address().add(index, address, prefix);
    // Usable at once: even where duplicates are not looked for, the kernel marks a new IPv6 address
    // tentative for a moment, and refuses it as the source of a route.
    add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    add.execute().await.with_context(|| format!("adding address {address}/{prefix} to link {index}"))
}

pub(super) async fn add_route(handle: &Handle, route: RouteMessage) -> anyhow::Result<()> {
    let described = format!("{:?}", route.attributes);
    handle.route().add(route).execute().await.with_context(|| format!("adding the route {described}"))
}
