//! What a request for a stream or a poll asks for. What cannot be read is an error, never taken for
//! absent.

use murre_codec::http::Request;
use murre_router::channels::{Position, Start};
use percent_encoding::percent_decode_str;

use super::event_id::{self, read_position};
use crate::hub::ErrorCode;
use crate::protocols::murre_v1::errors::{Code, WireError};

/// The query of `/sse` and `/poll`.
#[derive(Debug, Default)]
pub(super) struct Query {
    /// Each once, in the order of their first mention.
    pub(super) channels: Vec<String>,
    pub(super) position: Option<Position>,
}

impl Query {
    /// Reads the query of a request.
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
                _ => {}
            }
        }
        Ok(read)
    }

    /// Where the client of a stream was in each channel when the stream was cut off. A stream of one
    /// channel may begin at `position`.
    ///
    /// # Errors
    /// A `position` of a stream of several channels.
    pub(super) fn starts(
        &self,
        request: &Request<'_, '_>,
    ) -> Result<Vec<Start>, WireError<'static>> {
        if self.position.is_some() && self.channels.len() > 1 {
            let why = "`position` is for a stream of one channel; others have Last-Event-ID";
            return Err(WireError::new(Code::BadCommand, why));
        }
        let Some(last) = request.header("last-event-id") else {
            let start = self.position.map_or(Start::Head, Start::After);
            return Ok(vec![start; self.channels.len()]);
        };
        // Bytes that are not UTF-8 are no id either.
        let last = String::from_utf8_lossy(last);
        let start = |channel: &String| event_id::start(&last, channel, self.channels.len());
        Ok(self.channels.iter().map(start).collect())
    }
}

const POSITION: &str = "`position` is EPOCH-OFFSET, as `position` of an answer has them";

/// A value of a query without its escapes (URL standard, section 5.1).
fn decoded(value: &str) -> Option<String> {
    let spaced = value.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}
