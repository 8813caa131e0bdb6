//! `GET` of a small document over HTTP.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest time from the first packet to the last byte.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest document, in bytes.
const BYTES_MAX: usize = 1 << 20;

/// The body of the answer, which must be 200. Redirections are not followed.
///
/// # Errors
/// What went wrong.
pub(super) async fn get(url: &Uri) -> Result<Vec<u8>, String> {
    let document = timeout(PATIENCE, connect_and_ask(url)).await;
    document.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?
}

async fn connect_and_ask(url: &Uri) -> Result<Vec<u8>, String> {
    let (Some(host), secure) = (url.host(), url.scheme_str() == Some("https")) else {
        return Err("it has no host".into());
    };
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    // An IPv6 address in a URL is in brackets.
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, port)).await.map_err(|error| error.to_string())?;
    match secure {
        true => ask(super::tls::connect(name, stream).await?, url).await,
        false => ask(stream, url).await,
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: &Uri,
) -> Result<Vec<u8>, String> {
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    // It ends with the request.
    let connection = tokio::spawn(connection);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let host = url.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(text)?;
    if answer.status() != StatusCode::OK {
        return Err(format!("it is answered with {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    connection.abort();
    Ok(body.into())
}
