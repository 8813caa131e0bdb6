//! Members of a topic, as the class `Presence` of clients reads them (`assets/js/phoenix/presence.js`).
//!
//! Members are grouped by their key, and each is a *meta*: an object with the reference `phx_ref`, which
//! is new with each update.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use murre_router::channels::Origin;
use murre_router::presence::{Changes, Count, PresentMember};

use super::decode::string;
use super::encode::text;
use crate::hub::member_names::MemberName;
use crate::protocols::json;

/// Appends all members: `{KEY:{"metas":[META,...]},...}`.
pub(crate) fn state(out: &mut Vec<u8>, members: &[PresentMember]) {
    let mut groups: BTreeMap<&str, Vec<&PresentMember>> = BTreeMap::new();
    for member in members {
        groups.entry(MemberName::of(&member.user).shown()).or_default().push(member);
    }
    out.push(b'{');
    each(out, groups, |out, (key, members)| {
        text(out, &safe(key));
        out.extend_from_slice(b":{\"metas\":[");
        each(out, members, meta);
        out.extend_from_slice(b"]}");
    });
    out.push(b'}');
}

/// The key under which clients get members. The class `Presence` of the npm package fails for good on a
/// key that every object of JavaScript has as a property, so one client could end the presence of all
/// others. Such a key gets a first character that no other key has.
fn safe(key: &str) -> Cow<'_, str> {
    match OBJECT_PROPERTIES.contains(&key) {
        true => format!("\0{key}").into(),
        false => key.into(),
    }
}

/// The properties of `Object.prototype` (ECMA-262, 20.1.3 and B.2.2).
const OBJECT_PROPERTIES: [&str; 12] = [
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];

/// Appends changes: `{"joins":STATE,"leaves":STATE}`. An update is a leave of the old meta and a join of
/// the new one, which has the old reference as `phx_ref_prev`.
pub(crate) fn diff(out: &mut Vec<u8>, Changes { joins, leaves }: &Changes) {
    out.extend_from_slice(b"{\"joins\":");
    state(out, joins);
    out.extend_from_slice(b",\"leaves\":");
    state(out, leaves);
    out.push(b'}');
}

/// Appends the numbers of a large topic: `{"clients":N,"users":N}`.
pub(crate) fn count(out: &mut Vec<u8>, Count { clients, users }: Count) {
    out.extend_from_slice(format!("{{\"clients\":{clients},\"users\":{users}}}").as_bytes());
}

/// Appends what `write` appends for each item, separated by commas.
fn each<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) {
    for (number, item) in items.into_iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

/// The names of references, which the metadata of a member cannot have.
const REFERENCE: &str = "phx_ref";
const REFERENCE_BEFORE: &str = "phx_ref_prev";

/// Appends a member. Metadata that is no object is its member `data`.
fn meta(out: &mut Vec<u8>, member: &PresentMember) {
    let PresentMember { origin, stamp, replaces, .. } = *member;
    out.extend_from_slice(format!("{{\"{REFERENCE}\":\"{}\"", reference(origin, stamp)).as_bytes());
    if replaces != 0 {
        let before = reference(origin, replaces);
        out.extend_from_slice(format!(",\"{REFERENCE_BEFORE}\":\"{before}\"").as_bytes());
    }
    let given = member.meta.as_ref().map(|meta| meta.bytes());
    match given.map(|given| (given, json::members(given))) {
        None => {}
        Some((_, Some(members))) => {
            for (key, value) in members.filter(|(key, _)| !is_reference(key)) {
                out.extend_from_slice(b",\"");
                out.extend_from_slice(key);
                out.extend_from_slice(b"\":");
                out.extend_from_slice(value);
            }
        }
        Some((given, None)) => {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(given);
        }
    }
    out.push(b'}');
}

/// Whether a key, as it is between its quotes, is that of a reference. It may have escapes.
fn is_reference(key: &[u8]) -> bool {
    let quoted = [b"\"", key, b"\""].concat();
    string(&quoted).is_some_and(|key| key == REFERENCE || key == REFERENCE_BEFORE)
}

/// The reference of a version of a member: 16 characters, as in Phoenix.
fn reference(Origin(origin): Origin, stamp: u32) -> String {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&origin.to_be_bytes());
    bytes[8..].copy_from_slice(&stamp.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}
