use k8s_openapi::{
    api::{core::v1 as core, discovery::v1 as discovery},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::DeserializeOwned;

use crate::state::{
    Change, EndpointSlice, HEADLESS_LABEL, Ingest, Node, ObjectName, PROXY_NAME_LABEL, Service,
};

/// A kind of objects that is followed.
pub(super) trait Kind: Send + 'static {
    /// As the API server has it.
    type Object: DeserializeOwned;
    /// As the agent keeps it.
    type Slim: Send;

    /// In messages.
    const NAME: &'static str;
    /// Path of the list of all namespaces.
    const PATH: &'static str;
    /// Label that no object may have.
    const WITHOUT_LABEL: Option<&'static str>;

    /// Field selector.
    fn fields(node_name: &str) -> Option<String>;
    /// The object's metadata.
    fn metadata(object: &Self::Object) -> &ObjectMeta;
    /// What is kept of an object.
    fn slim(ingest: &mut Ingest, object: &Self::Object) -> Self::Slim;
    /// The object's name; shares its text with the slim object where that has it.
    fn name(slim: &Self::Slim, metadata: &ObjectMeta) -> ObjectName;
    /// The change that brings a complete list.
    fn complete(list: Vec<Self::Slim>) -> Change;
    /// The change that brings one object.
    fn one(object: Self::Slim) -> Change;
    /// The change that takes one object away.
    fn gone(name: ObjectName) -> Change;
}

/// All Services that are ours: no headless ones, none that another proxy serves.
pub(super) struct Services;

impl Kind for Services {
    type Object = core::Service;
    type Slim = Service;

    const NAME: &'static str = "Service";
    const PATH: &'static str = "/api/v1/services";
    const WITHOUT_LABEL: Option<&'static str> = Some(PROXY_NAME_LABEL);

    fn fields(_: &str) -> Option<String> {
        Some("spec.clusterIP!=None".into())
    }

    fn metadata(object: &core::Service) -> &ObjectMeta {
        &object.metadata
    }

    fn slim(ingest: &mut Ingest, object: &core::Service) -> Service {
        ingest.service(object)
    }

    fn name(slim: &Service, _: &ObjectMeta) -> ObjectName {
        slim.name.clone()
    }

    fn complete(list: Vec<Service>) -> Change {
        Change::Services(list)
    }

    fn one(object: Service) -> Change {
        Change::Service(object)
    }

    fn gone(name: ObjectName) -> Change {
        Change::ServiceGone(name)
    }
}

/// All EndpointSlices but those of headless Services.
pub(super) struct Slices;

impl Kind for Slices {
    type Object = discovery::EndpointSlice;
    type Slim = EndpointSlice;

    const NAME: &'static str = "EndpointSlice";
    const PATH: &'static str = "/apis/discovery.k8s.io/v1/endpointslices";
    const WITHOUT_LABEL: Option<&'static str> = Some(HEADLESS_LABEL);

    fn fields(_: &str) -> Option<String> {
        None
    }

    fn metadata(object: &discovery::EndpointSlice) -> &ObjectMeta {
        &object.metadata
    }

    fn slim(ingest: &mut Ingest, object: &discovery::EndpointSlice) -> EndpointSlice {
        ingest.slice(object)
    }

    fn name(slim: &EndpointSlice, _: &ObjectMeta) -> ObjectName {
        slim.name.clone()
    }

    fn complete(list: Vec<EndpointSlice>) -> Change {
        Change::Slices(list)
    }

    fn one(object: EndpointSlice) -> Change {
        Change::Slice(object)
    }

    fn gone(name: ObjectName) -> Change {
        Change::SliceGone(name)
    }
}

/// The Node that the agent runs on.
pub(super) struct Nodes;

impl Kind for Nodes {
    type Object = core::Node;
    type Slim = Node;

    const NAME: &'static str = "Node";
    const PATH: &'static str = "/api/v1/nodes";
    const WITHOUT_LABEL: Option<&'static str> = None;

    fn fields(node_name: &str) -> Option<String> {
        Some(format!("metadata.name={node_name}"))
    }

    fn metadata(object: &core::Node) -> &ObjectMeta {
        &object.metadata
    }

    fn slim(ingest: &mut Ingest, object: &core::Node) -> Node {
        ingest.node(object)
    }

    fn name(_: &Node, metadata: &ObjectMeta) -> ObjectName {
        ObjectName::new("", metadata.name.as_deref().unwrap_or_default())
    }

    fn complete(list: Vec<Node>) -> Change {
        Change::Node(list.into_iter().next())
    }

    fn one(object: Node) -> Change {
        Change::Node(Some(object))
    }

    fn gone(_: ObjectName) -> Change {
        Change::Node(None)
    }
}
