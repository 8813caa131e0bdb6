//! Connections whose input the application holds for a while.

use std::time::Duration;

use bytes::Bytes;
use murre_codec::{CloseCode, Control, Data, OpCode};
use murre_core::ring::sim::Faults;
use murre_core::{CloseReason, Serve, ServeLimits, ServeMail};

use crate::app::{
    App, HOLD, Holding, RELEASE, Server, body, control, fragmented, get, handshake, limits, said,
    setup, understand,
};
use crate::client::{Client, until};
use crate::world::{Read, Setup, World, everywhere, simulated};

fn serve(holding: Holding) -> impl Fn() -> Server {
    move || Serve::new(App::holding(holding), limits())
}

/// A server for tests on the kernel, with limits that never expire.
fn serve_patiently(holding: Holding) -> impl Fn() -> Server {
    move || {
        let limits = ServeLimits { max_message_bytes: 100_000, ..ServeLimits::default() };
        Serve::new(App::holding(holding), limits)
    }
}

fn mail(world: &World<Server>, mail: &'static [u8]) {
    let posted = world.shard.mailbox().post(ServeMail::App(Bytes::from_static(mail)));
    assert!(posted.is_ok(), "the mailbox has room");
}

/// A WebSocket whose handshake the application has accepted.
fn open(world: &mut World<Server>) -> Client {
    let mut client = Client::new(world);
    client.send_bytes(&handshake("/ws"));
    let asked = world.protocol().inner.handler().requests;
    world.until("it is asked for", |world| {
        client.step(world);
        world.protocol().inner.handler().requests > asked
    });
    mail(world, RELEASE);
    until(world, &mut client, "the handshake", |heard| !heard.responses.is_empty());
    client
}

fn messages(world: &World<Server>) -> u64 {
    world.protocol().inner.handler().messages
}

fn binary(payload: &[u8]) -> Vec<u8> {
    said(OpCode::Data(Data::Binary), payload)
}

/// Steps for a while in which nothing must happen.
fn step_on(world: &mut World<Server>, client: &mut Client) {
    for _ in 0..50 {
        client.step(world);
        world.turn();
    }
}

/// Requests and messages that are held now and then are answered once and in order, also if the
/// peer has closed its side meanwhile.
#[test]
fn what_was_held_is_answered_in_order() {
    everywhere(&setup(), serve_patiently(Holding::Some), |world| {
        let mut client = Client::new(world);
        let requests = world.rng.usize(3..12);
        (0..requests).for_each(|length| client.send_bytes(&get(length)));
        client.send_bytes(&handshake("/ws"));
        let payloads: Vec<_> =
            (0..world.rng.usize(6..20)).map(|length| body(length * 100)).collect();
        for payload in &payloads {
            let (one, other) = payload.split_at(payload.len() / 2);
            client.send_bytes(&fragmented(&[one, other]));
        }
        client.send_bytes(&control(Control::Ping, b"last"));
        world.until("everything is said", |world| {
            client.step(world);
            client.has_spoken()
        });
        world.net.half_close(client.peer);
        let heard = until(world, &mut client, "the last", |heard| !heard.pongs.is_empty());
        let lengths = heard.responses[..requests].iter().map(|(_, body)| body.len());
        assert!(lengths.eq(0..requests), "requests are answered in order");
        let echoes: Vec<&[u8]> = heard.messages.iter().map(|(_, echo)| &echo[..]).collect();
        assert_eq!(echoes, payloads);
        assert!(world.shard.counters().resumed.get() > 0, "nothing was held");
        let served = world.protocol().inner.counters().requests.get();
        assert_eq!(served, requests as u64 + 1, "each is counted once");
    });
}

