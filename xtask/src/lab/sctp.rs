//! SCTP on raw sockets: as much of an association as shows that a data path carries it. Checksums are
//! verified at both ends; one chunk a packet; a message is one DATA chunk, and answered before the next. Where
//! the kernel has the protocol there are its own sockets, too; it then answers what raw ones get, so a lab uses one
//! or the other.

mod kernel;
mod packet;
mod server;
mod session;
mod socket;

pub use self::kernel::SctpSocketServer;
pub(super) use self::kernel::{connect as connect_by_kernel, kernel_socket};
pub use self::server::SctpServer;
pub use self::session::SctpSession;
