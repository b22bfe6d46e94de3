use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

/// The resources that the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `/api/v1/services`
    Service,
    /// `/apis/discovery.k8s.io/v1/endpointslices`
    EndpointSlice,
    /// `/api/v1/nodes`
    Node,
}

impl Kind {
    /// The kind that is listed at `path`, over all namespaces.
    #[must_use]
    pub fn at(path: &str) -> Option<Self> {
        match path {
            "/api/v1/services" => Some(Self::Service),
            "/apis/discovery.k8s.io/v1/endpointslices" => Some(Self::EndpointSlice),
            "/api/v1/nodes" => Some(Self::Node),
            _ => None,
        }
    }

    /// `kind` in an object.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
        }
    }

    /// `apiVersion` in an object.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Service | Self::Node => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        match name {
            "Service" => Ok(Self::Service),
            "EndpointSlice" => Ok(Self::EndpointSlice),
            "Node" => Ok(Self::Node),
            other => {
                bail!("the test API server has no kind {other:?}: Service, EndpointSlice and Node it has")
            }
        }
    }
}

/// What identifies an object; the order is the order of lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    /// Empty for a Node.
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = if kind == Kind::Node { "" } else { namespace };
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// One stored object: what selectors look at, and the rest as text, because a lab of 250,000 endpoints held
/// as a tree of values would need gigabytes.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) key: Key,
    pub(super) labels: BTreeMap<String, String>,
    /// `spec.clusterIP`; empty when there is none.
    pub(super) cluster_ip: String,
    /// `spec.type`; empty when there is none.
    pub(super) service_type: String,
    /// Members of `metadata` but for the resource version, without braces.
    metadata: String,
    /// Members of the object but for metadata, kind and version, without braces.
    rest: String,
}

impl Object {
    /// Takes an object apart. Nothing is checked but kind and name: tests store malformed objects.
    pub(super) fn parse(value: Value, serial: u64) -> Result<Arc<Self>> {
        let Value::Object(mut object) = value else { bail!("not an object: {value}") };
        let kind = match object.remove("kind") {
            Some(Value::String(kind)) => Kind::parse(&kind)?,
            _ => bail!("an object without kind: {}", Value::Object(object)),
        };
        object.remove("apiVersion");
        let Some(Value::Object(mut metadata)) = object.remove("metadata") else {
            bail!("a {} without metadata: {}", kind.name(), Value::Object(object))
        };
        let name = text(&metadata, "name");
        if name.is_empty() {
            bail!("a {} without metadata.name: {}", kind.name(), Value::Object(object))
        }
        let mut namespace = text(&metadata, "namespace");
        if namespace.is_empty() {
            "default".clone_into(&mut namespace);
        }
        let key = Key::new(kind, &namespace, &name);
        if kind != Kind::Node {
            metadata.insert("namespace".into(), namespace.into());
        }
        metadata.remove("resourceVersion");
        metadata.entry("uid").or_insert_with(|| format!("00000000-0000-4000-8000-{serial:012x}").into());
        metadata.entry("creationTimestamp").or_insert_with(|| "2026-01-01T00:00:00Z".into());
        let labels = match metadata.get("labels") {
            Some(Value::Object(labels)) => labels
                .iter()
                .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
                .collect(),
            _ => BTreeMap::new(),
        };
        let spec = |field| {
            object.get("spec").and_then(|spec| spec.get(field)).and_then(Value::as_str).unwrap_or_default()
        };
        Ok(Arc::new(Self {
            cluster_ip: spec("clusterIP").to_owned(),
            service_type: spec("type").to_owned(),
            key,
            labels,
            metadata: members(&metadata)?,
            rest: members(&object)?,
        }))
    }

    /// The object as in a list: no kind and no version of its own.
    pub(super) fn list_item(&self, version: u64) -> String {
        let comma = if self.rest.is_empty() { "" } else { "," };
        format!(r#"{{"metadata":{{"resourceVersion":"{version}",{}}}{comma}{}}}"#, self.metadata, self.rest)
    }

    /// The object as in a watch event.
    pub(super) fn event(&self, what: &str, version: u64) -> String {
        format!(
            "{{\"type\":\"{what}\",\"object\":{{\"kind\":\"{}\",\"apiVersion\":\"{}\",{}}}\n",
            self.key.kind.name(),
            self.key.kind.api_version(),
            &self.list_item(version)[1..],
        )
    }
}

fn text(map: &Map<String, Value>, field: &str) -> String {
    map.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The JSON of a map without its braces.
fn members(map: &Map<String, Value>) -> Result<String> {
    let json = serde_json::to_string(map).context("writing an object as JSON")?;
    Ok(json[1..json.len() - 1].to_owned())
}
