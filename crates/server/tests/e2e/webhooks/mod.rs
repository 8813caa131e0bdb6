//! Tests of webhooks, with an application that is a real HTTP server: good, slow, dead, and back again.

mod agreement;
mod delivery;
mod receiver;
mod sessions;
mod settings;
mod signatures;

use std::path::PathBuf;

use serde_json::json;

use crate::client::Client;
use crate::guarded::token;
use crate::server::Server;

fn user(server: &Server, name: &str) -> Client {
    Client::at(server, &format!("/ws?token={}", token(&json!({"sub": name}))))
}

/// So that no request is repeated because the machine is busy.
const PATIENT: &str = "--webhook-timeout=100";
const SMALL: [&str; 3] = ["--shards=3", "--webhook-batch=7", "--webhook-delay=0.1"];

/// A file that is removed when dropped.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("murre-hook-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("there is room for a file");
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
