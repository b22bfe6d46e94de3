//! SCTP on raw sockets: as much of an association as shows that a data path carries it. Checksums are
//! verified at both ends; one chunk a packet; a message is one DATA chunk, and answered before the next.

mod packet;
mod server;
mod session;
mod socket;

pub use self::server::SctpServer;
pub use self::session::SctpSession;
