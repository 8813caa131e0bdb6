//! One connection to a server, for one request after the other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::tls::Tls;
use super::{Answer, HttpError};

/// A connection. Dropping it closes the socket, whatever is in flight.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Whether a byte has arrived since the request was sent.
    heard: Arc<AtomicBool>,
    driver: JoinHandle<()>,
}

/// The outcome of a request on one connection.
pub(super) enum Sent {
    Answered(Answer),
    /// The server closed the connection before a byte of the answer.
    ClosedBefore,
    Failed(HttpError),
}

/// Bytes of the head of an answer at most. It is also the size of one read of the body.
const HEAD_BYTES_MAX: usize = 16 << 10;

impl Connection {
    /// Connects to the host of a URL.
    ///
    /// # Errors
    /// [`HttpError::Connect`].
    pub(super) async fn open(url: &Uri, tls: &Tls) -> Result<Self, HttpError> {
        let failed = |error: io::Error| HttpError::Connect(error.to_string());
        let secure = url.scheme_str() == Some("https");
        let host = url.host().unwrap_or_default();
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        // An IPv6 address in a URL is in brackets.
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((name, port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        match secure {
            true => {
                let stream = tls.connect(name, stream).await.map_err(HttpError::Connect)?;
                Self::over(stream).await
            }
            false => Self::over(stream).await,
        }
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, HttpError> {
        let heard = Arc::new(AtomicBool::new(false));
        let stream = Heard { stream, heard: Arc::clone(&heard) };
        let handshake =
            Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await;
        let (sender, driver) = handshake.map_err(|error| HttpError::Connect(error.to_string()))?;
        let driver = tokio::spawn(async move {
            // The sender learns of errors.
            let _ = driver.await;
        });
        Ok(Connection { sender, heard, driver })
    }

    /// Whether neither side has closed the connection.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a request, and reads the whole answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        body_bytes_max: usize,
    ) -> Sent {
        self.heard.store(false, Ordering::Relaxed);
        // The connection may still be finishing the answer before.
        let ready = self.sender.ready().await;
        let answer = match ready {
            Ok(()) => self.sender.send_request(request).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => match whole(answer, body_bytes_max).await {
                Ok(answer) => Sent::Answered(answer),
                Err(why) => Sent::Failed(why),
            },
            Err(error) if error.is_parse() => Sent::Failed(HttpError::Malformed(error.to_string())),
            Err(_) if !self.heard.load(Ordering::Relaxed) => Sent::ClosedBefore,
            Err(_) => Sent::Failed(HttpError::Closed),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The answer with all of its body.
async fn whole(answer: Response<Incoming>, max: usize) -> Result<Answer, HttpError> {
    let status = answer.status();
    let body = answer.into_body();
    if body.size_hint().lower() > max as u64 {
        return Err(HttpError::TooLong(max));
    }
    match Limited::new(body, max).collect().await {
        Ok(body) => Ok(Answer { status, body: body.to_bytes() }),
        Err(error) if error.is::<LengthLimitError>() => Err(HttpError::TooLong(max)),
        Err(_) => Err(HttpError::Closed),
    }
}

/// A stream that records whether a byte has arrived.
struct Heard<S> {
    stream: S,
    heard: Arc<AtomicBool>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.heard.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
