//! The codec as its callers see it: bytes as they may come off a socket, in any pieces.

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
