//! The container image: nothing but its own files, its root file system read-only, and what a pod mounts.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use xtask::{image, lab::available};

use crate::{
    helpers::{Traffic, until_programmed, web},
    scene::Scene,
    world::{SOURCES, agent_binary, cluster_ips},
};

/// What a container runtime does: a root of its own, in which is what the pod mounts. Each path among the agent's
/// arguments is a mount of the pod's.
const RUNTIME: &str = r#"#!/bin/sh -eu
exec unshare --mount --propagation private sh -eu -c '
root=$1; shift
mount --bind "$root" "$root"
for path in /proc /sys "$@"; do
    case $path in /*) ;; *) continue ;; esac
    if [ -d "$path" ]; then
        mkdir -p "$root$path"
    else
        mkdir -p "$root$(dirname "$path")"
        touch "$root$path"
    fi
    mount --rbind "$path" "$root$path"
done
mount -o remount,bind,ro "$root"
exec chroot "$root" /usr/local/bin/proxy-agent "$@"
' sh ROOT "$@"
"#;

/// A container of the image: a program that is the agent in it.
struct Container {
    folder: TempDir,
}

impl Container {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("rootfs");
        image::lay_out(&agent_binary(), &root).expect("the image's files");
        let runtime = folder.path().join("runtime");
        fs::write(&runtime, RUNTIME.replace("ROOT", &root.display().to_string())).expect("a script");
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).expect("that can be run");
        Self { folder }
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("runtime")
    }
}

#[test]
fn it_serves_with_nothing_but_its_own_files() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let container = Container::new();
        let (mut scene, ips) = (Scene::new("image", from, 2), cluster_ips());
        scene.world.apply(&web("web", ips, &scene.all()));
        until_programmed(&scene.world, "node-a", (ips.0, 80).into(), &scene.all());
        let traffic = Traffic::start(&scene.client, ips);
        scene.world.take_agent("node-a").terminate().expect("the agent on the host ends");
        scene.world.start_otherwise("node-a", |spec| spec.binary(&container.program()));
        // The one in the container takes over what the one on the host has left, and is followed by another.
        for _container in 0..2 {
            scene.world.start_agent("node-a");
            traffic.go_on(50);
            scene.world.apply(&web("web", ips, &[&scene.pods[0]]));
            until_programmed(&scene.world, "node-a", (ips.0, 80).into(), &[&scene.pods[0]]);
            scene.world.apply(&web("web", ips, &scene.all()));
            until_programmed(&scene.world, "node-a", (ips.0, 80).into(), &scene.all());
            scene.world.take_agent("node-a").terminate().expect("the agent in the container ends");
        }
        traffic.go_on(50);
        traffic.end_unharmed();
    }
}

#[test]
fn it_is_one_static_binary_under_two_names() {
    let container = Container::new();
    let names = |folder: &Path| -> Vec<_> {
        let mut names: Vec<_> =
            fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").file_name()).collect();
        names.sort();
        names
    };
    let folder = container.folder.path().join("rootfs/usr/local/bin");
    assert_eq!(names(&folder), ["kube-proxy", "proxy-agent"]);
    assert_eq!(names(&container.folder.path().join("rootfs")), ["usr"], "and nothing else");
    let same = fs::canonicalize(folder.join("kube-proxy")).expect("a link");
    assert_eq!(same.file_name(), Some("proxy-agent".as_ref()));
}
