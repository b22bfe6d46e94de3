use std::{convert::Infallible, pin::pin, time::Duration};

use anyhow::{Context, Result, bail};
use futures::{FutureExt, Stream, StreamExt};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection, sys::AsyncSocket};
use tokio::{
    sync::watch::Sender,
    time::{Instant, sleep},
};
use tracing::warn;

use super::{Facts, dump};

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// A new link comes with a burst of news: this long after the first of them all is read, once.
const BURST: Duration = Duration::from_millis(20);
/// A node with a million routes takes long to read, and its routes never rest: at most this part of the
/// time goes into it.
const REST: u32 = 10;
/// Bytes of news that may wait in the kernel. With more than that it says that some is lost, which is one
/// more reason to read everything.
const BUFFER: u32 = 1 << 20;

/// Before netlink is tried again: doubled with each failure, up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(30);

/// Follows the links of the thread's network namespace for ever. What there is now is sent at once, and again
/// whenever it has changed.
pub async fn watch(facts: Sender<Option<Facts>>) -> Infallible {
    let mut wait = RETRY_FIRST;
    loop {
        let start = Instant::now();
        let Err(error) = connect(&facts).await;
        if start.elapsed() > RETRY_LAST {
            wait = RETRY_FIRST;
        }
        warn!(
            retry_ms = wait.as_millis(),
            "the kernel's news of links, addresses and routes: {error:#}; what is known stays in place"
        );
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_LAST);
    }
}

async fn connect(facts: &Sender<Option<Facts>>) -> Result<Infallible> {
    let (mut connection, handle, news) =
        new_multicast_connection(&GROUPS).context("opening a netlink socket")?;
    let socket = connection.socket_mut().socket_mut();
    socket.set_rx_buf_sz(BUFFER).context("setting the size of a netlink socket's buffer")?;
    tokio::select! {
        () = connection => bail!("the connection was lost"),
        followed = follow(&handle, news, facts) => followed,
    }
}

async fn follow<N>(
    handle: &Handle,
    news: impl Stream<Item = N>,
    facts: &Sender<Option<Facts>>,
) -> Result<Infallible> {
    let mut news = pin!(news.fuse());
    loop {
        let start = Instant::now();
        let read = dump::read(handle).await.context("reading links, addresses and routes")?;
        facts.send_if_modified(|known| {
            let differs = known.as_ref() != Some(&read);
            if differs {
                *known = Some(read);
            }
            differs
        });
        let rest = BURST.max(start.elapsed() * REST);
        news.next().await.context("the connection was lost")?;
        sleep(rest).await;
        // All of it is older than what is read next.
        while news.next().now_or_never().flatten().is_some() {}
    }
}
