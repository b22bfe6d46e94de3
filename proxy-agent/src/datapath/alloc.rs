//! Who may write where: the ids of backends and service ports, and ranges of slots. Pure.
//!
//! A program run may still hold what it read a moment ago. What is given back therefore rests until a
//! grace period has passed, after which no run that could have seen it is still going.

mod ids;
mod ranges;

pub(crate) use ids::Ids;
pub(crate) use ranges::Ranges;
