use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// What a ClusterRole allows: everything else is refused with 403.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

/// As in `rbac.authorization.k8s.io/v1`; what is not here is not known to this server, and allows nothing.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct Document {
    kind: String,
    #[serde(default)]
    rules: Vec<Rule>,
}

impl Rules {
    /// The rules of the ClusterRoles in a file of manifests.
    ///
    /// # Errors
    /// When it cannot be read, or has no ClusterRole.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("taking the ClusterRole from {}", path.display()))
    }

    /// The same of text.
    ///
    /// # Errors
    /// When it is no YAML, or has no ClusterRole.
    pub fn parse(text: &str) -> Result<Self> {
        let mut rules = Vec::new();
        let mut roles = 0;
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            let document = Document::deserialize(document)?;
            if document.kind == "ClusterRole" {
                roles += 1;
                rules.extend(document.rules);
            }
        }
        ensure!(roles > 0, "there is no ClusterRole");
        Ok(Self(rules))
    }

    pub(super) fn allow(&self, asked: &Asked) -> bool {
        let has = |list: &[String], what: &str| list.iter().any(|entry| entry == "*" || entry == what);
        self.0.iter().any(|rule| {
            has(&rule.api_groups, &asked.group)
                && has(&rule.resources, &asked.resource)
                && has(&rule.verbs, asked.verb)
                && (rule.resource_names.is_empty()
                    || asked.name.as_deref().is_some_and(|name| has(&rule.resource_names, name)))
        })
    }
}

/// What a request is about, as the API server's authorizer sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    verb: &'static str,
    group: String,
    resource: String,
    name: Option<String>,
}

impl Asked {
    /// `None` for a path that leads to no resource, such as `/version`.
    pub(super) fn new(method: &str, path: &str, query: &str) -> Option<Self> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let group = match parts.next()? {
            "api" => String::new(),
            "apis" => parts.next()?.to_owned(),
            _ => return None,
        };
        let _version = parts.next()?;
        let mut rest: Vec<&str> = parts.collect();
        // The resource "namespaces" itself has at most a name behind it.
        if rest.len() > 2 && rest[0] == "namespaces" {
            rest.drain(..2);
        }
        let resource = match rest.as_slice() {
            [resource] | [resource, _] => (*resource).to_owned(),
            [resource, _, sub, ..] => format!("{resource}/{sub}"),
            [] => return None,
        };
        let name = rest.get(1).map(|name| (*name).to_owned());
        let watch = query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1");
        let verb = match (method, &name) {
            ("GET" | "HEAD", _) if watch => "watch",
            ("GET" | "HEAD", Some(_)) => "get",
            ("GET" | "HEAD", None) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", Some(_)) => "delete",
            ("DELETE", None) => "deletecollection",
            _ => return None,
        };
        Some(Self { verb, group, resource, name })
    }

    /// The message of the API server's 403.
    pub(super) fn refusal(&self) -> String {
        let Self { verb, group, resource, .. } = self;
        format!(
            "{resource} is forbidden: User \"lab\" cannot {verb} resource \"{resource}\" in API group \"{group}\" at the \
             cluster scope"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: &str = "
kind: ClusterRole
rules:
  - {apiGroups: [''], resources: [services, nodes], verbs: [list, watch]}
  - {apiGroups: [''], resources: [nodes], verbs: [get], resourceNames: [here]}
---
kind: ClusterRoleBinding
subjects: []
---
kind: ClusterRole
rules:
  - {apiGroups: [events.k8s.io], resources: [events], verbs: [create]}
";

    fn asked(method: &str, target: &str) -> Asked {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Asked::new(method, path, query).unwrap()
    }

    #[test]
    fn what_no_rule_allows_is_refused() {
        let rules = Rules::parse(ROLES).unwrap();
        for (method, target, allowed) in [
            ("GET", "/api/v1/services", true),
            ("GET", "/api/v1/services?watch=true", true),
            ("GET", "/api/v1/namespaces/a/services?watch=1", true),
            ("GET", "/api/v1/services/web", false),
            ("GET", "/api/v1/nodes/here", true),
            ("GET", "/api/v1/nodes/there", false),
            ("GET", "/api/v1/nodes/here/status", false),
            ("GET", "/api/v1/secrets", false),
            ("GET", "/apis/discovery.k8s.io/v1/endpointslices", false),
            ("POST", "/api/v1/namespaces/a/services", false),
            ("POST", "/apis/events.k8s.io/v1/namespaces/default/events", true),
            ("POST", "/api/v1/namespaces/default/events", false),
            ("PATCH", "/apis/events.k8s.io/v1/namespaces/default/events/a", false),
            ("DELETE", "/api/v1/services", false),
        ] {
            assert_eq!(rules.allow(&asked(method, target)), allowed, "{method} {target}");
        }
        assert_eq!(Asked::new("GET", "/version", ""), None);
        assert!(Rules::parse("kind: ServiceAccount").is_err());
    }
}
