use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::programs::links::{FdLink, PinnedLink};
use proxy_agent::{
    datapath::{self, Datapath, Error, Options, Snapshot},
    plan::{PlannedEndpoint, PlannedFrontend, ServicePortId, ServicePortPlan},
    state::ObjectName,
};
use proxy_common::{EndpointList, Family, FrontendKind, Protocol};
use rustix::{
    mount::{MountPropagationFlags, UnmountFlags},
    thread::UnshareFlags,
};

/// A place for one data path: a directory for a bpffs that only this thread sees mounted, and two cgroups.
pub(crate) struct World {
    /// Removed last.
    _directory: tempfile::TempDir,
    bpffs: PathBuf,
    cgroups: [PathBuf; 2],
}

/// What a pinned link is now.
pub(crate) struct Link {
    pub(crate) id: u32,
    pub(crate) program: u32,
}

impl World {
    /// `None`, with a word on why, where the test cannot run.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        // Mounts made by this test's thread are seen and outlived by nobody else.
        // SAFETY: a new mount namespace leaves the thread's memory and descriptors as they are.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let bpffs = directory.path().join("bpf");
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("ferroute-test-{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let hierarchy = hierarchy();
        let cgroups = ["one", "two"].map(|which| hierarchy.join(format!("{name}-{which}")));
        cgroups.iter().for_each(|cgroup| fs::create_dir(cgroup).unwrap());
        let world = Self { _directory: directory, bpffs, cgroups };
        if let Err(Error::NoObject) = Datapath::open(&world.options()) {
            assert!(std::env::var_os("FERROUTE_EBPF_OBJECT").is_none(), "an object was promised");
            eprintln!("skipped: built without the eBPF object");
            return None;
        }
        datapath::cleanup(&world.bpffs).unwrap();
        Some(world)
    }

    pub(crate) fn options(&self) -> Options {
        Options { bpffs: self.bpffs.clone(), cgroup: Some(self.cgroups[0].clone()), ..Options::default() }
    }

    /// Of another data path beside the first.
    pub(crate) fn other_options(&self) -> Options {
        let bpffs = self.bpffs.with_file_name("other-bpf");
        Options { bpffs, cgroup: Some(self.cgroups[1].clone()), ..Options::default() }
    }

    pub(crate) fn open(&self) -> Datapath {
        Datapath::open(&self.options()).unwrap_or_else(|error| panic!("{error}: {error:?}"))
    }

    pub(crate) fn other_cgroup(&self) -> PathBuf {
        self.cgroups[1].clone()
    }

    pub(crate) fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    pub(crate) fn inspect(&self) -> Snapshot {
        datapath::inspect(&self.bpffs).unwrap()
    }

    /// What a process in the cgroup reads from `address/port`, or its error message.
    pub(crate) fn connect(&self, to: &str) -> Result<String, String> {
        let procs = self.cgroups[0].join("cgroup.procs");
        let script = format!("echo 0 > {} && exec 3<>/dev/tcp/{to} && cat <&3", procs.display());
        let output = process::Command::new("bash").args(["-c", &script]).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Directories with maps.
    pub(crate) fn directories(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.bpffs).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.contains('-'));
        names.sort();
        names
    }

    pub(crate) fn links(&self) -> BTreeMap<String, Link> {
        fs::read_dir(self.bpffs.join("links"))
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let link: FdLink = PinnedLink::from_pin(&path).unwrap().into();
                let info = link.info().unwrap();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, Link { id: info.id(), program: info.program_id() })
            })
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for bpffs in [self.bpffs.clone(), self.other_options().bpffs] {
            let _gone_already = datapath::cleanup(&bpffs);
            let _not_mounted = rustix::mount::unmount(&bpffs, UnmountFlags::DETACH);
        }
        for cgroup in &self.cgroups {
            let _gone_already = fs::remove_dir(cgroup);
        }
    }
}

pub(crate) fn id(name: &str) -> ServicePortId {
    let family = if name == "v6" { Family::V6 } else { Family::V4 };
    let service = ObjectName::new("default", name);
    ServicePortId { service, port_name: "http".into(), protocol: Protocol::Tcp, family }
}

pub(crate) fn plan(address: &str, endpoints: &[&str]) -> ServicePortPlan {
    let parse = |text: &str| -> IpAddr { text.parse().unwrap() };
    ServicePortPlan {
        frontends: vec![PlannedFrontend {
            kind: FrontendKind::ClusterIp,
            address: parse(address),
            port: 80,
            local: false,
        }],
        endpoints: endpoints
            .iter()
            .map(|address| PlannedEndpoint {
                address: parse(address),
                port: 8080,
                local: false,
                terminating: false,
                lists: EndpointList::Cluster as u8,
            })
            .collect(),
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
        has_any: !endpoints.is_empty(),
        source_ranges: Vec::new(),
        exempt_sources: Vec::new(),
    }
}

/// Where cgroup v2 is mounted, as this thread sees it.
pub(crate) fn hierarchy() -> PathBuf {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" cgroup2 ")).unwrap();
    mount.split(' ').nth(1).unwrap().into()
}
