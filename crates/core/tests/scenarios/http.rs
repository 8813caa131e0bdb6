//! HTTP on `Serve`.

use std::time::Duration;

use murre_core::{CloseReason, Proxies, Serve, ServeLimits, ServeMail, ShardConfig};

use crate::app::{
    App, Server, TICK, body, get, handshake, limits, post, serve, serve_patiently, setup,
    understand,
};
use crate::client::{Client, until_ended};
use crate::world::{Read, Setup, World, everywhere, everywhere_plain, simulated};

/// Steps until the client has read `count` responses, and returns them.
fn responses(world: &mut World<Server>, client: &mut Client, count: usize) -> Vec<(u16, Vec<u8>)> {
    world.until("all are answered", |world| {
        client.step(world);
        understand(&client.heard).responses.len() >= count
    });
    let responses = understand(&client.heard).responses;
    assert_eq!(responses.len(), count, "one answer for each request");
    responses
}

/// Requests with bodies, cut anywhere, are answered in order on one connection.
#[test]
fn requests_are_answered_on_one_connection() {
    everywhere(&setup(), serve_patiently, |world| {
        let mut client = Client::new(world);
        let mut expected = Vec::new();
        for _ in 0..world.rng.usize(1..8) {
            let length = world.rng.usize(0..5000);
            match world.rng.bool() {
                true => client.send_bytes(&get(length)),
                false => client.send_bytes(&post(&body(length))),
            }
            expected.push((200, body(length).to_vec()));
            if world.rng.bool() {
                responses(world, &mut client, expected.len());
            }
        }
        assert_eq!(responses(world, &mut client, expected.len()), expected);
        assert!(world.protocol().closed.is_empty(), "it is kept alive");
    });
}

/// A peer that pipelines thousands of requests for large responses and reads nothing has a bounded
/// queue; when it reads, all responses arrive.
#[test]
fn pipelining_without_reading_is_bounded() {
    const REQUESTS: usize = 1500;
    const LENGTH: usize = 5000;
    everywhere(&Setup { seeds: 4, ..setup() }, serve_patiently, |world| {
        let mut client = Client::new(world);
        (0..REQUESTS).for_each(|_| client.send_bytes(&get(LENGTH)));
        let mut most = 0;
        let mut answered = 0;
        for turn in 0.. {
            client.write(world);
            world.turn();
            most = most.max(world.shard.held().bytes);
            let sent = world.shard.counters().bytes_out.get();
            // Nothing has moved for long: reading is paused, or everything fits the kernel's
            // buffers.
            if turn % 300 == 299 && std::mem::replace(&mut answered, sent) == sent {
                break;
            }
        }
        assert!(most < 64 * 1024 + 2 * LENGTH as u64, "{most} bytes were queued");
        let whole = |client: &Client| client.heard.len() > REQUESTS * LENGTH;
        world.until("all is heard", |world| {
            client.step(world);
            whole(&client) && world.shard.held().bytes == 0
        });
        let responses = responses(world, &mut client, REQUESTS);
        assert!(responses.iter().all(|(status, got)| *status == 200 && *got == body(LENGTH)));
    });
}

/// A client that sends `Expect: 100-continue` gets `100 Continue` once.
#[test]
fn expect_100_continue() {
    everywhere(&setup(), serve_patiently, |world| {
        for _ in 0..3 {
            let mut client = Client::new(world);
            let body = body(world.rng.usize(1..3000));
            let length = body.len();
            client.send_bytes(
                format!(
                    "POST / HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\n\
                     Content-Length: {length}\r\n\r\n"
                )
                .as_bytes(),
            );
            assert_eq!(responses(world, &mut client, 1), [(100, Vec::new())]);
            client.send_bytes(&body);
            let responses = responses(world, &mut client, 2);
            assert_eq!(responses[1], (200, body.to_vec()));
        }
    });
}

