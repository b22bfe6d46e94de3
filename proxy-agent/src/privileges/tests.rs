use std::{env, fs, os::unix::process::ExitStatusExt, process::Command, thread, time::Duration};

use super::*;

/// A line of the calling thread's status.
fn status(key: &str) -> String {
    let all = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = all.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {all}")).trim().to_owned()
}

fn bits(key: &str) -> u64 {
    u64::from_str_radix(&status(key), 16).unwrap()
}

fn limited<T: Send + 'static>(duty: Duty, task: impl FnOnce() -> T + Send + 'static) -> T {
    let work = move || {
        Privileges::Drop(Unexpected::Refuse).limit(duty).unwrap();
        task()
    };
    thread::spawn(work).join().unwrap()
}

#[test]
fn a_thread_keeps_what_its_work_needs_and_no_other_thread_changes() {
    let before = ["CapPrm", "CapEff", "CapBnd"].map(bits);
    let [permitted, _, bounding] = before;
    for duty in [Duty::Serve, Duty::EnterNamespaces, Duty::Restart] {
        let kept = capabilities::kept(duty).bits();
        let sets = ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"];
        let (after, rest) = limited(duty, move || (sets.map(bits), ["NoNewPrivs", "Seccomp"].map(status)));
        let bounded = if is_root() { kept & permitted } else { bounding };
        assert_eq!(after, [kept & permitted, kept & permitted, bounded, 0, 0], "{duty:?}");
        assert_eq!(rest, ["1", "2"], "{duty:?}");
    }
    assert_eq!(["CapPrm", "CapEff", "CapBnd"].map(bits), before);
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn what_no_list_has_is_refused_and_told_once_and_threads_still_start() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut refusals = runtime.block_on(async { on_refusal() }).unwrap();
    let (first, second, fork, inner) = limited(Duty::Serve, || {
        let chroot = || rustix::process::chroot("/").unwrap_err();
        let inner = thread::spawn(move || rustix::process::chroot("/").unwrap_err()).join().unwrap();
        (chroot(), chroot(), Command::new("/bin/true").status().map_err(|error| error.raw_os_error()), inner)
    });
    assert_eq!([first, second, inner], [rustix::io::Errno::PERM; 3]);
    assert_eq!(fork.unwrap_err(), Some(libc::EPERM), "no processes");
    let told = runtime.block_on(async {
        let mut told = Vec::new();
        while let Ok(next) = tokio::time::timeout(Duration::from_millis(200), refusals.next()).await {
            told.push(i64::from(next.unwrap()));
        }
        told
    });
    assert_eq!(told.iter().filter(|number| **number == libc::SYS_chroot).count(), 1, "{told:?}");
}

#[test]
fn with_abort_the_process_ends_and_says_where() {
    let name = "privileges::tests::with_abort_the_process_ends_and_says_where";
    if env::var_os("FERROUTE_TEST_CHILD").is_some() {
        Privileges::Drop(Unexpected::Abort).limit(Duty::Serve).unwrap();
        let _never = rustix::process::chroot("/");
        return;
    }
    let output = child(name, "abort");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = format!("system call {:04} is in no list", libc::SYS_chroot);
    assert!(said.contains(&line), "{said}");
}

#[test]
fn an_agent_that_is_executed_anew_has_what_a_start_needs() {
    let name = "privileges::tests::an_agent_that_is_executed_anew_has_what_a_start_needs";
    let stage = env::var("FERROUTE_TEST_CHILD").unwrap_or_default();
    let privileges = Privileges::Drop(Unexpected::Refuse);
    match stage.as_str() {
        "" => {
            let output = child(name, "first");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && said.contains("fifth"), "{output:?}");
        }
        "fifth" => println!("fifth"),
        stage => {
            let next = match stage {
                "first" => "second",
                "second" => "third",
                "third" => "fourth",
                _ => "fifth",
            };
            let (permitted, filters) = (bits("CapPrm"), status("Seccomp_filters"));
            if let Ok(expected) = env::var("FERROUTE_TEST_CAPABILITIES") {
                assert_eq!(permitted.to_string(), expected, "{stage}");
            }
            if stage == "fourth" {
                assert_eq!(filters, env::var("FERROUTE_TEST_FILTERS").unwrap(), "they must not add up");
            }
            let restarter = Restarter::start(privileges).unwrap();
            privileges.limit(Duty::Serve).unwrap();
            assert!(bits("CapPrm") & !capabilities::kept(Duty::Serve).bits() == 0);
            let mut command = Command::new("/proc/self/exe");
            command.args([name, "--exact", "--nocapture"]).env("FERROUTE_TEST_CHILD", next);
            let kept = permitted & capabilities::kept(Duty::Restart).bits();
            command.env("FERROUTE_TEST_CAPABILITIES", kept.to_string());
            command.env("FERROUTE_TEST_FILTERS", filters);
            panic!("{}", restarter.exec(command));
        }
    }
}

fn child(test: &str, stage: &str) -> std::process::Output {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args([test, "--exact", "--nocapture"]).env("FERROUTE_TEST_CHILD", stage).output().unwrap()
}
