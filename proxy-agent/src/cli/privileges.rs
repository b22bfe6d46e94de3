use clap::ValueEnum;

use crate::privileges::{Privileges, Unexpected};

/// What the agent may do once it is set up.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct PrivilegeArgs {
    /// Whether the agent, once it is set up, gives up the capabilities and system calls that serving does not need.
    #[arg(long, value_enum, value_name = "WHAT", default_value = "drop")]
    privileges: Choice,

    /// What happens at a system call that the agent was not expected to make.
    #[arg(long, value_enum, env = "FERROUTE_UNEXPECTED_SYSTEM_CALL", default_value = "refuse", hide = true)]
    unexpected_system_call: Unexpected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// Give them up.
    Drop,
    /// Keep all that the agent was started with.
    Keep,
}

impl PrivilegeArgs {
    pub(super) fn privileges(self) -> Privileges {
        match self.privileges {
            Choice::Drop => Privileges::Drop(self.unexpected_system_call),
            Choice::Keep => Privileges::Keep,
        }
    }
}
