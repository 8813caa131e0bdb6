//! The tables of bench-results/README.md, SPECIFICATION.md and README.md.

pub(crate) mod article;
mod beside;
pub(crate) mod fill;
mod forms;
mod lines;
pub(crate) mod machines;
pub(crate) mod markdown;
pub(crate) mod memory_rows;
mod peers;
pub(crate) mod readme;
mod receive_forms;
