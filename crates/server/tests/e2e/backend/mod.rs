//! Tests of calls of the backend: an application decides over HTTP, and is slow, dead or wrong.

mod answers;
mod connects;
mod decisions;
mod failures;
mod refreshes;
mod waiting;

use serde_json::{Value, json};

use crate::application::{Application, Call, Do};
use crate::server::{Answer, Server};

/// The backend decides about everything in `ask`; the reply to a push of Phoenix is its data in `rpc`.
const RULES: &str = "--namespace=ask,subscribe=backend,publish=backend,request=backend,history-size=5;\
                     rpc,phoenix-push=backend;default,publish=authenticated,history-size=5";

fn ok() -> Value {
    json!({"result": {}})
}

/// An application that does this for calls of one kind, and consents to all others.
fn that_does(
    kind: &'static str,
    what: impl Fn(&Call) -> Do + Send + Sync + 'static,
) -> Application {
    Application::start(move |call| match call.kind == kind {
        true => what(call),
        false => Do::Say(ok()),
    })
}

fn start(application: &Application, flags: &[&str]) -> Server {
    let application = application.flag();
    let all = [&[&*application, RULES, "--phoenix-path=/socket"], flags].concat();
    Server::start(&all)
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn subscribe(channel: &str) -> Value {
    json!({"action": "subscribe", "identifier": channel})
}

fn publish(channel: &str) -> Value {
    json!({"action": "publish", "identifier": channel, "data": {"n": 1}})
}
