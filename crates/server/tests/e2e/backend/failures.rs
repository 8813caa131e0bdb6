//! Tests of an application that is slow, dead or wrong.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ok, publish, start, that_does};
use crate::application::Do;
use crate::client::Client;

/// Answers that no application should give, each of them an error and never a consent.
#[test]
fn answers_that_are_wrong() {
    let http = |status: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    };
    let huge = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n{\"result\":{}}";
    let fields = format!("HTTP/1.1 200 OK\r\n{}", "X-A: b\r\n".repeat(20_000));
    let answers = [
        http("200 OK", ""),
        http("200 OK", "true"),
        http("200 OK", "{}"),
        http("200 OK", "[{}]"),
        http("200 OK", "{\"result\":{}"),
        http("200 OK", "{\"result\":[]}"),
        http("200 OK", "{\"result\":true}"),
        http("200 OK", "{\"result\":null}"),
        http("200 OK", "{\"result\":{},\"result\":{}}"),
        http("200 OK", "{\"result\":{\"expire_at\":\"soon\"}}"),
        http("200 OK", "{\"result\":{\"expire_at\":-1}}"),
        http("200 OK", "{\"result\":{\"expire_at\":1e400}}"),
        http("200 OK", "{\"result\":{\"user\":7}}"),
        http("200 OK", "{\"result\":{\"b64data\":\"?\"}}"),
        http("200 OK", "{\"error\":{\"code\":\"1\"}}"),
        http("200 OK", "{\"error\":{\"code\":4294967296}}"),
        http("200 OK", "{\"error\":{\"code\":-1}}"),
        http("200 OK", "\u{0}{\"result\":{}}"),
        http("500 Oops", "{\"result\":{}}"),
        http("403 Forbidden", "{\"result\":{}}"),
        http("201 Created", "{\"result\":{}}"),
        http("204 No Content", ""),
        http("302 Found\r\nLocation: /app/other", "{\"result\":{}}"),
        huge.into(),
        fields.into_bytes(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":".to_vec(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n{\"result\":{}}".to_vec(),
        b"nonsense\r\n\r\n".to_vec(),
        b"".to_vec(),
    ];
    let count = answers.len();
    let application = that_does("publish", move |call| {
        let at = call.body["data"]["n"].as_u64().expect("a number") as usize;
        Do::Write(answers[at].clone())
    });
    let server = start(&application, &[]);
    let mut client = Client::of(&server);
    for at in 0..count {
        let publish = json!({"action": "publish", "identifier": "ask:x", "data": {"n": at}});
        assert_eq!(client.error(publish), "backend_failed", "{at}");
    }
    assert_eq!(application.calls("publish").len(), count);
    let metrics = server.admin("/metrics");
    let failed = |outcome: &str| {
        let line =
            format!("murre_backend_calls_ended_total{{call=\"publish\",outcome=\"{outcome}\"}} ");
        let found = metrics.text().lines().find_map(|text| text.strip_prefix(&line));
        found.expect(outcome).parse::<usize>().expect("a number")
    };
    assert_eq!((failed("result"), failed("nonsense"), failed("status")), (0, 18, 5));
    assert_eq!(failed("broken"), count - 23);
}

/// A backend that is not there, says nothing or goes up and down: commands fail in time, others go on, and
/// after a while calls are not made at all until one of them succeeds.
#[test]
fn a_dead_backend() {
    let application = that_does("publish", |call| match call.body["data"]["n"] {
        Value::Null => Do::Say(ok()),
        _ => Do::Hang,
    });
    let server = start(&application, &["--backend-timeout=0.2"]);
    let mut client = Client::of(&server);
    let mut other = Client::of(&server);
    let begun = Instant::now();
    assert_eq!(client.error(publish("ask:x")), "backend_failed");
    assert!(begun.elapsed() >= Duration::from_millis(190));
    // Several channels at once; the breaker opens on the way.
    for round in 0..3 {
        for id in 0..12 {
            client.send(publish(&format!("ask:{id}")));
        }
        other.silent();
        (0..12).for_each(|_| assert_eq!(client.receive()["code"], "backend_failed", "{round}"));
    }
    let made = application.calls("publish").len();
    assert!((20..37).contains(&made), "{made}");
    // It answers again.
    let good = json!({"action": "publish", "identifier": "ask:x", "data": {}});
    let begun = Instant::now();
    while client.ask(good.clone())["type"] == "error" {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not asked again");
        thread::sleep(Duration::from_millis(20));
    }
    client.publish("ask:x", json!({}));
    let log = server.log_until("a call of the backend has failed");
    assert!(log.last().is_some_and(|line| line.contains("timeout")), "{log:?}");
}

/// A kept connection that the application closes is no failure: the call is made again, once.
#[test]
fn a_backend_that_restarts() {
    let application = that_does("publish", |call| match call.body["data"]["n"].as_u64() {
        Some(_) => {
            Do::Write(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":{}}".to_vec())
        }
        None => Do::Say(ok()),
    });
    let server = start(&application, &[]);
    let mut client = Client::of(&server);
    for number in 0..20 {
        let data = if number % 2 == 0 { json!({"n": number}) } else { json!({}) };
        client.publish("ask:x", data);
    }
}
