//! Tests of the binary: it runs as a process, and the tests connect over real sockets.

#[macro_use]
mod matrix;

mod admin;
mod admission;
mod api;
mod application;
mod attacks;
mod backend;
mod bad_input;
mod batches;
mod bursts;
#[path = "../../../codec/tests/codec/cases.rs"]
mod cases;
mod chunks;
mod client;
mod cluster;
mod configuration;
mod costs;
mod cross_origin;
mod drain;
mod ends;
mod files;
mod guarded;
mod http;
mod http_cases;
mod http_request;
mod key_set_url;
#[path = "../simulation/application.rs"]
mod knowledge;
#[path = "../../src/protocols/phoenix/known_clients.rs"]
mod known_clients;
mod limits;
mod listening;
mod logging;
mod modes;
mod numbers;
mod orders;
mod phoenix;
mod phoenix_client;
mod phoenix_polls;
mod phoenix_presence;
mod presence;
mod reader;
mod recovery;
mod refused;
mod requests;
mod rights;
mod server;
mod session_log;
mod signals;
mod silence;
mod slow_readers;
mod streams;
mod subscriptions;
mod supabase;
mod token_command;
mod tokens;
mod unreadable;
mod ways;
mod webhooks;
mod websocket;
