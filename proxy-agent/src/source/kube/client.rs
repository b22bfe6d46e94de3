use std::{path::Path, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
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

/// A client for the API server that `kubeconfig` names, or for the one of the pod's service account.
pub(super) async fn connect(kubeconfig: Option<&Path>) -> Result<Client> {
    // An error says that somebody has chosen a provider before us, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None => Config::incluster().context(
            "there is no service account of a pod here; outside of a cluster, give --kubeconfig FILE, \
             or --manifests DIR to do without an API server",
        )?,
    };
    let server = config.cluster_url.clone();
    client(config).with_context(|| format!("setting up a client for the API server {server}"))
}

async fn from_file(path: &Path) -> Result<Config> {
    // kube's messages name their causes already: a chain would say them twice.
    let file = Kubeconfig::read_from(path).map_err(|error| {
        anyhow!("--kubeconfig {} has to be a kubeconfig that the agent can read: {error}", path.display())
    })?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(|error| {
        anyhow!(
            "--kubeconfig {} needs a current-context that names a context with a cluster and a user: {error}",
            path.display()
        )
    })
}

/// kube's own stack without its retries, which would wait for minutes on a server that answers 503, and with
/// TCP keepalive, without which a server that died silently is noticed only when a watch times out.
fn client(mut config: Config) -> Result<Client> {
    if let Some(proxy) = &config.proxy_url {
        bail!(
            "the kubeconfig wants proxy-url {proxy}, which is not supported: take it out, or give a server that can be reached without"
        );
    }
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
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}
