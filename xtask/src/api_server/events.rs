use std::sync::Mutex;

use serde_json::{Value, json};

use super::{lock, status};

/// What was said to the server by events of `events.k8s.io/v1`, and whether it listens.
#[derive(Debug, Default)]
pub(super) struct Events {
    all: Mutex<Vec<Value>>,
    refusing: Mutex<Option<u16>>,
}

/// The namespace whose events are created at `path`.
pub(super) fn namespace_at(path: &str) -> Option<&str> {
    path.strip_prefix("/apis/events.k8s.io/v1/namespaces/")?.strip_suffix("/events")
}

impl Events {
    pub(super) fn refuse(&self, status: Option<u16>) {
        *lock(&self.refusing) = status;
    }

    pub(super) fn refusing(&self) -> Option<u16> {
        *lock(&self.refusing)
    }

    pub(super) fn all(&self) -> Vec<Value> {
        lock(&self.all).clone()
    }

    /// Creates an event in a namespace.
    ///
    /// # Errors
    /// A Status, as the API server gives it, when the event is not one or its name is taken.
    pub(super) fn create(&self, namespace: &str, body: &[u8]) -> Result<Value, Value> {
        let bad = |message: &str| status(422, "Invalid", message);
        let event: Value = serde_json::from_slice(body).map_err(|error| bad(&error.to_string()))?;
        if let Some(fault) = fault(&event, namespace) {
            return Err(bad(&format!("{fault}: {event}")));
        }
        let mut all = lock(&self.all);
        let key =
            |event: &Value| [&event["metadata"]["namespace"], &event["metadata"]["name"]].map(Value::clone);
        if all.iter().any(|known| key(known) == key(&event)) {
            return Err(status(
                409,
                "AlreadyExists",
                &format!("{} already exists", event["metadata"]["name"]),
            ));
        }
        all.push(event.clone());
        Ok(event)
    }
}

/// What the API server's validation would say.
fn fault(event: &Value, namespace: &str) -> Option<String> {
    let length = |value: &Value| value.as_str().map_or(0, str::len);
    if event["apiVersion"] != "events.k8s.io/v1" || event["kind"] != "Event" {
        return Some("not an Event of events.k8s.io/v1".into());
    }
    if event["metadata"]["namespace"] != namespace {
        return Some("metadata.namespace is not that of the path".into());
    }
    let of_object = &event["regarding"]["namespace"];
    if *of_object != namespace && !(of_object.is_null() && namespace == "default") {
        return Some("regarding.namespace is not the event's".into());
    }
    let bounds = [
        ("reportingController", 1, 253),
        ("reportingInstance", 1, 128),
        ("action", 1, 128),
        ("reason", 1, 128),
        ("note", 0, 1024),
    ];
    for (field, least, most) in bounds {
        if !(least..=most).contains(&length(&event[field])) {
            return Some(format!("{field} has to have {least} to {most} bytes"));
        }
    }
    if !(1..=253).contains(&length(&event["metadata"]["name"])) {
        return Some("metadata.name has to have 1 to 253 bytes".into());
    }
    if length(&event["eventTime"]) == 0 {
        return Some("eventTime is missing".into());
    }
    (![json!("Normal"), json!("Warning")].contains(&event["type"]))
        .then(|| "type is not Normal or Warning".into())
}
