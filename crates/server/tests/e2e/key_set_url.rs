//! Tests of a key set that is fetched from a URL.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use spki::der::Document;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::client::Client;
use crate::http_request::read_request;
use crate::server::{PATIENCE, Server, murre};

const PRIVATE: &str = include_str!("../../src/hub/auth/keys/ed.private.pem");
const PUBLIC: &str = include_str!("../../src/hub/auth/keys/ed.public.pem");

/// An HTTP server of one document.
struct Publisher {
    url: String,
    state: Arc<Mutex<State>>,
}

struct State {
    status: u16,
    body: String,
    requests: usize,
}

/// What carries the document.
#[derive(Clone, Copy)]
enum Carrier {
    Tcp,
    /// With a certificate for localhost that it has signed itself.
    Tls,
}

impl Publisher {
    fn start(body: String) -> Self {
        Self::over(Carrier::Tcp, body)
    }

    fn over(carrier: Carrier, body: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let url = match carrier {
            Carrier::Tcp => format!("http://127.0.0.1:{port}/keys?x=1"),
            Carrier::Tls => format!("https://localhost:{port}/keys?x=1"),
        };
        let state = Arc::new(Mutex::new(State { status: 200, body, requests: 0 }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                match carrier {
                    Carrier::Tcp => answer(&stream, &shared),
                    Carrier::Tls => {
                        let session = ServerConnection::new(tls()).expect("a session");
                        answer(StreamOwned::new(session, stream), &shared);
                    }
                }
            }
        });
        Publisher { url, state }
    }

    fn change(&self, status: u16, body: &str) {
        let mut state = self.state.lock().expect("no panic");
        (state.status, state.body) = (status, body.to_owned());
    }

    fn requests(&self) -> usize {
        self.state.lock().expect("no panic").requests
    }
}

/// Answers one request, unless the client refuses the certificate.
fn answer(mut stream: impl Read + Write, state: &Mutex<State>) {
    let Some((head, _)) = read_request(&mut stream) else { return };
    assert!(head.starts_with("get /keys?x=1 http/1.1\r\n"), "{head}");
    let mut state = state.lock().expect("no panic");
    state.requests += 1;
    let State { status, body, .. } = &*state;
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} Any\r\nContent-Length: {length}\r\n\r\n{body}");
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.flush();
}

fn tls() -> Arc<ServerConfig> {
    let der = |pem: &str| Document::from_pem(pem).expect("it is PEM").1.as_bytes().to_vec();
    let (certificate, key) = (der(include_str!("keys/localhost.certificate.pem")), der(LOCALHOST));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("versions");
    let key = PrivatePkcs8KeyDer::from(key).into();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.into()], key);
    Arc::new(config.expect("they belong together"))
}

const LOCALHOST: &str = include_str!("keys/localhost.private.pem");

fn set(ids: &[&str]) -> String {
    let (_, document) = Document::from_pem(PUBLIC).expect("it is PEM");
    let bytes = document.as_bytes();
    let x = URL_SAFE_NO_PAD.encode(&bytes[bytes.len() - 32..]);
    let key = |id: &&str| json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": x});
    json!({"keys": ids.iter().map(key).collect::<Vec<Value>>()}).to_string()
}

fn auth(server: &Server, id: &str) -> Value {
    let (_, document) = Document::from_pem(PRIVATE).expect("it is PEM");
    let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::EdDSA) };
    let key = EncodingKey::from_ed_der(document.as_bytes());
    let token = encode(&header, &json!({"sub": "ann"}), &key).expect("a token");
    Client::of(server).ask(json!({"action": "auth", "token": token}))
}

