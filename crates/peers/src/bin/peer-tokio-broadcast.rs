//! The usual Rust way to publish to many connections: tokio-tungstenite, one task per connection,
//! and a `tokio::sync::broadcast` channel for each identifier. On every path it speaks the part of
//! docs/protocol.md that the load generator uses, with the feed and the service of its scenarios.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use murre_peers::listen;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::{Message, Result, Utf8Bytes};

/// A publish and subscribe server on tokio's broadcast channels, one thread.
#[derive(Parser)]
struct Args {
    /// The address to listen on; port 0 lets the kernel choose.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listen(args.listen)?)?;
        let hub = Arc::new(Hub::default());
        tokio::spawn(feed(Arc::clone(&hub)));
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    drop(tokio::spawn(serve(stream, address.ip(), Arc::clone(&hub))));
                }
                // No descriptor is free until a connection closes.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
}

/// The channels, and the state of the feed.
#[derive(Default)]
struct Hub {
    channels: Mutex<HashMap<String, Sender<Utf8Bytes>>>,
    feed: Mutex<Feed>,
}

/// The arguments of the last `feed` command.
#[derive(Clone, Copy, Default)]
struct Feed {
    bytes: usize,
    rate: f64,
    /// The number of `feed` commands.
    number: u64,
}

#[derive(Deserialize)]
struct Command<'a> {
    action: &'a str,
    #[serde(default)]
    identifier: &'a str,
    service: Option<&'a str>,
    id: Option<Value>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    bytes: usize,
    rate: Option<f64>,
}

#[derive(Deserialize)]
struct Order {
    request: Value,
    timestamp: Value,
}

impl Hub {
    fn channels(&self) -> MutexGuard<'_, HashMap<String, Sender<Utf8Bytes>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribe(&self, identifier: &str) -> Receiver<Utf8Bytes> {
        let mut channels = self.channels();
        let channel = channels.entry(identifier.to_owned());
        channel.or_insert_with(|| broadcast::channel(WAITING_MAX).0).subscribe()
    }

    fn publish(&self, identifier: &str, message: impl Into<Utf8Bytes>) {
        if let Some(channel) = self.channels().get(identifier) {
            // Without subscribers the message is dropped.
            let _ = channel.send(message.into());
        }
    }
}

/// Serves one connection, from its handshake to its end.
async fn serve(stream: TcpStream, address: IpAddr, hub: Arc<Hub>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut socket = accept_async(stream).await?;
    // A connection of the load generator has one subscription at a time.
    let mut subscription: Option<Receiver<Utf8Bytes>> = None;
    loop {
        let publication = async {
            match &mut subscription {
                Some(receiver) => receiver.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = socket.next() => match message.transpose()? {
                Some(Message::Text(text)) => {
                    if let Some(answer) = obey(&text, address, &hub, &mut subscription) {
                        socket.send(Message::text(answer.to_string())).await?;
                    }
                }
                Some(_) => {}
                None => return Ok(()),
            },
            publication = publication => match publication {
                Ok(text) => socket.send(Message::Text(text)).await?,
                Err(RecvError::Lagged(count)) => {
                    let dropped = json!({"type": "dropped", "count": count});
                    socket.send(Message::text(dropped.to_string())).await?;
                }
                Err(RecvError::Closed) => subscription = None,
            },
        }
    }
}

/// Executes a command. Returns the answer, if it has one.
fn obey(
    text: &str,
    address: IpAddr,
    hub: &Hub,
    subscription: &mut Option<Receiver<Utf8Bytes>>,
) -> Option<Value> {
    let Ok(command) = serde_json::from_str::<Command<'_>>(text) else {
        return Some(json!({"type": "error", "code": "bad_json", "message": "cannot be read"}));
    };
    let Command { action, identifier, service, id, data, bytes, rate } = command;
    let mut answer = match action {
        "subscribe" => {
            *subscription = Some(hub.subscribe(identifier));
            json!({"type": "subscribed", "identifier": identifier})
        }
        "unsubscribe" => {
            *subscription = None;
            json!({"type": "unsubscribed", "identifier": identifier})
        }
        "publish" => {
            let data = data.map_or("null", RawValue::get);
            hub.publish(
                identifier,
                format!(r#"{{"type":"publication","identifier":"{identifier}","data":{data}}}"#),
            );
            id.as_ref()?;
            json!({"type": "published", "identifier": identifier})
        }
        "feed" => {
            let mut feed = hub.feed();
            let number = feed.number + 1;
            *feed = Feed { bytes, rate: rate.unwrap_or(f64::INFINITY), number };
            json!({"type": "feed"})
        }
        "request" => {
            let Order { request, timestamp } = serde_json::from_str(data?.get()).ok()?;
            let data = json!({"request": request, "timestamp": timestamp, "address": address});
            json!({"type": "response", "service": service, "data": data})
        }
        _ => json!({"type": "error", "code": "unknown_action", "message": "nobody knows it"}),
    };
    if let Some(id) = id {
        answer["id"] = id;
    }
    Some(answer)
}

/// Publishes the feed of a server of 2012: each message goes to one random identifier with a
/// subscription. A message for a channel with a long queue is left out.
async fn feed(hub: Arc<Hub>) {
    let (mut number, mut begun, mut sent, mut request) = (0, Instant::now(), 0.0, 0_u64);
    let mut identifiers = Vec::new();
    let mut random = fastrand::Rng::new();
    loop {
        let feed = *hub.feed();
        if feed.number != number || identifiers.is_empty() {
            (number, begun, sent) = (feed.number, Instant::now(), 0.0);
            identifiers = hub.channels().keys().cloned().collect();
        }
        let due = (feed.rate * begun.elapsed().as_secs_f64() - sent).min(FEED_BATCH);
        if due < 1.0 || due.is_nan() || identifiers.is_empty() {
            tokio::time::sleep(FEED_PAUSE).await;
            continue;
        }
        for _ in 0..due as u32 {
            sent += 1.0;
            let identifier = &identifiers[random.usize(..identifiers.len())];
            let busy = hub
                .channels()
                .get(identifier)
                .is_none_or(|channel| channel.len() > FEED_WAITING_MAX);
            if !busy {
                hub.publish(identifier, message(request, identifier, feed.bytes));
                request += 1;
            }
        }
        tokio::task::yield_now().await;
    }
}

fn message(request: u64, identifier: &str, bytes: usize) -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let timestamp = since.as_millis();
    let mut text = format!(
        r#"{{"type":"publication","identifier":"{identifier}","data":{{"request":{request},"timestamp":{timestamp},"identifier":"{identifier}","elements":""#
    );
    let missing = bytes.saturating_sub(text.len() + 3).max(1);
    text.extend(std::iter::repeat_n('x', missing));
    text + "\"}}"
}

/// The largest number of publications that wait for the slowest subscriber of a channel.
const WAITING_MAX: usize = 1024;

/// The largest number of messages of the feed that wait in one channel.
const FEED_WAITING_MAX: usize = 16;
const FEED_BATCH: f64 = 100.0;
const FEED_PAUSE: Duration = Duration::from_millis(1);
