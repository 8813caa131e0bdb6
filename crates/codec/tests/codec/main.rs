//! The codec as its callers see it: bytes as they may come off a socket, in any pieces.

mod oracles;

mod corpus;
mod cuts;
mod examples;
mod frames;
mod requests;
mod requests_rules;
mod responses;
mod smuggling;
mod tungstenite;
mod upgrades;
mod wire;
