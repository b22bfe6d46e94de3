use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::state::ObjectName;

/// One page of a list; its items are left as text.
#[derive(Debug, Deserialize)]
pub(super) struct Page<'a> {
    pub(super) metadata: PageMetadata,
    /// A server in Go may write an empty list as null.
    #[serde(borrow, default)]
    pub(super) items: Option<Vec<&'a RawValue>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMetadata {
    #[serde(default)]
    pub(super) resource_version: String,
    #[serde(default, rename = "continue")]
    pub(super) next: String,
}

/// One line of a watch; its object is left as text.
#[derive(Debug, Deserialize)]
pub(super) struct Event<'a> {
    #[serde(rename = "type")]
    pub(super) kind: EventKind,
    #[serde(borrow)]
    pub(super) object: &'a RawValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum EventKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

/// What identifies an object, readable in most objects that are otherwise not.
#[derive(Debug, Deserialize)]
pub(super) struct Identity<'a> {
    #[serde(borrow)]
    metadata: IdentityMetadata<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityMetadata<'a> {
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
}

impl Identity<'_> {
    /// The object's name; `None` when it has none.
    pub(super) fn name(&self) -> Option<ObjectName> {
        let metadata = &self.metadata;
        (!metadata.name.is_empty()).then(|| ObjectName::new(&metadata.namespace, &metadata.name))
    }

    /// The object's resource version; `None` when it has none.
    pub(super) fn version(&self) -> Option<&str> {
        Some(&*self.metadata.resource_version).filter(|version| !version.is_empty())
    }
}
