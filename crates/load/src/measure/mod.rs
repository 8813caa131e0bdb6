//! Measurements of the machine and of the server: memory, processor time, `/stats`.

pub(crate) mod attribution;
pub(crate) mod machine;
pub(crate) mod mark;
pub(crate) mod memory;
pub(crate) mod memory_check;
pub(crate) mod memory_tool;
pub(crate) mod reading;
pub(crate) mod slab;
pub(crate) mod stamp;
pub(crate) mod stats;
