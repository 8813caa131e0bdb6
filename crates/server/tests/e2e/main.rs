//! The binary itself, started as a process and spoken to over real sockets.

mod admin;
mod bad_input;
mod configuration;
mod drain;
mod http;
mod modes;
mod server;
mod silence;
mod websocket;
