use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use super::{Change, EndpointSlice, Node, ObjectName, Service};

#[cfg(test)]
mod tests;

/// All objects the agent knows, indexed by Service.
///
/// A slice is kept under its own name, so that one that moves to another Service leaves nothing behind
/// (kube-proxy keeps it under its Service, KUBE-PROXY.md 2.3). The cost of a change does not depend on how
/// much else is held.
#[derive(Debug, Default)]
pub struct Store {
    services: HashMap<ObjectName, Service>,
    slices: HashMap<ObjectName, EndpointSlice>,
    /// Names of the slices of each Service, sorted; no empty lists. The namespace is that of the Service.
    by_service: HashMap<ObjectName, Vec<Arc<str>>>,
    /// `None` until the source has said; then the Node, or that there is none.
    node: Option<Option<Node>>,
    /// Whether the source has this node's Node object now.
    has_node: bool,
    /// Sorted, each once; `None` until the kernel has said.
    local_addresses: Option<Vec<IpAddr>>,
}

/// What a change made worth planning again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    everything: bool,
    services: HashSet<ObjectName>,
}

impl Dirty {
    /// Every Service, known to the store or to the planner.
    #[must_use]
    pub fn everything() -> Self {
        Self { everything: true, services: HashSet::new() }
    }

    /// Whether nothing is to be planned again.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everything && self.services.is_empty()
    }

    /// Whether every Service is to be planned again; [`Self::services`] need not list them then.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// The Services to plan again, in no order. One of them may be gone, or not be there yet.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &ObjectName> {
        self.services.iter()
    }

    /// Adds what `other` says.
    pub fn merge(&mut self, other: Self) {
        self.everything |= other.everything;
        self.services.extend(other.services);
    }
}

impl Extend<ObjectName> for Dirty {
    fn extend<T: IntoIterator<Item = ObjectName>>(&mut self, services: T) {
        self.services.extend(services);
    }
}

impl Store {
    /// Takes a change in. A change that equals what is held makes nothing dirty; a complete list replaces
    /// all that was held of its kind, and only what differs is dirty. A Node that is deleted is still held.
    pub fn apply(&mut self, change: Change) -> Dirty {
        let mut dirty = Dirty::default();
        match change {
            Change::Services(list) => self.replace_services(list, &mut dirty),
            Change::Slices(list) => self.replace_slices(list, &mut dirty),
            Change::Service(service) => self.put_service(service, &mut dirty),
            Change::ServiceGone(name) => {
                dirty.extend(self.services.remove(&name).map(|service| service.name));
            }
            Change::Slice(slice) => self.put_slice(slice, &mut dirty),
            Change::SliceGone(name) => self.remove_slice(&name, &mut dirty),
            // Deleted while its agent runs: it comes back with the kubelet, and until then what it said holds,
            // or the node would lose its node ports (KUBE-PROXY.md 2.4: a deletion is no reason to sync).
            Change::Node(None) if self.node().is_some() => self.has_node = false,
            Change::Node(node) => {
                // Not heard of yet and not there are the same to every Service, but not to the operator:
                // only the second is worth a word about node ports.
                dirty.everything = match (&self.node, &node) {
                    (Some(Some(before)), Some(now)) => !now.plans_like(before),
                    (before, now) => before.as_ref() != Some(now),
                };
                self.has_node = node.is_some();
                self.node = Some(node);
            }
            Change::LocalAddresses(addresses) => self.replace_local_addresses(addresses, &mut dirty),
        }
        dirty
    }

    /// A Service.
    #[must_use]
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    /// The slices of a Service, which need not exist, by name.
    pub fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &EndpointSlice> {
        let namespace = Arc::clone(&service.namespace);
        let names = self.by_service.get(service).into_iter().flatten();
        names.filter_map(move |name| {
            let name = ObjectName { namespace: Arc::clone(&namespace), name: Arc::clone(name) };
            self.slices.get(&name)
        })
    }

    /// Every name that has a Service or slices, each once, in no order.
    pub fn service_names(&self) -> impl Iterator<Item = &ObjectName> {
        let waiting = self.by_service.keys().filter(|name| !self.services.contains_key(*name));
        self.services.keys().chain(waiting)
    }

