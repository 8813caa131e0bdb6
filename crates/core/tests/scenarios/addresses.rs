//! Limits per client address.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use murre_core::ring::sim::Faults;
use murre_core::{
    AddressLimits, Addresses, CloseReason, Excess, Proxies, Serve, ServeLimits, ServeMail,
    ShardConfig,
};

use crate::app::{App, Server, body, get, handshake, serve, setup, text, understand};
use crate::client::{Client, until_ended};
use crate::world::{Setup, World, everywhere, simulated};

/// The limits count over all seeds, as they do over the shards of a server: each seed uses its own
/// addresses, and must leave no count behind.
fn limited(limits: AddressLimits) -> Setup {
    let addresses = Arc::new(Addresses::new(limits));
    Setup { shard: ShardConfig { addresses, ..setup().shard }, ..setup() }
}

/// A random public address, which no other seed uses with near certainty.
fn somewhere(world: &mut World<Server>) -> IpAddr {
    Ipv4Addr::from_bits(0x0B00_0000 | world.rng.u32(0..1 << 24)).into()
}

/// Opens `count` connections from one address, each with a request.
fn clients(world: &mut World<Server>, ip: IpAddr, count: usize) -> Vec<Client> {
    let connect = |_| Client::of(world.net.connect_from((ip, 7).into()).expect("it listens"));
    let mut clients: Vec<_> = (0..count).map(connect).collect();
    clients.iter_mut().for_each(|client| client.send_bytes(&get(10)));
    clients
}

/// Waits until each client has a response or the end. Returns how many clients got the status
/// `wanted`, or for `None` how many got the end without a response.
fn answered(world: &mut World<Server>, clients: &mut [Client], wanted: Option<u16>) -> usize {
    let status =
        |client: &Client| understand(&client.heard).responses.first().map(|&(status, _)| status);
    world.until("all are answered", |world| {
        clients.iter_mut().for_each(|client| client.step(world));
        clients.iter().all(|client| status(client).is_some() || client.end.is_some())
    });
    clients.iter().filter(|client| status(client) == wanted).count()
}

fn refused(world: &World<Server>, excess: Excess) -> u64 {
    world.shard.counters().refused[excess as usize].get()
}

/// The shard serves as many connections of one address as the limit allows. It answers some of the
/// others with an error and aborts the rest. Another address is served meanwhile, and a connection
/// that closes makes room for the next.
#[test]
fn connections_per_address_are_bounded() {
    let limits = AddressLimits { max_conns_per_address: Some(3), ..AddressLimits::default() };
    simulated(&limited(limits), serve, |world| {
        let [ip, other] = [(); 2].map(|()| somewhere(world));
        let mut greedy = clients(world, ip, 25);
        let mut modest = clients(world, other, 1);
        assert_eq!(answered(world, &mut modest, Some(200)), 1);
        assert_eq!(answered(world, &mut greedy, Some(200)), 3);
        assert_eq!(answered(world, &mut greedy, Some(429)), 16);
        assert_eq!(answered(world, &mut greedy, None), 6);
        assert_eq!(refused(world, Excess::Connections), 16);
        assert_eq!(refused(world, Excess::Flood), 6);
        greedy.iter().for_each(|client| world.net.close(client.peer));
        world.until("they are gone", |world| world.protocol().open.len() == 1);
        assert_eq!(world.protocol().closed_for(CloseReason::Refused), 22);
        let mut again = clients(world, ip, 1);
        assert_eq!(answered(world, &mut again, Some(200)), 1);
    });
}

/// On a connection that exceeds the limit of its address, a health check is answered, in however
/// many pieces it arrives, and the connection then ends. Any other request is refused, also with a
/// body still on its way, and so is a connection without a request.
#[test]
fn a_check_of_health_is_answered_all_the_same() {
    let limits = AddressLimits { max_conns_per_address: Some(1), ..AddressLimits::default() };
    let health = b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n".to_vec();
    simulated(&limited(limits), serve, |world| {
        let ip = somewhere(world);
        let mut first = clients(world, ip, 1);
        assert_eq!(answered(world, &mut first, Some(200)), 1);
        for (said, status) in [
            (health.clone(), 200),
            ([health.clone(), health.clone()].concat(), 200),
            (get(10), 429),
            (handshake("/ws"), 429),
            (handshake("/health"), 429),
            (b"POST /health HTTP/1.1\r\nHost: m\r\nContent-Length: 5\r\n\r\n12".to_vec(), 429),
            (b"GET /health HTTP/1.1\r\n".to_vec(), 429),
            (b"?? ??\r\n\r\n".to_vec(), 400),
            (Vec::new(), 429),
        ] {
            let connected = world.net.connect_from((ip, 7).into()).expect("it listens");
            let mut more = [Client::of(connected)];
            let started = world.net.now();
            more[0].send_bytes(&said);
            until_ended(world, &mut more);
            let responses = understand(&more[0].heard).responses;
            let statuses: Vec<u16> = responses.iter().map(|&(status, _)| status).collect();
            assert_eq!(statuses, [status], "{}", said.escape_ascii());
            assert!(world.net.now() - started < Duration::from_secs(3));
            world.net.close(more[0].peer);
            world.until("it is gone", |world| world.protocol().open.len() == 1);
        }
        assert_eq!(refused(world, Excess::Connections), 9);
    });
}

