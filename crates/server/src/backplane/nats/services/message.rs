//! Requests and answers on their way, as bytes. Numbers are little endian.
//!
//! ```text
//!   request   1 byte    version: 1
//!             4 bytes   milliseconds until its time is over
//!             rest      the payload in its envelope, as of a publication
//!   answer    1 byte    version: 1
//!             1 byte    outcome
//!             rest      the payload in its envelope, the responder's text, or nothing
//! ```

use std::time::Duration;

use murre_router::channels::Payload;
use murre_router::services::RequestError;

use crate::backplane::nats::envelope;
use crate::protocols::json::Validator;

const VERSION: u8 = 1;
/// Where the envelope of a request begins.
const HEAD: usize = 5;

mod outcome {
    pub(super) const RESPONSE: u8 = 0;
    pub(super) const NO_RESPONDERS: u8 = 1;
    pub(super) const OVERLOADED: u8 = 2;
    pub(super) const RESPONDER_GONE: u8 = 3;
    pub(super) const RESPONDER_FAILED: u8 = 4;
    pub(super) const TIMEOUT: u8 = 5;
    pub(super) const TOO_LARGE: u8 = 6;
}

/// A request, without the time that is left.
pub(super) fn request(payload: &Payload) -> Vec<u8> {
    [&[VERSION, 0, 0, 0, 0], &*envelope::wrap(payload, None)].concat()
}

/// Writes the time that is left into a request.
pub(super) fn set_time_left(request: &mut [u8], left: Duration) {
    let left = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
    request[1..HEAD].copy_from_slice(&left.to_le_bytes());
}

/// The payload of a request, and the milliseconds until its time is over; `None` if it is no request.
pub(super) fn open_request(bytes: &[u8], validator: &mut Validator) -> Option<(Payload, u32)> {
    let (&[VERSION], rest) = bytes.split_first_chunk()? else { return None };
    let (left, rest) = rest.split_first_chunk()?;
    Some((payload(rest, validator)?, u32::from_le_bytes(*left)))
}

/// The answer to a request.
pub(super) fn answer(answer: &Result<Payload, RequestError>) -> Vec<u8> {
    let (outcome, rest) = match answer {
        Ok(payload) => (outcome::RESPONSE, envelope::wrap(payload, None)),
        Err(RequestError::NoResponders) => (outcome::NO_RESPONDERS, Vec::new()),
        Err(RequestError::Overloaded) => (outcome::OVERLOADED, Vec::new()),
        Err(RequestError::ResponderGone) => (outcome::RESPONDER_GONE, Vec::new()),
        Err(RequestError::ResponderFailed(why)) => {
            (outcome::RESPONDER_FAILED, why.as_bytes().to_vec())
        }
        Err(RequestError::Timeout) => (outcome::TIMEOUT, Vec::new()),
        Err(RequestError::TooLarge) => (outcome::TOO_LARGE, Vec::new()),
    };
    [&[VERSION, outcome], &*rest].concat()
}

/// The outcome that an answer says; `None` if it is no answer.
pub(super) fn open_answer(
    bytes: &[u8],
    validator: &mut Validator,
) -> Option<Result<Payload, RequestError>> {
    let (&[VERSION, outcome], rest) = bytes.split_first_chunk()? else { return None };
    let why = match outcome {
        outcome::RESPONSE => return payload(rest, validator).map(Ok),
        outcome::RESPONDER_FAILED => {
            let why = str::from_utf8(rest).ok()?;
            return Some(Err(RequestError::ResponderFailed(why.into())));
        }
        outcome::NO_RESPONDERS => RequestError::NoResponders,
        outcome::OVERLOADED => RequestError::Overloaded,
        outcome::RESPONDER_GONE => RequestError::ResponderGone,
        outcome::TIMEOUT => RequestError::Timeout,
        outcome::TOO_LARGE => RequestError::TooLarge,
        _ => return None,
    };
    rest.is_empty().then_some(Err(why))
}

fn payload(envelope: &[u8], validator: &mut Validator) -> Option<Payload> {
    let (payload, except) = envelope::open(envelope, validator)?;
    except.is_none().then_some(payload)
}

/// What any bytes are taken for is what they say.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::backplane::nats) fn check(bytes: &[u8]) {
    let mut validator = Validator::default();
    let bytes = [&[VERSION][..], bytes].concat();
    if let Some(outcome) = open_answer(&bytes, &mut validator) {
        assert_eq!(answer(&outcome), bytes);
    }
    if let Some((payload, left)) = open_request(&bytes, &mut validator) {
        let mut again = request(&payload);
        set_time_left(&mut again, Duration::from_millis(left.into()));
        assert_eq!(again, bytes);
    }
}

#[cfg(test)]
mod tests {
    use murre_router::channels::Form;
    use proptest::prelude::*;

    use super::*;

    fn payloads() -> [Payload; 3] {
        let side = Payload { form: Form::Json, side_len: 2, bytes: (*b"\x01e[1]").into() };
        [Payload::new(Form::Json, *b"{}"), Payload::new(Form::Binary, *b"\xff"), side]
    }

    fn answers() -> Vec<Result<Payload, RequestError>> {
        let failures = [
            RequestError::NoResponders,
            RequestError::Overloaded,
            RequestError::ResponderGone,
            RequestError::ResponderFailed("ä\n".into()),
            RequestError::ResponderFailed("".into()),
            RequestError::Timeout,
            RequestError::TooLarge,
        ];
        payloads().into_iter().map(Ok).chain(failures.into_iter().map(Err)).collect()
    }

    /// Requests and answers come as they go.
    #[test]
    fn what_goes_comes() {
        let mut validator = Validator::default();
        for payload in payloads() {
            let mut request = request(&payload);
            for (left, ms) in [
                (Duration::ZERO, 0),
                (Duration::from_millis(60_000), 60_000),
                (Duration::MAX, u32::MAX),
            ] {
                set_time_left(&mut request, left);
                assert_eq!(open_request(&request, &mut validator), Some((payload.clone(), ms)));
            }
        }
        for outcome in answers() {
            assert_eq!(open_answer(&answer(&outcome), &mut validator), Some(outcome));
        }
    }

    /// What is no request and no answer is refused: other versions and outcomes, parts, something behind it, a text
    /// that is no UTF-8, data that is no JSON.
    #[test]
    fn what_is_none_is_refused() {
        let mut validator = Validator::default();
        for wrong in [&b""[..], b"\x01", b"\x02\0", b"\x01\x07", b"\x01\x01x", b"\x01\x04\xff"] {
            assert_eq!(open_answer(wrong, &mut validator), None, "{wrong:?}");
        }
        assert_eq!(open_answer(b"\x01\0\x01\0\0\0\0\0{", &mut validator), None);
        for wrong in [&b""[..], b"\x01\0\0\0", b"\x02\0\0\0\0\x01\0\0\0\0\0{}", b"\x01\0\0\0\0{}"] {
            assert_eq!(open_request(wrong, &mut validator), None, "{wrong:?}");
        }
    }

    proptest! {
        /// Any bytes are taken or refused.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            check(&bytes);
        }
    }
}
