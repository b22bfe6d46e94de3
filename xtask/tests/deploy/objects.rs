use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::Objects;

/// Documents of a YAML stream, each checked against the API's own types.
pub(super) fn read(yaml: &str) -> Objects {
    let mut objects = Objects::new();
    for document in serde_yaml_ng::Deserializer::from_str(yaml) {
        let object = Value::deserialize(document).expect("YAML");
        if object.is_null() {
            continue;
        }
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        check(&kind, &object);
        let before = objects.insert((kind, name), object);
        assert!(before.is_none(), "twice: {before:?}");
    }
    objects
}

fn check(kind: &str, object: &Value) {
    match kind {
        "ClusterRole" => typed::<ClusterRole>(object),
        "ClusterRoleBinding" => typed::<ClusterRoleBinding>(object),
        "ConfigMap" => typed::<ConfigMap>(object),
        "DaemonSet" => typed::<DaemonSet>(object),
        "ServiceAccount" => typed::<ServiceAccount>(object),
        other => panic!("an object of a kind that is not expected: {other}"),
    }
}

/// Reading leaves out what the type does not have: a misspelt field is gone when it is written again.
fn typed<T: DeserializeOwned + Serialize>(object: &Value) {
    let read: T =
        serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object:#}"));
    let written = serde_json::to_value(read).expect("an object");
    assert_eq!(&written, object, "a field that the API does not have");
}

#[test]
#[should_panic(expected = "a field that the API does not have")]
fn a_misspelt_field_is_found() {
    read("{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, label: {}}}");
}
