//! The real agent, on a node of the lab: in its host network, its cgroup and with its bpffs.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::log::{Log, LogLine};
use super::node::Node;
use super::sys;

/// How long an agent may take to end after SIGTERM.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Every agent of this process, for [`kill_all`].
static RUNNING: Mutex<Vec<Weak<Mutex<Child>>>> = Mutex::new(Vec::new());

/// How to start an agent. It can be started again and again, as after a crash.
#[derive(Clone, Debug)]
pub struct AgentSpec {
    binary: PathBuf,
    node: Node,
    /// What the lab says to an agent that it starts; nothing in kube-proxy's place.
    standard: Vec<OsString>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl AgentSpec {
    /// An agent on `node` that follows a folder of manifests.
    #[must_use]
    pub fn with_manifests(binary: &Path, node: &Node, manifests: &Path) -> Self {
        Self::new(binary, node, standard(node, ["--manifests".into(), manifests.into()]))
    }

    /// An agent on `node` that watches an API server.
    #[must_use]
    pub fn with_kubeconfig(binary: &Path, node: &Node, kubeconfig: &Path) -> Self {
        Self::new(binary, node, standard(node, ["--kubeconfig".into(), kubeconfig.into()]))
    }

    /// A program on `node` that is told nothing, for one in kube-proxy's place: its configuration file has to
    /// name the node's cgroup, or it finds that of the machine.
    #[must_use]
    pub fn bare(binary: &Path, node: &Node) -> Self {
        Self::new(binary, node, Vec::new())
    }

    fn new(binary: &Path, node: &Node, standard: Vec<OsString>) -> Self {
        Self {
            binary: binary.to_owned(),
            node: node.clone(),
            standard,
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Another binary, from now on.
    #[must_use]
    pub fn binary(mut self, binary: &Path) -> Self {
        binary.clone_into(&mut self.binary);
        self
    }

    /// Another argument for `run`.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Several arguments.
    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// A variable in the agent's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts the agent; see [`Agent::wait_ready`].
    pub fn start(&self) -> anyhow::Result<Agent> {
        let mut command = Command::new(&self.binary);
        command.args(&self.standard).args(&self.arguments);
        // A system call that its lists lack is a bug, and must not pass for a denied one.
        command.env("FERROUTE_UNEXPECTED_SYSTEM_CALL", "abort");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::die_with_this_thread(&mut command);

        // The thread that starts the agent outlives it: the kernel kills the agent with that thread.
        let (started, starts) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let starter = self.node.spawn(move || {
            // Nobody is there to hear it only when start() has ended already.
            let _told = started.send(command.spawn());
            // Sent or dropped: both mean that the agent has ended.
            let _ended = ends.recv();
        });
        let child = starts.recv().context("the thread that starts the agent has ended")?;
        let mut child = child.with_context(|| format!("starting the agent {}", self.binary.display()))?;
        let log = Log::default();
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|stdout| log.follow(stdout)));
        readers.extend(child.stderr.take().map(|stderr| log.follow(stderr)));
        let pid = child.id();
        let child = Arc::new(Mutex::new(child));
        let mut running = lock(&RUNNING);
        running.retain(|agent| agent.strong_count() > 0);
        running.push(Arc::downgrade(&child));
        drop(running);
        Ok(Agent { spec: self.clone(), pid, child, log, readers, end: Some(end), starter: Some(starter) })
    }

    /// Runs another subcommand of the agent's binary on the node, where it sees the same pins.
    /// `--bpffs` is added to those that take it.
    pub fn cli(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).stdin(Stdio::null());
        if matches!(arguments.first(), Some(&("services" | "backends" | "links" | "cleanup"))) {
            command.arg("--bpffs").arg(self.node.bpffs());
        }
        self.node.run(|| command.output()).with_context(|| format!("running proxy-agent {arguments:?}"))
    }
}

/// Where objects come from, and what of the node is the agent's.
fn standard(node: &Node, source: [OsString; 2]) -> Vec<OsString> {
    let mut arguments = vec!["run".into()];
    arguments.extend(source);
    arguments.extend(["--node-name".into(), node.name().into()]);
    arguments.extend(["--cgroup".into(), node.cgroup().into()]);
    arguments.extend(["--bpffs".into(), node.bpffs().into()]);
    arguments.extend(["--log-format".into(), "json".into()]);
    arguments
}

