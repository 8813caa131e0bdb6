//! The kinds of lines in files of records.
//!
//! A file of records holds one JSON object a line. Besides the records of scenarios there are
//!
//! - `{"form": ..., "echoes_per_cpu_second": ...}` of `crates/core/examples/forms.rs`,
//! - `{"accept": ..., "shares": [..], "cpu_us": ...}` of the example `accept_forms` in `crates/core`,
//! - `{"bench": "mask_throughput", ...}` of `crates/codec/examples/mask_throughput.rs`,
//! - `{"receive": ..., "payload": ..., "rate": ...}` and `{"idle_receive": ...}` of the example
//!   `receive_forms` in `crates/core`,
//! - `{"burst": ...}`, `{"check": ...}`, `{"pages": ...}` and `{"subscribers": ...}` of `scripts/bench`,
//!   these with what `murre-load annotate` adds: [`Stamp`],
//! - `{"tool": "ab", ...}`, written by scripts that run `ab` while connections are held: [`Ab`],
//! - `{"tool": "murre-load memory", ...}` of `murre-load memory`: [`Weighed`].

use murre_record::{Machine, Record};
use serde::Deserialize;
use serde_json::Value;

/// What a line is about.
#[derive(Debug)]
pub(crate) enum Content {
    Run(Box<Run>),
    Ab(Ab),
    Form(Form),
    Accept(Accept),
    Receive(Receive),
    IdleReceive(IdleReceive),
    Mask(Mask),
    Burst(Burst),
    Check(Check),
    Pages(Pages),
    Subscribers(Subscribers),
    Interface(Interface),
    Weighed(Box<Weighed>),
}

/// Selects the lines of one kind.
macro_rules! kind {
    ($kind:ident) => {
        |content| match content {
            $crate::records::kinds::Content::$kind(line) => Some(line),
            _ => None,
        }
    };
}
pub(crate) use kind;

/// A record of a scenario.
pub(crate) type Run = Record<Parameters>;

/// The arguments that decide whether two runs did the same work. A record has those of its scenario.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Parameters {
    pub(crate) conns: u64,
    pub(crate) idle_conns: u64,
    pub(crate) connect_rate: f64,
    pub(crate) idle: String,
    pub(crate) every: f64,
    pub(crate) payload: u64,
    pub(crate) pipeline: u64,
    pub(crate) rate: Option<f64>,
    #[serde(alias = "topics")]
    pub(crate) channels: u64,
    pub(crate) beside: u64,
    pub(crate) hostile: u64,
    /// Where it is given, connections have users.
    pub(crate) token_secret_file: Option<String>,
    pub(crate) watch: String,
}

/// Where a line is from. Older lines do not say it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) started: Option<String>,
    pub(crate) commit: Option<String>,
    pub(crate) machine: Option<Machine>,
}

/// The result of `ab` against the server while connections are held.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ab {
    /// The server: `murre`, `nginx`.
    pub(crate) label: String,
    pub(crate) started: String,
    pub(crate) command: String,
    /// Connections held beside it.
    pub(crate) connections_held: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) failed: u64,
    pub(crate) mean_ms: f64,
    pub(crate) longest_ms: f64,
}

/// One run of one form of receiving.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Form {
    pub(crate) form: String,
    pub(crate) echoes_per_second: f64,
    pub(crate) echoes_per_cpu_second: f64,
}

/// One run of one form of accepting: how many of the connections each of two shards took, and what
/// one cost.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Accept {
    pub(crate) accept: String,
    pub(crate) shares: [f64; 2],
    pub(crate) cpu_us: f64,
}

/// One round of one form of receiving, by a ring that does nothing else.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Receive {
    pub(crate) receive: String,
    pub(crate) payload: u64,
    /// Echoes per second that were asked for; `None` is as many as there can be.
    pub(crate) rate: Option<u64>,
    pub(crate) echoes_per_cpu_second: f64,
    pub(crate) enters_per_echo: f64,
}

/// The kernel's memory for a connection without input.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct IdleReceive {
    pub(crate) idle_receive: String,
    pub(crate) kernel_bytes_per_connection: f64,
}

/// How fast masks come off.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Mask {
    pub(crate) sizes: Vec<MaskSize>,
}

/// Of payloads of one size, in 10^9 bytes a second.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct MaskSize {
    pub(crate) payload_bytes: u64,
    pub(crate) mask_gb_per_s: f64,
    pub(crate) naive_gb_per_s: f64,
    pub(crate) decode_gb_per_s: f64,
    pub(crate) tungstenite_decode_gb_per_s: f64,
}

/// A server's memory before, during and after a burst of large messages.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Burst {
    pub(crate) burst: String,
    pub(crate) pss_before: u64,
    pub(crate) rss_most: u64,
    pub(crate) pss_after: u64,
}

/// One number beside its target.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Check {
    pub(crate) check: String,
    pub(crate) measured: f64,
    pub(crate) target: String,
}

