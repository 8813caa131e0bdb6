//! Who gets a publication: topics, subscribers and history. Sans-IO: no sockets, no clock.
//!
//! Nothing of it is needed to serve connections that talk only to the server, which is all this
//! version does, so the crate holds no items yet.
#![forbid(unsafe_code)]
