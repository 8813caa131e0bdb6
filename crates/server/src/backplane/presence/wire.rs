//! The messages between nodes about presence, as bytes. Each begins with the version of the encoding, its kind
//! and the incarnation of its sender. Numbers and lengths are LEB128. What cannot be decoded is an error; the
//! caller counts and ignores it.

use std::sync::Arc;

use murre_router::channels::Origin;
use murre_router::presence::{
    Count, HERE, Meta, PresencePage, PresenceQuery, PresentMember, UserName,
};

use super::finds::FoundHere;

/// One start of a node: a random number, never 0.
pub(crate) type Incarnation = u64;

/// A message, with the node that sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) from: Incarnation,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// The node lives. It may have lost some of what it has told, and been told, between two `sessions`.
    /// `beat` goes up by one.
    Beat {
        session: u64,
        beat: u64,
        name: Box<str>,
    },
    /// The node ends.
    Bye,
    /// The node wants to know what others have in these channels.
    Ask {
        channels: Vec<Arc<str>>,
    },
    /// The node has nothing in these channels, as of its statement number `at`.
    Nothing {
        at: u64,
        channels: Vec<Arc<str>>,
    },
    /// The node wants a page of what the receiver has in a channel; the answer has the same `id`.
    Read {
        id: u64,
        channel: Arc<str>,
        query: PresenceQuery,
    },
    Page {
        id: u64,
        page: PresencePage,
    },
    /// The node wants to know where a user is connected; the answers have the same `id`.
    Find {
        id: u64,
        user: Arc<str>,
    },
    Found {
        id: u64,
        found: FoundHere,
    },
    /// About one channel, whose name is in the subject.
    Statement {
        number: u64,
        what: Statement,
    },
}

/// What a node says of one of its channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// Changes since the statement `previous`. With 0 nobody was there before.
    Changes { previous: u64, joins: Vec<PresentMember>, leaves: Vec<PresentMember> },
    /// All members. Several parts with one number may have them.
    Members { part: u64, is_last: bool, members: Vec<PresentMember> },
    /// The number of members.
    Count(Count),
    /// Nothing has changed since the statement with this number.
    Mark,
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

const VERSION: u8 = 1;