/// A bad request gets its error status and the end of the connection, whatever the client sends
/// after it.
#[test]
fn bad_requests_are_refused_and_closed() {
    everywhere(&setup(), serve_patiently, |world| {
        let cases: [(&[u8], u16); 4] = [
            (b"nonsense\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 99999999\r\n\r\n", 413),
            (b"GET / HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        ];
        for (request, expected) in cases {
            let mut client = Client::new(world);
            client.send_bytes(request);
            client.send_bytes(&get(10));
            world.until("it is over", |world| {
                client.step(world);
                client.end.is_some()
            });
            let understood = understand(&client.heard);
            let statuses: Vec<u16> =
                understood.responses.iter().map(|&(status, _)| status).collect();
            assert_eq!(statuses, [expected], "{}", request.escape_ascii());
            assert_eq!(client.end, Some(Read::End));
            world.net.close(client.peer);
        }
        world.until("all are counted", |world| {
            world.protocol().closed_for(CloseReason::BadRequest) == cases.len()
        });
    });
}

/// A connection with `Connection: close` ends after the response, and so does one of HTTP/1.0.
#[test]
fn connection_close_is_obeyed() {
    everywhere(&setup(), serve_patiently, |world| {
        let requests = [
            "GET /n?length=9000 HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n",
            "GET /n?length=9000 HTTP/1.0\r\n\r\n",
        ];
        for request in requests {
            let mut client = Client::new(world);
            client.send_bytes(request.as_bytes());
            world.until("it is over", |world| {
                client.step(world);
                client.end.is_some()
            });
            assert_eq!(understand(&client.heard).responses, [(200, body(9000).to_vec())]);
            assert_eq!(client.end, Some(Read::End));
        }
    });
}

/// A request that arrives too slowly gets a 408; a connection without a request closes without a
/// response.
#[test]
fn slow_requests_are_given_up() {
    simulated(&setup(), serve, |world| {
        let (mut slow, mut silent) = (Client::new(world), Client::new(world));
        let started = world.net.now();
        let request = get(10);
        let mut at = 0;
        while slow.end.is_none() || silent.end.is_none() {
            // One byte every 150 ms: the whole request would take seven seconds.
            if at < request.len() && slow.end.is_none() {
                at += world.net.write(slow.peer, &request[at..at + 1]);
            }
            world.pass(Duration::from_millis(150));
            slow.read(world);
            silent.read(world);
            let passed = world.net.now() - started;
            let patience = limits().handshake_timeout + Duration::from_secs(1);
            assert!(passed < patience, "it goes on for {passed:?}");
        }
        assert!(world.net.now() - started >= limits().handshake_timeout, "it was early");
        let statuses: Vec<u16> =
            understand(&slow.heard).responses.iter().map(|&(status, _)| status).collect();
        assert_eq!(statuses, [408]);
        assert!(silent.heard.is_empty());
        world.pass(Duration::from_secs(3));
        assert_eq!(world.protocol().closed_for(CloseReason::HandshakeTimeout), 2);
    });
}

/// A head has one time limit whatever precedes it: empty lines that arrive byte by byte, or a PROXY
/// protocol header. The limit starts with the connection, or with the first byte after a response.
#[test]
fn nothing_puts_a_deadline_off() {
    const EMPTY: [&str; 8] = ["\r", "\n", "\r", "\n", "\r", "\n", "\r", "\n"];
    const HEADER: [&str; 8] = ["PROXY UNKNOWN\r\n", "\r", "\n", "G", "E", "T", " ", "/"];
    let plain = ServeLimits::default().proxies;
    let proxied = Proxies {
        networks: ["198.18.0.0/15".parse().expect("valid")].into(),
        header: true,
        ..Proxies::default()
    };
    for (proxies, answered, pieces) in
        [(&plain, false, EMPTY), (&plain, true, EMPTY), (&proxied, false, HEADER)]
    {
        let limits = ServeLimits { proxies: proxies.clone(), ..limits() };
        let serve = || Serve::new(App::default(), limits.clone());
        simulated(&Setup { seeds: 8, ..setup() }, serve, |world| {
            let mut client = Client::new(world);
            world.until("it is open", |world| world.shard.counters().open.get() == 1);
            if answered {
                client.send_bytes(&get(10));
                responses(world, &mut client, 1);
            }
            let started = world.net.now();
            // The time limit of the first request is running already.
            let silent = if answered { 0 } else { 2 };
            let late = limits.handshake_timeout + Duration::from_millis(500);
            for step in 0.. {
                if step % 4 == 0 && step / 4 >= silent {
                    let piece = pieces.get(step / 4 - silent).copied().unwrap_or_default();
                    world.net.write(client.peer, piece.as_bytes());
                }
                world.pass(Duration::from_millis(100));
                client.read(world);
                if client.end.is_some() {
                    break;
                }
                assert!(world.net.now() - started < late, "its deadline is put off");
            }
            assert!(world.net.now() - started >= limits.handshake_timeout, "it was early");
        });
    }
}

/// A half-sent request keeps its time limit while its client reads earlier responses, and does not
/// get the idle time instead.
#[test]
fn a_half_sent_request_keeps_its_deadline() {
    let setup = Setup { socket_bytes: 1000, seeds: 8, ..setup() };
    simulated(&setup, serve, |world| {
        let mut client = Client::new(world);
        client.send_bytes(&get(5000));
        client.send_bytes(&get(10)[..20]);
        world.until("half of it has arrived", |world| {
            client.write(world);
            client.has_spoken() && world.shard.held().tails == 1
        });
        let started = world.net.now();
        world.until("the answer is taken", |world| {
            client.read(world);
            world.shard.held().bytes == 0
        });
        assert!(world.net.now() - started < limits().handshake_timeout, "it is in time");
        while client.end.is_none() {
            world.pass(TICK);
            (0..100).for_each(|_| client.read(world));
            let passed = world.net.now() - started;
            let late = limits().handshake_timeout + Duration::from_millis(500);
            assert!(
                passed < late && late < limits().http_idle_timeout,
                "it goes on for {passed:?}"
            );
        }
        let statuses: Vec<u16> =
            understand(&client.heard).responses.iter().map(|&(status, _)| status).collect();
        assert_eq!(statuses, [200, 408]);
    });
}

/// A body at the lowest rate arrives whole, although it takes longer than a head may; a body at
/// half of that rate gets a 408.
#[test]
fn bodies_have_a_least_speed() {
    const BYTES: usize = 5000;
    for (per_second, status) in [(limits().min_bytes_per_second as usize, 200), (500, 408)] {
        simulated(&Setup { seeds: 8, ..setup() }, serve, |world| {
            let mut client = Client::new(world);
            for piece in post(&body(BYTES)).chunks(per_second / 4) {
                client.send_bytes(piece);
                world.until("it is said", |world| {
                    client.step(world);
                    client.has_spoken() || client.end.is_some()
                });
                world.pass(Duration::from_millis(250));
            }
            let answers = responses(world, &mut client, 1);
            assert_eq!(answers[0].0, status);
        });
    }
}

/// A request that arrived while the machine stood still is not late.
#[test]
fn a_standstill_is_nobodys_slowness() {
    simulated(&setup(), serve, |world| {
        let mut client = Client::new(world);
        let request = get(10);
        client.send_bytes(&request[..20]);
        world.until("half of it has arrived", |world| {
            client.write(world);
            world.shard.held().tails == 1 && client.has_spoken()
        });
        client.send_bytes(&request[20..]);
        while !client.has_spoken() {
            client.write(world);
        }
        world.net.suspend(limits().handshake_timeout * 5);
        assert_eq!(responses(world, &mut client, 1), [(200, body(10).to_vec())]);
    });
}

/// A kept connection without requests closes after the idle time, not before; each request restarts
/// it.
#[test]
fn idle_connections_are_closed() {
    simulated(&setup(), serve, |world| {
        let mut client = Client::new(world);
        for count in 1..=3 {
            client.send_bytes(&get(10));
            responses(world, &mut client, count);
            world.pass(limits().http_idle_timeout - Duration::from_millis(500));
            client.read(world);
            assert_eq!(client.end, None, "it was early");
        }
        world.pass(Duration::from_millis(500) + 2 * TICK);
        client.read(world);
        assert_eq!(client.end, Some(Read::End));
        world.net.close(client.peer);
        world.pass(TICK);
        assert_eq!(world.protocol().closed_for(CloseReason::IdleTimeout), 1);
    });
}

/// A peer that sends requests and never reads is closed like an idle one: queued bytes do not keep
/// it open.
#[test]
fn whoever_never_reads_is_given_up() {
    simulated(&setup(), serve, |world| {
        let mut client = Client::new(world);
        (0..200).for_each(|_| client.send_bytes(&get(5000)));
        world.until("it is paused", |world| {
            client.write(world);
            world.shard.counters().paused.get() > 0
        });
        world.pass(2 * limits().http_idle_timeout + Duration::from_secs(2));
        assert_eq!(world.protocol().closed_for(CloseReason::TooSlow), 1);
    });
}

/// A client that reads a large response slowly, over many times the idle time, gets all of it.
#[test]
fn a_slow_download_is_not_idle() {
    const LENGTH: usize = 60_000;
    simulated(&setup(), serve, |world| {
        let mut client = Client::new(world);
        client.send_bytes(&get(LENGTH));
        world.until("it is asked", |world| {
            client.write(world);
            world.shard.outbox().live() > 0 && world.shard.held().bytes > 0
        });
        while understand(&client.heard).responses.is_empty() {
            match world.net.read(client.peer, 5000) {
                Read::Bytes(bytes) => client.heard.extend(bytes),
                other => assert_eq!(other, Read::Nothing, "{} bytes came", client.heard.len()),
            }
            world.pass(limits().http_idle_timeout / 2);
        }
        assert_eq!(understand(&client.heard).responses, [(200, body(LENGTH).to_vec())]);
    });
}

/// The same on a connection that ends with the response, which may take many times the linger time.
#[test]
fn a_slow_download_is_not_lingering() {
    const LENGTH: usize = 60_000;
    simulated(&setup(), serve, |world| {
        let mut client = Client::new(world);
        let close = "GET /n?length=60000 HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n";
        client.send_bytes(close.as_bytes());
        world.until("it is asked", |world| {
            client.write(world);
            world.shard.held().bytes > 0
        });
        while understand(&client.heard).responses.is_empty() {
            match world.net.read(client.peer, 5000) {
                Read::Bytes(bytes) => client.heard.extend(bytes),
                other => assert_eq!(other, Read::Nothing, "{} bytes came", client.heard.len()),
            }
            world.pass(setup().shard.linger / 2);
        }
        assert_eq!(understand(&client.heard).responses, [(200, body(LENGTH).to_vec())]);
    });
}

/// Responses many times as large as the queue limit arrive whole and in order, with small ones
/// between them, and a client that pipelines their requests is not a slow consumer.
#[test]
fn large_answers_keep_their_order() {
    let shard = ShardConfig { max_send_bytes: 500, ..setup().shard };
    everywhere(&Setup { shard, seeds: 20, ..setup() }, serve_patiently, |world| {
        let mut client = Client::new(world);
        let lengths = [100, 300, 40_000, 1, 16_384, 16_383, 50_000, 7];
        lengths.iter().for_each(|&length| client.send_bytes(&get(length)));
        let expected: Vec<_> = lengths.iter().map(|&length| (200, body(length).to_vec())).collect();
        assert_eq!(responses(world, &mut client, lengths.len()), expected);
        assert!(world.protocol().closed.is_empty(), "it is kept alive");
    });
}

/// A drain answers the arriving requests with `Connection: close`, and closes idle connections.
#[test]
fn a_drain_answers_what_is_arriving() {
    everywhere_plain(&setup(), serve_patiently, |world| {
        let (mut idle, mut asking) = (Client::new(world), Client::new(world));
        idle.send_bytes(&get(5));
        responses(world, &mut idle, 1);
        let request = post(b"the rest comes later");
        let half = world.rng.usize(1..request.len());
        asking.send_bytes(&request[..half]);
        world.until("half of it has arrived", |world| {
            asking.write(world);
            let arrived = world.shard.counters().bytes_in.get() as usize;
            arrived == get(5).len() + half && world.shard.held().tails == 1
        });
        world.post(ServeMail::Drain(Duration::from_millis(100)));
        world.until("the idle one is sent away", |world| {
            idle.read(world);
            idle.end.is_some()
        });
        asking.send_bytes(&request[half..]);
        world.until("the other one is, too", |world| {
            asking.step(world);
            asking.end.is_some()
        });
        let answers = understand(&asking.heard).responses;
        assert_eq!(answers, [(200, b"the rest comes later".to_vec())]);
        world.net.close_all();
        world.until("it stops", |world| world.shard.stopped());
        assert_eq!(world.protocol().closed_for(CloseReason::Draining), 2);
    });
}

/// A connection that had just arrived when the drain began gets a response, although the drain has
/// passed its slot; a handshake is refused with `Retry-After`.
#[test]
fn a_drain_answers_who_has_just_come() {
    everywhere(&setup(), serve_patiently, |world| {
        let mut clients: Vec<Client> = (0..3).map(|_| Client::new(world)).collect();
        clients[0].send_bytes(&get(5));
        responses(world, &mut clients[0], 1);
        world.until("all are there", |world| world.shard.counters().open.get() == 3);
        world.post(ServeMail::Drain(Duration::ZERO));
        until_ended(world, &mut clients[..1]);
        clients[1].send_bytes(&get(7));
        clients[2].send_bytes(&handshake("/ws"));
        until_ended(world, &mut clients);
        assert!(clients.iter().all(|client| client.end == Some(Read::End)));
        let answers = [1, 2].map(|at| understand(&clients[at].heard).responses);
        assert_eq!(answers[0], [(200, body(7).to_vec())]);
        assert_eq!(answers[1], [(503, b"going away\n".to_vec())]);
        let heads = [1, 2].map(|at| String::from_utf8_lossy(&clients[at].heard).into_owned());
        assert!(heads.iter().all(|head| head.contains("\r\nConnection: close\r\n")), "{heads:?}");
        assert!(heads[1].contains("\r\nRetry-After: "), "{heads:?}");
    });
}
