//! What should be programmed: a pure function of the state. Follows KUBE-PROXY.md sections 1.1 to 1.10,
//! 1.14, 1.15 and 2; where it is better on purpose, the docs say so.

mod claims;
mod draft;
mod frontend;
mod health_check;
mod here;
mod node_ports;
mod planner;
mod problem;
mod select;
mod service_port;

pub use frontend::PlannedFrontend;
pub use health_check::{HealthCheck, HealthCheckChange, HealthCheckId};
pub use node_ports::{NodePortAddresses, NodePortAddressesError};
pub use planner::{Outcome, Planner, PlannerConfig};
pub use problem::{ObjectRef, Problem, ProblemReason};
pub use service_port::{PlanChange, PlannedEndpoint, ServicePortId, ServicePortPlan};
