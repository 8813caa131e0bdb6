//! WebSocket on `Serve`.

use std::time::Duration;

use bytes::Bytes;
use murre_codec::{CloseCode, Control, Data, Kind, OpCode};
use murre_core::{CloseReason, Serve, ServeLimits, ServeMail, ShardConfig};

use crate::app::{
    App, Server, TICK, body, close, control, fragmented, get, handshake, limits, said, serve,
    serve_patiently, setup, text, understand,
};
use crate::client::{Client, until, until_ended};
use crate::world::{PATIENCE, Read, Setup, World, everywhere, simulated};

fn open(world: &mut World<Server>) -> Client {
    let mut client = Client::new(world);
    client.send_bytes(&handshake("/ws"));
    let understood =
        until(world, &mut client, "the handshake", |heard| !heard.responses.is_empty());
    assert_eq!(understood.responses[0].0, 101);
    client
}

/// Messages of any size, whole, in fragments, and between pings, come back whole and in order,
/// however the stream is cut, even between the handshake and the first frame.
#[test]
fn messages_come_back_whole_and_in_order() {
    everywhere(&Setup { seeds: 60, ..setup() }, serve_patiently, |world| {
        let mut client = Client::new(world);
        client.send_bytes(&handshake("/ws"));
        let (mut messages, mut pongs) = (Vec::new(), Vec::new());
        for number in 0..world.rng.usize(1..12) {
            let payload: Vec<u8> =
                (0..world.rng.usize(0..8000)).map(|_| world.rng.u8(..)).collect();
            match world.rng.u8(0..4) {
                0 => {
                    let ascii: String = payload.iter().map(|&byte| char::from(byte)).collect();
                    client.send_bytes(&text(&ascii));
                    messages.push((Kind::Text, ascii.into_bytes()));
                }
                1 => {
                    client.send_bytes(&said(OpCode::Data(Data::Binary), &payload));
                    messages.push((Kind::Binary, payload));
                }
                2 => {
                    let (one, rest) = payload.split_at(world.rng.usize(0..=payload.len()));
                    let (two, three) = rest.split_at(world.rng.usize(0..=rest.len()));
                    client.send_bytes(&fragmented(&[one, b"", two, three]));
                    messages.push((Kind::Binary, payload));
                }
                _ => {
                    let payload = [number as u8; 20];
                    client.send_bytes(&control(Control::Ping, &payload));
                    client.send_bytes(&control(Control::Pong, b"nobody asked"));
                    pongs.push(payload.to_vec());
                }
            }
        }
        let heard = until(world, &mut client, "all come back", |heard| {
            heard.messages.len() == messages.len() && heard.pongs.len() == pongs.len()
        });
        assert_eq!(heard.messages, messages);
        assert_eq!(heard.pongs, pongs);
        assert_eq!(world.protocol().inner.counters().messages.get(), messages.len() as u64);
    });
}

/// A ping inside a fragmented message is answered before the message is complete.
#[test]
fn a_ping_between_fragments_is_answered() {
    everywhere(&setup(), serve_patiently, |world| {
        let mut client = open(world);
        let mut frames = fragmented(&[b"first", b"second"]);
        let second = frames.split_off(frames.len() - (2 + 4 + 6));
        client.send_bytes(&frames);
        client.send_bytes(&control(Control::Ping, b"?"));
        until(world, &mut client, "the pong", |heard| heard.pongs == [b"?".to_vec()]);
        client.send_bytes(&second);
        let heard = until(world, &mut client, "the message", |heard| !heard.messages.is_empty());
        assert_eq!(heard.messages, [(Kind::Binary, b"firstsecond".to_vec())]);
    });
}

