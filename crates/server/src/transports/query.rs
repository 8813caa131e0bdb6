//! The query of a request for a stream or a poll. A parameter that cannot be read is an error, and
//! never taken for absent.

use std::borrow::Cow;

use murre_codec::http::Request;
use murre_router::channels::{Position, Start};
use murre_router::presence::Watch;
use percent_encoding::percent_decode_str;

use super::event_id::{self, read_position};
use crate::hub::ErrorCode;
use crate::protocols::murre_v1::errors::{Code, WireError};

/// The query of `/sse` and `/poll`.
#[derive(Debug, Default)]
pub(super) struct Query {
    /// The channels, each once, in the order of their first mention.
    pub(super) channels: Vec<String>,
    pub(super) position: Option<Position>,
    /// The last `lastEventId`, in which polyfills of `EventSource` send the id, because a header
    /// field would need a preflight.
    last_event_id: Option<String>,
    pub(super) presence: Option<Watch>,
}

impl Query {
    /// Parses the query of a request.
    ///
    /// # Errors
    /// A parameter that cannot be read.
    pub(super) fn read(request: &Request<'_, '_>) -> Result<Self, WireError<'static>> {
        let query = request.target.split_once('?').map_or("", |(_, query)| query);
        let mut read = Query::default();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "topic" | "channel" => {
                    let name = decoded(value).ok_or(WireError::new(
                        Code::Hub(ErrorCode::BadChannel),
                        "the name of the channel is not UTF-8 in percent encoding",
                    ))?;
                    if !read.channels.contains(&name) {
                        read.channels.push(name);
                    }
                }
                "position" => {
                    let position = decoded(value).and_then(|text| read_position(&text));
                    let position = position.ok_or(WireError::new(Code::BadCommand, POSITION))?;
                    if read.position.replace(position).is_some() {
                        return Err(WireError::new(Code::BadCommand, "`position` is given twice"));
                    }
                }
                _ if key.eq_ignore_ascii_case("lastEventId") => {
                    // An id that is not UTF-8 is malformed also after the lossy conversion.
                    let id = percent_decode_str(value).decode_utf8_lossy().into_owned();
                    read.last_event_id = Some(id);
                }
                "presence" => {
                    let watch = match value {
                        "members" => Watch::Members,
                        "counts" => Watch::Counts,
                        _ => return Err(WireError::new(Code::BadCommand, PRESENCE)),
                    };
                    if read.presence.replace(watch).is_some() {
                        return Err(WireError::new(Code::BadCommand, "`presence` is given twice"));
                    }
                }
                _ => {}
            }
        }
        Ok(read)
    }

    /// The start of a stream in each of its channels, from the last event id of the client: in the
    /// header field, or else in the query. A stream of one channel may start at `position` instead.
    ///
    /// # Errors
    /// The query of a stream of several channels has a `position`.
    pub(super) fn starts(
        &self,
        request: &Request<'_, '_>,
    ) -> Result<Vec<Start>, WireError<'static>> {
        if self.position.is_some() && self.channels.len() > 1 {
            let why = "`position` is for a stream of one channel; others have Last-Event-ID";
            return Err(WireError::new(Code::BadCommand, why));
        }
        let in_query = || self.last_event_id.as_deref().map(Cow::Borrowed);
        let in_field = request.header("last-event-id").map(String::from_utf8_lossy);
        let Some(last) = in_field.or_else(in_query) else {
            let start = self.position.map_or(Start::Head, Start::After);
            return Ok(vec![start; self.channels.len()]);
        };
        let start = |channel: &String| event_id::start(&last, channel, self.channels.len());
        Ok(self.channels.iter().map(start).collect())
    }
}

const PRESENCE: &str = "`presence` is members or counts";
const POSITION: &str = "`position` is EPOCH-OFFSET, as `position` of an answer has them";

/// Decodes a value of a query (URL standard, section 5.1).
fn decoded(value: &str) -> Option<String> {
    let spaced = value.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)
}
