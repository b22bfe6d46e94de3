//! Builders of API objects, for manifests and for the test API server alike.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

/// A Service, of type ClusterIP until [`kind`](ServiceBuilder::kind) says otherwise.
#[must_use]
pub fn service(namespace: &str, name: &str) -> ServiceBuilder {
    let metadata = json!({ "namespace": namespace, "name": name });
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": { "type": "ClusterIP", "ports": [] },
    });
    ServiceBuilder(object)
}

/// An EndpointSlice of the Service `of`, called `name`. Its address type follows the first endpoint.
#[must_use]
pub fn slice(namespace: &str, name: &str, of: &str) -> SliceBuilder {
    let labels = json!({ "kubernetes.io/service-name": of });
    let metadata = json!({ "namespace": namespace, "name": name, "labels": labels });
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": "IPv4", "ports": [], "endpoints": [],
    });
    SliceBuilder(object)
}

/// An endpoint that is ready, serving and not terminating.
pub fn endpoint(address: impl Into<IpAddr>) -> EndpointBuilder {
    let conditions = json!({ "ready": true, "serving": true, "terminating": false });
    EndpointBuilder(json!({ "addresses": [address.into()], "conditions": conditions }))
}

/// A Node.
#[must_use]
pub fn node(name: &str) -> NodeBuilder {
    let metadata = json!({ "name": name, "labels": { "kubernetes.io/hostname": name } });
    let object = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": metadata,
        "spec": {}, "status": { "addresses": [] },
    });
    NodeBuilder(object)
}

/// See [`service`].
#[derive(Clone, Debug)]
pub struct ServiceBuilder(Value);

impl ServiceBuilder {
    /// Adds a cluster IP; the first is the primary one.
    pub fn cluster_ip(mut self, address: impl Into<IpAddr>) -> Self {
        let address = address.into();
        let spec = &mut self.0["spec"];
        if spec["clusterIP"].is_null() {
            spec["clusterIP"] = json!(address);
        }
        push(&mut spec["clusterIPs"], json!(address));
        push(&mut spec["ipFamilies"], json!(family(address)));
        let count = spec["clusterIPs"].as_array().map_or(0, Vec::len);
        spec["ipFamilyPolicy"] = json!(if count > 1 { "RequireDualStack" } else { "SingleStack" });
        self
    }

    /// Adds a port; `protocol` is TCP, UDP or SCTP, `target` the port that the pods listen on.
    pub fn port(mut self, name: &str, protocol: &str, port: u16, target: u16) -> Self {
        let port = json!({ "name": name, "protocol": protocol, "port": port, "targetPort": target });
        push(&mut self.0["spec"]["ports"], port);
        self
    }

    /// The node port of the port that was added last.
    ///
    /// # Panics
    /// When none was.
    pub fn node_port(mut self, number: u16) -> Self {
        let last = self.0["spec"]["ports"].as_array_mut().and_then(|ports| ports.last_mut());
        last.expect("a node port without a port")["nodePort"] = json!(number);
        self
    }

    /// Adds an external IP.
    pub fn external_ip(mut self, address: impl Into<IpAddr>) -> Self {
        push(&mut self.0["spec"]["externalIPs"], json!(address.into()));
        self
    }

    /// Adds an address of a load balancer.
    pub fn balancer_ip(mut self, address: impl Into<IpAddr>) -> Self {
        let ingress = json!({ "ip": address.into(), "ipMode": "VIP" });
        push(&mut self.0["status"]["loadBalancer"]["ingress"], ingress);
        self
    }

    /// externalTrafficPolicy Local, with a port where load balancers ask for it.
    pub fn health_check_port(self, port: u16) -> Self {
        self.external_local().spec("healthCheckNodePort", json!(port))
    }

    /// loadBalancerSourceRanges.
    pub fn source_ranges(self, ranges: &[&str]) -> Self {
        self.spec("loadBalancerSourceRanges", json!(ranges))
    }

