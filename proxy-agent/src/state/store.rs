/// All objects the agent knows, indexed by Service.
#[derive(Debug, Default)]
pub struct Store {}

/// What a change made worth planning again.
#[derive(Debug)]
pub struct Dirty {}
