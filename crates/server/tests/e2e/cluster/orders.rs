//! Orders of the API for a user whose sessions are on several nodes.

use std::time::{Duration, Instant};

use serde_json::json;
use tungstenite::Message;

use super::nats::Nats;
use crate::client::Client;
use crate::guarded::{Guarded, token};
use crate::server::PATIENCE;

fn of_user(Guarded { server, .. }: &Guarded, user: &str) -> Client {
    Client::at(server, &format!("/ws?token={}", token(&json!({"sub": user}))))
}

/// A user is unsubscribed and disconnected on all nodes by a request to one; another user is not. While NATS is away
/// the request is refused, so that it is repeated.
#[test]
fn an_order_reaches_all_nodes() {
    let mut nats = Nats::start();
    let address = format!("--cluster-nats={}", nats.address());
    let [first, second] =
        [(); 2].map(|()| Guarded::start(&[&address, "--namespace=default,publish=anyone"]));
    for Guarded { server, .. } in [&first, &second] {
        server.wait_until("connected", |stats| stats["nats"]["nats_up"] == 1);
    }
    let mut anns = [of_user(&first, "ann"), of_user(&second, "ann")];
    let mut bob = of_user(&second, "bob");
    for client in anns.iter_mut().chain([&mut bob]) {
        client.subscribe("news");
    }
    let unsubscribe = json!({"user": "ann", "identifier": "news", "reason": "enough"});
    assert_eq!(
        first.post("/api/unsubscribe", unsubscribe.to_string()).1,
        json!({"unsubscribed": 1})
    );
    for client in &mut anns {
        let told = client.receive();
        assert_eq!(
            (&told["type"], &told["message"]),
            (&json!("unsubscribed"), &json!("enough")),
            "{told}"
        );
    }
    nats.kill();
    first.server.wait_until("disconnected", |stats| stats["nats"]["nats_up"] == 0);
    let disconnect = json!({"user": "ann", "code": 4321});
    assert_eq!(first.post("/api/disconnect", disconnect.to_string()).0, 503);
    nats.restart();
    for Guarded { server, .. } in [&first, &second] {
        server.wait_until("connected", |stats| stats["nats"]["nats_up"] == 1);
    }
    let start = Instant::now();
    for client in &mut anns {
        let socket = client.0.get_ref();
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        // NATS may take the order before it takes the subscriptions of the other node.
        let close = loop {
            assert!(start.elapsed() < PATIENCE, "not disconnected");
            match client.0.read() {
                Ok(Message::Close(close)) => break close.expect("a code"),
                Ok(_) => {}
                Err(_) => {
                    assert_eq!(first.post("/api/disconnect", disconnect.to_string()).0, 200);
                }
            }
        };
        assert_eq!(u16::from(close.code), 4321);
    }
    bob.silent();
}
