//! The connections of the admin port, with limits on their number and on their idle times.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt::TcpUserTimeout};
use tokio::net::TcpStream;
use tokio::task::{JoinError, JoinSet};

use super::error::{ApiError, TOO_SLOW};
use crate::control::Never;

/// The limits of a listener.
pub(super) struct Bounds {
    /// The most connections at a time. Further ones wait in the backlog.
    pub(super) connections: usize,
    /// The longest time for which a connection may be idle, a head or a whole request may take, and
    /// an answer may wait for the client.
    pub(super) patience: Duration,
}

/// The limits of the admin port, which are enough for scrapers, dashboards and scripts.
pub(super) const BOUNDS: Bounds = Bounds { connections: 64, patience: Duration::from_secs(30) };

/// Serves `routes` on `listener`.
///
/// # Errors
/// The listener cannot be used. An error of one connection ends only that connection.
///
/// # Panics
/// A handler panics, which is an error of the server and not of the client.
pub(super) async fn serve(listener: TcpListener, routes: Router, bounds: Bounds) -> Never {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let patience = bounds.patience;
    let in_time = move |request, next| in_time(patience, request, next);
    let routes = routes.layer(middleware::from_fn(in_time));
    let mut connections = JoinSet::new();
    loop {
        let has_place = connections.len() < bounds.connections;
        tokio::select! {
            Some(ended) = connections.join_next() => pass_on_panic(ended),
            accepted = listener.accept(), if has_place => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, routes.clone(), patience));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "the admin port cannot accept; trying again in 1 s");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Serves one connection to its end.
async fn connection(stream: TcpStream, routes: Router, patience: Duration) {
    // The kernel ends a connection whose peer acknowledges no data for this long (tcp(7), since
    // 2.6.37).
    let timeout = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = setsockopt(&stream, TcpUserTimeout, &timeout) {
        tracing::debug!(%error, "no TCP_USER_TIMEOUT for a connection of the admin port");
    }
    // hyper starts the timer for a head at the end of the request before it, so the timer bounds
    // idle time, too.
    let mut http = http1::Builder::new();
    let http = http.timer(TokioTimer::new()).header_read_timeout(patience);
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection of the admin port ended");
    }
}

/// Answers 408 to a request that is not read and answered in time.
async fn in_time(patience: Duration, request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(patience, next.run(request)).await;
    answer.unwrap_or_else(|_| ApiError::from(TOO_SLOW).into_response())
}

fn pass_on_panic(ended: Result<(), JoinError>) {
    if let Err(Ok(panic)) = ended.map_err(JoinError::try_into_panic) {
        std::panic::resume_unwind(panic);
    }
}

/// Whether an error of accept(2) belongs to the incoming connection and not to the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::mpsc::{self, Receiver};
    use std::time::Instant;

    use axum::routing::{get, post};
    use murre_core::host::Io;

    use super::*;
    use crate::control::{self, Task};
    use murre_core::server::threads::{self, Ended};

    /// The longest wait for an event that must happen.
    const LONG: Duration = Duration::from_secs(180);

    /// Starts a listener with these limits. Returns its address and a receiver of the end of its
    /// thread.
    fn start(connections: usize, patience: Duration) -> (SocketAddr, Receiver<Ended>) {
        let routes = Router::new()
            .route("/", get(async || "here\n"))
            .route("/length", post(async |body: String| body.len().to_string()))
            .route("/large", get(async || vec![b'x'; 64 << 20]))
            .route("/panic", get(async || -> &'static str { panic!("a bug") }));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let port = Task::new("port", serve(listener, routes, Bounds { connections, patience }));
        let (sender, ended) = mpsc::channel();
        let run = move || control::run(Io::Epoll, vec![port]);
        // Most tests do not wait for the end of the thread.
        let tell = move |how| _ = sender.send(how);
        threads::start("port".into(), 1 << 20, run, tell).expect("a thread");
        (address, ended)
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        stream
    }

    fn send(mut stream: &TcpStream, text: &str) {
        stream.write_all(text.as_bytes()).expect("sent");
    }

    fn first_bytes(mut stream: &TcpStream) -> Vec<u8> {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).expect("an answer");
        bytes[..length].to_vec()
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: m\r\n\r\n";

    /// A connection above the limit is served only after another one has ended.
    #[test]
    fn connections_are_bounded() {
        let (address, _ended) = start(3, LONG);
        let held: Vec<_> = (0..3).map(|_| connect(address)).collect();
        for stream in &held {
            send(stream, GET);
            assert!(first_bytes(stream).starts_with(b"HTTP/1.1 200"));
        }
        let mut next = connect(address);
        send(&next, GET);
        next.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let nothing = next.read(&mut [0; 16]).expect_err("no place");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        drop(held);
        next.set_read_timeout(Some(LONG)).expect("a timeout");
        assert!(first_bytes(&next).starts_with(b"HTTP/1.1 200"));
    }

    /// The listener ends the connection of a client that is idle, sends its head or body slowly, or
    /// takes no answer. The next client is served then, and not before.
    #[test]
    fn places_are_not_kept_for_ever() {
        let patience = Duration::from_millis(300);
        for (sent, heard) in [
            ("", ""),
            (GET, "HTTP/1.1 200"),
            ("GET / HTTP/1.1\r\nHost:", ""),
            ("POST /length HTTP/1.1\r\nHost: m\r\nContent-Length: 5\r\n\r\n12", "HTTP/1.1 408"),
            ("GET /large HTTP/1.1\r\nHost: m\r\n\r\n", "HTTP/1.1 200"),
        ] {
            let (address, _ended) = start(1, patience);
            let begun = Instant::now();
            let held = connect(address);
            send(&held, sent);
            let next = connect(address);
            send(&next, GET);
            assert!(first_bytes(&next).starts_with(b"HTTP/1.1 200"), "{sent}");
            // The test requires only half of the time, because the kernel counts in ticks.
            assert!(begun.elapsed() >= patience / 2, "{sent}");
            assert!(first_bytes(&held).starts_with(heard.as_bytes()), "{sent}");
        }
    }

    /// A handler that panics ends the task of the listener, which ends the process.
    #[test]
    fn a_panic_of_a_handler_is_passed_on() {
        let (address, ended) = start(3, LONG);
        send(&connect(address), "GET /panic HTTP/1.1\r\nHost: m\r\n\r\n");
        let how = ended.recv_timeout(LONG).expect("its end is reported");
        assert_eq!(how, Err("its task 'port' ended: it panicked: a bug".into()));
    }
}