/// The shard reads no more of a held connection than the bytes that were on their way, and passes
/// none of them on.
#[test]
fn a_held_connection_is_not_read() {
    let setup = Setup { seeds: 20, ..setup() };
    everywhere(&setup, serve_patiently(Holding::All), |world| {
        let mut client = Client::new(world);
        const REQUESTS: usize = 500;
        (0..REQUESTS).for_each(|_| client.send_bytes(&get(1)));
        world.until("the first is held", |world| {
            client.write(world);
            world.protocol().inner.handler().requests == 1
        });
        let received = world.shard.counters().bytes_in.get();
        step_on(world, &mut client);
        let more = world.shard.counters().bytes_in.get() - received;
        assert!(more <= u64::from(setup.buffer_bytes), "{more} bytes were read");
        assert!(client.heard.is_empty());
        assert_eq!(world.protocol().inner.handler().requests, 1, "it was asked once");
        assert_eq!(world.protocol().inner.counters().requests.get(), 0, "it is not served yet");
        for answered in 1..=3 {
            mail(world, RELEASE);
            let heard = until(world, &mut client, "one", |heard| heard.responses.len() == answered);
            assert_eq!(heard.responses[answered - 1], (200, b"a".to_vec()));
        }
        world.net.close(client.peer);
        world.until("it is gone", |world| {
            mail(world, RELEASE);
            world.protocol().open.is_empty()
        });
    });
}

/// A connection continues only when it is neither held nor congested, whichever ends first.
#[test]
fn holding_and_congestion_compose() {
    everywhere(&Setup { seeds: 20, ..setup() }, serve_patiently(Holding::All), |world| {
        let mut client = open(world);
        const LEN: usize = 90_000;
        (0..3).for_each(|_| client.send_bytes(&binary(&body(LEN))));
        world.until("the first is echoed", |world| {
            client.write(world);
            messages(world) == 1
        });
        // The kernel may have taken the bytes already.
        if world.net.is_simulated() {
            mail(world, RELEASE);
            for _ in 0..50 {
                client.write(world);
                world.turn();
            }
            assert_eq!(messages(world), 1, "it is congested");
        } else {
            mail(world, RELEASE);
        }
        until(world, &mut client, "the first", |heard| heard.messages.len() == 1);
        world.until("the second is echoed", |world| {
            client.step(world);
            messages(world) == 2
        });
        until(world, &mut client, "the second", |heard| heard.messages.len() == 2);
        step_on(world, &mut client);
        assert_eq!(messages(world), 2, "it is held");
        mail(world, RELEASE);
        let heard = until(world, &mut client, "the third", |heard| heard.messages.len() == 3);
        assert!(heard.messages.iter().all(|(_, echo)| *echo == body(LEN)));
    });
}

/// Neither the time limit of a request nor a missing pong closes a connection while it is held,
/// however long that is, nor right after; input from that time is handled.
#[test]
fn time_that_is_held_is_not_the_peers() {
    simulated(&setup(), serve(Holding::All), |world| {
        let mut asking = Client::new(world);
        asking.send_bytes(&get(10));
        let mut socket = open(world);
        socket.send_bytes(&fragmented(&[b"one", b"two"])[..10]);
        world.until("both are heard", |world| {
            asking.write(world);
            socket.write(world);
            asking.has_spoken() && socket.has_spoken()
        });
        // Any time around the ping interval and the pong timeout.
        let span = limits().ping_interval.mul_f64(world.rng.f64());
        world.pass(span);
        mail(world, HOLD);
        world.turn();
        socket.send_bytes(&fragmented(&[b"one", b"two"])[10..]);
        for _ in 0..world.rng.usize(1..40) {
            socket.step(world);
            if understand(&socket.heard).pings > 0 {
                socket.send_bytes(&control(Control::Pong, b""));
            }
            world.pass(Duration::from_secs(1));
        }
        assert!(world.protocol().closed.is_empty(), "{:?}", world.protocol().closed);
        mail(world, RELEASE);
        until(world, &mut asking, "the answer", |heard| !heard.responses.is_empty());
        let heard = until(world, &mut socket, "the echo", |heard| !heard.messages.is_empty());
        assert_eq!(heard.messages[0].1, b"onetwo");
        mail(world, RELEASE);
        world.net.close_all();
    });
}

/// A connection that is held and released at any moment, with any operation in flight, loses
/// neither bytes nor the end of its peer's side.
#[test]
fn a_hold_at_any_moment_loses_nothing() {
    let setup = Setup { buffer_bytes: 500, ..setup() };
    everywhere(&setup, serve_patiently(Holding::Never), |world| {
        let mut client = open(world);
        let payloads: Vec<_> = (0..30).map(|length| body(length * 50)).collect();
        payloads.iter().for_each(|payload| client.send_bytes(&binary(payload)));
        let toss = |world: &mut World<Server>| match world.rng.u8(0..6) {
            0 => mail(world, HOLD),
            1 => mail(world, RELEASE),
            _ => {}
        };
        world.until("everything is said", |world| {
            toss(world);
            client.step(world);
            client.has_spoken()
        });
        world.net.half_close(client.peer);
        for _ in 0..world.rng.usize(0..20) {
            toss(world);
            world.turn();
        }
        world.until("the end", |world| {
            mail(world, RELEASE);
            client.read(world);
            client.end.is_some()
        });
        let heard = understand(&client.heard);
        assert!(heard.messages.iter().map(|(_, echo)| echo).eq(&payloads), "something is lost");
    });
}

