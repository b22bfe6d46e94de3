use std::sync::Arc;

use anyhow::{Context, Result};

use crate::{
    datapath::{Datapath, Report},
    links::Topology,
    plan::{PlanChange, ServicePortId, ServicePortPlan},
};

/// What the loop programs: the data path, or memory in a test.
pub trait Programmer {
    /// Makes what is programmed exactly `complete`, and from then on serves it.
    ///
    /// # Errors
    /// When it cannot be served at all. What goes wrong with single Services is in the report.
    fn reconcile(&mut self, complete: &[(ServicePortId, Arc<ServicePortPlan>)]) -> Result<Report>;
    /// Applies single changes.
    fn apply(&mut self, changes: &[PlanChange]) -> Report;
    /// Serves these links of the node from now on. False when some of it is to be tried again.
    fn set_links(&mut self, topology: &Topology) -> bool;
}

impl Programmer for Datapath {
    fn reconcile(&mut self, complete: &[(ServicePortId, Arc<ServicePortPlan>)]) -> Result<Report> {
        Self::reconcile(self, complete).context("bringing the data path into service")
    }

    fn apply(&mut self, changes: &[PlanChange]) -> Report {
        Self::apply(self, changes)
    }

    fn set_links(&mut self, topology: &Topology) -> bool {
        Self::set_links(self, topology)
    }
}
