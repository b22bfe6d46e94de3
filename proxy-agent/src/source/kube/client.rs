use std::{path::Path, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use http::header::{HeaderValue, USER_AGENT};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt},
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::{BoxError, ServiceBuilder};
use tracing::debug;

use super::{Access, Requests};

/// Who we are, in every request.
const AGENT: &str = concat!("ferroute-proxy-agent/", env!("CARGO_PKG_VERSION"));
/// How long a TCP connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection on which nothing comes in is probed after this long,
const KEEPALIVE: Duration = Duration::from_secs(15);
/// then as often as this,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// and given up after this many probes without an answer.
const KEEPALIVE_PROBES: u32 = 3;

/// A client for the API server that `access` names, or for the one of the pod's service account. What it asks is counted
/// in `requests`.
pub(crate) async fn connect(access: &Access, requests: &Requests) -> Result<Client> {
    // An error says that somebody has chosen a provider before us, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = access.server.as_deref().map(str::parse::<http::Uri>).transpose();
    let url = url.context("--master has to be the URL of an API server")?;
    let mut config = match (&access.kubeconfig, &url) {
        (Some(path), _) => from_file(path).await?,
        (None, Some(url)) => Config::new(url.clone()),
        (None, None) => Config::incluster().context(
            "there is no service account of a pod here; outside of a cluster, give --kubeconfig FILE, \
             or --manifests DIR to do without an API server",
        )?,
    };
    if let Some(url) = url {
        config.cluster_url = url;
    }
    let server = config.cluster_url.clone();
    client(config, requests).with_context(|| format!("setting up a client for the API server {server}"))
}

async fn from_file(path: &Path) -> Result<Config> {
    // kube's messages name their causes already: a chain would say them twice.
    let file = Kubeconfig::read_from(path).map_err(|error| {
        anyhow!("--kubeconfig {} has to be a kubeconfig that the agent can read: {error}", path.display())
    })?;
    let proxy = proxy_url(&file);
    ensure!(
        proxy.is_none(),
        "--kubeconfig {} has proxy-url {}, which is not supported: take it out, and give a server that can be \
         reached without",
        path.display(),
        proxy.unwrap_or_default()
    );
    let loaded = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let mut config = loaded.map_err(|error| {
        anyhow!(
            "--kubeconfig {} needs a current-context that names a context with a cluster and a user: {error}",
            path.display()
        )
    })?;
    // kubeadm hands the proxy of the machine's environment to every pod of the control plane, together with a
    // NO_PROXY that has the API server in it. kube takes up the first without the second.
    if config.proxy_url.take().is_some() {
        debug!("HTTPS_PROXY is not used: the API server is asked directly");
    }
    Ok(config)
}

/// The proxy that the cluster of the current context names.
fn proxy_url(file: &Kubeconfig) -> Option<&str> {
    let current = file.current_context.as_ref()?;
    let context = file.contexts.iter().find(|context| context.name == *current)?.context.as_ref()?;
    let cluster = file.clusters.iter().find(|cluster| cluster.name == context.cluster)?.cluster.as_ref()?;
    cluster.proxy_url.as_deref().filter(|url| !url.is_empty())
}

/// kube's own stack without its retries, which would wait for minutes on a server that answers 503, and with
/// TCP keepalive, without which a server that died silently is noticed only when a watch times out.
fn client(mut config: Config, requests: &Requests) -> Result<Client> {
    // Without TLS no certificate is looked at; an image without a CA bundle must not be asked for one.
    if config.cluster_url.scheme_str() == Some("http") {
        config.root_cert.get_or_insert_default();
    }
    // So that the API server's audit log and its administrator know who asks.
    config.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    // The same for a request that is never acknowledged: keepalive does not probe while data is on its way.
    connector.set_tcp_user_timeout(Some(KEEPALIVE + KEEPALIVE_INTERVAL * KEEPALIVE_PROBES));
    let https = config.rustls_https_connector_with_connector(connector)?;
    let http = HttpClient::builder(TokioExecutor::new()).build::<_, Body>(https);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .layer(requests.clone())
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::json;

    use super::*;

    fn kubeconfig(cluster: &serde_json::Value) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        });
        std::fs::write(file.path(), config.to_string()).unwrap();
        file
    }

    #[tokio::test]
    async fn a_proxy_in_the_kubeconfig_is_refused() {
        let file = kubeconfig(&json!({"server": "https://192.0.2.1:6443", "proxy-url": "http://p:3128"}));
        let error = from_file(file.path()).await.unwrap_err().to_string();
        assert!(error.contains("proxy-url http://p:3128"), "{error}");
    }

    #[test]
    fn a_proxy_in_the_environment_is_left_alone() {
        // The environment of this process belongs to all its tests.
        if std::env::var_os("HTTPS_PROXY").is_none() {
            let name = "source::kube::client::tests::a_proxy_in_the_environment_is_left_alone";
            let mut child = Command::new(std::env::current_exe().unwrap());
            let child = child.args([name, "--exact"]).env("HTTPS_PROXY", "http://192.0.2.9:3128");
            let output = child.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let file = kubeconfig(&json!({"server": "https://192.0.2.1:6443"}));
        runtime.block_on(connect(&Access::of(file.path().to_owned()), &Requests::default())).unwrap();
        assert!(runtime.block_on(from_file(file.path())).unwrap().proxy_url.is_none());
    }
}
