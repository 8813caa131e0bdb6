//! A model of one client's knowledge of the members of its channel. It follows the protocol's rules, and finds
//! every message that breaks one.

use super::messages::{Member, Message};
use super::shared::Shared;

/// The members of a channel, or their number, as far as a client knows them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: it does not watch, or has yet to be told.
    #[default]
    Nothing,
    /// By place, the number of the member's last join; 0 of one that is not there.
    Members(Box<[u32]>),
    Count {
        clients: u64,
        users: u64,
    },
}

impl Known {
    /// Takes a message about members of a channel. Returns how many joins and leaves it has.
    ///
    /// # Errors
    /// The server has broken the protocol.
    pub(super) fn take(
        &mut self,
        channel: u32,
        message: &Message<'_>,
        shared: &Shared,
    ) -> Result<usize, String> {
        match &message.kind[..] {
            "presence_state" => {
                let mut joins = vec![0; shared.places(channel)].into_boxed_slice();
                for member in &message.members {
                    let place = place(channel, member, shared)?;
                    if joins[place] > 0 {
                        return Err(format!("{member:?} twice"));
                    }
                    joins[place] = join_of(member)?;
                }
                *self = Known::Members(joins);
                Ok(0)
            }
            "presence_diff" => {
                let Known::Members(joins) = self else {
                    return Err(format!("changes without a state, {self:?}"));
                };
                for member in &message.leaves {
                    joins[place(channel, member, shared)?] = 0;
                }
                for member in &message.joins {
                    let (place, join) = (place(channel, member, shared)?, join_of(member)?);
                    if join < joins[place] {
                        return Err(format!("{member:?} behind its join {}", joins[place]));
                    }
                    joins[place] = join;
                }
                Ok(message.joins.len() + message.leaves.len())
            }
            _ => {
                *self = Known::Count { clients: message.clients, users: message.users };
                Ok(0)
            }
        }
    }

    /// Whether this is exactly what there is.
    pub(super) fn is_exact(&self, channel: u32, shared: &Shared) -> bool {
        match self {
            Known::Nothing => false,
            Known::Members(joins) => shared.members(channel).eq(joins.iter().copied()),
            Known::Count { clients, users } => {
                let there = shared.members(channel).filter(|join| *join > 0).count() as u64;
                (*clients, *users) == (there, there)
            }
        }
    }
}

/// The place of a member in the channel: of the right user, and with the name that all clients are told.
fn place(channel: u32, member: &Member<'_>, shared: &Shared) -> Result<usize, String> {
    let number = member.number().filter(|number| number % shared.channels() == channel);
    let place = number.map(|number| (number / shared.channels()) as usize);
    let found = place.filter(|&place| shared.connection(channel, place) == number);
    match (number, found) {
        (Some(number), Some(place)) if shared.is_named(number, member.connection) => Ok(place),
        (Some(_), Some(_)) => Err(format!("{member:?} of another connection than before")),
        _ => Err(format!("{member:?} in channel {channel}")),
    }
}

fn join_of(member: &Member<'_>) -> Result<u32, String> {
    member.meta.filter(|join| *join > 0).ok_or_else(|| format!("{member:?} without its metadata"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(known: &mut Known, shared: &Shared, text: &str) -> Result<usize, String> {
        known.take(1, &serde_json::from_str(text).expect(text), shared)
    }

    /// Shows that a state and its changes make the members that there are, and that each mistake of a server
    /// is found.
    #[test]
    fn a_model_follows_the_protocol() {
        let shared = Shared::new(6, 2);
        shared.set(1, 4);
        shared.set(5, 2);
        let state = r#"{"type":"presence_state","members":[{"user":"user-1","connection":"a",
            "meta":3},{"user":"user-3","connection":"b","meta":1}]}"#;
        let diff = r#"{"type":"presence_diff","leaves":[{"user":"user-3","connection":"b"},
            {"user":"user-1","connection":"a"}],"joins":[{"user":"user-1","connection":"a","meta":4},
            {"user":"user-5","connection":"c","meta":2}]}"#;
        let mut known = Known::Nothing;
        assert!(take(&mut known, &shared, diff).is_err(), "changes before a state");
        assert_eq!(take(&mut known, &shared, state), Ok(0));
        assert!(!known.is_exact(1, &shared), "before the changes");
        assert_eq!(take(&mut known, &shared, diff), Ok(4));
        assert!(known.is_exact(1, &shared));
        assert!(take(&mut known, &shared, &diff.replace("\"meta\":2", "\"meta\":1")).is_err());

        for (wrong, by) in [
            (r#""connection":"a""#, r#""connection":"b""#),
            ("user-3", "user-1"),
            ("user-3", "user-2"),
            ("user-3", "user-7"),
            ("user-3", "somebody"),
            (r#","meta":1"#, ""),
        ] {
            let wrong = state.replacen(wrong, by, 1);
            assert!(take(&mut Known::Nothing, &shared, &wrong).is_err(), "{wrong}");
        }
        let count = r#"{"type":"presence_count","clients":2,"users":2}"#;
        assert_eq!(take(&mut known, &shared, count), Ok(0));
        assert!(known.is_exact(1, &shared));
        take(&mut known, &shared, &count.replace("users\":2", "users\":1")).expect("a count");
        assert!(!known.is_exact(1, &shared));
    }
}