/// A client that a PROXY protocol header names counts as itself, even if its address is in a
/// network of proxies: the client can write anything behind that header.
#[test]
fn a_client_in_a_network_of_proxies_is_no_proxy() {
    let limits = AddressLimits { max_conns_per_address: Some(2), ..AddressLimits::default() };
    everywhere(&limited(limits), proxied(true), |world| {
        let ip = Ipv4Addr::from_bits(0xC612_0000 | world.rng.u32(0..1 << 17));
        for (count, status) in [101, 101, 429].into_iter().enumerate() {
            let mut client = [Client::new(world)];
            client[0].send_bytes(format!("PROXY TCP4 {ip} 192.0.2.1 50000 80\r\n").as_bytes());
            let text = String::from_utf8(handshake("/ws")).expect("text");
            let forged = format!("\r\nX-Forwarded-For: 203.0.113.{count}\r\n");
            client[0].send_bytes(text.replacen("\r\n", &forged, 1).as_bytes());
            assert_eq!(answered(world, &mut client, Some(status)), 1, "{ip}");
        }
    });
}

/// An address that opens connections too fast gets a 503 with `Retry-After`, and is served after
/// that time.
#[test]
fn connections_are_opened_at_a_rate() {
    let limits = AddressLimits { max_handshakes_per_second: Some(1), ..AddressLimits::default() };
    simulated(&limited(limits), serve, |world| {
        let ip = somewhere(world);
        let mut hasty = clients(world, ip, 12);
        assert_eq!(answered(world, &mut hasty, Some(200)), 10);
        assert_eq!(answered(world, &mut hasty, Some(429)), 2);
        assert_eq!(refused(world, Excess::Handshakes), 2);
        world.pass(Duration::from_secs(3));
        let mut again = clients(world, ip, 5);
        assert_eq!(answered(world, &mut again, Some(200)), 3);
    });
}

/// Refused connections, whatever the limit, do not use up the rate of accepts: a connection behind
/// many of them is served after a moment.
#[test]
fn refused_connections_delay_nobody() {
    const CROWD: usize = 300;
    let accept_interval = Duration::from_millis(20);
    for limits in [
        AddressLimits { max_conns_per_address: Some(1), ..AddressLimits::default() },
        AddressLimits { max_handshakes_per_second: Some(1), ..AddressLimits::default() },
    ] {
        let setup = limited(limits);
        let shard = ShardConfig { max_conns: 1024, accept_interval, ..setup.shard };
        let setup = Setup { shard, faults: Faults::none(), seeds: 8, ..setup };
        simulated(&setup, serve, |world| {
            let [ip, other] = [(); 2].map(|()| somewhere(world));
            let _crowd = clients(world, ip, CROWD);
            let mut bystander = clients(world, other, 1);
            let started = world.net.now();
            assert_eq!(answered(world, &mut bystander, Some(200)), 1);
            let passed = world.net.now() - started;
            assert!(passed < Duration::from_secs(1), "answered after {passed:?}");
            assert!(world.shard.counters().accepted.get() > CROWD as u64, "it came last");
        });
    }
}

/// Connections from this machine do not count.
#[test]
fn loopback_is_exempt() {
    let limits =
        AddressLimits { max_conns_per_address: Some(1), max_handshakes_per_second: Some(1) };
    simulated(&limited(limits), serve, |world| {
        for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let mut clients = clients(world, ip.parse().expect("an address"), 12);
            assert_eq!(answered(world, &mut clients, Some(200)), 12, "{ip}");
        }
    });
}

/// A server that trusts all test clients as proxies.
fn proxied(header: bool) -> impl Fn() -> Server {
    move || {
        let networks = ["198.18.0.0/15", "127.0.0.0/8"].map(|net| net.parse().expect(net));
        let proxies = Proxies { networks: networks.into(), header, ..Proxies::default() };
        Serve::new(App::default(), ServeLimits { proxies, ..ServeLimits::default() })
    }
}

