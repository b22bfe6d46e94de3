use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, ModifyKind},
};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver},
    time::{Instant, sleep, timeout_at},
};
use tracing::{info, warn};

use super::Configuration;

/// A file that is being written is left alone until nothing has happened for this long,
const UNCLOSED: Duration = Duration::from_secs(1);
/// or this long after it was closed,
const CLOSED: Duration = Duration::from_millis(50);
/// but no longer than this, as other files of the folder may change all the time.
const LONGEST: Duration = Duration::from_secs(3);
/// Pause between attempts to find a folder again that went away.
const RETRY: Duration = Duration::from_secs(1);

/// Follows a configuration file: by its folder, so that the swap of a ConfigMap's links and a file that is
/// renamed over are seen like a write, all three of which kube-proxy's own watch was meant to see
/// (KUBE-PROXY.md 4.5).
#[derive(Debug)]
pub struct Follower {
    file: PathBuf,
    last: Configuration,
    events: UnboundedReceiver<notify::Result<Event>>,
    watcher: RecommendedWatcher,
}

impl Follower {
    /// Of a file from which `last` has been read.
    ///
    /// # Errors
    /// When the folder of the file cannot be watched.
    pub fn new(file: &Path, last: Configuration) -> Result<Self, notify::Error> {
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event| {
            // Fails only once nobody follows any more.
            let _ = sender.send(event);
        })?;
        let mut follower = Self { file: file.to_owned(), last, events, watcher };
        follower.watch()?;
        Ok(follower)
    }

    /// The next configuration that is another one than before and can be used. One that cannot is refused with
    /// a line in the log, and that of before goes on.
    pub async fn changed(&mut self) -> Configuration {
        let mut refused = String::new();
        loop {
            // First, for what changed before the folder was watched.
            match Configuration::read(&self.file) {
                Ok(configuration) if configuration == self.last => refused.clear(),
                Ok(configuration) => {
                    info!(file = %self.file.display(), "the configuration file has changed");
                    self.last = configuration.clone();
                    return configuration;
                }
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    if error != refused {
                        warn!("{error}; the configuration of before goes on");
                        refused = error;
                    }
                }
            }
            self.news().await;
            self.quiet().await;
        }
    }

    /// Waits until whoever writes has finished: one save is often several events, and half a file may be a
    /// valid one.
    async fn quiet(&mut self) {
        let deadline = Instant::now() + LONGEST;
        let mut pause = UNCLOSED;
        while let Ok(Some(event)) = timeout_at(deadline.min(Instant::now() + pause), self.events.recv()).await
        {
            match event.map(|event| event.kind) {
                Ok(EventKind::Modify(ModifyKind::Data(_))) => pause = UNCLOSED,
                // What is closed, moved or removed is complete.
                Ok(EventKind::Access(AccessKind::Open(_))) => {}
                _ => pause = CLOSED,
            }
        }
    }

    /// Waits until something happens to the file.
    async fn news(&mut self) {
        loop {
            let Some(event) = self.events.recv().await else { return std::future::pending().await };
            let Ok(event) = event else { return };
            if event.need_rescan() {
                return;
            }
            let moved = matches!(
                event.kind,
                EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
            );
            if moved && event.paths.iter().any(|path| path == self.folder()) {
                self.find_again().await;
                return;
            }
            let name = self.file.file_name();
            let concerns =
                |path: &PathBuf| path.file_name() == name || (moved && is_of_config_map(path.file_name()));
            if !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(concerns) {
                return;
            }
        }
    }

    async fn find_again(&mut self) {
        warn!(folder = %self.folder().display(), "the folder of the configuration file is gone: it is waited for");
        // Fails where the kernel has dropped the watch with the folder.
        let folder = self.folder().to_owned();
        let _ = self.watcher.unwatch(&folder);
        while self.watch().is_err() {
            sleep(RETRY).await;
        }
    }

    fn watch(&mut self) -> Result<(), notify::Error> {
        let folder = self.folder().to_owned();
        self.watcher.watch(&folder, RecursiveMode::NonRecursive)
    }

    fn folder(&self) -> &Path {
        match self.file.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }
}

/// The kubelet swaps all files of a ConfigMap at once, through the link `..data`.
fn is_of_config_map(name: Option<&OsStr>) -> bool {
    name.is_some_and(|name| name.as_encoded_bytes().starts_with(b".."))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tempfile::TempDir;

    use super::*;

    fn text(name: &str) -> String {
        format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nhostnameOverride: {name}\n"
        )
    }

    /// A ConfigMap as the kubelet puts it down: the file is a link into `..data`, which is a link to a folder.
    fn config_map() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        swap(folder.path(), "..1", &text("first"));
        let file = folder.path().join("config.conf");
        symlink("..data/config.conf", &file).unwrap();
        (folder, file)
    }

    fn swap(folder: &Path, name: &str, text: &str) {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("config.conf"), text).unwrap();
        symlink(name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    }

    fn follow(file: &Path) -> Follower {
        Follower::new(file, Configuration::read(file).unwrap()).unwrap()
    }

    async fn next(follower: &mut Follower) -> String {
        let changed = tokio::time::timeout(Duration::from_secs(10), follower.changed()).await;
        changed.expect("a change that is noticed").kube_proxy.hostname_override
    }

    #[tokio::test]
    async fn a_write_and_a_file_renamed_over_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        fs::write(&file, text("first")).unwrap();
        let mut follower = follow(&file);
        fs::write(&file, text("second")).unwrap();
        assert_eq!(next(&mut follower).await, "second");
        fs::write(folder.path().join("new"), text("third")).unwrap();
        fs::rename(folder.path().join("new"), &file).unwrap();
        assert_eq!(next(&mut follower).await, "third");
        // Gone and there again, as with some editors, and in between nothing that counts.
        fs::remove_file(&file).unwrap();
        tokio::time::sleep(CLOSED * 3).await;
        fs::write(&file, text("fourth")).unwrap();
        assert_eq!(next(&mut follower).await, "fourth");
    }

    #[tokio::test]
    async fn the_swap_of_a_config_map_is_seen_and_what_is_wrong_is_passed_over() {
        let (folder, file) = config_map();
        let mut follower = follow(&file);
        swap(folder.path(), "..2", &text("second"));
        assert_eq!(next(&mut follower).await, "second");
        swap(folder.path(), "..3", "mode: [");
        let none = tokio::time::timeout(UNCLOSED * 2, follower.changed()).await;
        assert!(none.is_err(), "{none:?}");
        swap(folder.path(), "..4", &text("fourth"));
        assert_eq!(next(&mut follower).await, "fourth");
        // What says the same is no change.
        swap(folder.path(), "..5", &(text("fourth") + "# A comment.\n"));
        assert!(tokio::time::timeout(UNCLOSED * 2, follower.changed()).await.is_err());
    }
}
