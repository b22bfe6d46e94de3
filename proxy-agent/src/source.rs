//! Where API objects come from.
