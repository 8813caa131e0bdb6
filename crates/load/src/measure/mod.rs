//! Measurements of the machine and of the server: memory, processor time, the admin port.

pub(crate) mod admin;
pub(crate) mod annotate;
pub(crate) mod attribution;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod memory_check;
pub(crate) mod memory_tool;
pub(crate) mod reading;
pub(crate) mod slab;
pub(crate) mod snapshot;
