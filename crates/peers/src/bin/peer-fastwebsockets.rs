//! fastwebsockets on tokio, one task per connection, like its authors' echo server: hyper handles
//! the handshake. It has no settings that save memory: each connection always has a read buffer of
//! 8 KiB.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use murre_peers::listen;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::unconstrained;

/// A WebSocket echo server on fastwebsockets, one thread.
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
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve(stream))),
                // No descriptor is free until a connection closes.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
}

/// Serves one connection until it is a WebSocket, which then has its own task.
async fn serve(stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let connection =
        http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(shake_hands));
    Ok(connection.with_upgrades().await?)
}

async fn shake_hands(
    mut request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade(&mut request)?;
    tokio::spawn(unconstrained(echo(upgraded)));
    Ok(response)
}

/// Echoes the messages of one WebSocket, to its end.
async fn echo(upgraded: UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(upgraded.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            // The library has answered the close frame.
            OpCode::Close => return Ok(()),
            _ => {}
        }
    }
}
