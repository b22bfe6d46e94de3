//! Objects from a Kubernetes API server, over list and watch.
//!
//! Services, EndpointSlices and the own Node are followed each on a connection of its own: a list in pages,
//! then a watch from the list's resource version, resumed from the last event after every loss, listed again
//! when the server has forgotten that version. Each object is taken out of the response's text, slimmed and
//! dropped on its own: a list is never held as typed objects, and one object that cannot be read does not
//! take others with it.

mod backoff;
mod client;
mod counters;
mod follower;
mod kind;
mod lines;
mod requests;
mod trouble;
mod wire;

#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Result;
use tokio::sync::mpsc;

pub(crate) use backoff::up_to;
pub(crate) use client::connect;
pub use counters::Counters;
pub use requests::{Counted, Requests};

use crate::state::{Change, Ingest};
use follower::Follower;
use kind::{Nodes, Services, Slices};

/// What to follow and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API server is and who we are to it.
    pub access: Access,
    /// Name of the Node object of this node.
    pub node_name: Arc<str>,
    /// How long the server may take.
    pub timing: Timing,
    /// Counted into by the source, read by others.
    pub counters: Arc<Counters>,
}

/// Where the API server is and who we are to it; nothing for the service account of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// The server's URL, in the place of the kubeconfig's. Without one nobody says who we are.
    pub server: Option<String>,
}

impl Access {
    /// As a kubeconfig says.
    #[must_use]
    pub fn of(kubeconfig: PathBuf) -> Self {
        Self { kubeconfig: Some(kubeconfig), server: None }
    }
}

/// How long the source waits for the API server before it takes a connection for dead.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For the headers of a response, and for each further piece of a list.
    pub response: Duration,
    /// The least time after which the server is asked to end a watch; up to a third more is added by chance,
    /// so that the nodes of a cluster do not come back together.
    pub watch: Duration,
    /// How much longer than that a watch may be silent.
    pub silence: Duration,
    /// A watch that ends sooner than this and has brought nothing is a failure.
    pub short: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        // A server that is gone without a word is found out by TCP keepalive within half a minute; these are
        // for one whose kernel still answers.
        Self {
            response: Duration::from_secs(30),
            watch: Duration::from_secs(210),
            silence: Duration::from_secs(10),
            short: Duration::from_secs(1),
        }
    }
}

/// Follows the API server and sends what it sees, until the receiver of `changes` is gone.
///
/// # Errors
/// When the client cannot be set up: the kubeconfig cannot be read, or there is no service account. A server
/// that does not answer is no error, it is waited for.
pub async fn follow(options: Options, changes: mpsc::Sender<Change>) -> Result<()> {
    let client = client::connect(&options.access, options.counters.requests()).await?;
    // One for all three, so that the names they share are held once.
    let ingest = Arc::new(Mutex::new(Ingest::new(&options.node_name)));
    tokio::join!(
        Follower::<Services>::new(client.clone(), &options, Arc::clone(&ingest), changes.clone()).run(),
        Follower::<Slices>::new(client.clone(), &options, Arc::clone(&ingest), changes.clone()).run(),
        Follower::<Nodes>::new(client, &options, ingest, changes).run(),
    );
    Ok(())
}
