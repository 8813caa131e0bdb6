//! Tests of the codec's public interface: bytes as they may arrive from a socket, in any pieces.

mod oracles;

mod cases;
mod corpus;
mod cuts;
mod examples;
mod frames;
mod http_cases;
mod proxies;
mod requests;
mod requests_rules;
mod responses;
mod tungstenite;
mod upgrades;
mod wire;
