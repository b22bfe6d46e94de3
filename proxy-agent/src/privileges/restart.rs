use std::{
    io,
    os::unix::process::CommandExt,
    process::Command,
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use super::{Duty, Error, Privileges};

/// In the environment of an agent that another one executed: the filter of the thread that did so is still there.
pub(super) const RESTARTED: &str = "FERROUTE_RESTARTED";

/// A thread that kept what a start needs. It does nothing but execute the agent anew, once, when it is told to.
///
/// A program that is executed gets no capability that the executing thread does not have, and keeps its filter. So it
/// cannot be a thread that has given up what a start needs.
#[derive(Debug)]
pub struct Restarter {
    orders: Sender<Command>,
    answers: Receiver<io::Error>,
}

impl Restarter {
    /// To be called before the calling thread is limited.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(privileges: Privileges) -> io::Result<Self> {
        let (orders, receiver) = mpsc::channel::<Command>();
        let (sender, answers) = mpsc::channel();
        thread::Builder::new().name("restart".to_owned()).spawn(move || {
            warn_of(privileges.limit(Duty::Restart));
            while let Ok(mut command) = receiver.recv() {
                if matches!(privileges, Privileges::Drop(_)) {
                    command.env(RESTARTED, "1");
                }
                // It comes back only when it has failed; without a listener there is nobody to tell.
                let _gone = sender.send(command.exec());
            }
        })?;
        Ok(Self { orders, answers })
    }

    /// Replaces this process by a command. Returns only when that fails, with the reason.
    #[must_use]
    pub fn exec(&self, command: Command) -> io::Error {
        let gone = || io::Error::other("the thread that executes the agent anew has ended");
        if self.orders.send(command).is_err() {
            return gone();
        }
        self.answers.recv().unwrap_or_else(|_| gone())
    }
}

/// A thread that could not be limited serves all the same.
pub(crate) fn warn_of(limited: Result<(), Error>) {
    if let Err(error) = limited {
        let error = anyhow::Error::new(error);
        tracing::warn!("this thread keeps more privileges than it needs: {error:#}");
    }
}
