use super::object::Object;

/// A label or field selector of a request, taken apart.
#[derive(Debug, Default)]
pub(super) struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Debug)]
struct Requirement {
    key: String,
    field: bool,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    Exists,
    Absent,
    Is(String),
    IsNot(String),
}

impl Selector {
    /// Both selectors of a request; an error names the part that is not understood.
    pub(super) fn parse(labels: &str, fields: &str) -> Result<Self, String> {
        let mut requirements = Vec::new();
        for part in labels.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            requirements.push(Requirement::parse(part, false)?);
        }
        for part in fields.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let requirement = Requirement::parse(part, true)?;
            if matches!(requirement.rule, Rule::Exists | Rule::Absent) || !known_field(&requirement.key) {
                return Err(format!("field label not supported: {part}"));
            }
            requirements.push(requirement);
        }
        Ok(Self { requirements })
    }

    pub(super) fn matches(&self, object: &Object) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(object))
    }
}

impl Requirement {
    fn parse(part: &str, field: bool) -> Result<Self, String> {
        let (key, rule) = if let Some((key, value)) = part.split_once("!=") {
            (key, Rule::IsNot(value.trim().to_owned()))
        } else if let Some((key, value)) = part.split_once('=') {
            (key, Rule::Is(value.trim_start_matches('=').trim().to_owned()))
        } else if let Some(key) = part.strip_prefix('!') {
            (key, Rule::Absent)
        } else {
            (part, Rule::Exists)
        };
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(format!("unable to parse requirement: {part}"));
        }
        Ok(Self { key: key.to_owned(), field, rule })
    }

    fn matches(&self, object: &Object) -> bool {
        let value = if self.field {
            Some(field_value(object, &self.key))
        } else {
            object.labels.get(&self.key).map(String::as_str)
        };
        match &self.rule {
            Rule::Exists => value.is_some(),
            Rule::Absent => value.is_none(),
            Rule::Is(wanted) => value == Some(wanted),
            // As in Kubernetes, an object without the label is unequal to any value.
            Rule::IsNot(unwanted) => value != Some(unwanted),
        }
    }
}

fn known_field(key: &str) -> bool {
    matches!(key, "metadata.name" | "metadata.namespace" | "spec.clusterIP" | "spec.type")
}

fn field_value<'a>(object: &'a Object, key: &str) -> &'a str {
    match key {
        "metadata.name" => &object.key.name,
        "metadata.namespace" => &object.key.namespace,
        "spec.clusterIP" => &object.cluster_ip,
        _ => &object.service_type,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(labels: &str, fields: &str) -> bool {
        let object = Object::parse(
            json!({"kind": "Service", "metadata": {"name": "web", "namespace": "shop", "labels": {"a": "1"}},
                   "spec": {"clusterIP": "None"}}),
            1,
        )
        .unwrap();
        Selector::parse(labels, fields).unwrap().matches(&object)
    }

    #[test]
    fn labels_and_fields_select() {
        for (labels, fields, expected) in [
            ("", "", true),
            ("a", "", true),
            ("!a", "", false),
            ("!b", "", true),
            ("a=1", "", true),
            ("a==1,!b", "", true),
            ("a!=1", "", false),
            ("b!=1", "", true),
            ("", "metadata.name=web,metadata.namespace=shop", true),
            ("", "metadata.name=other", false),
            ("", "spec.clusterIP!=None", false),
        ] {
            assert_eq!(matches(labels, fields), expected, "labels {labels:?} fields {fields:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(Selector::parse("a b", "").is_err());
        assert!(Selector::parse("", "spec.unknown=1").is_err());
        assert!(Selector::parse("", "!spec.clusterIP").is_err());
    }
}
