//! What happens at a system call that the filter does not let through: the kernel sends SIGSYS to the thread.
#![expect(unsafe_code, reason = "a signal handler that changes what a system call returned")]

use std::{
    collections::BTreeSet,
    io,
    os::{
        fd::{AsRawFd, IntoRawFd},
        unix::net::UnixDatagram,
    },
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
};

use libc::{c_int, c_void};

use super::Unexpected;

/// Whether the process ends.
static ABORT: AtomicBool = AtomicBool::new(false);
/// The socket to which the handler says what it has refused; -1 until somebody listens.
static LISTENER: AtomicI32 = AtomicI32::new(-1);

/// System calls as they are refused.
#[derive(Debug)]
pub struct Refusals {
    socket: tokio::net::UnixDatagram,
    said: BTreeSet<i32>,
}

/// Begins to hear of system calls that are refused. Needs a runtime of tokio.
///
/// # Errors
/// There can be no more sockets.
pub fn on_refusal() -> io::Result<Refusals> {
    let (handler, listener) = UnixDatagram::pair()?;
    handler.set_nonblocking(true)?;
    listener.set_nonblocking(true)?;
    let socket = tokio::net::UnixDatagram::from_std(listener)?;
    // One that is replaced stays open: a handler may be at work with it.
    LISTENER.store(handler.into_raw_fd(), Ordering::Release);
    Ok(Refusals { socket, said: BTreeSet::new() })
}

impl Refusals {
    /// Waits for a system call that has not been refused before: its number.
    ///
    /// # Errors
    /// The socket is broken.
    pub async fn next(&mut self) -> io::Result<i32> {
        let mut number = [0; 4];
        loop {
            self.socket.recv(&mut number).await?;
            let number = i32::from_ne_bytes(number);
            if self.said.insert(number) {
                return Ok(number);
            }
        }
    }
}

/// Sets up the handler.
pub(super) fn prepare(unexpected: Unexpected) {
    ABORT.store(unexpected == Unexpected::Abort, Ordering::Relaxed);
    // SAFETY: all of the structure is numbers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handle;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the action is complete, and its handler has the signature that SA_SIGINFO asks for and does only what a
    // signal handler may. The old action is not asked for.
    let _cannot_fail = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) };
}

/// `siginfo_t` of SIGSYS, as 64-bit kernels lay it out.
#[repr(C)]
struct Information {
    signal: c_int,
    error: c_int,
    code: c_int,
    padding: c_int,
    address: *mut c_void,
    number: c_int,
    architecture: libc::c_uint,
}

/// Runs in the middle of anything: no allocation, no lock, no other than plain system calls, errno as it was.
extern "C" fn handle(_: c_int, information: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a SIGSYS of its own a structure of this layout, which is shorter than siginfo_t.
    let number = unsafe { (*information.cast::<Information>()).number };
    if ABORT.load(Ordering::Relaxed) {
        say_and_abort(number);
    }
    let listener = LISTENER.load(Ordering::Acquire);
    if listener >= 0 {
        let bytes = number.to_ne_bytes();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the location is the thread's own, and lives as long as it.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above; the buffer is four readable bytes, and send() may be called from a signal handler.
        unsafe {
            let before = *errno;
            libc::send(listener, bytes.as_ptr().cast(), bytes.len(), flags);
            *errno = before;
        }
    }
    // SAFETY: with SA_SIGINFO the third argument is the thread's context, which nobody else has meanwhile.
    unsafe { refuse(&mut *context.cast::<libc::ucontext_t>()) };
}

/// The C library makes the error number of it that was returned: the system call has not been made.
#[cfg(target_arch = "x86_64")]
fn refuse(context: &mut libc::ucontext_t) {
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = -i64::from(libc::EPERM);
}

/// The same.
#[cfg(target_arch = "aarch64")]
fn refuse(context: &mut libc::ucontext_t) {
    context.uc_mcontext.regs[0] = (-i64::from(libc::EPERM)).cast_unsigned();
}

fn say_and_abort(number: c_int) -> ! {
    let mut line = *b"proxy-agent: system call      is in no list of src/privileges/syscalls.rs\n";
    let mut rest = number.unsigned_abs();
    for place in (25..29).rev() {
        line[place] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    // SAFETY: the buffer is readable for its length; write() and abort() may be called from a signal handler.
    unsafe {
        libc::write(io::stderr().as_raw_fd(), line.as_ptr().cast(), line.len());
        libc::abort()
    }
}