/// Either side can close: the other's close frame has the same code, and then the stream ends.
#[test]
fn the_close_handshake() {
    everywhere(&setup(), serve_patiently, |world| {
        let mut ours = open(world);
        ours.send_bytes(&text("close"));
        let mut theirs = open(world);
        theirs.send_bytes(&close(CloseCode::Away));
        theirs.send_bytes(&text("too late"));
        let mut wordless = open(world);
        wordless.send_bytes(&control(Control::Close, b""));
        let expected = [Some(CloseCode::Normal), Some(CloseCode::Away), None];
        for (mut client, code) in [ours, theirs, wordless].into_iter().zip(expected) {
            let heard = until(world, &mut client, "the close", |heard| heard.close.is_some());
            assert_eq!(heard.close, Some(code));
            assert!(heard.messages.is_empty());
            world.until("the end", |world| {
                client.read(world);
                client.end.is_some()
            });
            assert_eq!(client.end, Some(Read::End));
            world.net.close(client.peer);
        }
        world.until("all are told", |world| world.protocol().inner.handler().closed.len() == 3);
        let handler = world.protocol().inner.handler();
        assert!(handler.open.is_empty());
        assert!(handler.closed.iter().all(|&reason| reason == CloseReason::Finished));
    });
}

/// A peer that breaks a rule gets the close code of that rule, and no later input is passed on.
#[test]
fn violations_have_their_codes() {
    everywhere(&setup(), serve_patiently, |world| {
        let mut unmasked = text("hello");
        unmasked[1] &= 0x7F;
        let mut reserved = text("hello");
        reserved[0] |= 0x40;
        let cases = [
            (unmasked, CloseCode::Protocol),
            (reserved, CloseCode::Protocol),
            (said(OpCode::Data(Data::Continue), b"of nothing"), CloseCode::Protocol),
            (said(OpCode::Data(Data::Text), b"\xFF\xFE"), CloseCode::Invalid),
            (said(OpCode::Data(Data::Binary), &[0; 100_001]), CloseCode::Size),
            (said(OpCode::Control(Control::Close), &[0]), CloseCode::Protocol),
        ];
        for (number, (frame, code)) in cases.iter().enumerate() {
            let mut client = open(world);
            client.send_bytes(&text("before"));
            client.send_bytes(frame);
            client.send_bytes(&text("after"));
            let heard = until(world, &mut client, "the close", |heard| heard.close.is_some());
            assert_eq!(heard.close, Some(Some(*code)), "case {number}");
            assert_eq!(heard.messages, [(Kind::Text, b"before".to_vec())], "case {number}");
            world.net.close(client.peer);
        }
        world.until("all are counted", |world| {
            world.protocol().closed_for(CloseReason::BadFrame) == cases.len()
        });
    });
}

/// A refused upgrade gets a response, with which the connection ends: nothing behind it is a request.
#[test]
fn a_refused_upgrade_is_the_last_answer() {
    everywhere(&setup(), serve_patiently, |world| {
        let mut clients = [Client::new(world)];
        clients[0].send_bytes(&handshake("/refused"));
        clients[0].send_bytes(&get(3));
        clients[0].send_bytes(&handshake("/ws"));
        until_ended(world, &mut clients);
        let responses = understand(&clients[0].heard).responses;
        let statuses: Vec<u16> = responses.iter().map(|&(status, _)| status).collect();
        assert_eq!(statuses, [403]);
        let counters = world.protocol().inner.counters();
        assert_eq!((counters.upgrades_refused.get(), counters.websockets_open.get()), (1, 0));
    });
}

/// Mail reaches all WebSockets, in order, as one shared frame.
#[test]
fn mail_is_published() {
    everywhere(&setup(), serve_patiently, |world| {
        let mut clients: Vec<Client> = (0..8).map(|_| open(world)).collect();
        let expected: Vec<_> =
            (0..20).map(|number| (Kind::Text, format!("number {number}").into_bytes())).collect();
        for (_, message) in &expected {
            world.post(ServeMail::App(Bytes::from(message.clone())));
            if world.rng.bool() {
                world.turn();
            }
        }
        for client in &mut clients {
            let heard = until(world, client, "all of it", |heard| heard.messages.len() == 20);
            assert_eq!(heard.messages, expected);
        }
    });
}

