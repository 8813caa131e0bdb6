//! Tests of services: the choice of responders, and the results of requests.

use serde_json::{Value, json};

use crate::client::Client;
use crate::matrix::SHARDS;
use crate::server::Server;

fn server() -> Server {
    Server::start(&[SHARDS[0], SHARDS[1], "--namespace=default,publish=anyone,serve=anyone"])
}

/// Requests are spread over the responders of a service, and one responder answers each.
#[test]
fn requests_are_spread_and_answered() {
    let server = server();
    let mut workers: Vec<Client> = (0..3).map(|_| Client::of(&server)).collect();
    for worker in &mut workers {
        let serving = worker.ask(json!({"action": "serve", "service": "double"}));
        assert_eq!(serving, json!({"type": "serving", "service": "double"}));
        worker.silent();
    }
    let mut asker = Client::of(&server);
    for number in 0..9 {
        let request =
            json!({"action": "request", "service": "double", "data": number, "id": number});
        asker.send(request);
    }
    for worker in &mut workers {
        for _ in 0..3 {
            let request = worker.receive();
            assert_eq!(
                (&request["type"], &request["service"]),
                (&json!("request"), &json!("double"))
            );
            let doubled = request["data"].as_u64().expect("a number") * 2;
            worker.send(json!({"action": "reply", "request": request["request"], "data": doubled}));
        }
        worker.silent();
    }
    let mut answers: Vec<(u64, u64)> = (0..9)
        .map(|_| {
            let answer = asker.receive();
            assert_eq!(answer["type"], "response", "{answer}");
            (answer["id"].as_u64().expect("an id"), answer["data"].as_u64().expect("a number"))
        })
        .collect();
    answers.sort_unstable();
    assert_eq!(answers, (0..9).map(|number| (number, 2 * number)).collect::<Vec<_>>());
}

/// Each failure of a request has its own error, which comes at once if the server knows of the
/// failure.
#[test]
fn requests_that_fail() {
    let server = server();
    let (mut worker, mut asker) = (Client::of(&server), Client::of(&server));
    let request = json!({"action": "request", "service": "slow", "data": null, "timeout": 60000});
    assert_eq!(asker.error(request.clone()), "no_responders");
    worker.ask(json!({"action": "serve", "service": "slow"}));

    asker.send(json!({"action": "request", "service": "slow", "data": 1, "id": 1}));
    let asked = worker.receive();
    worker.send(json!({"action": "reply", "request": asked["request"], "error": "out of eggs"}));
    let failed = asker.receive();
    assert_eq!(
        (&failed["code"], &failed["message"], &failed["id"]),
        (&json!("responder_failed"), &json!("out of eggs"), &json!(1))
    );
    let again = json!({"action": "reply", "request": asked["request"], "data": 1});
    assert_eq!(worker.error(again), "unknown_request");

    let mut quick = request.clone();
    quick["timeout"] = json!(100);
    assert_eq!(asker.error(quick), "timeout");
    // A late reply does not answer a later request, even if that has the id of the former.
    let late = worker.receive();
    asker.send(json!({"action": "request", "service": "slow", "data": 3, "id": 77}));
    let next = worker.receive();
    let reply =
        |to: &Value| json!({"action": "reply", "request": to["request"], "data": to["data"]});
    assert_eq!(worker.error(reply(&late)), "unknown_request");
    worker.send(reply(&next));
    assert_eq!(asker.receive()["data"], 3);

    asker.send(json!({"action": "request", "service": "slow", "data": 2, "id": 2}));
    worker.receive();
    drop(worker);
    assert_eq!(asker.receive()["code"], "responder_gone");
    assert_eq!(asker.error(request), "no_responders");
}
