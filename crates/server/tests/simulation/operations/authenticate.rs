//! A client sends a token: a good one, one that expires soon, one that has, or one that is forged.

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::super::choices::Choices;
use super::super::client::{Asked, Client};
use super::super::model::Model;
use super::super::setup::SECRET;
use super::super::world::World;
use super::Operation;

#[derive(Clone, Debug)]
pub(in super::super) struct Authenticate {
    client: usize,
    token: Token,
}

/// A token and what must come of it.
#[derive(Clone, Debug)]
pub(in super::super) struct Token {
    pub(super) user: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Lasting,
    /// Expires after this number of seconds, less the leeway.
    Expiring(i64),
    Forged,
}

impl Token {
    pub(super) fn draw(choices: &mut Choices) -> Self {
        let user = format!("user-{}", choices.number(3));
        let kind = match choices.number(8) {
            0..3 => Kind::Lasting,
            3..6 => Kind::Expiring([1, 3, 20][choices.index(3)]),
            6 => Kind::Expiring(-2),
            _ => Kind::Forged,
        };
        Token { user, kind }
    }

    /// Of a user, for ever.
    pub(super) fn lasting() -> Self {
        Token { user: "user-0".to_owned(), kind: Kind::Lasting }
    }

    /// When it expires, in Unix seconds.
    pub(super) fn expires(&self, wall: u64) -> Option<u64> {
        match self.kind {
            Kind::Expiring(seconds) => Some(wall.saturating_add_signed(seconds - 10)),
            _ => None,
        }
    }

    /// Whether it is good when it is sent.
    pub(super) fn is_good(&self) -> bool {
        !matches!(self.kind, Kind::Forged | Kind::Expiring(..0))
    }

    pub(super) fn text(&self, wall: u64) -> String {
        let mut claims = json!({"sub": self.user});
        if let Some(expires) = self.expires(wall) {
            claims["exp"] = expires.into();
        }
        let secret =
            if self.kind == Kind::Forged { b"some other secret of 32 bytes...." } else { SECRET };
        encode(&Header::default(), &claims, &EncodingKey::from_secret(secret)).expect("a token")
    }
}

#[derive(Debug)]
struct Authenticating {
    user: String,
    expires: Option<u64>,
    good: bool,
    id: u64,
}

impl Authenticate {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        Authenticate { client: super::client(choices), token: Token::draw(choices) }
    }
}

impl Operation for Authenticate {
    fn client(&self) -> Option<usize> {
        Some(self.client)
    }

    fn play(&self, world: &mut World) {
        let wall = world.model.wall;
        let Some((client, id)) = world.websocket(self.client) else { return };
        client.send(&json!({"action": "auth", "token": self.token.text(wall), "id": id}));
        let (user, expires, good) =
            (self.token.user.clone(), self.token.expires(wall), self.token.is_good());
        client.authenticates = true;
        client.names.insert(self.token.user.clone());
        client.asked.insert(id, Box::new(Authenticating { user, expires, good, id }));
    }
}

impl Asked for Authenticating {
    fn answered(&self, message: &Value, client: &mut Client, model: &mut Model) {
        match super::error(message) {
            Some("bad_token") => {
                let expired = self.expires.is_some_and(|at| at + 10 <= model.wall_max);
                assert!(!self.good || expired, "{message}: it was good");
            }
            Some(code) => super::must_be_general(code, "", client, model),
            None => {
                assert_eq!(message["type"], "authenticated", "{message}");
                assert_eq!(message["user"], *self.user, "{message}");
                assert_eq!(message["expires"].as_u64(), self.expires, "{message}");
                assert!(self.good || self.expires.is_some(), "{message}: it was forged");
                // Another user has not said the same of itself.
                if client.user.as_ref().is_none_or(|(user, _)| *user != self.user) {
                    client.present.values_mut().for_each(|present| present.meta = None);
                    client.renamed_by = self.id;
                }
                client.user = Some((self.user.clone(), self.expires));
            }
        }
    }
}