/// The shard stops reading a peer that sends and does not read, and the bytes queued for it are
/// bounded.
#[test]
fn echoes_without_reading_are_bounded() {
    everywhere(&Setup { seeds: 6, ..setup() }, serve_patiently, |world| {
        let mut client = open(world);
        let message = "m".repeat(5000);
        (0..300).for_each(|_| client.send_bytes(&text(&message)));
        let mut most = 0;
        for _ in 0..500 {
            client.write(world);
            world.turn();
            most = most.max(world.shard.held().bytes);
        }
        assert!(most < 64 * 1024 + 2 * 5000, "{most} bytes were queued");
        world.until("all is heard", |world| {
            client.step(world);
            client.heard.len() > 5000 * 300 && world.shard.held().bytes == 0
        });
        let heard = until(world, &mut client, "all come back", |heard| heard.messages.len() == 300);
        assert!(heard.messages.iter().all(|(_, bytes)| bytes == message.as_bytes()));
    });
}

/// A silent peer is pinged after the ping interval. It stays while it answers, and is closed when
/// it does not.
#[test]
fn silent_peers_are_pinged_then_given_up() {
    simulated(&setup(), serve, |world| {
        let mut client = open(world);
        let mut answered = 0;
        for _ in 0..60 {
            world.pass(Duration::from_secs(1));
            (0..4).for_each(|_| client.read(world));
            let pings = understand(&client.heard).pings;
            for _ in answered..pings {
                client.send_bytes(&control(Control::Pong, b""));
            }
            answered = pings;
            while !client.has_spoken() {
                client.write(world);
            }
        }
        assert!(world.protocol().closed.is_empty(), "it was alive");
        // The interval of eight seconds plus the second in which the peer answers.
        assert!((5..=9).contains(&answered), "{answered} pings in a minute");
        world.pass(limits().ping_interval + limits().pong_timeout + 4 * TICK);
        assert_eq!(world.protocol().closed_for(CloseReason::IdleTimeout), 1);
        assert_eq!(world.protocol().inner.handler().closed, [CloseReason::IdleTimeout]);
    });
}

/// After the machine has stood still for longer than a peer may be silent, a peer that has answered
/// meanwhile stays, and a peer that has not is closed.
#[test]
fn time_that_was_lost_is_not_taken_from_peers() {
    for answers in [true, false] {
        simulated(&setup(), serve, |world| {
            let mut client = open(world);
            world.until("it is pinged", |world| {
                world.pass(TICK);
                client.read(world);
                understand(&client.heard).pings > 0
            });
            if answers {
                client.send_bytes(&control(Control::Pong, b""));
            }
            while !client.has_spoken() {
                client.write(world);
            }
            world.net.suspend(limits().pong_timeout * 10);
            world.pass(limits().pong_timeout);
            let gone = world.protocol().closed_for(CloseReason::IdleTimeout);
            assert_eq!(gone, usize::from(!answers));
        });
    }
}

/// WebSockets opened together are not all pinged together.
#[test]
fn pings_are_spread() {
    simulated(&Setup { seeds: 4, ..setup() }, serve, |world| {
        let _clients: Vec<Client> = (0..50).map(|_| open(world)).collect();
        let counters = world.protocol().inner.counters();
        let mut most = 0;
        for _ in 0..100 {
            let before = counters.pings.get();
            world.pass(TICK);
            most = most.max(counters.pings.get() - before);
        }
        assert!(counters.pings.get() >= 50, "{} pings", counters.pings.get());
        assert!(most <= 10, "{most} pings in one tick");
    });
}

/// A vanished peer is closed like a silent one, whatever is queued for it.
#[test]
fn vanished_peers_are_given_up() {
    simulated(&setup(), serve, |world| {
        let mut client = open(world);
        client.send_bytes(&text(&"x".repeat(30_000)));
        world.until("it is said", |world| {
            client.write(world);
            client.has_spoken()
        });
        world.net.vanish(client.peer);
        world.post(ServeMail::App(Bytes::from(vec![b'y'; 50_000])));
        world.pass(limits().ping_interval + limits().pong_timeout + 4 * TICK);
        assert_eq!(world.protocol().closed_for(CloseReason::IdleTimeout), 1);
    });
}

