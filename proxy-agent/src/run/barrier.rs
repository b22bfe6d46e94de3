use std::time::Duration;

use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

use crate::state::{Change, Store};

/// How long to wait for this node's Node once everything else is there, as kube-proxy does.
pub(super) const NODE: Duration = Duration::from_secs(30);

/// Takes changes in until Services, EndpointSlices and the Node are completely known, and says when the last
/// of the lists was there. What an earlier agent has programmed stays as it is until then: with less than
/// everything known, the difference would take Services away. The addresses on the node's links do not come from
/// a source, and are not waited for here. `None` when the source has ended before.
pub(super) async fn wait(store: &mut Store, changes: &mut Receiver<Change>) -> Option<Instant> {
    let (mut services, mut slices) = (false, false);
    let mut listed = Instant::now();
    while !(services && slices) {
        let change = changes.recv().await?;
        listed = Instant::now();
        let before = (services, slices);
        services |= matches!(change, Change::Services(_));
        slices |= matches!(change, Change::Slices(_));
        store.apply(change);
        if services != slices && (services, slices) != before {
            let (have, wait_for) =
                if services { ("Services", "EndpointSlices") } else { ("EndpointSlices", "Services") };
            info!("complete list of {have}, waiting for that of {wait_for}");
        }
    }
    let deadline = listed + NODE;
    while !store.is_node_known() {
        let Ok(change) = timeout_at(deadline, changes.recv()).await else {
            warn!(
                "no word of this node's Node within {} s: going on without its zone and addresses until it comes; \
                 check --node-name and that nodes may be listed",
                NODE.as_secs()
            );
            return Some(Instant::now());
        };
        listed = Instant::now();
        store.apply(change?);
    }
    Some(listed)
}
