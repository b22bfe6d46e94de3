use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};

/// Label that hands a Service to another proxy, whatever its value.
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// Label that the EndpointSlice controllers put on the slices of headless Services.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Whether the selectors of a list or watch would let the Service through: no [`PROXY_NAME_LABEL`], and a
/// `spec.clusterIP` other than `None` (KUBE-PROXY.md 1.1). For sources that have no API server to ask.
#[must_use]
pub fn selects_service(service: &core::Service) -> bool {
    let labelled =
        service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL));
    let cluster_ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    !labelled && cluster_ip != Some("None")
}

/// Whether the selector of a list or watch would let the slice through: no [`HEADLESS_LABEL`]. The proxy
/// name label is not looked at on slices (KUBE-PROXY.md 1.1).
#[must_use]
pub fn selects_slice(slice: &discovery::EndpointSlice) -> bool {
    !slice.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(HEADLESS_LABEL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(labels: serde_json::Value, cluster_ip: serde_json::Value) -> core::Service {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "labels": labels}, "spec": {"clusterIP": cluster_ip}
        }))
        .expect("a Service")
    }

    #[test]
    fn services_by_label_and_cluster_ip() {
        use serde_json::json;
        for (labels, cluster_ip, expected) in [
            (json!({}), json!("10.96.0.1"), true),
            (json!(null), json!("10.96.0.1"), true),
            (json!({}), json!(null), true),
            (json!({}), json!("None"), false),
            (json!({PROXY_NAME_LABEL: "other"}), json!("10.96.0.1"), false),
            (json!({PROXY_NAME_LABEL: ""}), json!("10.96.0.1"), false),
            // The label of slices means nothing on a Service.
            (json!({HEADLESS_LABEL: ""}), json!("10.96.0.1"), true),
        ] {
            let service = service(labels, cluster_ip);
            assert_eq!(selects_service(&service), expected, "{service:?}");
        }
        assert!(selects_service(&core::Service::default()));
    }

    #[test]
    fn slices_by_the_headless_label_alone() {
        for (label, expected) in [("app", true), (HEADLESS_LABEL, false), (PROXY_NAME_LABEL, true)] {
            let mut slice = discovery::EndpointSlice::default();
            slice.metadata.labels = Some([(label.to_owned(), String::new())].into());
            assert_eq!(selects_slice(&slice), expected, "{label}");
        }
        assert!(selects_slice(&discovery::EndpointSlice::default()));
    }
}