/// A drain sends 1012 to all WebSockets, each with its own time to reconnect.
#[test]
fn a_drain_says_when_to_come_back() {
    // The shard closes them one after the other, and none by a time limit.
    let shard = ShardConfig { linger: PATIENCE, ..setup().shard };
    everywhere(&Setup { shard, ..setup() }, serve_patiently, |world| {
        let mut clients: Vec<Client> = (0..10).map(|_| open(world)).collect();
        world.post(ServeMail::Drain(Duration::from_millis(100)));
        let mut told = [0; 6];
        for client in &mut clients {
            let heard = until(world, client, "the goodbye", |heard| heard.close.is_some());
            assert_eq!(heard.close, Some(Some(CloseCode::Restart)));
            let retry = heard.goodbye.strip_prefix("service restart, retry=");
            let retry: usize = retry.and_then(|digits| digits.parse().ok()).expect("a hint");
            told[retry] += 1;
            client.send_bytes(&close(CloseCode::Restart));
            world.until("the end", |world| {
                client.step(world);
                client.end.is_some()
            });
            world.net.close(client.peer);
        }
        assert!(told[0] == 0 && told.iter().all(|&of_ten| of_ten < 10), "{told:?} for 0 to 5 s");
        world.until("it stops", |world| world.shard.stopped());
        let reasons = &world.protocol().closed;
        assert_eq!(world.protocol().closed_for(CloseReason::Draining), 10, "{reasons:?}");
        assert_eq!(world.protocol().inner.counters().websockets_open.get(), 0);
    });
}

/// The queue has room for a message of any size to a peer that is not congested, and for a close
/// frame after it: however low the bound is, neither makes a slow consumer of a client that reads.
#[test]
fn a_goodbye_fits_behind_any_message() {
    let shard = ShardConfig { max_send_bytes: 500, ..setup().shard };
    everywhere(&Setup { shard, seeds: 20, ..setup() }, serve_patiently, |world| {
        let mut client = open(world);
        client.send_bytes(&said(OpCode::Data(Data::Binary), &body(90_000)));
        world.until("it is echoed", |world| {
            client.write(world);
            world.protocol().inner.handler().messages == 1
        });
        world.post(ServeMail::Drain(Duration::ZERO));
        let heard = until(world, &mut client, "the goodbye", |heard| heard.close.is_some());
        assert_eq!(heard.close, Some(Some(CloseCode::Restart)));
        assert_eq!(heard.messages.len(), 1, "what was queued came first");
        world.net.close(client.peer);
        world.until("it is over", |world| world.protocol().closed.len() == 1);
        assert_eq!(world.protocol().closed_for(CloseReason::Draining), 1);
    });
}

/// A server with `change` applied to its usual limits.
fn limited(change: impl Fn(&mut ServeLimits)) -> impl Fn() -> Server {
    move || {
        let mut limits = ServeLimits { handshake_timeout: Duration::from_secs(10), ..limits() };
        change(&mut limits);
        Serve::new(App::default(), limits)
    }
}

/// Sends these bytes, and returns the code of the close frame.
fn closed_with(world: &mut World<Server>, client: &mut Client, said: &[u8]) -> Option<CloseCode> {
    client.send_bytes(said);
    until(world, client, "the close", |heard| heard.close.is_some()).close.flatten()
}

