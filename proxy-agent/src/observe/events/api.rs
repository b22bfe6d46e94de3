//! Events as the API server has them.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1 as events},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

use super::{Event, Scope};
use crate::{plan::ObjectRef, state::ObjectName};

/// The controller's name that kube-proxy has.
const CONTROLLER: &str = "kube-proxy";
/// Where events about objects without a namespace are.
const DEFAULT_NAMESPACE: &str = "default";
/// Bytes that the API server takes of a note,
const MOST_NOTE: usize = 1024;
/// and of an instance.
const MOST_INSTANCE: usize = 128;
/// Bytes of an object's name that begin the name of its event, which may have 253.
const MOST_NAME: usize = 200;

/// The event as an object, for an agent on `node`.
pub(super) fn object(event: &Event, node: &str, now: Timestamp) -> events::Event {
    let regarding = regarding(event, node);
    let instance = cut(&format!("{CONTROLLER}-{node}"), MOST_INSTANCE, "");
    let namespace = regarding.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.into());
    let name = regarding.name.as_deref().unwrap_or_default();
    events::Event {
        metadata: ObjectMeta {
            name: Some(format!(
                "{}.{:016x}",
                cut(name, MOST_NAME, "").trim_end_matches('.'),
                id(event, node, now)
            )),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.into()),
        reporting_instance: Some(instance),
        type_: Some(if event.warning { "Warning" } else { "Normal" }.into()),
        reason: Some(event.reason.into()),
        action: Some(event.action.into()),
        note: Some(cut(&event.note, MOST_NOTE, "…")),
        regarding: Some(regarding),
        ..events::Event::default()
    }
}

/// What makes the event's name its own. All nodes of a cluster that say the same of an object call it the same:
/// the first is heard, the others are told that it is there already.
fn id(event: &Event, node: &str, now: Timestamp) -> u64 {
    // The same in every agent, other than a hasher with keys.
    let mut hasher = DefaultHasher::new();
    (&event.object, event.uid, event.reason, &event.note).hash(&mut hasher);
    match event.scope {
        Scope::Cluster => {}
        Scope::Node => node.hash(&mut hasher),
        Scope::Once => (node, now.as_nanosecond()).hash(&mut hasher),
    }
    hasher.finish()
}

fn regarding(event: &Event, node: &str) -> ObjectReference {
    let namespaced = |version: &str, kind: &str, object: &ObjectName| ObjectReference {
        api_version: Some(version.into()),
        kind: Some(kind.into()),
        namespace: Some(object.namespace.to_string()),
        name: Some(object.name.to_string()),
        // kube-proxy gives the name for the id.
        uid: Some(event.uid.map_or_else(|| object.to_string(), |uid| uid.to_string())),
        ..ObjectReference::default()
    };
    match &event.object {
        ObjectRef::Service(name) => namespaced("v1", "Service", name),
        ObjectRef::EndpointSlice(name) => namespaced("discovery.k8s.io/v1", "EndpointSlice", name),
        // By the name for the id: kubelet and kube-proxy do the same, and kubectl looks for it.
        ObjectRef::Node => ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.into()),
            uid: Some(node.into()),
            ..ObjectReference::default()
        },
    }
}

/// At most `most` bytes of a text; `mark` shows that there was more.
fn cut(text: &str, most: usize, mark: &str) -> String {
    if text.len() <= most {
        return text.into();
    }
    let end = (0..=most - mark.len()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{mark}", &text[..end])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::plan::{Problem, ProblemReason};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn json_of(event: &Event, node: &str) -> Value {
        serde_json::to_value(object(event, node, at(0))).unwrap()
    }

    fn problem(message: &str) -> Problem {
        Problem {
            object: ObjectRef::Service(ObjectName::new("shop", "web")),
            reason: ProblemReason::InvalidField,
            message: message.into(),
        }
    }

    #[test]
    fn an_event_of_a_service() {
        let uid = Uuid::from_u128(7);
        let event = json_of(&Event::of_problem(&problem("spec.x is y"), Some(uid)), "n1");
        let name = event["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("web.") && name.len() == "web.".len() + 16, "{name}");
        assert_eq!(
            event,
            json!({
                "apiVersion": "events.k8s.io/v1", "kind": "Event",
                "metadata": {"name": name, "namespace": "shop"},
                "eventTime": "2027-01-15T08:00:00.000000Z",
                "reportingController": "kube-proxy", "reportingInstance": "kube-proxy-n1",
                "type": "Warning", "reason": "InvalidField", "action": "Program", "note": "spec.x is y",
                "regarding": {"apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "web",
                    "uid": "00000000-0000-0000-0000-000000000007"},
            })
        );
    }

    #[test]
    fn an_event_of_the_node_is_in_the_default_namespace() {
        let event = json_of(&Event::starting(), "n1");
        assert_eq!(event["metadata"]["namespace"], "default");
        assert_eq!(
            event["regarding"],
            json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n1"})
        );
        assert_eq!(
            [&event["type"], &event["reason"], &event["action"]],
            ["Normal", "Starting", "StartKubeProxy"]
        );
    }

    #[test]
    fn nodes_that_say_the_same_of_an_object_call_it_the_same() {
        let name = |event: &Event, node, second| object(event, node, at(second)).metadata.name;
        let shared = Event::of_problem(&problem("a"), None);
        assert_eq!(name(&shared, "n1", 0), name(&shared, "n2", 9));
        assert_ne!(name(&shared, "n1", 0), name(&Event::of_problem(&problem("b"), None), "n1", 0));
        let recreated = Event::of_problem(&problem("a"), Some(Uuid::from_u128(1)));
        assert_ne!(name(&shared, "n1", 0), name(&recreated, "n1", 0));
        let own = Event::of_service(&ObjectName::new("shop", "web"), "R", "A", "a".into());
        assert_ne!(name(&own, "n1", 0), name(&own, "n2", 0));
        assert_eq!(name(&own, "n1", 0), name(&own, "n1", 9));
        assert_ne!(name(&Event::starting(), "n1", 0), name(&Event::starting(), "n1", 1));
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let long = "ä".repeat(2000);
        let event = json_of(&Event::of_problem(&problem(&long), None), &"n".repeat(300));
        let note = event["note"].as_str().unwrap();
        assert!(note.len() <= 1024 && note.len() > 1000 && note.ends_with("ä…"), "{note}");
        assert_eq!(event["reportingInstance"].as_str().unwrap().len(), 128);
        let object = ObjectRef::EndpointSlice(ObjectName::new("shop", &"a.".repeat(126)));
        let event = json_of(&Event::of_problem(&Problem { object, ..problem("x") }, None), "n1");
        assert!(event["metadata"]["name"].as_str().unwrap().len() <= 253);
    }
}
