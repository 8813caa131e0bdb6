//! The binary itself, started as a process and spoken to over real sockets.

mod admin;
mod admission;
mod api;
mod bad_input;
#[path = "../../../codec/tests/codec/cases.rs"]
mod cases;
mod channels;
mod configuration;
mod drain;
mod files;
mod http;
mod http_cases;
mod limits;
mod modes;
mod refused;
mod server;
mod silence;
mod streams;
mod tokens;
mod websocket;