fn wait_for(server: &Server, id: &str, kind: &str) {
    let start = Instant::now();
    while auth(server, id)["type"] != kind {
        assert!(start.elapsed() < PATIENCE, "{id} is not {kind}");
        thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// The keys of a URL are in force from the start. An unknown `kid` has the set fetched early, once
/// between two fetches at the interval, and SIGHUP has it fetched at once.
#[test]
fn keys_of_a_url() {
    let publisher = Publisher::start(set(&["one"]));
    let url = format!("--jwt-key-set-url={}", publisher.url);
    let server = Server::start(&["--shards=2", &url, "--jwt-key-set-interval=3600"]);
    assert_eq!(publisher.requests(), 1);
    assert_eq!(auth(&server, "one")["type"], "authenticated");
    publisher.change(200, &set(&["two", "one"]));
    // The first token with the new key asks for it.
    wait_for(&server, "two", "authenticated");
    assert_eq!(publisher.requests(), 2);
    publisher.change(200, &set(&["three"]));
    for _ in 0..5 {
        assert_eq!(auth(&server, "three")["code"], "bad_token");
    }
    assert_eq!(auth(&server, "one")["type"], "authenticated");
    server.signal(Signal::SIGHUP);
    wait_for(&server, "three", "authenticated");
    wait_for(&server, "one", "error");
    assert_eq!(publisher.requests(), 3);
}

/// A set that cannot be fetched or used leaves the keys in force, and the log says why, once.
#[test]
fn a_failed_fetch_changes_nothing() {
    let publisher = Publisher::start(set(&["one"]));
    let url = format!("--jwt-key-set-url={}", publisher.url);
    let server = Server::start(&[&url, "--jwt-key-set-interval=0.2"]);
    let secret = r#"{"keys":[{"kty":"oct","kid":"one","k":"dGhpcnR5LXR3byBieXRlcyBvciBtb3JlIG9mIHNlY3JldA"}]}"#;
    for (status, body) in [(500, &*set(&["one"])), (200, "{nonsense"), (200, secret), (301, "")] {
        publisher.change(status, body);
        let before = publisher.requests();
        let start = Instant::now();
        while publisher.requests() < before + 2 {
            assert!(start.elapsed() < PATIENCE, "it is not fetched again");
            thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(auth(&server, "one")["type"], "authenticated", "{status}");
    }
    publisher.change(200, &set(&["next"]));
    wait_for(&server, "next", "authenticated");
    server.signal(Signal::SIGTERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0));
    let warned = log.iter().filter(|line| line.contains("the key set cannot be fetched")).count();
    assert!((1..=2).contains(&warned), "{log:?}");
}

/// A server whose key set cannot be fetched at the start serves, tells clients to try again, and has the
/// keys as soon as they are there.
#[test]
fn a_late_key_set() {
    let publisher = Publisher::start(String::new());
    publisher.change(503, "");
    let url = format!("--jwt-key-set-url={}", publisher.url);
    let server = Server::start(&[&url, "--jwt-key-set-interval=0.5"]);
    let answer = auth(&server, "one");
    assert_eq!(answer["code"], "bad_token");
    assert!(answer["message"].as_str().is_some_and(|why| why.contains("not fetch its keys yet")));
    publisher.change(200, &set(&["one"]));
    wait_for(&server, "one", "authenticated");
}

/// A key set over https is taken from a server whose certificate the machine trusts, and from no other.
#[test]
fn certificates_are_checked() {
    let publisher = Publisher::over(Carrier::Tls, set(&["one"]));
    let url = format!("--jwt-key-set-url={}", publisher.url);
    let start = |trusted: Option<&str>| {
        let mut command = murre();
        if let Some(file) = trusted {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/keys/");
            command.env("SSL_CERT_FILE", format!("{folder}{file}"));
        }
        command.args(["serve", "--max-conns=1000", &url]);
        Server::spawn(&mut command)
    };
    assert_eq!(auth(&start(None), "one")["code"], "bad_token");
    assert_eq!(publisher.requests(), 0);
    let trusting = start(Some("localhost.certificate.pem"));
    assert_eq!(auth(&trusting, "one")["type"], "authenticated");
    assert_eq!(publisher.requests(), 1);
}