/// A client behind a proxy counts as itself, however its header and its request are cut. A proxy's
/// own connection does not count, and a connection without a header is closed.
#[test]
fn a_proxy_says_who_is_behind_it() {
    let limits = AddressLimits { max_conns_per_address: Some(2), ..AddressLimits::default() };
    everywhere(&limited(limits), proxied(true), |world| {
        let [ip, other] = [(); 2].map(|()| somewhere(world));
        let line = |ip| format!("PROXY TCP4 {ip} 192.0.2.1 50000 80\r\n").into_bytes();
        let itself = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
        for (header, status) in [
            (line(ip), Some(200)),
            (line(ip), Some(200)),
            (line(other), Some(200)),
            (line(ip), Some(429)),
            (itself.clone(), Some(200)),
            (itself.clone(), Some(200)),
            (itself, Some(200)),
            (Vec::new(), None),
        ] {
            let mut client = [Client::new(world)];
            client[0].send_bytes(&header);
            client[0].send_bytes(&get(10));
            assert_eq!(answered(world, &mut client, status), 1, "{header:?}");
        }
        assert_eq!(refused(world, Excess::Connections), 1);
        assert_eq!(world.protocol().inner.counters().proxy_headers_bad.get(), 1);
    });
}

/// A WebSocket that a proxy forwards counts for its client; the proxy's other requests on the same
/// connection do not count, and neither does a refused WebSocket, which ends the connection.
#[test]
fn a_handshake_says_who_is_behind_a_proxy() {
    let limits = AddressLimits { max_conns_per_address: Some(2), ..AddressLimits::default() };
    everywhere(&limited(limits), proxied(false), |world| {
        let [ip, other] = [(); 2].map(|()| somewhere(world));
        let passed_on = |target: &str, ip: IpAddr| {
            let forged = "X-Forwarded-For: 192.0.2.6";
            let request = String::from_utf8(handshake(target)).expect("text");
            request.replacen("\r\n", &format!("\r\n{forged}, {ip}\r\n"), 1).into_bytes()
        };
        for (ip, expected) in [
            (ip, &[200, 101][..]),
            (ip, &[200, 403]),
            (ip, &[200, 101]),
            (other, &[200, 101]),
            (ip, &[200, 429]),
        ] {
            let mut client = Client::new(world);
            client.send_bytes(&get(10));
            let target = if expected.ends_with(&[403]) { "/refused" } else { "/ws" };
            client.send_bytes(&passed_on(target, ip));
            world.until("the answers", |world| {
                client.step(world);
                let responses = understand(&client.heard).responses;
                responses.iter().map(|&(status, _)| status).eq(expected.iter().copied())
            });
            if expected.ends_with(&[101]) {
                client.send_bytes(&text("hello"));
                world.until("the echo", |world| {
                    client.step(world);
                    understand(&client.heard).messages.len() == 1
                });
            }
        }
        assert_eq!(refused(world, Excess::Connections), 1);
    });
}

/// A poll or a stream that a proxy forwards counts for its client until it ends, at no rate, and the
/// next request on the same connection for its own client.
#[test]
fn a_session_says_who_is_behind_a_proxy() {
    let limits =
        AddressLimits { max_conns_per_address: Some(2), max_handshakes_per_second: Some(1) };
    let ask = |world: &mut World<Server>, client: &mut Client, path: &str, ip: IpAddr| {
        let before = understand(&client.heard).responses.len();
        let waiting = |world: &World<Server>| world.protocol().inner.handler().later.len();
        let waited = waiting(world);
        client.send_bytes(
            format!("GET {path} HTTP/1.1\r\nHost: m\r\nX-Forwarded-For: {ip}\r\n\r\n").as_bytes(),
        );
        world.until("it waits or is answered", |world| {
            client.step(world);
            waiting(world) > waited || understand(&client.heard).responses.len() > before
        });
        understand(&client.heard).responses.get(before).map(|&(status, _)| status)
    };
    everywhere(&limited(limits), proxied(false), |world| {
        let [ip, other] = [(); 2].map(|()| somewhere(world));
        let mut kept = Client::new(world);
        for round in 0..12 {
            let of = if round % 2 == 0 { ip } else { other };
            assert_eq!(ask(world, &mut kept, "/later", of), None);
            world.post(ServeMail::App(body(5)));
            world.until("it is answered", |world| {
                kept.step(world);
                understand(&kept.heard).responses.len() == round + 1
            });
        }
        let mut streams: Vec<Client> = (0..3).map(|_| Client::new(world)).collect();
        let [one, two, three] = &mut streams[..] else { unreachable!("there are three") };
        assert_eq!(ask(world, one, "/never", ip), None);
        assert_eq!(ask(world, two, "/later", ip), None);
        assert_eq!(ask(world, three, "/later", ip), Some(429));
        assert_eq!(ask(world, &mut kept, "/never", other), None);
        world.net.close(one.peer);
        world.until("it is gone", |world| world.protocol().closed.len() == 2);
        let mut next = Client::new(world);
        assert_eq!(ask(world, &mut next, "/later", ip), None);
        assert_eq!(refused(world, Excess::Connections), 1);
    });
}
