//! Test servers with keys for tokens and for the API.

use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::server::{Answer, Server};

/// The secret of tokens, which is also the key of the API.
pub(crate) const SECRET: &str = "a secret of more than thirty-two bytes";

/// A server that accepts tokens and has the API on, with the file of the secret and key.
pub(crate) struct Guarded {
    pub(crate) server: Server,
    secret: SecretFile,
}

/// The file of the secret, removed when dropped.
struct SecretFile(PathBuf);

impl Guarded {
    /// Starts a server with these additional flags.
    pub(crate) fn start(flags: &[&str]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("murre-secret-{}-{count}", std::process::id());
        let secret = std::env::temp_dir().join(name);
        fs::write(&secret, SECRET).expect("there is room for a file");
        let [token, api] =
            ["jwt-hmac-secret", "api-key"].map(|key| format!("--{key}-file={}", secret.display()));
        let server = Server::start(&[&[&*token, &*api], flags].concat());
        Guarded { server, secret: SecretFile(secret) }
    }

    /// Writes another secret into the file. The server reads it on SIGHUP.
    pub(crate) fn replace_secret(&self, secret: &str) {
        fs::write(&self.secret.0, secret).expect("there is room for a file");
    }

    /// Waits for the end of the process; returns its exit status and the remaining lines of its log.
    pub(crate) fn end(self) -> (ExitStatus, Vec<String>) {
        self.server.end()
    }

    /// The status and body of the API's answer to a POST with this body.
    pub(crate) fn post(&self, path: &str, body: impl AsRef<[u8]>) -> (u16, Value) {
        let body = body.as_ref();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer {SECRET}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.ask(&[head.as_bytes(), body].concat())
    }

    /// The status and body of the API's answer to a GET request.
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let key = format!("Authorization: Bearer {SECRET}");
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: m\r\n{key}\r\n\r\n").as_bytes())
    }

    fn ask(&self, request: &[u8]) -> (u16, Value) {
        let mut client = self.server.admin_connection();
        client.send(request);
        let Answer { status, body, .. } = client.answer();
        let body = serde_json::from_slice(&body);
        (status, body.unwrap_or_else(|error| panic!("{status} is not JSON: {error}")))
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    passed.as_secs() as i64
}

/// A token with these claims, signed with [`SECRET`].
pub(crate) fn token(claims: &Value) -> String {
    signed(claims, SECRET)
}

/// A token with these claims, signed with `secret`.
pub(crate) fn signed(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::default(), claims, &key).expect("a token")
}

/// A token that expires in `seconds` seconds, which may be negative.
pub(crate) fn expiring(seconds: i64) -> String {
    token(&json!({"sub": "ann", "exp": now() + seconds}))
}