    /// externalTrafficPolicy Local.
    pub fn external_local(self) -> Self {
        self.spec("externalTrafficPolicy", json!("Local"))
    }

    /// sessionAffinity ClientIP with this timeout.
    pub fn affinity(self, seconds: u32) -> Self {
        self.spec("sessionAffinity", json!("ClientIP"))
            .spec("sessionAffinityConfig", json!({ "clientIP": { "timeoutSeconds": seconds } }))
    }

    /// NodePort, LoadBalancer, ExternalName.
    pub fn kind(self, kind: &str) -> Self {
        self.spec("type", json!(kind))
    }

    /// internalTrafficPolicy Local.
    pub fn internal_local(self) -> Self {
        self.spec("internalTrafficPolicy", json!("Local"))
    }

    /// Any field of the spec.
    pub fn spec(mut self, field: &str, value: Value) -> Self {
        self.0["spec"][field] = value;
        self
    }

    /// A label.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.0["metadata"]["labels"][name] = json!(value);
        self
    }

    /// Any other field of the metadata: creationTimestamp, annotations.
    pub fn metadata(mut self, field: &str, value: Value) -> Self {
        self.0["metadata"][field] = value;
        self
    }

    /// The object.
    #[must_use]
    pub fn build(self) -> Value {
        self.0
    }
}

/// See [`slice()`].
#[derive(Clone, Debug)]
pub struct SliceBuilder(Value);

impl SliceBuilder {
    /// Adds a port; the name ties it to the Service's port of that name.
    pub fn port(mut self, name: &str, protocol: &str, port: u16) -> Self {
        push(&mut self.0["ports"], json!({ "name": name, "protocol": protocol, "port": port }));
        self
    }

    /// Adds an endpoint.
    pub fn endpoint(mut self, endpoint: EndpointBuilder) -> Self {
        let endpoint = endpoint.0;
        if self.0["endpoints"] == json!([]) {
            let first = endpoint["addresses"][0].as_str().unwrap_or_default();
            self.0["addressType"] = json!(if first.contains(':') { "IPv6" } else { "IPv4" });
        }
        push(&mut self.0["endpoints"], endpoint);
        self
    }

    /// Adds several.
    pub fn endpoints(self, endpoints: impl IntoIterator<Item = EndpointBuilder>) -> Self {
        endpoints.into_iter().fold(self, Self::endpoint)
    }

    /// Any field of the object itself.
    pub fn field(mut self, field: &str, value: Value) -> Self {
        self.0[field] = value;
        self
    }

    /// A label.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.0["metadata"]["labels"][name] = json!(value);
        self
    }

    /// The object.
    #[must_use]
    pub fn build(self) -> Value {
        self.0
    }
}

/// See [`endpoint`].
#[derive(Clone, Debug)]
#[must_use]
pub struct EndpointBuilder(Value);

impl EndpointBuilder {
    /// The conditions that count for traffic.
    pub fn conditions(mut self, ready: bool, serving: bool, terminating: bool) -> Self {
        self.0["conditions"] = json!({ "ready": ready, "serving": serving, "terminating": terminating });
        self
    }

    /// Terminating: no longer ready; still `serving` or not.
    pub fn terminating(self, serving: bool) -> Self {
        self.conditions(false, serving, true)
    }

    /// The node that it is on.
    pub fn on(mut self, node: &str) -> Self {
        self.0["nodeName"] = json!(node);
        self
    }

    /// The zone that it is in.
    pub fn zone(mut self, zone: &str) -> Self {
        self.0["zone"] = json!(zone);
        self
    }

    /// The zones whose clients should use it.
    pub fn for_zones(mut self, zones: &[&str]) -> Self {
        let zones: Vec<_> = zones.iter().map(|zone| json!({ "name": zone })).collect();
        self.0["hints"]["forZones"] = json!(zones);
        self
    }

