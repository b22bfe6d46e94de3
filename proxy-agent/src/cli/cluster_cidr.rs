use crate::datapath::ClusterCidr;

/// The flag that says where the cluster's pods are, by kube-proxy's name.
#[derive(clap::Args, Debug)]
pub(super) struct ClusterCidrArgs {
    /// Network of the cluster's pods, or one of each IP family with a comma between them: pods of other nodes then get
    /// any endpoint of a Service with externalTrafficPolicy Local.
    #[arg(long, value_name = "CIDR", default_value = "", hide_default_value = true)]
    cluster_cidr: ClusterCidr,
}

impl ClusterCidrArgs {
    pub(super) fn cluster_cidr(&self) -> ClusterCidr {
        self.cluster_cidr
    }
}
