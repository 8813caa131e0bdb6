//! The metadata that the application gives a member. Its members replace those that the client has sent.
//!
//! `info` of a connect answer is about the session in all channels, `info` of a subscribe answer about one
//! subscription. Members of these objects are in the metadata that watchers of presence get, and take the
//! place of those of the same names that the client has sent.

use std::collections::BTreeMap;

use murre_router::presence::Meta;
use serde_json::value::RawValue;

use super::{Hub, Session};

impl Hub {
    /// The metadata of a session as a member of a channel, of which its client says `meta`.
    pub(super) fn with_info(
        &self,
        session: Session,
        channel: &str,
        meta: Option<Meta>,
    ) -> Option<Meta> {
        let slot = session.conn.index();
        let of_session = self.admitted.get(&slot).and_then(|admitted| admitted.info.as_ref());
        let choice = self.member_choices.get(slot, channel);
        let of_subscription = choice.and_then(|choice| choice.info.as_ref());
        [of_session, of_subscription].into_iter().flatten().fold(meta, |below, above| {
            Some(match below {
                Some(below) => merged(&below, above),
                None => above.clone(),
            })
        })
    }

    /// Drops what the application has said of a session, which has another user now.
    pub(super) fn forget_info(&mut self, session: Session) {
        let slot = session.conn.index();
        if let Some(admitted) = self.admitted.get_mut(&slot) {
            (admitted.meta, admitted.info) = (None, None);
        }
        self.member_choices.forget_info(slot);
    }
}

/// The members of two objects. Those of `above` take the place of those of the same names; a value that is no
/// object gives way to it, or takes the place of all that is below.
fn merged(below: &Meta, above: &Meta) -> Meta {
    let object = |meta: &'_ Meta| -> Option<BTreeMap<String, Box<RawValue>>> {
        // An array is no object, whatever serde makes of it.
        let is_object = meta.bytes().starts_with(b"{");
        is_object.then(|| serde_json::from_slice(meta.bytes()).ok()).flatten()
    };
    let (Some(mut all), Some(above)) = (object(below), object(above)) else { return above.clone() };
    all.extend(above);
    Meta::new(&serde_json::to_vec(&all).expect("texts and JSON become JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The members of the application are there whatever the client sends, also by another spelling or twice;
    /// other members, and the digits of their numbers, stay.
    #[test]
    fn the_application_stands_above() {
        for (below, above, expected) in [
            ("{}", r#"{"a":1}"#, r#"{"a":1}"#),
            (
                r#"{"a":0,"b":1.10000000000000000001}"#,
                r#"{"a":1}"#,
                r#"{"a":1,"b":1.10000000000000000001}"#,
            ),
            (r#"{"\u0061":0}"#, r#"{"a":1}"#, r#"{"a":1}"#),
            (r#"{"a":0,"a":2}"#, r#"{"a":1}"#, r#"{"a":1}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":{"c":2}}"#, r#"{"a":{"c":2}}"#),
            ("[1]", r#"{"a":1}"#, r#"{"a":1}"#),
            ("", r#"{"a":1}"#, r#"{"a":1}"#),
            (r#"{"a":0}"#, "7", "7"),
        ] {
            let meta = |text: &str| Meta::new(text.as_bytes());
            let merged = merged(&meta(below), &meta(above));
            assert_eq!(str::from_utf8(merged.bytes()), Ok(expected), "{below} {above}");
        }
    }
}