    /// The nodes whose clients should use it.
    pub fn for_nodes(mut self, nodes: &[&str]) -> Self {
        let nodes: Vec<_> = nodes.iter().map(|node| json!({ "name": node })).collect();
        self.0["hints"]["forNodes"] = json!(nodes);
        self
    }
}

/// See [`node`].
#[derive(Clone, Debug)]
pub struct NodeBuilder(Value);

impl NodeBuilder {
    /// Adds an InternalIP.
    pub fn address(mut self, address: impl Into<IpAddr>) -> Self {
        let address = json!({ "type": "InternalIP", "address": address.into() });
        push(&mut self.0["status"]["addresses"], address);
        self
    }

    /// Adds a network of pods, such as `10.244.1.0/24`.
    pub fn pod_network(mut self, network: &str) -> Self {
        if self.0["spec"]["podCIDR"].is_null() {
            self.0["spec"]["podCIDR"] = json!(network);
        }
        push(&mut self.0["spec"]["podCIDRs"], json!(network));
        self
    }

    /// The zone that it is in.
    pub fn zone(self, zone: &str) -> Self {
        self.label("topology.kubernetes.io/zone", zone)
    }

    /// A label.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.0["metadata"]["labels"][name] = json!(value);
        self
    }

    /// A taint.
    pub fn taint(mut self, key: &str, effect: &str) -> Self {
        push(&mut self.0["spec"]["taints"], json!({ "key": key, "effect": effect }));
        self
    }

    /// Any other field of the metadata: deletionTimestamp, annotations.
    pub fn metadata(mut self, field: &str, value: Value) -> Self {
        self.0["metadata"][field] = value;
        self
    }

    /// The object.
    #[must_use]
    pub fn build(self) -> Value {
        self.0
    }
}

impl super::Node {
    /// This node of the lab as an API object.
    #[must_use]
    pub fn object(&self) -> NodeBuilder {
        let with_addresses =
            self.addresses().both().into_iter().fold(node(self.name()), NodeBuilder::address);
        self.pod_networks().iter().fold(with_addresses, |node, network| node.pod_network(network))
    }
}

impl super::Pod {
    /// This pod of the lab as an endpoint of an IPv4 slice.
    pub fn endpoint4(&self) -> EndpointBuilder {
        endpoint(self.addresses().v4).on(self.node_name())
    }

    /// This pod of the lab as an endpoint of an IPv6 slice.
    pub fn endpoint6(&self) -> EndpointBuilder {
        endpoint(self.addresses().v6).on(self.node_name())
    }
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// Appends to a list that need not be there yet.
fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        other => *other = json!([item]),
    }
}

/// One object out of several, as `kubectl get -o yaml` prints them.
#[must_use]
pub fn list(items: Vec<Value>) -> Value {
    let mut list = Map::new();
    list.insert("apiVersion".to_owned(), json!("v1"));
    list.insert("kind".to_owned(), json!("List"));
    list.insert("items".to_owned(), Value::Array(items));
    Value::Object(list)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_dual_stack_service() {
        let object = service("default", "web")
            .cluster_ip(Ipv4Addr::new(10, 96, 0, 10))
            .cluster_ip(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x10))
            .port("http", "TCP", 80, 8080)
            .affinity(60)
            .build();
        assert_eq!(
            object["spec"],
            json!({
                "type": "ClusterIP", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:10:96::10"],
                "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
                "ports": [{ "name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080 }],
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 60 } },
            })
        );
    }

    #[test]
    fn a_slice_takes_the_family_of_its_first_endpoint() {
        let ready = endpoint(Ipv6Addr::LOCALHOST).on("node-a").for_zones(&["z"]);
        let object = slice("default", "web-1", "web").port("http", "TCP", 8080).endpoint(ready).build();
        assert_eq!(object["addressType"], "IPv6");
        assert_eq!(
            object["endpoints"],
            json!([{
                "addresses": ["::1"], "nodeName": "node-a", "hints": { "forZones": [{ "name": "z" }] },
                "conditions": { "ready": true, "serving": true, "terminating": false },
            }])
        );
    }
}
