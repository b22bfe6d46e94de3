use crate::privileges::{Privileges, Unexpected};

/// How strictly the agent is held to what it was expected to do.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(super) struct PrivilegeArgs {
    /// What happens at a system call that the agent was not expected to make.
    #[arg(long, value_enum, env = "FERROUTE_UNEXPECTED_SYSTEM_CALL", default_value = "refuse", hide = true)]
    unexpected_system_call: Unexpected,
}

impl PrivilegeArgs {
    /// The same privileges, held to so strictly.
    pub(super) fn strictly(self, privileges: Privileges) -> Privileges {
        match privileges {
            Privileges::Drop(_) => Privileges::Drop(self.unexpected_system_call),
            Privileges::Keep => Privileges::Keep,
        }
    }
}
