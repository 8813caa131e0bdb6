//! The request of a call, as JSON.

use hyper::body::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

/// The members of a request. A member that a kind of call does not have is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct CallRequest<'a> {
    /// The connection, as `pong` names it.
    pub(crate) client: &'a str,
    /// `websocket`, `sse` or `long_poll`.
    pub(crate) transport: &'a str,
    /// `json`, whatever the client's protocol is.
    pub(crate) protocol: Json,
    /// `binary` if the data is in `b64data`.
    pub(crate) encoding: Encoding,
    /// The client's protocol: `murre.v1` or `phoenix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    /// Empty for a session without a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<&'a str>,
    /// The event of a publication that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<&'a RawValue>,
    /// Binary data in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) b64data: Option<String>,
    /// The `meta` of the session's connect call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meta: Option<&'a RawValue>,
}

/// The text `json`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) enum Json {
    #[default]
    #[serde(rename = "json")]
    Json,
}

/// Where the data of a request is.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    #[default]
    Json,
    Binary,
}

impl CallRequest<'_> {
    /// The request as JSON.
    pub(crate) fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("texts and JSON become JSON").into()
    }
}