mod kind {
    pub(super) const BEAT: u8 = 1;
    pub(super) const BYE: u8 = 2;
    pub(super) const ASK: u8 = 3;
    pub(super) const NOTHING: u8 = 4;
    pub(super) const CHANGES: u8 = 5;
    pub(super) const MEMBERS: u8 = 6;
    pub(super) const COUNT: u8 = 7;
    pub(super) const MARK: u8 = 8;
    pub(super) const READ: u8 = 9;
    pub(super) const PAGE: u8 = 10;
    pub(super) const FIND: u8 = 11;
    pub(super) const FOUND: u8 = 12;
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let kind = match &self.body {
            Body::Beat { .. } => kind::BEAT,
            Body::Bye => kind::BYE,
            Body::Ask { .. } => kind::ASK,
            Body::Nothing { .. } => kind::NOTHING,
            Body::Read { .. } => kind::READ,
            Body::Page { .. } => kind::PAGE,
            Body::Find { .. } => kind::FIND,
            Body::Found { .. } => kind::FOUND,
            Body::Statement { what, .. } => match what {
                Statement::Changes { .. } => kind::CHANGES,
                Statement::Members { .. } => kind::MEMBERS,
                Statement::Count(_) => kind::COUNT,
                Statement::Mark => kind::MARK,
            },
        };
        let mut out = vec![VERSION, kind];
        out.extend_from_slice(&self.from.to_le_bytes());
        match &self.body {
            Body::Beat { session, beat, name } => {
                put(&mut out, *session);
                put(&mut out, *beat);
                put_bytes(&mut out, name.as_bytes());
            }
            Body::Bye => {}
            Body::Ask { channels } => put_names(&mut out, channels),
            Body::Nothing { at, channels } => {
                put(&mut out, *at);
                put_names(&mut out, channels);
            }
            Body::Read { id, channel, query: PresenceQuery { from, limit, bytes_max } } => {
                [*id, *from, u64::from(*limit), u64::from(*bytes_max)]
                    .into_iter()
                    .for_each(|number| put(&mut out, number));
                put_bytes(&mut out, channel.as_bytes());
            }
            Body::Page { id, page: PresencePage { count, members, next, .. } } => {
                // No place is 2^64 - 1, as one is a node and a place there.
                let next = next.map_or(0, |next| next.saturating_add(1));
                [*id, count.clients, count.users, next]
                    .into_iter()
                    .for_each(|number| put(&mut out, number));
                put_members(&mut out, members);
            }
            Body::Find { id, user } => {
                put(&mut out, *id);
                put_bytes(&mut out, user.as_bytes());
            }
            Body::Found { id, found: FoundHere { shard, shards, connections } } => {
                [*id, u64::from(*shard), u64::from(*shards), connections.len() as u64]
                    .into_iter()
                    .for_each(|number| put(&mut out, number));
                connections.iter().for_each(|one| out.extend_from_slice(&one.0.to_le_bytes()));
            }
            Body::Statement { number, what } => {
                put(&mut out, *number);
                what.encode(&mut out);
            }
        }
        out
    }

    /// # Errors
    /// See [`Malformed`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
        let mut rest = Reader(bytes);
        if rest.byte()? != VERSION {
            return Err(Malformed);
        }
        let kind = rest.byte()?;
        let from = rest.fixed()?;
        let body = match kind {
            kind::BEAT => Body::Beat {
                session: rest.number()?,
                beat: rest.number()?,
                name: rest.text()?.into(),
            },
            kind::BYE => Body::Bye,
            kind::ASK => Body::Ask { channels: rest.list(|rest| Ok(rest.text()?.into()))? },
            kind::NOTHING => Body::Nothing {
                at: rest.number()?,
                channels: rest.list(|rest| Ok(rest.text()?.into()))?,
            },
            kind::READ => Body::Read {
                id: rest.number()?,
                query: PresenceQuery {
                    from: rest.number()?,
                    limit: rest.number_of_32()?,
                    bytes_max: rest.number_of_32()?,
                },
                channel: rest.text()?.into(),
            },
            kind::PAGE => Body::Page {
                id: rest.number()?,
                page: PresencePage {
                    count: Count { clients: rest.number()?, users: rest.number()? },
                    next: rest.number()?.checked_sub(1),
                    members: rest.list(Reader::member)?,
                    unanswered: Vec::new(),
                },
            },
            kind::FIND => Body::Find { id: rest.number()?, user: rest.text()?.into() },
            kind::FOUND => Body::Found {
                id: rest.number()?,
                found: FoundHere {
                    shard: rest.number_of_16()?,
                    shards: rest.number_of_16()?,
                    connections: rest.list(|rest| Ok(Origin(rest.fixed()?)))?,
                },
            },
            _ => Body::Statement { number: rest.number()?, what: rest.statement(kind)? },
        };
        (rest.0.is_empty() && from > 0).then_some(Message { from, body }).ok_or(Malformed)
    }
}

impl Statement {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Statement::Changes { previous, joins, leaves } => {
                put(out, *previous);
                put_members(out, joins);
                put(out, leaves.len() as u64);
                leaves
                    .iter()
                    .for_each(|leave| out.extend_from_slice(&leave.origin.0.to_le_bytes()));
            }
            Statement::Members { part, is_last, members } => {
                put(out, *part);
                out.push(u8::from(*is_last));
                put_members(out, members);
            }
            Statement::Count(Count { clients, users }) => {
                put(out, *clients);
                put(out, *users);
            }
            Statement::Mark => {}
        }
    }
}

