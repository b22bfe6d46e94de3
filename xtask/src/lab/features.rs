//! What a kernel can be without, and some tests need.

use std::env;

use anyhow::Context;
use rtnetlink::{LinkVeth, LinkVlan};

use super::netlink::{index_of, netlink};
use super::netns::Netns;
use super::sctp::kernel_socket;

/// Set where the kernel is known to have everything: there, a skipped test is a failed one.
const EVERYTHING: &str = "FERROUTE_WHOLE_KERNEL";

/// Something that a kernel has in a module, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Links of VLANs (8021q).
    Vlan,
    /// Sockets of SCTP.
    Sctp,
}

impl Feature {
    /// Whether the kernel has it, found by trying. A test without it is skipped, and says so.
    ///
    /// # Panics
    /// Without it in a guest of `cargo xtask vm`, and when it cannot be tried.
    #[must_use]
    pub fn is_there(self) -> bool {
        let outcome = match self {
            Self::Vlan => add_a_vlan(),
            Self::Sctp => kernel_socket(false).map(drop).context("opening a socket of SCTP"),
        };
        let Err(error) = outcome else { return true };
        assert!(
            env::var_os(EVERYTHING).is_none(),
            "{EVERYTHING} is set, and this kernel has no {self:?}: {error:#}"
        );
        eprintln!("skipped: this kernel has no {self:?} ({error:#})");
        false
    }
}

fn add_a_vlan() -> anyhow::Result<()> {
    netlink(&Netns::new()?, async |handle| {
        let pair = LinkVeth::new("try", "tryp").build();
        handle.link().add(pair).execute().await.context("adding a veth pair")?;
        let vlan = LinkVlan::new("try.1", index_of(&handle, "try").await?, 1).build();
        handle.link().add(vlan).execute().await.context("adding a VLAN")
    })
}
