use k8s_openapi::{
    api::{core::v1 as core, discovery::v1 as discovery},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::DeserializeOwned;

use crate::state::{Change, EndpointSlice, Node, ObjectName, Service};

/// Takes what the agent keeps out of API objects. Never fails: what of an object cannot be used is among the
/// problems of its slim form.
pub trait Slim: Send + 'static {
    /// Of a Service.
    fn service(&mut self, object: &core::Service) -> Service;
    /// Of an EndpointSlice.
    fn slice(&mut self, object: &discovery::EndpointSlice) -> EndpointSlice;
    /// Of a Node.
    fn node(&mut self, object: &core::Node) -> Node;
}

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
    /// Label selector.
    const LABELS: Option<&'static str>;

    /// Field selector.
    fn fields(node_name: &str) -> Option<String>;
    /// The object's metadata.
    fn metadata(object: &Self::Object) -> &ObjectMeta;
    /// What is kept of an object.
    fn slim(slim: &mut impl Slim, object: &Self::Object) -> Self::Slim;
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
    const LABELS: Option<&'static str> = Some("!service.kubernetes.io/service-proxy-name");

    fn fields(_: &str) -> Option<String> {
        Some("spec.clusterIP!=None".into())
    }

    fn metadata(object: &core::Service) -> &ObjectMeta {
        &object.metadata
    }

    fn slim(slim: &mut impl Slim, object: &core::Service) -> Service {
        slim.service(object)
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
    const LABELS: Option<&'static str> = Some("!service.kubernetes.io/headless");

    fn fields(_: &str) -> Option<String> {
        None
    }

    fn metadata(object: &discovery::EndpointSlice) -> &ObjectMeta {
        &object.metadata
    }

    fn slim(slim: &mut impl Slim, object: &discovery::EndpointSlice) -> EndpointSlice {
        slim.slice(object)
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
    const LABELS: Option<&'static str> = None;

    fn fields(node_name: &str) -> Option<String> {
        Some(format!("metadata.name={node_name}"))
    }

    fn metadata(object: &core::Node) -> &ObjectMeta {
        &object.metadata
    }

    fn slim(slim: &mut impl Slim, object: &core::Node) -> Node {
        slim.node(object)
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
