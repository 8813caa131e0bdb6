//! An application that applies all events knows what the server knows.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::receiver::{Manner, Receiver};
use super::{PATIENT, SMALL};
use crate::client::Client;
use crate::guarded::{Guarded, token};
use crate::knowledge::Application;
use crate::reader::{Events, Position};

/// An application that applies all events knows the server's channels, members and connections, whatever clients
/// of all transports have done.
#[test]
fn an_application_knows_what_the_server_knows() {
    let receiver = Receiver::start(Manner::Take);
    let spaces = "--namespace=here,publish=anyone,presence=members,presence-grace=0,history-size=5";
    let guarded = Guarded::start(
        &[&SMALL[..], &[&receiver.flag(), spaces, "--phoenix-path=/p", PATIENT]].concat(),
    );
    let server = &guarded.server;
    let mut random = fastrand::Rng::with_seed(17);
    let channels = ["here:a", "here:b", "plain", "x y/é"];
    // By connection: its user, its channels and its client.
    let mut websockets: Vec<(Client, String, Option<String>, Vec<&str>)> = Vec::new();
    let mut streams: Vec<(Events, Option<String>, &str)> = Vec::new();
    let mut polls = 0;
    for step in 0..300 {
        let name = format!("user {}", random.u32(..4));
        let channel = channels[random.usize(..channels.len())];
        match random.u32(..10) {
            0..3 => {
                let user = random.bool().then_some(name);
                let mut client = match &user {
                    Some(user) => super::user(server, user),
                    None => Client::of(server),
                };
                let connection = client.name();
                websockets.push((client, connection, user, Vec::new()));
            }
            3..6 if !websockets.is_empty() => {
                let at = random.usize(..websockets.len());
                let (client, .., subscribed) = &mut websockets[at];
                match subscribed.iter().position(|known| *known == channel) {
                    Some(at) => {
                        subscribed.swap_remove(at);
                        let leave = json!({"action": "unsubscribe", "identifier": channel});
                        assert_eq!(client.ask(leave)["type"], "unsubscribed");
                    }
                    None => {
                        client.subscribe(channel);
                        subscribed.push(channel);
                    }
                }
            }
            6 if !websockets.is_empty() => {
                websockets.swap_remove(random.usize(..websockets.len()));
            }
            7 if !websockets.is_empty() => {
                let at = random.usize(..websockets.len());
                let (client, _, user, _) = &mut websockets[at];
                let token = token(&json!({"sub": name}));
                let answer = client.ask(json!({"action": "auth", "token": token}));
                assert_eq!(answer["type"], "authenticated");
                *user = Some(name);
            }
            8 => {
                let target =
                    format!("/sse?channel={}", channel.replace(' ', "%20").replace('é', "%C3%A9"));
                let (target, user) = match random.bool() {
                    true => {
                        (format!("{target}&token={}", token(&json!({"sub": name}))), Some(name))
                    }
                    false => (target, None),
                };
                let mut events = Events::open(server, &target, None);
                assert_eq!(events.next().expect("an event").name, "subscribed");
                streams.push((events, user, channel));
            }
            9 if !streams.is_empty() && step % 2 == 0 => {
                streams.swap_remove(random.usize(..streams.len()));
            }
            _ => {
                // A poll that is answered at once is no connection.
                let mut poll = server.connect();
                assert_eq!(poll.get("/poll?channel=here:a").status, 200);
                polls += 1;
            }
        }
    }
    assert!(polls > 0 && !websockets.is_empty() && !streams.is_empty());
    let mut phoenix = server
        .websocket(&format!("/p/websocket?vsn=2.0.0&token={}", token(&json!({"sub": "phoenix"}))));
    let join = r#"["1","1","here:a","phx_join",{}]"#;
    phoenix.send(tungstenite::Message::text(join)).expect("sent");
    assert!(phoenix.read().expect("a reply").to_text().expect("text").contains("ok"));
    let position = Position::now(server, "here:b");
    let mut poll = server.connect();
    let target = format!(
        "/poll?channel=here:b&position={position}&token={}",
        token(&json!({"sub": "poll"}))
    );
    poll.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());

    // What is there, by what the clients did; of the other sessions the server says how they are called.
    let mut connections = BTreeMap::new();
    let mut occupied: Vec<&str> = streams.iter().map(|(.., channel)| *channel).collect();
    for (_, connection, user, subscribed) in &websockets {
        connections.insert(connection.clone(), user.clone());
        occupied.extend(subscribed);
    }
    occupied.extend(["here:a", "here:b"]);
    let members = |channel: &str| -> BTreeMap<(String, String), String> {
        let page = guarded.get(&format!("/api/presence/{channel}?limit=1000")).1;
        let text = |member: &Value, key: &str| member[key].as_str().expect(key).to_owned();
        let members = page["members"].as_array().expect("members").iter();
        members
            .map(|member| {
                let connection = text(member, "connection");
                ((channel.to_owned(), connection), text(member, "user"))
            })
            .collect()
    };
    let count = websockets.len() + streams.len() + 1;
    let occupied = occupied.into_iter().map(str::to_owned).collect();
    let knows = receiver.until("as the server", |state| {
        let knows = &state.knows;
        let all = members("here:a").into_iter().chain(members("here:b"));
        let same_members = knows.members == all.collect();
        let polls = knows.members.values().any(|user| user == "poll");
        let same_counts = knows.connections.len() == count && knows.occupied == occupied;
        (same_counts && same_members && polls).then(|| knows.clone())
    });
    for (connection, user) in &connections {
        assert_eq!(knows.connections[connection], *user, "{connection}");
    }
    let online = guarded.get("/api/users/phoenix").1["connections"][0].clone();
    assert_eq!(knows.connections[online.as_str().expect("a name")].as_deref(), Some("phoenix"));

    drop((websockets, streams, phoenix, poll));
    receiver.until("empty", |state| (state.knows == Application::default()).then_some(()));
    let requests = receiver.requests();
    let sizes =
        requests.iter().map(|request| request.body["events"].as_array().expect("a list").len());
    assert!(sizes.max() <= Some(7));
    let sequences = requests.iter().map(|request| request.body["sequence"].as_u64().expect("one"));
    assert!(sequences.eq(1..=requests.len() as u64));
    server.wait_until("counted", |stats| {
        let total = &stats["webhooks"][0];
        assert_eq!(total["webhook_events_missed"], 0);
        total["webhook_batches"] == requests.len() && total["webhook_queue_bytes"] == 0
    });
    let total = &server.stats()["webhooks"][0];
    let endpoint = receiver.url.split('?').next().expect("a URL");
    assert_eq!(total["endpoint"], endpoint);
    let metrics = server.admin("/metrics");
    assert!(
        metrics.text().contains(&format!("murre_webhook_events_total{{endpoint=\"{endpoint}\"}} "))
    );
}
