//! The usual Rust WebSocket server: tokio-tungstenite, one task per connection.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use murre_peers::listen;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::Result;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// A WebSocket echo server on tokio-tungstenite, one thread.
#[derive(Parser)]
struct Args {
    /// The address to listen on; port 0 lets the kernel choose.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Bytes of each connection's read buffer: 4096 for the lean server; the library's default if
    /// omitted.
    #[arg(long, value_name = "BYTES")]
    read_buffer: Option<usize>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config = match args.read_buffer {
        Some(bytes) => WebSocketConfig::default().read_buffer_size(bytes),
        None => WebSocketConfig::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listen(args.listen)?)?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(echo(stream, config))),
                // No descriptor is free until a connection closes.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
}

/// Serves one connection, from its handshake to its end.
async fn echo(stream: TcpStream, config: WebSocketConfig) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut socket = accept_async_with_config(stream, Some(config)).await?;
    while let Some(message) = socket.next().await.transpose()? {
        // The library answers pings and close frames itself.
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
