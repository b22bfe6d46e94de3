use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;

use crate::state::{
    Change, EndpointSlice, Ingest, Node, ObjectName, Service, selects_service, selects_slice,
};

/// The kinds of objects that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Service,
    EndpointSlice,
    Node,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) name: ObjectName,
}

/// What the agent keeps of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Service(Service),
    EndpointSlice(EndpointSlice),
    Node(Node),
}

/// A document or list item of a kind that counts, still to be read.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) kind: Kind,
    pub(super) tree: Value,
}

impl Kind {
    /// The kind of `apiVersion` and `kind`.
    pub(super) fn of(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "Service") => Some(Self::Service),
            ("discovery.k8s.io/v1", "EndpointSlice") => Some(Self::EndpointSlice),
            ("v1", "Node") => Some(Self::Node),
            _ => None,
        }
    }

    /// The `kind` that its objects have.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
        }
    }

    /// The key that the object has by its metadata, or why it has none.
    pub(super) fn key(self, tree: &Value) -> Result<Key, String> {
        let metadata = tree.get("metadata");
        let text = |field| metadata.and_then(|metadata| metadata.get(field)).and_then(Value::as_str);
        let Some(name) = text("name").filter(|name| !name.is_empty()) else {
            return Err(format!("a {} has no metadata.name that is a text: it is skipped", self.name()));
        };
        let namespace = match self {
            Self::Node => "",
            _ => text("namespace").filter(|namespace| !namespace.is_empty()).unwrap_or("default"),
        };
        Ok(Key { kind: self, name: ObjectName::new(namespace, name) })
    }
}

impl Key {
    /// `Service namespace/name`, `Node name`.
    pub(super) fn describe(&self) -> String {
        match self.kind {
            Kind::Node => format!("Node {}", self.name.name),
            kind => format!("{} {}", kind.name(), self.name),
        }
    }

    /// The change by which the object is gone.
    pub(super) fn gone(self) -> Change {
        match self.kind {
            Kind::Service => Change::ServiceGone(self.name),
            Kind::EndpointSlice => Change::SliceGone(self.name),
            Kind::Node => Change::Node(None),
        }
    }
}

impl Object {
    /// The change by which the object is there.
    pub(super) fn change(self) -> Change {
        match self {
            Self::Service(service) => Change::Service(service),
            Self::EndpointSlice(slice) => Change::Slice(slice),
            Self::Node(node) => Change::Node(Some(node)),
        }
    }
}

impl Raw {
    /// Reads the object `key`; `None` where it is of no concern: another proxy's, headless, or another node.
    /// An error says which field is malformed, but not where.
    pub(super) fn read(
        self,
        key: &Key,
        ingest: &mut Ingest,
        node_name: &str,
    ) -> Result<Option<Object>, String> {
        Ok(match self.kind {
            Kind::Service => {
                let object: core::Service = typed(self.tree)?;
                selects_service(&object).then(|| Object::Service(ingest.service(&object)))
            }
            Kind::EndpointSlice => {
                let object: discovery::EndpointSlice = typed(self.tree)?;
                selects_slice(&object).then(|| Object::EndpointSlice(ingest.slice(&object)))
            }
            Kind::Node if *key.name.name == *node_name => {
                let object: core::Node = typed(self.tree)?;
                Some(Object::Node(ingest.node(&object)))
            }
            Kind::Node => None,
        })
    }
}

fn typed<T: DeserializeOwned>(tree: Value) -> Result<T, String> {
    serde_yaml_ng::from_value(tree).map_err(|error| error.to_string())
}