    /// This node's Node object, if there is or was one.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()?.as_ref()
    }

    /// Whether load balancers outside may send new traffic to this node (KUBE-PROXY.md 4.8); `without_node` when
    /// there is no Node object.
    #[must_use]
    pub fn is_eligible(&self, without_node: bool) -> bool {
        match self.node() {
            Some(node) if self.has_node => !node.leaving,
            _ => without_node,
        }
    }

    /// Whether the source has said what this node's Node object is, or that there is none.
    #[must_use]
    pub fn is_node_known(&self) -> bool {
        self.node.is_some()
    }

    /// The addresses on the node's links, sorted; `None` while nobody has looked.
    #[must_use]
    pub fn local_addresses(&self) -> Option<&[IpAddr]> {
        self.local_addresses.as_deref()
    }

    fn replace_local_addresses(&mut self, mut addresses: Vec<IpAddr>, dirty: &mut Dirty) {
        addresses.sort_unstable();
        addresses.dedup();
        let before = self.local_addresses.replace(addresses);
        let now = self.local_addresses.as_deref().unwrap_or_default();
        if before.as_deref() == Some(now) {
            return;
        }
        // Until now it was the Node object that said which addresses are the node's own.
        let before = before.or_else(|| self.node().map(|node| node.addresses.clone())).unwrap_or_default();
        let before: HashSet<IpAddr> = before.into_iter().collect();
        let now: HashSet<IpAddr> = now.iter().copied().collect();
        let changed: HashSet<IpAddr> = before.symmetric_difference(&now).copied().collect();
        if !changed.is_empty() {
            let affected = self.services.values().filter(|service| service.depends_on(&changed));
            dirty.extend(affected.map(|service| service.name.clone()));
        }
    }

    fn replace_services(&mut self, list: Vec<Service>, dirty: &mut Dirty) {
        let listed: HashSet<ObjectName> = list.iter().map(|service| service.name.clone()).collect();
        dirty.extend(self.services.extract_if(|name, _| !listed.contains(name)).map(|(name, _)| name));
        for service in list {
            self.put_service(service, dirty);
        }
    }

    fn replace_slices(&mut self, list: Vec<EndpointSlice>, dirty: &mut Dirty) {
        let listed: HashSet<ObjectName> = list.iter().map(|slice| slice.name.clone()).collect();
        let gone: Vec<ObjectName> =
            self.slices.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        for name in gone {
            self.remove_slice(&name, dirty);
        }
        for slice in list {
            self.put_slice(slice, dirty);
        }
    }

    fn put_service(&mut self, service: Service, dirty: &mut Dirty) {
        if self.services.get(&service.name) != Some(&service) {
            dirty.extend([service.name.clone()]);
            self.services.insert(service.name.clone(), service);
        }
    }

    fn put_slice(&mut self, slice: EndpointSlice, dirty: &mut Dirty) {
        let before = self.slices.get(&slice.name);
        if before == Some(&slice) {
            return;
        }
        let owner_before = before.and_then(owner);
        let owner_now = owner(&slice);
        if owner_before != owner_now {
            if let Some(owner) = owner_before {
                self.unlink(&owner, &slice.name.name);
                dirty.extend([owner]);
            }
            if let Some(owner) = &owner_now {
                let names = self.by_service.entry(owner.clone()).or_default();
                if let Err(place) = names.binary_search(&slice.name.name) {
                    names.insert(place, Arc::clone(&slice.name.name));
                }
            }
        }
        dirty.extend(owner_now);
        self.slices.insert(slice.name.clone(), slice);
    }

    fn remove_slice(&mut self, name: &ObjectName, dirty: &mut Dirty) {
        let Some(slice) = self.slices.remove(name) else { return };
        if let Some(owner) = owner(&slice) {
            self.unlink(&owner, &slice.name.name);
            dirty.extend([owner]);
        }
    }

    fn unlink(&mut self, service: &ObjectName, slice: &Arc<str>) {
        if let Entry::Occupied(mut names) = self.by_service.entry(service.clone()) {
            if let Ok(place) = names.get().binary_search(slice) {
                names.get_mut().remove(place);
            }
            if names.get().is_empty() {
                names.remove();
            }
        }
    }
}

/// The Service that a slice belongs to, in the slice's own namespace.
fn owner(slice: &EndpointSlice) -> Option<ObjectName> {
    let name = slice.service.as_ref()?;
    Some(ObjectName { namespace: Arc::clone(&slice.name.namespace), name: Arc::clone(name) })
}
