//! Where log lines go and what they look like.

use std::io::IsTerminal;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Registry, filter::Targets, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// What keeps the agent from its work.
    Error,
    /// And what somebody should look at.
    Warn,
    /// And what changes the agent's state.
    Info,
    /// And every change of what is programmed.
    Debug,
    /// And what libraries say.
    Trace,
}

/// What a log line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Changes how much is logged while the agent runs.
#[derive(Clone, Debug)]
pub struct Handle(reload::Handle<Targets, Registry>);

impl Handle {
    /// Logs as much from now on.
    pub fn set_level(&self, level: Level) {
        // Fails only when what logs has gone, and then there is nothing to change.
        let _ = self.0.reload(filter(level));
    }
}

/// Sends log lines to standard error from now on. Only the first call in a process counts.
pub fn init(level: Level, format: Format) -> Handle {
    let (filter, handle) = reload::Layer::new(filter(level));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    // An error says that somebody was first.
    let _ = match format {
        Format::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
        Format::Json => registry
            .with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false))
            .try_init(),
    };
    Handle(handle)
}

fn filter(level: Level) -> Targets {
    let own = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    // Libraries report each failed try on a level of their own choice; the agent says what it means.
    let others = if level == Level::Trace { LevelFilter::DEBUG } else { LevelFilter::OFF };
    Targets::new().with_target(env!("CARGO_CRATE_NAME"), own).with_default(others)
}
