//! The folder followed for real, with inotify.

use std::{io::Write, os::unix::fs::symlink};

use tokio::{
    sync::mpsc::Receiver,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{broken::told, *};

struct Followed {
    changes: Receiver<Change>,
    task: JoinHandle<Result<(), Error>>,
}

/// Follows `dir`, and has received the complete lists.
async fn followed(dir: &Path) -> Followed {
    let (sender, changes) = mpsc::channel(16);
    let task = tokio::spawn(follow(dir.to_owned(), "here".into(), sender));
    let mut followed = Followed { changes, task };
    let first = [followed.next().await, followed.next().await, followed.next().await];
    assert!(
        matches!(&first, [Change::Services(_), Change::Slices(_), Change::Node(_)]),
        "complete lists come first: {first:?}"
    );
    followed
}

impl Followed {
    async fn next(&mut self) -> Change {
        let next = timeout(Duration::from_secs(10), self.changes.recv()).await;
        next.expect("a change in time").expect("the folder is followed")
    }

    async fn told(&mut self) -> String {
        told(&[self.next().await]).remove(0)
    }

    async fn assert_quiet(&mut self, long: Duration) {
        let next = timeout(long, self.changes.recv()).await;
        assert!(next.is_err(), "nothing has changed, but {next:?}");
    }
}

const A_WHILE: Duration = Duration::from_millis(200);

#[tokio::test]
async fn files_come_change_and_go() {
    let dir = folder(&[("a.yaml", &service("a", "10.96.0.1"))]);
    let mut followed = followed(dir.path()).await;

    fs::write(dir.path().join("b.yaml"), service("b", "10.96.0.2")).expect("a file");
    assert_eq!(followed.told().await, "+b 10.96.0.2");
    fs::write(dir.path().join("b.yaml"), service("b", "10.96.0.3")).expect("a file");
    assert_eq!(followed.told().await, "+b 10.96.0.3");

    // As most editors save: a new file that takes the place of the old one.
    fs::write(dir.path().join(".b.tmp"), service("b", "10.96.0.4")).expect("a file");
    fs::rename(dir.path().join(".b.tmp"), dir.path().join("b.yaml")).expect("a rename");
    assert_eq!(followed.told().await, "+b 10.96.0.4");
    fs::rename(dir.path().join("b.yaml"), dir.path().join("c.yaml")).expect("a rename");
    followed.assert_quiet(A_WHILE).await;

    fs::remove_file(dir.path().join("c.yaml")).expect("a file");
    assert_eq!(followed.told().await, "-b");
    fs::write(dir.path().join("s.yml"), slice("s", "10.0.0.1")).expect("a file");
    assert_eq!(followed.told().await, "+s 10.0.0.1");
    fs::write(dir.path().join("notes.txt"), service("n", "10.96.0.9")).expect("a file");
    followed.assert_quiet(A_WHILE).await;

    drop(followed.changes);
    let ended = timeout(Duration::from_secs(10), followed.task).await.expect("it ends with its receiver");
    ended.expect("no panic").expect("no error");
}

#[tokio::test]
async fn a_change_is_quick() {
    let dir = folder(&[]);
    let mut followed = followed(dir.path()).await;
    let start = Instant::now();
    fs::write(dir.path().join("a.yaml"), service("a", "10.96.0.1")).expect("a file");
    assert_eq!(followed.told().await, "+a 10.96.0.1");
    let took = start.elapsed();
    assert!(took < pending::UNCLOSED / 2, "a closed file is not waited for: {took:?}");
}

#[tokio::test]
async fn a_file_is_not_read_before_it_is_closed() {
    let dir =
        folder(&[("a.yaml", &format!("{}---\n{}", service("a", "10.96.0.1"), service("b", "10.96.0.2")))]);
    let mut followed = followed(dir.path()).await;
    // Cut off here, the file is a valid one that has lost a Service.
    let mut file = fs::File::create(dir.path().join("a.yaml")).expect("a file");
    file.write_all(service("a", "10.96.0.1").as_bytes()).expect("written");
    followed.assert_quiet(A_WHILE).await;
    file.write_all(format!("---\n{}", service("b", "10.96.0.3")).as_bytes()).expect("written");
    drop(file);
    assert_eq!(followed.told().await, "+b 10.96.0.3");
}

#[tokio::test]
async fn a_file_that_nobody_closes_is_read_in_the_end() {
    let dir = folder(&[]);
    let mut followed = followed(dir.path()).await;
    let mut file = fs::File::create(dir.path().join("a.yaml")).expect("a file");
    file.write_all(service("a", "10.96.0.1").as_bytes()).expect("written");
    assert_eq!(followed.told().await, "+a 10.96.0.1");
    drop(file);
}

#[tokio::test]
async fn a_config_map_is_swapped_at_once() {
    let dir = folder(&[]);
    let version = |number: u8, services: &str| {
        let data = dir.path().join(format!("..{number}"));
        fs::create_dir(&data).expect("a folder");
        fs::write(data.join("a.yaml"), services).expect("a file");
        symlink(format!("..{number}"), dir.path().join("..data_tmp")).expect("a link");
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).expect("a rename");
    };
    version(1, &service("a", "10.96.0.1"));
    symlink("..data/a.yaml", dir.path().join("a.yaml")).expect("a link");
    let mut followed = followed(dir.path()).await;
    version(2, &service("a", "10.96.0.2"));
    assert_eq!(followed.told().await, "+a 10.96.0.2");

    // A new link among the files.
    fs::write(dir.path().join("..2/b.yaml"), service("b", "10.96.0.3")).expect("a file");
    symlink("..data/b.yaml", dir.path().join("b.yaml")).expect("a link");
    assert_eq!(followed.told().await, "+b 10.96.0.3");
}

#[tokio::test]
async fn a_folder_that_comes_back_is_followed_again() {
    let parent = folder(&[]);
    let dir = parent.path().join("manifests");
    fs::create_dir(&dir).expect("a folder");
    fs::write(dir.join("a.yaml"), service("a", "10.96.0.1")).expect("a file");
    let mut followed = followed(&dir).await;
    fs::rename(&dir, parent.path().join("aside")).expect("a rename");
    followed.assert_quiet(A_WHILE).await;
    fs::create_dir(&dir).expect("a folder");
    fs::write(dir.join("a.yaml"), service("a", "10.96.0.2")).expect("a file");
    assert_eq!(followed.told().await, "+a 10.96.0.2");
    fs::write(dir.join("a.yaml"), service("a", "10.96.0.3")).expect("a file");
    assert_eq!(followed.told().await, "+a 10.96.0.3");
}

#[tokio::test]
async fn many_changes_end_in_the_last_state() {
    let dir = folder(&[]);
    let mut followed = followed(dir.path()).await;
    for last in 1..=50 {
        fs::write(dir.path().join("a.yaml"), service("a", &format!("10.96.0.{last}"))).expect("a file");
        sleep(Duration::from_millis(1)).await;
    }
    while followed.told().await != "+a 10.96.0.50" {}
    followed.assert_quiet(A_WHILE).await;
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_an_error() {
    let (sender, _changes) = mpsc::channel(1);
    let error = follow("/no/such/folder".into(), "here".into(), sender).await.expect_err("it is not there");
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
}