/// The cost of one of many idle subscribers, by transport.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Subscribers {
    pub(crate) subscribers: String,
    pub(crate) connections: u64,
    pub(crate) user_bytes: f64,
}

/// A server whose allocator asks for pages of this size.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Pages {
    pub(crate) pages: String,
    pub(crate) user_bytes: f64,
    pub(crate) messages_per_cpu_second: f64,
}

/// A server by one interface of the kernel: the memory of each of many WebSockets, and echo on some of
/// them.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Interface {
    pub(crate) io: String,
    pub(crate) user_bytes: f64,
    /// The part of the kernel's memory that waits for input.
    pub(crate) wait_bytes: f64,
    pub(crate) total_bytes: Option<f64>,
    pub(crate) messages_per_second: f64,
    pub(crate) messages_per_cpu_second: f64,
    pub(crate) p99_us: f64,
}

/// A record of `murre-load memory`: a server weighed, or the check of the method.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Weighed {
    pub(crate) started: String,
    pub(crate) commit: Option<String>,
    pub(crate) check: Option<CheckFacts>,
}

/// The check of the method of `memory`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CheckFacts {
    pub(crate) pairs: u64,
    pub(crate) attributed_bytes: f64,
    pub(crate) alone_bytes: f64,
    pub(crate) agrees: bool,
}

/// Reads a line.
pub(super) fn content(bytes: &[u8]) -> Result<(Stamp, Content), String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let stamp = from(value.clone()).map_err(|error| error.to_string())?;
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let has = |key: &str| value.get(key).is_some();
    let content = match (text("tool"), text("bench")) {
        (Some("murre-load"), _) => from(value).map(|run| Content::Run(Box::new(run))),
        (Some("ab"), _) => from(value).map(Content::Ab),
        (Some("murre-load memory"), _) => from(value).map(|w| Content::Weighed(Box::new(w))),
        (None, Some("mask_throughput")) => from(value).map(Content::Mask),
        (None, None) if has("burst") => from(value).map(Content::Burst),
        (None, None) if has("check") => from(value).map(Content::Check),
        (None, None) if has("subscribers") => from(value).map(Content::Subscribers),
        (None, None) if has("pages") => from(value).map(Content::Pages),
        (None, None) if has("io") => from(value).map(Content::Interface),
        (None, None) if has("form") => from(value).map(Content::Form),
        (None, None) if has("accept") => from(value).map(Content::Accept),
        (None, None) if has("receive") => from(value).map(Content::Receive),
        (None, None) if has("idle_receive") => from(value).map(Content::IdleReceive),
        _ => return Err("not a record that is known".to_owned()),
    };
    content.map(|content| (stamp, content)).map_err(|error| error.to_string())
}

fn from<T: for<'a> Deserialize<'a>>(value: Value) -> serde_json::Result<T> {
    serde_json::from_value(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows each kind of line beside the records of scenarios, and that others are refused.
    #[test]
    fn lines_are_known_by_what_they_hold() {
        let read = |line: &str| content(line.as_bytes());
        let kind = |line: &str| read(line).map(|(_, content)| content);
        let form =
            r#"{"form":"a","echoes_per_second":1,"echoes_per_cpu_second":2,"turns_per_echo":0.5}"#;
        assert!(matches!(kind(form), Ok(Content::Form(_))));
        let io = r#"{"io":"epoll","user_bytes":70.5,"wait_bytes":208,"total_bytes":null,
            "messages_per_second":1,"messages_per_cpu_second":2,"p99_us":3}"#;
        assert!(matches!(kind(io), Ok(Content::Interface(_))));
        let accept = r#"{"accept":"Multishot","shares":[4000,4000],"cpu_us":9.5,"commit":"abc"}"#;
        let (stamp, accept) = read(accept).expect("a form of accepting");
        assert!(matches!(accept, Content::Accept(_)));
        assert_eq!(stamp.commit.as_deref(), Some("abc"));
        let check = r#"{"check":"p99, ms","measured":3.5,"target":"at most 10"}"#;
        assert!(matches!(kind(check), Ok(Content::Check(_))));
        let idle = r#"{"idle_receive":"Armed","kernel_bytes_per_connection":865}"#;
        assert!(matches!(kind(idle), Ok(Content::IdleReceive(_))));
        assert!(kind(r#"{"bench":"mask_throughput","payload_bytes":64}"#).is_err());
        let ab = r#"{"tool":"ab","label":"nginx","started":"2026-01-01T00:00:00Z","command":"ab",
            "connections_held":6,"requests_per_second":5.5,"failed":0,"mean_ms":1,"longest_ms":2}"#;
        assert!(matches!(kind(ab), Ok(Content::Ab(_))));
        for wrong in ["", "{", "[]", "{}", r#"{"tool":"wrk"}"#, r#"{"tool":"murre-load"}"#] {
            assert!(kind(wrong).is_err(), "{wrong}");
        }
    }
}
