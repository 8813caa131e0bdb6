//! Modules of the server, which is a program and nothing to depend on.

#[path = "../../crates/server/src/channels/command_oracle.rs"]
pub(crate) mod command_oracle;

#[path = "../../crates/server/src/channels/code.rs"]
#[expect(dead_code, reason = "the rest of the server uses it")]
mod code;
#[path = "../../crates/server/src/channels/command.rs"]
#[rustfmt::skip] // It would look for its tests beside this file.
mod command;

use murre_router::channels::Position;
