//! The codec as its callers see it: bytes as they may come off a socket, in any pieces.

mod cuts;
mod examples;
mod frames;
mod oracle;
mod requests;
mod requests_oracle;
mod responses;
mod smuggling;
mod upgrades;
mod wire;
