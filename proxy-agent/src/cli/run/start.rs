use std::{env, path::Path, sync::Arc};

use anyhow::{Context, Result};
use jiff::Timestamp;
use tracing::{info, warn};

use super::{
    kube_proxy_flags::GoBool,
    resolve::{Resolved, Resolver},
    restart,
};
use crate::{
    cli::node_name::node_name,
    config::{Follower, Settings},
    datapath::{self, Datapath},
    host, logging, observe,
    privileges::{Duty, Restarter, on_refusal, warn_of},
    run::{self, Counters, Source},
    takeover,
};

/// Serves by these settings until told to stop.
pub(super) fn start(resolver: &Resolver, resolved: Resolved) -> Result<()> {
    datapath::return_large_buffers();
    let started = Timestamp::now();
    let Resolved { file, configuration, settings, said } = resolved;
    let log = logging::init(settings.logging.level, settings.logging.format);
    let node_name = node_name(settings.node_name.as_deref())?;
    info!(version = env!("CARGO_PKG_VERSION"), node = node_name, source = ?settings.source, "starting");
    said.iter().for_each(|line| warn!("{line}"));
    host::set_oom_score(Path::new("/"), settings.oom_score_adj);
    host::set_conntrack(Path::new("/"), &settings.conntrack)?;
    if GoBool::is_set(resolver.args.init_only) {
        let _prepared = Datapath::open(&settings.datapath).context("opening the data path")?;
        info!("prepared what needs privileges; what was programmed before goes on");
        return Ok(());
    }
    // First, so that it is known to be there, and not to be ready.
    let counters = Arc::new(Counters::default());
    let about = observe::About {
        configuration: serde_json::to_value(&configuration.kube_proxy)
            .context("writing the configuration as JSON")?,
        flags: env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect(),
        started,
    };
    let observation = observe::start(observed(&settings, &node_name, about, &counters))?;
    takeover::warn_if_beside();
    let mut datapath = Datapath::open(&settings.datapath).context("opening the data path")?;
    observation.0.set_probe(datapath.probe(), Arc::clone(datapath.socket_totals()));
    let privileges = settings.datapath.privileges;
    let restarter =
        Restarter::start(privileges).context("starting the thread that can start the agent anew")?;
    // Before there are threads that are not limited, and before anything is read from outside.
    warn_of(privileges.limit(Duty::Serve));
    // One thread: the source hands its changes to the loop without waking another, and there is one heap to
    // keep small. The loop holds it for the few hundred microseconds that a change takes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the agent's runtime")?;
    let follower = resolver.file().zip(file).and_then(|(path, file)| {
        let follower = Follower::new(path, file);
        let lost = |error: &notify::Error| {
            warn!(
                "changes of {} are not followed: {error}; see the limits in /proc/sys/fs/inotify",
                path.display()
            );
        };
        follower.inspect_err(lost).ok()
    });
    let running = settings.clone();
    runtime.spawn(tell_refusals());
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = run::run(
                &mut datapath,
                settings.source,
                &node_name,
                settings.planner,
                settings.uplinks,
                counters,
                observation,
            ) => Some(ended),
            () = follow(resolver, follower, running, said, &log) => None,
        }
    });
    // A file or a name that is still being read, from a server that does not answer, is not waited for.
    runtime.shutdown_background();
    ended.unwrap_or_else(|| Err(restart::restart(|command| restarter.exec(command))))
}

fn observed(
    settings: &Settings,
    node_name: &str,
    about: observe::About,
    counters: &Arc<Counters>,
) -> observe::Options {
    let servers = &settings.servers;
    let limit = || observe::ServicesLimit {
        bpffs: settings.datapath.bpffs.clone(),
        most: servers.most_service_metrics,
    };
    observe::Options {
        node_name: node_name.to_owned(),
        api_server: match &settings.source {
            Source::Kube(access) => Some(access.clone()),
            Source::Manifests(_) => None,
        },
        healthz: servers.healthz,
        metrics: servers.metrics,
        about,
        services: settings.datapath.count_connections.then(limit),
        counters: Arc::clone(counters),
        bind_hard_fail: servers.hard_fail,
        sync_period: servers.sync_period,
        privileges: settings.datapath.privileges,
    }
}

/// Says which system calls are refused, each once.
async fn tell_refusals() {
    let told = async {
        let mut refusals = on_refusal()?;
        loop {
            let number = refusals.next().await?;
            warn!(
                number,
                "a system call was refused that the agent was not expected to make (`ausyscall NUMBER` names it): please \
                 report it; --privileges keep lets it through"
            );
        }
    };
    let Err(error): std::io::Result<std::convert::Infallible> = told.await;
    warn!("system calls that are refused will not be told: {error}");
}

/// Applies changes of the configuration file in place; ends when there is one for which the agent has to start
/// anew.
async fn follow(
    resolver: &Resolver,
    follower: Option<Follower>,
    mut running: Settings,
    mut said: Vec<String>,
    log: &logging::Handle,
) {
    let Some(mut follower) = follower else { return std::future::pending().await };
    loop {
        let resolved = match resolver.with(Some(follower.changed().await)) {
            Ok(resolved) => resolved,
            Err(error) => {
                warn!("{error:#}; the configuration of before goes on");
                continue;
            }
        };
        let is_another = resolved.settings != running;
        // What the rest takes, the agent may have given up by now.
        running.logging.level = resolved.settings.logging.level;
        if running != resolved.settings {
            info!("starting anew for the changed configuration; what is programmed serves meanwhile");
            return;
        }
        resolved.said.iter().filter(|line| !said.contains(line)).for_each(|line| warn!("{line}"));
        said = resolved.said;
        if !is_another {
            info!("the changed configuration asks for nothing else than before");
            continue;
        }
        log.set_level(running.logging.level);
        info!("applied the changed configuration");
    }
}