/// A running agent. Dropping it kills it; while a test fails, what it said last is printed.
#[derive(Debug)]
pub struct Agent {
    spec: AgentSpec,
    pid: u32,
    child: Arc<Mutex<Child>>,
    log: Log,
    readers: Vec<JoinHandle<()>>,
    end: Option<mpsc::Sender<()>>,
    starter: Option<JoinHandle<()>>,
}

impl Agent {
    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the agent to say "ready", with what it counted until then in the line's fields. An agent
    /// that ends before, or says nothing in time, is an error that shows what it said last.
    pub fn wait_ready(&self, patience: Duration) -> anyhow::Result<LogLine> {
        self.wait_for_line(0, patience, |line| line.message() == "ready")
    }

    /// How many lines the agent has written: where [`wait_for_line`](Self::wait_for_line) can begin.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.log.mark()
    }

    /// Waits for a line of the log, from a mark on.
    pub fn wait_for_line(
        &self,
        mark: usize,
        patience: Duration,
        wanted: impl Fn(&LogLine) -> bool,
    ) -> anyhow::Result<LogLine> {
        let deadline = Instant::now() + patience;
        loop {
            let ended = lock(&self.child).try_wait().context("asking for the agent's exit status")?;
            // After its end the last lines may still be on their way.
            if let Some(line) = self.log.wait(mark, Duration::from_millis(100), &wanted) {
                return Ok(line);
            }
            if let Some(status) = ended {
                bail!("the agent has ended ({status}), having said:{}", self.log.tail(30));
            }
            if Instant::now() > deadline {
                bail!("the agent did not get there within {patience:?}, having said:{}", self.log.tail(30));
            }
        }
    }

    /// What the agent writes.
    #[must_use]
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// SIGKILL, as a crash or the out-of-memory killer would. The agent is gone when this returns.
    pub fn kill9(self) -> anyhow::Result<()> {
        let status = self.kill_and_wait()?;
        if status.signal() != Some(Signal::SIGKILL as i32) {
            bail!("the agent had ended before ({status}), having said:{}", self.log.tail(30));
        }
        Ok(())
    }

    /// SIGTERM, as an upgrade would; an error when the agent does not end by itself.
    pub fn terminate(self) -> anyhow::Result<ExitStatus> {
        let pid = i32::try_from(self.pid).context("a process id that is no process id")?;
        let deadline = Instant::now() + END_WITHIN;
        {
            let mut child = lock(&self.child);
            // Not reaped yet, so the id is still that of the agent.
            if child.try_wait().context("asking for the agent's exit status")?.is_none() {
                kill(Pid::from_raw(pid), Signal::SIGTERM).context("asking the agent to end")?;
            }
        }
        loop {
            if let Some(status) = lock(&self.child).try_wait().context("waiting for the agent")? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the agent ignores SIGTERM for {END_WITHIN:?}, having said:{}", self.log.tail(30));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The most memory that it ever had resident, in bytes.
    pub fn rss_peak(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).with_context(|| format!("no VmHWM in {path}: the agent has ended"))
    }

    /// See [`AgentSpec::cli`].
    pub fn run_cli(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.spec.cli(arguments)
    }

    fn kill_and_wait(&self) -> anyhow::Result<ExitStatus> {
        let mut child = lock(&self.child);
        child.kill().context("killing the agent")?;
        child.wait().context("waiting for the killed agent")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent on {} said last:{}", self.spec.node.name(), self.log.tail(40));
        }
        if let Err(error) = self.kill_and_wait() {
            eprintln!("lab: {error:#}");
        }
        self.end.take();
        for thread in self.starter.take().into_iter().chain(self.readers.drain(..)) {
            // Their panics have been printed by the panic hook already.
            let _ended = thread.join();
        }
    }
}

/// Kills every agent of this process, for one that is about to exit.
pub(super) fn kill_all() {
    for agent in lock(&RUNNING).iter().filter_map(Weak::upgrade) {
        let mut child = lock(&agent);
        if child.kill().is_ok() {
            // Its cgroup can only be removed when it has gone.
            let _gone = child.wait();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
