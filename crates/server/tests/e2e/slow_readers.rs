//! Tests of readers that do not read, and of other readers of the same channel.

use crate::client::Client;
use crate::matrix::{LIVE, SERVERS, SLOW};
use crate::reader::{Heard, Reader};
use crate::recovery::{FAST, numbered};
use crate::server::Server;

/// A namespace for each rule `slow`, with history or without.
fn by_slow(history: &str) -> String {
    let rules = SLOW.map(|slow| format!("{slow},publish=anyone,slow={slow}{history}"));
    format!("--namespace={}", rules.join(";"))
}

/// The number of subscriptions that are behind, and the number of readers that were disconnected
/// for it.
fn slow(server: &Server) -> (u64, u64) {
    let total = server.stats()["total"].take();
    let count = |name: &str| total[name].as_u64().expect(name);
    (count("subscriptions_lagging"), count("slow_consumers_disconnected"))
}

/// The rule of the namespace applies to a reader that does not read for longer than `slow-grace`.
/// The publications that it receives and the reported number of dropped ones are all publications
/// together. A reader that reads receives every publication.
#[test]
fn slow_readers() {
    const BYTES: usize = 60_000;
    const KEPT: u64 = 10;
    let histories = [",history-size=10", "", ",history-size=10"];
    over!(case in SERVERS.into_iter().zip(histories) => {
        let (server, history) = case;
        let log = format!("--max-log-bytes={}", KEPT * BYTES as u64);
        let flags = ["--slow-grace=0.1", &log, FAST, &by_slow(history)];
        let server = Server::start(&[&server[..], &flags].concat());
        over!(transport in LIVE, slow in SLOW => {
            let channel = format!("{slow}:{transport:?}");
            server.wait_until("nobody is behind", |stats| stats["total"]["subscriptions_lagging"] == 0);
            let before = self::slow(&server);
            let mut lazy = Reader::begin(&server, transport, &channel, None).takes_little();
            let mut reading = Reader::begin(&server, transport, &channel, None);
            let mut publisher = Client::of(&server);
            let mut count = 0;
            let mut publish = || {
                for _ in 0..3 * KEPT {
                    count += 1;
                    publisher.publish_patiently(&channel, numbered(count, BYTES));
                    assert_eq!(reading.data()[0], count);
                }
            };
            while self::slow(&server) == before {
                publish();
            }
            // These publications are three logs more than the server can queue for the reader.
            publish();
            let (mut sum, mut last, mut behind_the_drop) = (0, 0, 0);
            let end = loop {
                match lazy.next() {
                    Heard::Publication { data, .. } => {
                        let number = data[0].as_u64().expect("a number");
                        assert!(number > last, "{number} after {last}");
                        (last, sum, behind_the_drop) = (number, sum + 1, behind_the_drop + 1);
                        if number == count {
                            break Heard::End;
                        }
                    }
                    Heard::Dropped(dropped) => (sum, behind_the_drop) = (sum + dropped, 0),
                    other => break other,
                }
            };
            if slow == "disconnect" {
                assert_eq!((end, lazy.next()), (Heard::Error("too_slow".into()), Heard::End));
                assert_eq!(sum, last, "none was left out before the end");
            } else {
                assert_eq!((end, sum), (Heard::End, count), "each was heard or dropped");
                let expected = if slow == "latest_only" { 1 } else { KEPT };
                assert!((1..=expected).contains(&behind_the_drop), "{behind_the_drop}");
            }
        });
    });
}