/// Bytes of a member in a message, about.
pub(crate) fn member_bytes(member: &PresentMember) -> usize {
    let meta = member.meta.as_ref().map_or(0, |meta| meta.bytes().len());
    meta.saturating_add(member.user.len()).saturating_add(16)
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_names(out: &mut Vec<u8>, names: &[Arc<str>]) {
    put(out, names.len() as u64);
    names.iter().for_each(|name| put_bytes(out, name.as_bytes()));
}

/// Metadata comes after its length and one more; 0 is none.
fn put_members(out: &mut Vec<u8>, members: &[PresentMember]) {
    put(out, members.len() as u64);
    for PresentMember { origin, user, meta, .. } in members {
        out.extend_from_slice(&origin.0.to_le_bytes());
        put_bytes(out, user.as_bytes());
        let meta = meta.as_ref().map(Meta::bytes);
        put(out, meta.map_or(0, |meta| (meta.len() as u64).saturating_add(1)));
        out.extend_from_slice(meta.unwrap_or_default());
    }
}

/// The rest of a message.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn bytes(&mut self, length: usize) -> Result<&'b [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.bytes(1)?[0])
    }

    fn fixed(&mut self) -> Result<u64, Malformed> {
        let bytes = self.bytes(8)?.try_into().map_err(|_| Malformed)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if (bits << shift) >> shift != bits {
                return Err(Malformed);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn number_of_32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.number()?).map_err(|_| Malformed)
    }

    fn number_of_16(&mut self) -> Result<u16, Malformed> {
        u16::try_from(self.number()?).map_err(|_| Malformed)
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        (length <= self.0.len()).then_some(length).ok_or(Malformed)
    }

    fn text(&mut self) -> Result<&'b str, Malformed> {
        let length = self.length()?;
        str::from_utf8(self.bytes(length)?).map_err(|_| Malformed)
    }

    /// A list, whose items take at least a byte each.
    fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let length = self.length()?;
        (0..length).map(|_| item(self)).collect()
    }

    fn member(&mut self) -> Result<PresentMember, Malformed> {
        let (origin, user) = (Origin(self.fixed()?), UserName::from(self.text()?));
        let meta = match self.length_of_meta()? {
            None => None,
            Some(length) => Some(meta(self.bytes(length)?)?),
        };
        Ok(PresentMember { node: HERE, origin, stamp: 0, replaces: 0, user, meta })
    }

    fn length_of_meta(&mut self) -> Result<Option<usize>, Malformed> {
        let number = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        Ok(number.checked_sub(1))
    }

    fn statement(&mut self, kind: u8) -> Result<Statement, Malformed> {
        Ok(match kind {
            kind::CHANGES => Statement::Changes {
                previous: self.number()?,
                joins: self.list(Self::member)?,
                leaves: self.list(|rest| {
                    let (origin, user) = (Origin(rest.fixed()?), UserName::new());
                    Ok(PresentMember {
                        node: HERE,
                        origin,
                        stamp: 0,
                        replaces: 0,
                        user,
                        meta: None,
                    })
                })?,
            },
            kind::MEMBERS => Statement::Members {
                part: self.number()?,
                is_last: match self.byte()? {
                    0 => false,
                    1 => true,
                    _ => return Err(Malformed),
                },
                members: self.list(Self::member)?,
            },
            kind::COUNT => {
                Statement::Count(Count { clients: self.number()?, users: self.number()? })
            }
            kind::MARK => Statement::Mark,
            _ => return Err(Malformed),
        })
    }
}

