use serde_json::{Value, json};

use super::{container, daemon_set, kustomize, root};

fn names(overlay: &str) -> Vec<String> {
    kustomize(overlay).into_keys().map(|(kind, name)| format!("{kind}/{name}")).collect()
}

#[test]
fn the_base_is_what_a_node_needs_and_no_more() {
    let objects = ["ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet", "ServiceAccount"];
    assert_eq!(names("base"), objects.map(|kind| format!("{kind}/ferroute")));
    let base = kustomize("base");
    let security = &container(&base)["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert!(security["privileged"].is_null(), "{security:#}");
    let template = &daemon_set(&base)["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["k8s-app"], "kube-proxy");
    assert_eq!(template["spec"]["tolerations"], json!([{"operator": "Exists"}]));
}

#[test]
fn the_image_is_this_release() {
    let image = container(&kustomize("base"))["image"].clone();
    assert_eq!(image, format!("ghcr.io/ferroute/ferroute:{}", env!("CARGO_PKG_VERSION")));
    let file = std::fs::read_to_string(root().join("deploy/image/Containerfile")).expect("a Containerfile");
    assert!(file.contains(image.as_str().expect("a name")), "the command that makes it");
}

#[test]
fn an_overlay_for_nodes_that_need_a_privileged_agent() {
    let objects = kustomize("overlays/privileged");
    let container = container(&objects);
    assert_eq!(container["securityContext"], json!({"privileged": true, "readOnlyRootFilesystem": true}));
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    let bpffs = mounts.iter().find(|mount| mount["name"] == "bpffs").expect("a bpffs");
    assert_eq!(bpffs["mountPropagation"], "Bidirectional", "what the agent mounts has to stay on the node");
}

#[test]
fn kubeadm_keeps_its_own_configuration() {
    let objects = kustomize("overlays/kubeadm");
    assert!(!objects.keys().any(|(kind, _)| kind == "ConfigMap"), "there is one in the cluster");
    assert_eq!(
        container(&objects)["command"],
        json!(["/usr/local/bin/proxy-agent", "run", "--config=/var/lib/kube-proxy/config.conf"])
    );
    let pod = &daemon_set(&objects)["spec"]["template"]["spec"];
    let mounted = |mount: &&Value| mount["mountPath"] == "/var/lib/kube-proxy";
    let mounts = container(&objects)["volumeMounts"].as_array().expect("mounts");
    let volume =
        mounts.iter().find(mounted).expect("the folder that the configuration names")["name"].clone();
    let volumes = pod["volumes"].as_array().expect("volumes");
    let volume = volumes.iter().find(|one| one["name"] == volume).expect("a volume");
    assert_eq!(volume["configMap"], json!({"name": "kube-proxy"}));
}

#[test]
fn kind_reaches_its_control_plane_by_name() {
    let file = std::fs::read_to_string(root().join("deploy/kind/cluster.yaml")).expect("a file");
    let cluster: Value = serde_yaml_ng::from_str(&file).expect("YAML");
    assert_eq!(cluster["networking"]["kubeProxyMode"], "none");
    let host = format!("{}-control-plane", cluster["name"].as_str().expect("a name"));
    let objects = kustomize("overlays/kind");
    let server = &objects[&("ConfigMap".to_owned(), "ferroute-api-server".to_owned())];
    assert_eq!(server["data"], json!({"host": host, "port": "6443"}));
    assert_eq!(container(&objects)["image"], "ferroute:dev", "what `cargo xtask image` makes");
    assert_eq!(container(&objects)["securityContext"]["privileged"], true, "a kind node has no bpffs");
}

#[test]
fn what_is_left_on_nodes_is_taken_off_by_the_same_image() {
    let objects = kustomize("cleanup");
    let daemon = &objects[&("DaemonSet".to_owned(), "ferroute-cleanup".to_owned())];
    let pod = &daemon["spec"]["template"]["spec"];
    let cleanup = &pod["initContainers"][0];
    assert_eq!(cleanup["image"], container(&kustomize("base"))["image"]);
    assert_eq!(cleanup["command"], json!(["/usr/local/bin/proxy-agent", "cleanup"]));
    let base = kustomize("base");
    let base = &daemon_set(&base)["spec"]["template"]["spec"];
    for field in ["nodeSelector", "tolerations", "hostNetwork"] {
        assert_eq!(pod[field], base[field], "on every node where an agent was: {field}");
    }
}
