//! From text to typed documents, with every mistake by its path.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{ferroute, kube_proxy};

/// Mistakes of a document that are reported at most, so that this ends.
const MOST_MISTAKES: usize = 100;

/// The documents of a configuration file.
#[derive(Debug, Default)]
pub(super) struct Documents {
    pub(super) kube_proxy: Option<kube_proxy::KubeProxyConfiguration>,
    pub(super) ferroute: Option<ferroute::FerrouteConfiguration>,
    /// What is wrong, each with its path.
    pub(super) mistakes: Vec<String>,
}

impl Documents {
    /// Reads YAML, of which JSON is a part.
    pub(super) fn read(text: &str) -> Self {
        let mut documents = Self::default();
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            let mut track = serde_path_to_error::Track::new();
            let tracked = serde_path_to_error::Deserializer::new(document, &mut track);
            // This type, and not that of JSON, refuses a key that is there twice.
            let value = match serde_yaml_ng::Value::deserialize(tracked) {
                Ok(value) => value,
                Err(error) => {
                    documents.mistakes.push(at(&track.path().to_string(), &error));
                    // Where the next document begins is not known then.
                    return documents;
                }
            };
            match serde_json::to_value(value) {
                Ok(Value::Null) => {}
                Ok(value) => documents.take(value),
                Err(error) => documents.mistakes.push(error.to_string()),
            }
        }
        documents
    }

    fn take(&mut self, value: Value) {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        match (text("apiVersion"), text("kind")) {
            (kube_proxy::API_VERSION, kube_proxy::KIND) => {
                decode(value, &mut self.kube_proxy, &mut self.mistakes);
            }
            (ferroute::API_VERSION, ferroute::KIND) => decode(value, &mut self.ferroute, &mut self.mistakes),
            (version, kind) => self.mistakes.push(format!(
                "there is a document with apiVersion {version:?} and kind {kind:?}: it has to be {:?} and {:?}, or \
                 {:?} and {:?}",
                kube_proxy::API_VERSION,
                kube_proxy::KIND,
                ferroute::API_VERSION,
                ferroute::KIND
            )),
        }
    }
}

/// Types a document. Fields that do not exist and values of a wrong type are mistakes, and left out.
fn decode<T: Default + Serialize + DeserializeOwned>(
    mut value: Value,
    into: &mut Option<T>,
    mistakes: &mut Vec<String>,
) {
    if into.is_some() {
        let kind = &value["kind"];
        mistakes.push(format!("there are two documents of kind {kind}: leave one of them out"));
        return;
    }
    let known = serde_json::to_value(T::default()).unwrap_or_default();
    settle(&mut value, &known, &mut Vec::new(), mistakes);
    for _mistake in 0..MOST_MISTAKES {
        match serde_path_to_error::deserialize(value.clone()) {
            Ok(typed) => {
                *into = Some(typed);
                return;
            }
            Err(error) => {
                let path = error.path().clone();
                mistakes.push(at(&path.to_string(), error.inner()));
                // On with the rest, so that all mistakes are told at once.
                if !remove(&mut value, &path) {
                    return;
                }
            }
        }
    }
}

/// Takes out each null, which means what a missing field does, and each field that does not exist.
fn settle(value: &mut Value, known: &Value, path: &mut Vec<String>, mistakes: &mut Vec<String>) {
    let (Value::Object(fields), Value::Object(known)) = (value, known) else { return };
    // A map of names that are free, as feature gates are.
    let is_free = known.is_empty();
    fields.retain(|name, value| {
        path.push(name.clone());
        let keep = match known.get(name) {
            None if !is_free => {
                let hint = similar(name, known).map(|known| format!("; is {known} meant?"));
                mistakes.push(format!(
                    "{}: there is no such field{}",
                    path.join("."),
                    hint.unwrap_or_default()
                ));
                false
            }
            _ if value.is_null() => false,
            None => true,
            Some(known) => {
                settle(value, known, path, mistakes);
                true
            }
        };
        path.pop();
        keep
    });
}

/// The field of this name in another spelling.
fn similar<'a>(name: &str, known: &'a Map<String, Value>) -> Option<&'a str> {
    let plain = |name: &str| name.replace(['-', '_'], "").to_lowercase();
    known.keys().map(String::as_str).find(|known| plain(known) == plain(name))
}

/// Takes a value out of a tree; false when there is none.
fn remove(value: &mut Value, path: &serde_path_to_error::Path) -> bool {
    use serde_path_to_error::Segment;
    let mut here = value;
    let mut segments = path.iter().peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match (here, segment) {
            (Value::Object(fields), Segment::Map { key }) => {
                if is_last {
                    return fields.remove(key).is_some();
                }
                let Some(next) = fields.get_mut(key) else { return false };
                here = next;
            }
            (Value::Array(items), Segment::Seq { index }) if *index < items.len() => {
                if is_last {
                    items.remove(*index);
                    return true;
                }
                here = &mut items[*index];
            }
            _ => return false,
        }
    }
    false
}

fn at(path: &str, error: &impl std::fmt::Display) -> String {
    if path == "." { error.to_string() } else { format!("{path}: {error}") }
}
