use std::{future, net::IpAddr, time::Duration};

use tokio::{
    sync::watch::Receiver,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::Programmer;
use crate::links::{Facts, Topology, Uplinks, classify};

/// How long to wait for the first word of the node's links once everything else is there: the kernel answers
/// in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before the kernel is asked again for what it has refused: doubled with each failure, up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(30);

/// The node's links, as the loop sees them.
#[derive(Debug)]
pub struct Links {
    facts: Receiver<Option<Facts>>,
    uplinks: Uplinks,
    /// What the programmer was told last, and by which addresses of the Node object it was found.
    topology: Topology,
    node: Vec<IpAddr>,
    known: bool,
    /// There are facts that have not been looked at.
    fresh: bool,
    /// When the programmer is told again, because not all could be done.
    due: Option<Instant>,
    wait: Duration,
}

impl Links {
    /// Of what [`crate::links::watch()`] sends.
    #[must_use]
    pub fn new(facts: Receiver<Option<Facts>>, uplinks: Uplinks) -> Self {
        Self {
            facts,
            uplinks,
            topology: Topology::default(),
            node: Vec::new(),
            known: false,
            fresh: false,
            due: None,
            wait: RETRY_FIRST,
        }
    }

    /// Waits for the first word, in vain only for a moment: without links there are no node ports, but
    /// everything else is served.
    pub(super) async fn arrive(&mut self) {
        let first = self.facts.wait_for(Option::is_some);
        self.fresh = matches!(tokio::time::timeout(PATIENCE, first).await, Ok(Ok(_)));
        if self.fresh {
            return;
        }
        warn!("no word from the kernel of this node's links: going on without them until it comes");
    }

    /// Waits until there is a reason to call [`Self::attach`].
    pub(super) async fn news(&mut self) {
        let retry = async {
            match self.due {
                Some(due) => sleep_until(due).await,
                None => future::pending().await,
            }
        };
        let changed = async {
            if self.facts.changed().await.is_err() {
                future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = retry => {}
            () = changed => self.fresh = true,
        }
    }

    /// Finds the roles of the links. The addresses on which the node may be asked for node ports, if they are
    /// others than before.
    pub(super) fn find(&mut self, node: &[IpAddr]) -> Option<Vec<IpAddr>> {
        if !self.fresh && self.node == node {
            return None;
        }
        let topology = classify(self.facts.borrow_and_update().as_ref()?, node, &self.uplinks);
        self.fresh = false;
        self.node = node.to_vec();
        if !self.known {
            self.describe(&topology);
        }
        let known = std::mem::replace(&mut self.known, true);
        if known && topology == self.topology {
            return None;
        }
        let before = std::mem::replace(&mut self.topology, topology);
        // The programmer has not been told yet.
        self.due = Some(Instant::now());
        self.wait = RETRY_FIRST;
        let local = &self.topology.local_addresses;
        (!known || before.local_addresses != *local).then(|| local.clone())
    }

    /// Whether the programmer has done all that it was told.
    pub(super) fn are_attached(&self) -> bool {
        self.due.is_none()
    }

    /// Tells the programmer what is new, and again what it could not do.
    pub(super) fn attach(&mut self, programmer: &mut impl Programmer) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        if programmer.set_links(&self.topology) {
            self.due = None;
            self.wait = RETRY_FIRST;
        } else {
            self.due = Some(Instant::now() + self.wait);
            self.wait = (self.wait * 2).min(RETRY_LAST);
        }
    }

    fn describe(&self, topology: &Topology) {
        let names: Vec<&str> = topology.links.iter().map(|link| link.name.as_str()).collect();
        for name in self.uplinks.without(&names) {
            warn!(name, "there is no link of this name, that --uplinks names: it is waited for");
        }
        let uplinks: Vec<&str> =
            topology.of_role(proxy_common::LinkRole::Uplink).map(|link| link.name.as_str()).collect();
        if uplinks.is_empty() {
            warn!(
                "no link of this node leads to other nodes: node ports and load balancers are not served; \
                 name such links with --uplinks"
            );
            return;
        }
        info!(?uplinks, address4 = ?topology.primary4, address6 = ?topology.primary6, "found the node's links");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use anyhow::Result;
    use proxy_common::{Family, LinkRole};
    use tokio::sync::watch;

    use super::*;
    use crate::{
        datapath::Report,
        links::{LinkFacts, RouteFacts, RouteKind},
        plan::{PlanChange, ServicePortId, ServicePortPlan},
    };

    /// Says no as often as it is told to.
    #[derive(Default)]
    struct Stubborn {
        refusals: usize,
        uplinks: Vec<Vec<String>>,
    }

    impl Programmer for Stubborn {
        fn reconcile(&mut self, _: &[(ServicePortId, Arc<ServicePortPlan>)]) -> Result<Report> {
            Ok(Report::default())
        }

        fn apply(&mut self, _: &[PlanChange]) -> Report {
            Report::default()
        }

        fn set_links(&mut self, topology: &Topology) -> bool {
            self.uplinks.push(topology.of_role(LinkRole::Uplink).map(|link| link.name.clone()).collect());
            self.refusals = self.refusals.saturating_sub(1);
            self.refusals == 0
        }
    }

    fn facts(addresses: &[&str]) -> Option<Facts> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let link = |index, name: &str, addresses: Vec<IpAddr>| LinkFacts {
            index,
            name: name.to_owned(),
            up: true,
            sources: addresses.clone(),
            addresses,
            ..LinkFacts::default()
        };
        let links = vec![link(2, "eth0", addresses), link(3, "eth1", vec!["10.0.1.1".parse().unwrap()])];
        let route = RouteFacts { link: 2, family: Family::V4, kind: RouteKind::Default(0) };
        Some(Facts { links, routes: [route].into() })
    }

    #[tokio::test(start_paused = true)]
    async fn news_reach_the_programmer_until_it_has_done_all() {
        let (sender, receiver) = watch::channel(None);
        let mut links = Links::new(receiver, Uplinks::default());
        let mut programmer = Stubborn { refusals: 3, ..Stubborn::default() };
        links.arrive().await;
        assert_eq!(links.find(&[]), None, "not known yet");
        links.attach(&mut programmer);
        assert!(programmer.uplinks.is_empty());

        sender.send_replace(facts(&["10.0.0.1"]));
        links.news().await;
        let local: Vec<IpAddr> = ["10.0.0.1", "10.0.1.1"].map(|text| text.parse().unwrap()).into();
        assert_eq!(links.find(&[]), Some(local));
        for _ in 0..5 {
            links.attach(&mut programmer);
            tokio::select! {
                () = links.news() => {}
                () = tokio::time::sleep(Duration::from_secs(60)) => {}
            }
        }
        assert_eq!(programmer.uplinks, [["eth0"], ["eth0"], ["eth0"]], "until the third time");

        assert_eq!(links.find(&["10.0.1.1".parse().unwrap()]), None, "the same addresses");
        links.attach(&mut programmer);
        assert_eq!(programmer.uplinks[3..], [["eth0", "eth1"]], "but the Node object names one");
        sender.send_replace(facts(&["10.0.0.1"]));
        links.news().await;
        assert_eq!(links.find(&["10.0.1.1".parse().unwrap()]), None);
        links.attach(&mut programmer);
        assert_eq!(programmer.uplinks.len(), 4, "nothing is different");
    }
}
