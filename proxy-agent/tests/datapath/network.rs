//! A network namespace with nothing in it but what a test makes.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr},
};

use futures::TryStreamExt;
use proxy_agent::links::{self, Facts, Link, Topology};
use proxy_common::LinkRole;
use rtnetlink::{
    Handle, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection,
    packet_route::tc::{TcAttribute, TcFilterU32Option, TcHandle, TcU32Key, TcU32Selector},
};
use rustix::thread::UnshareFlags;
use tokio::{
    runtime::Runtime,
    sync::watch::{Receiver, channel},
};

/// Every protocol, in network order.
const ETH_P_ALL: u16 = 3_u16.to_be();

/// The network of the test's thread.
pub(crate) struct Network {
    runtime: Runtime,
    handle: Handle,
}

impl Network {
    /// Moves the thread into a new namespace, which goes with it.
    pub(crate) fn new() -> Self {
        // SAFETY: a new network namespace leaves the thread's memory and descriptors as they are.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        Self::here()
    }

    /// The namespace that the thread is in.
    pub(crate) fn here() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.block_on(async {
            let (connection, handle, _) = new_connection().unwrap();
            tokio::spawn(connection);
            handle
        });
        Self { runtime, handle }
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// What the agent hears of the namespace's links, while something runs in [`Self::block_on`].
    pub(crate) fn watch(&self) -> Receiver<Option<Facts>> {
        let (sender, facts) = channel(None);
        self.block_on(async { drop(tokio::spawn(links::watch(sender))) });
        facts
    }

    /// A veth pair that is up; the index of its first end.
    pub(crate) fn veth(&self, name: &str) -> u32 {
        let peer = format!("{name}p");
        self.block_on(async {
            self.handle.link().add(LinkVeth::new(name, &peer).build()).execute().await.unwrap();
        });
        for name in [name, &peer] {
            let up = LinkUnspec::new_with_index(self.index(name)).up().build();
            self.block_on(async { self.handle.link().set(up).execute().await.unwrap() });
        }
        self.index(name)
    }

    pub(crate) fn set_mtu(&self, index: u32, mtu: u32) {
        let change = LinkUnspec::new_with_index(index).mtu(mtu).build();
        self.block_on(async { self.handle.link().set(change).execute().await.unwrap() });
    }

    pub(crate) fn remove(&self, index: u32) {
        self.block_on(async { self.handle.link().del(index).execute().await.unwrap() });
    }

    pub(crate) fn add_address(&self, index: u32, address: IpAddr, prefix: u8) {
        self.block_on(async { self.handle.address().add(index, address, prefix).execute().await.unwrap() });
    }

    pub(crate) fn add_default_route(&self, index: u32, gateway: Ipv4Addr) {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build();
        self.block_on(async { self.handle.route().add(route).execute().await.unwrap() });
    }

    /// A filter as somebody else would make it, on the way into a link that has a clsact queueing discipline.
    pub(crate) fn add_filter(&self, index: u32) {
        // Matches every packet and does nothing with it.
        let mut selector = TcU32Selector::default();
        selector.nkeys = 1;
        selector.keys = vec![TcU32Key::default()];
        let options = [TcFilterU32Option::Selector(selector)];
        let filter = self.handle.traffic_filter(index.cast_signed()).add();
        let filter = filter.ingress().priority(7).protocol(ETH_P_ALL).u32(&options).unwrap();
        self.block_on(async { filter.execute().await.unwrap() });
    }

    /// How many filters there are on the way into a link.
    pub(crate) fn filters(&self, index: u32) -> usize {
        self.block_on(async {
            let found = self.handle.traffic_filter(index.cast_signed()).get().ingress().execute();
            let found: Vec<_> = found.try_collect().await.unwrap();
            found.iter().filter(|filter| filter.header.handle != TcHandle::UNSPEC).count()
        })
    }

    /// Whether a link has a clsact queueing discipline.
    pub(crate) fn has_clsact(&self, index: u32) -> bool {
        self.block_on(async {
            let found: Vec<_> =
                self.handle.qdisc().get().index(index.cast_signed()).execute().try_collect().await.unwrap();
            found.iter().any(|qdisc| {
                qdisc.header.index.cast_unsigned() == index
                    && qdisc.attributes.contains(&TcAttribute::Kind("clsact".into()))
            })
        })
    }

    pub(crate) fn index(&self, name: &str) -> u32 {
        let found = self.handle.link().get().match_name(name.to_owned()).execute();
        self.block_on(async { std::pin::pin!(found).try_next().await.unwrap().unwrap().header.index })
    }
}

/// Links of these roles.
pub(crate) fn topology(links: &[(u32, LinkRole)]) -> Topology {
    let link = |(index, role): &(u32, LinkRole)| Link {
        index: *index,
        name: format!("link{index}"),
        role: *role,
        addresses: Vec::new(),
        source4: Some(Ipv4Addr::new(10, 0, 0, 1)),
        source6: None,
        ethernet: true,
        hides_tags: false,
        mtu: 1500,
    };
    Topology { links: links.iter().map(link).collect(), ..Topology::default() }
}
