//! What should be programmed: a pure function of the state. Follows KUBE-PROXY.md sections 1.1 to 1.10,
//! 1.14, 1.15 and 2; where it is better on purpose, the docs say so.

mod frontend;
mod service_port;

pub use frontend::PlannedFrontend;
pub use service_port::{PlanChange, PlannedEndpoint, ServicePortId, ServicePortPlan};
