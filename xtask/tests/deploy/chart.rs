//! The chart gives the same objects as the overlays, but for what helm adds.

use serde::Deserialize as _;
use serde_json::Value;

use super::{Objects, helm, kustomize, template};

#[test]
fn the_default_is_the_base() {
    let mut base = comparable(kustomize("base"));
    // The one difference: the address of the API server comes from a value, not from a ConfigMap.
    let container = "/spec/template/spec/containers/0/env";
    let daemon = base.get_mut(&("DaemonSet".into(), "ferroute".into())).expect("a DaemonSet");
    let variables = daemon.pointer_mut(container).and_then(Value::as_array_mut).expect("variables");
    variables.retain(|variable| variable["name"] == "NODE_NAME");
    assert_eq!(comparable(template(&[])), base);
}

#[test]
fn with_kube_proxys_configuration_it_is_the_overlay_of_kubeadm() {
    let chart = template(&["--set", "privileged=true,existingConfigMap=kube-proxy"]);
    let overlay = kustomize("overlays/kubeadm");
    let security = |objects: &Objects| super::container(objects)["securityContext"].clone();
    assert_eq!(security(&chart), security(&overlay));
    for field in ["command", "volumeMounts"] {
        assert_eq!(super::container(&chart)[field], super::container(&overlay)[field], "{field}");
    }
    let volumes =
        |objects: &Objects| super::daemon_set(objects)["spec"]["template"]["spec"]["volumes"].clone();
    assert_eq!(volumes(&chart), volumes(&overlay));
    let kinds = |objects: Objects| objects.into_keys().collect::<Vec<_>>();
    assert_eq!(kinds(chart), kinds(overlay));
}

#[test]
fn values_reach_their_places() {
    let objects = template(&[
        "--set",
        "apiServer.host=10.1.2.3,image.repository=r.example/f,image.tag=v9,config.mode=nftables,ferroute.xdp=auto",
    ]);
    let container = super::container(&objects);
    assert_eq!(container["image"], "r.example/f:v9");
    let variable = |name: &str| {
        let variables = container["env"].as_array().expect("variables");
        variables.iter().find(|variable| variable["name"] == name).expect("a variable")["value"].clone()
    };
    assert_eq!(variable("KUBERNETES_SERVICE_HOST"), "10.1.2.3");
    assert_eq!(variable("KUBERNETES_SERVICE_PORT"), "6443", "a string, as the API wants it");
    let documents = configuration(&objects);
    assert_eq!(documents[0]["mode"], "nftables");
    assert_eq!(documents[0]["conntrack"]["maxPerCore"], 0, "the other defaults stay");
    assert_eq!(documents[1]["xdp"], "auto");
}

#[test]
fn a_value_that_is_none_is_refused() {
    for wrong in ["image.pullPolicy=Sometimes", "apiServer.port=0", "priviledged=true", "config.kind=Other"] {
        let output = helm(&["template", "--set", wrong]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{wrong} was taken");
        let field = wrong.split(['.', '=']).next().expect("a field");
        assert!(said.contains(field), "{wrong}: {said}");
    }
}

#[test]
fn helm_finds_nothing_wrong() {
    let output = helm(&["lint", "--strict"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The documents of the agent's configuration.
fn configuration(objects: &Objects) -> Vec<Value> {
    let map = &objects[&("ConfigMap".to_owned(), "ferroute".to_owned())];
    let text = map["data"]["config.yaml"].as_str().expect("a configuration");
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    documents.map(|document| Value::deserialize(document).expect("YAML")).collect()
}

/// Without the labels that are helm's, and the configuration as what it says, not as what it looks like.
fn comparable(mut objects: Objects) -> Objects {
    let own = |label: &str| {
        let name = label.rsplit('/').next().expect("a name");
        !["instance", "version", "managed-by", "chart"].contains(&name)
    };
    for object in objects.values_mut() {
        for path in ["/metadata/labels", "/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
            if let Some(labels) = object.pointer_mut(path).and_then(Value::as_object_mut) {
                labels.retain(|label, _| own(label));
            }
        }
    }
    let key = ("ConfigMap".to_owned(), "ferroute".to_owned());
    if objects.contains_key(&key) {
        let documents = configuration(&objects);
        objects.get_mut(&key).expect("it is there")["data"]["config.yaml"] = documents.into();
    }
    objects
}
