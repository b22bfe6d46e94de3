//! Maps, programs and their attachment: the only module that touches the kernel.
