//! Everything that a test needs: namespaces, a bpffs, maps filled by the agent library, and the programs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proxy_agent::datapath::{self, Datapath, Error, LinkOptions, Options, WorkloadLinks};
use rand::rngs::StdRng;
use rustix::{
    mount::{MountPropagationFlags, UnmountFlags},
    thread::UnshareFlags,
};

use crate::{flows::State, kernel::Kernel, place::Place, services::Services, tables::Tables};

/// The real thing, all of it the test's own.
pub(crate) struct World {
    pub(crate) place: Place,
    pub(crate) services: Services,
    pub(crate) tables: Tables,
    pub(crate) kernel: Kernel,
    datapath: Datapath,
    // Goes last.
    _ground: Ground,
}

/// What the data path stands on; removed also when what is built on it fails.
struct Ground {
    cgroup: PathBuf,
    bpffs: PathBuf,
    /// Removed last.
    _directory: tempfile::TempDir,
}

impl World {
    /// A world for the calling thread, which does not come back from its namespaces. `None`, with a word on
    /// why, where the test cannot run.
    pub(crate) fn new(ports: (u16, u16), random: &mut StdRng) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        // SAFETY: new namespaces leave the thread's memory and descriptors as they are.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }.unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let bpffs = directory.path().join("bpf");
        let hierarchy = fs::read_to_string("/proc/self/mounts").unwrap();
        let hierarchy = hierarchy.lines().find(|line| line.contains(" cgroup2 ")).unwrap();
        let name = directory.path().file_name().unwrap().to_str().unwrap().replace('.', "");
        let cgroup =
            PathBuf::from(hierarchy.split(' ').nth(1).unwrap()).join(format!("ferroute-packet-{name}"));
        fs::create_dir(&cgroup).unwrap();
        let ground = Ground { cgroup, bpffs, _directory: directory };
        let (bpffs, cgroup) = (ground.bpffs.clone(), ground.cgroup.clone());
        // The test writes LINKS itself.
        let links = LinkOptions { workload: WorkloadLinks::Never, ..LinkOptions::default() };
        let options = Options { bpffs: bpffs.clone(), cgroup: Some(cgroup), links, ..Options::default() };
        let mut datapath = match Datapath::open(&options) {
            Err(Error::NoObject) => {
                assert!(std::env::var_os("FERROUTE_EBPF_OBJECT").is_none(), "an object was promised");
                eprintln!("skipped: built without the eBPF object");
                return None;
            }
            result => result.unwrap_or_else(|error| panic!("{error}: {error:?}")),
        };
        let place = Place::lay();
        datapath.reconcile(&[]).unwrap();
        let pins = pinned_maps(&bpffs);
        let mut tables = Tables::open(&pins);
        tables.fill_links(&place);
        let services = Services::new(&mut datapath, &tables, random);
        let mut kernel = Kernel::load(&pins, ports.0, ports.1).unwrap();
        kernel.attach_xdp(&place);
        Some(Self { place, services, tables, kernel, datapath, _ground: ground })
    }

    /// Gives some Service another plan.
    pub(crate) fn change_services(&mut self, random: &mut StdRng) {
        self.services.change(&mut self.datapath, &self.tables, random);
    }

    /// Makes the maps hold what the model holds.
    pub(crate) fn load(&mut self, before: &State, after: &State) {
        for change in before.everything() {
            self.tables.put(&change.emptied());
        }
        for change in after.everything() {
            self.tables.put(&change);
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _gone_already = datapath::cleanup(&self.bpffs);
        let _not_mounted = rustix::mount::unmount(&self.bpffs, UnmountFlags::DETACH);
        let _gone_already = fs::remove_dir(&self.cgroup);
    }
}

/// Every map of the data path; what belongs to sockets and flows has directories of its own.
fn pinned_maps(bpffs: &Path) -> Vec<PathBuf> {
    let paths = |directory: &Path| -> Vec<PathBuf> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let mut directories = paths(bpffs);
    directories.retain(|path| path.is_dir() && !path.is_symlink() && !path.ends_with("links"));
    directories.iter().flat_map(|directory| paths(directory)).collect()
}