/// Metadata, which clients get as it is: it has to be JSON in one line.
fn meta(bytes: &[u8]) -> Result<Meta, Malformed> {
    let is_line = !bytes.iter().any(u8::is_ascii_control);
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
    (is_line && is_json).then(|| Meta::new(bytes)).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn member(origin: u64, user: &str, meta: Option<&str>) -> PresentMember {
        let meta = meta.map(|meta| Meta::new(meta.as_bytes()));
        let (origin, user) = (Origin(origin), user.into());
        PresentMember { node: HERE, origin, stamp: 0, replaces: 0, user, meta }
    }

    fn examples() -> Vec<Message> {
        let long = "é".repeat(200);
        let members = || vec![member(u64::MAX, "", None), member(0, &long, Some("{\"a\":[1]}"))];
        let leaves = vec![member(7, "", None)];
        let (number, names) = (u64::MAX, || vec!["".into(), "ä.b*".into()]);
        let statement = |what| Body::Statement { number, what };
        let bodies = [
            Body::Beat { session: 1, beat: 128, name: "node-1".into() },
            Body::Bye,
            Body::Ask { channels: names() },
            Body::Nothing { at: 0, channels: names() },
            Body::Read {
                id: 1,
                channel: "ä".into(),
                query: PresenceQuery { from: 1 << 48, limit: u32::MAX, bytes_max: 0 },
            },
            Body::Page {
                id: 200,
                page: PresencePage {
                    count: Count { clients: u64::MAX, users: 1 },
                    members: members(),
                    next: Some(0),
                    unanswered: Vec::new(),
                },
            },
            Body::Find { id: 1 << 63, user: "ä".into() },
            Body::Found {
                id: 3,
                found: FoundHere {
                    shard: u16::MAX,
                    shards: 128,
                    connections: vec![Origin(u64::MAX), Origin(0)],
                },
            },
            statement(Statement::Changes { previous: 127, joins: members(), leaves }),
            statement(Statement::Members { part: 3, is_last: true, members: members() }),
            statement(Statement::Count(Count { clients: u64::MAX, users: 1 })),
            statement(Statement::Mark),
        ];
        bodies.into_iter().map(|body| Message { from: 1 << 63, body }).collect()
    }

    /// Every message is decoded to what was encoded. No part of one is a message, nor is one with more behind
    /// it, of another version, or of nobody.
    #[test]
    fn messages_are_decoded() {
        for message in examples() {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Ok(message));
            for end in 0..bytes.len() {
                assert_eq!(Message::decode(&bytes[..end]), Err(Malformed), "{end} of {bytes:?}");
            }
            assert_eq!(Message::decode(&[&bytes[..], b"\0"].concat()), Err(Malformed));
            assert_eq!(Message::decode(&[&[2], &bytes[1..]].concat()), Err(Malformed));
            assert_eq!(
                Message::decode(&[&bytes[..2], &[0; 8], &bytes[10..]].concat()),
                Err(Malformed)
            );
        }
    }

    /// Metadata of another node that would break the messages to clients is refused: what is no JSON, or has
    /// line breaks.
    #[test]
    fn metadata_is_checked() {
        for (meta, is_good) in [
            ("1", true),
            ("{\"a\":\"\\n\"}", true),
            ("", false),
            ("{}{}", false),
            ("[1,\n2]", false),
        ] {
            let members = vec![member(1, "ann", Some(meta))];
            let what = Statement::Members { part: 0, is_last: true, members };
            let bytes = Message { from: 1, body: Body::Statement { number: 1, what } }.encode();
            assert_eq!(Message::decode(&bytes).is_ok(), is_good, "{meta:?}");
        }
    }

    proptest! {
        /// Any bytes, and messages with a byte that is wrong, are decoded or refused; a claim of a length makes
        /// no room.
        #[test]
        fn any_bytes(bytes in vec(any::<u8>(), 0..200), at in 0_usize..100, byte: u8) {
            let _ = Message::decode(&[&[VERSION][..], &bytes].concat());
            for message in examples() {
                let mut bytes = message.encode();
                let at = at % bytes.len();
                bytes[at] = byte;
                if let Ok(message) = Message::decode(&bytes) {
                    prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
                }
            }
        }
    }
}
