//! The agent at work: a source of objects on one side, the data path on the other, and the loop between them.

mod barrier;
mod counters;
mod links;
mod programmer;
mod reconcile;

#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tracing::info;

pub use counters::Counters;
pub use links::Links;
pub use programmer::Programmer;
pub use reconcile::reconcile;

use crate::{
    links::{Uplinks, watch as watch_links},
    observe::{Event, Observation, Observer},
    plan::PlannerConfig,
    source::{kube, manifests},
    state::Change,
};

/// Changes that may wait for the loop. A source with more to say waits until there is room: memory is bounded
/// also while a large state is programmed.
const QUEUE: usize = 1024;

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A Kubernetes API server.
    Kube(kube::Access),
    /// A folder of manifests.
    Manifests(PathBuf),
}

/// Serves until SIGTERM or SIGINT; what is programmed stays in place then.
///
/// # Errors
/// When the source cannot be followed, or the programmer cannot serve, at all.
pub async fn run<P: Programmer>(
    programmer: &mut P,
    source: Source,
    node_name: &str,
    config: PlannerConfig,
    uplinks: Uplinks,
    counters: Arc<Counters>,
    (observer, mut observation): (Observer, Observation),
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("setting up the handler for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("setting up the handler for SIGINT")?;
    observer.events().send(Event::starting());
    let (sender, changes) = mpsc::channel(QUEUE);
    let mut source = tokio::spawn(follow(source, node_name.to_owned(), sender, Arc::clone(&counters)));
    let (facts, links) = watch::channel(None);
    tokio::spawn(watch_links(facts));
    let links = Links::new(links, uplinks);
    let received = tokio::select! {
        ended = reconcile(programmer, config, changes, links, counters, observer) => {
            ended?;
            None
        }
        error = observation.failed() => return Err(error),
        _ = terminate.recv() => Some("SIGTERM"),
        _ = interrupt.recv() => Some("SIGINT"),
    };
    if let Some(signal) = received {
        info!(signal, "stopping; what is programmed stays in place and keeps serving");
        return Ok(());
    }
    // The loop ends by itself only when its source has.
    match (&mut source).await {
        Ok(Ok(())) => bail!("the source of objects has ended by itself"),
        Ok(Err(error)) => Err(error),
        Err(error) => Err(error).context("the source of objects broke down"),
    }
}

async fn follow(
    source: Source,
    node_name: String,
    changes: mpsc::Sender<Change>,
    counters: Arc<Counters>,
) -> Result<()> {
    match source {
        Source::Manifests(dir) => Ok(manifests::follow(dir, node_name, changes).await?),
        Source::Kube(access) => {
            let options = kube::Options {
                access,
                node_name: node_name.into(),
                timing: kube::Timing::default(),
                counters: Arc::clone(counters.source()),
            };
            kube::follow(options, changes).await
        }
    }
}