/// A message may have a limited number of frames: pings between them do not count, empty frames do.
#[test]
fn fragments_are_bounded() {
    let serve = limited(|limits| limits.max_fragments = 5);
    everywhere(&setup(), serve, |world| {
        let mut client = open(world);
        let mut whole = fragmented(&[b"1", b"", b"3", b"", b"5"]);
        // After the first frame, which has one byte of payload.
        whole.splice(7..7, control(Control::Ping, b""));
        client.send_bytes(&whole);
        client.send_bytes(&whole);
        let heard = until(world, &mut client, "both", |heard| heard.messages.len() == 2);
        assert_eq!(heard.messages[1], (Kind::Binary, b"135".to_vec()));
        let endless = fragmented(&[b"1", b"", b"", b"", b"", b"", b"7"]);
        assert_eq!(closed_with(world, &mut client, &endless), Some(CloseCode::Policy));
        world.net.close(client.peer);
        world.until("it is counted", |world| {
            world.protocol().closed_for(CloseReason::TooManyFragments) == 1
        });
    });
}

/// A limited number of pings and pongs is allowed within a second; those of another second do not
/// count.
#[test]
fn pings_are_bounded() {
    let serve = limited(|limits| limits.max_pings_per_second = 5);
    simulated(&setup(), serve, |world| {
        let mut client = open(world);
        for _ in 0..10 {
            (0..5).for_each(|_| client.send_bytes(&control(Control::Ping, b"?")));
            world.until("they are said", |world| {
                client.step(world);
                client.has_spoken()
            });
            world.pass(Duration::from_secs(1));
        }
        let heard = until(world, &mut client, "the pongs", |heard| heard.pongs.len() == 50);
        assert_eq!(heard.close, None);
        let many = control(Control::Pong, b"!").repeat(11);
        assert_eq!(closed_with(world, &mut client, &many), Some(CloseCode::Policy));
        world.net.close(client.peer);
        world.until("it is counted", |world| {
            world.protocol().closed_for(CloseReason::TooManyPings) == 1
        });
    });
}

/// A message at the lowest rate, with pings between, arrives whole. A message at half of that rate
/// does not, whatever else its peer sends.
#[test]
fn messages_have_a_least_speed() {
    let serve = limited(|limits| limits.handshake_timeout = Duration::from_secs(2));
    for (per_second, comes) in [(1000, true), (500, false)] {
        simulated(&Setup { seeds: 8, ..setup() }, &serve, |world| {
            let mut client = open(world);
            let message = body(20_000);
            let frames = fragmented(&message.chunks(per_second).collect::<Vec<_>>());
            for frame in frames.chunks(frames.len() * per_second / message.len()) {
                client.send_bytes(frame);
                client.send_bytes(&control(Control::Ping, b""));
                world.until("it is said", |world| {
                    client.step(world);
                    client.has_spoken() || client.end.is_some()
                });
                // A client that was closed must read the close frame before it sends more.
                for _ in 0..10 {
                    world.pass(TICK);
                    client.read(world);
                }
            }
            let heard = until(world, &mut client, "the outcome", |heard| {
                heard.close.is_some() || !heard.messages.is_empty()
            });
            let close = (!comes).then_some(Some(CloseCode::Policy));
            assert_eq!((heard.messages.len(), heard.close), (usize::from(comes), close));
            world.net.close(client.peer);
            world.until("it is gone", |world| world.protocol().closed.len() == 1);
            assert_eq!(world.protocol().closed_for(CloseReason::TooSlow), usize::from(!comes));
        });
    }
}

/// A peer that keeps sending and takes none of its queued bytes is closed; a peer that takes a
/// little now and then is not.
#[test]
fn who_takes_nothing_is_closed() {
    for takes in [true, false] {
        simulated(&Setup { seeds: 8, ..setup() }, limited(|_| {}), |world| {
            let mut client = open(world);
            world.post(ServeMail::App(body(60_000)));
            for _ in 0..50 {
                client.send_bytes(&control(Control::Pong, b""));
                world.until("it is said", |world| {
                    client.write(world);
                    client.has_spoken() || !world.protocol().closed.is_empty()
                });
                if takes {
                    let _ = world.net.read(client.peer, 500);
                }
                world.pass(Duration::from_secs(1));
            }
            let closed = world.protocol().closed_for(CloseReason::TooSlow);
            assert_eq!(closed, usize::from(!takes));
            assert_eq!(world.protocol().closed.len(), closed);
        });
    }
}