/// A pong that arrived during the hold is read before the pong timeout is checked, even if the
/// timeout expires right after the release.
#[test]
fn a_pong_that_waited_is_heard() {
    let faults = Faults { late: 40, ..Faults::none() };
    simulated(&Setup { faults, seeds: 100, ..setup() }, serve(Holding::Never), |world| {
        let mut client = open(world);
        world.until("the ping", |world| {
            client.read(world);
            understand(&client.heard).pings > 0
        });
        mail(world, HOLD);
        world.turn();
        world.net.write(client.peer, &control(Control::Pong, b""));
        let span = limits().pong_timeout.mul_f64(0.85 + 0.2 * world.rng.f64());
        world.pass(span);
        mail(world, RELEASE);
        world.pass(Duration::from_millis(500));
        assert!(world.protocol().closed.is_empty(), "{:?}", world.protocol().closed);
    });
}

/// A client that reads none of its responses is closed, although its next request is held.
#[test]
fn held_clients_take_their_answers() {
    simulated(&Setup { seeds: 8, ..setup() }, serve(Holding::Some), |world| {
        let mut client = Client::new(world);
        [30_000, 30_000, 1].iter().for_each(|&length| client.send_bytes(&get(length)));
        world.until("it is said", |world| {
            client.write(world);
            client.has_spoken()
        });
        world.pass(limits().ping_interval * 4);
        assert_eq!(world.protocol().closed_for(CloseReason::TooSlow), 1);
    });
}

/// A drain closes a held WebSocket with 1012, and a held request is answered when it is released.
#[test]
fn a_drain_ends_held_connections() {
    everywhere(&setup(), serve_patiently(Holding::All), |world| {
        let mut socket = open(world);
        let mut asking = Client::new(world);
        asking.send_bytes(&get(10));
        asking.send_bytes(&get(20));
        world.until("the first is held", |world| {
            asking.write(world);
            asking.has_spoken() && world.protocol().inner.handler().requests == 2
        });
        mail(world, RELEASE);
        until(world, &mut asking, "the first answer", |heard| heard.responses.len() == 1);
        world.until("the second is held", |world| world.protocol().inner.handler().requests == 3);
        mail(world, HOLD);
        world.post(ServeMail::Drain(Duration::from_millis(100)));
        let heard = until(world, &mut socket, "the goodbye", |heard| heard.close.is_some());
        assert_eq!(heard.close, Some(Some(CloseCode::Restart)));
        assert!(heard.goodbye.contains("retry="), "{}", heard.goodbye);
        assert_eq!(asking.end, None, "its request is held");
        mail(world, RELEASE);
        world.until("the other is answered", |world| {
            asking.step(world);
            asking.end.is_some()
        });
        let answers = understand(&asking.heard).responses;
        assert_eq!(answers[1], (200, body(20).to_vec()));
        assert_eq!(asking.end, Some(Read::End));
        world.net.close_all();
        world.until("it stops", |world| world.shard.stopped());
        assert_eq!(world.protocol().closed_for(CloseReason::Draining), 2);
    });
}

/// Peers that close while they are held leave nothing behind, whenever they are released.
#[test]
fn held_peers_may_go() {
    everywhere(&setup(), serve_patiently(Holding::All), |world| {
        let mut sockets = [open(world), open(world), open(world)];
        for socket in &mut sockets {
            socket.send_bytes(&binary(b"held"));
            socket.send_bytes(&binary(b"and more"));
        }
        world.until("all are held", |world| {
            sockets.iter_mut().for_each(|socket| socket.write(world));
            messages(world) == 3
        });
        world.net.close(sockets[0].peer);
        world.net.reset(sockets[1].peer);
        for _ in 0..world.rng.usize(0..5) {
            world.turn();
        }
        world.until("two are gone", |world| {
            mail(world, RELEASE);
            sockets[2].step(world);
            world.protocol().open.len() == 1
        });
    });
}
