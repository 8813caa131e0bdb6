//! Orders for the sessions of a user, which other nodes carry out as well. Each node looks among its own sessions.
//!
//! An order reaches the nodes that are connected to NATS, once at most. Connections have names in their own node
//! only, so an order for one connection stays there.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Nats;
use crate::hub::HubMail;
use crate::hub::auth::UnixSeconds;
use crate::hub::control::Control;
use crate::hub::orders::{Action, Order, Selection};

/// An order on its way, in JSON.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Message {
    /// The incarnation of the node that sends it, which has carried it out.
    from: u64,
    user: Box<str>,
    action: Wanted,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    Disconnect {
        code: Option<u16>,
        reason: Option<Box<str>>,
    },
    Unsubscribe {
        channel: Option<Box<str>>,
        reason: Option<Box<str>>,
    },
    /// In Unix seconds; `None` is never.
    Refresh {
        expires: Option<u64>,
    },
    Expire,
}

/// The end of the subject of orders.
const SUBJECT: &str = "orders";

impl Nats {
    /// Has the other nodes do something to the sessions of a user. Returns whether the order is on its way.
    pub(crate) fn order(&self, user: &str, action: &Action) -> bool {
        let message = Message {
            from: self.node().incarnation,
            user: user.into(),
            action: Wanted::from(action),
        };
        let text = serde_json::to_vec(&message).expect("texts and numbers");
        self.is_up() && self.publish(&self.subject(SUBJECT), text)
    }

    /// Carries out the orders of other nodes in these shards.
    pub(crate) fn obey_orders(&self, shards: usize, post: super::Post) {
        let own = self.node().incarnation;
        let handle = move |_: &str, payload: &[u8]| {
            let Ok(Message { from, user, action }) = serde_json::from_slice(payload) else {
                return tracing::warn!("a message on the subject of orders is none");
            };
            if from == own {
                return;
            }
            for shard in 0..shards {
                let sessions = Selection::User { name: user.clone(), except: Box::default() };
                // The number of sessions is for the node that was asked, which has its own alone.
                let (answer, _) = oneshot::channel();
                let order = Order { sessions, action: Action::from(&action), answer };
                if post(shard, HubMail::Control(Control::Order(order))).is_err() {
                    tracing::warn!(
                        shard,
                        "an order of another node was lost: the shard is overloaded"
                    );
                }
            }
        };
        self.subscribe(&self.subject(SUBJECT), Box::new(handle));
    }
}

impl From<&Action> for Wanted {
    fn from(action: &Action) -> Self {
        match action.clone() {
            Action::Disconnect { code, reason } => Wanted::Disconnect { code, reason },
            Action::Unsubscribe { channel, reason } => Wanted::Unsubscribe { channel, reason },
            Action::Refresh { expires } => {
                Wanted::Refresh { expires: expires.map(UnixSeconds::get) }
            }
            Action::Expire => Wanted::Expire,
        }
    }
}

impl From<&Wanted> for Action {
    fn from(wanted: &Wanted) -> Self {
        match wanted {
            Wanted::Disconnect { code, reason } => {
                Action::Disconnect { code: *code, reason: reason.clone() }
            }
            Wanted::Unsubscribe { channel, reason } => {
                Action::Unsubscribe { channel: channel.clone(), reason: reason.clone() }
            }
            Wanted::Refresh { expires } => {
                Action::Refresh { expires: expires.and_then(UnixSeconds::new) }
            }
            Wanted::Expire => Action::Expire,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An order is the same on the other node.
    #[test]
    fn orders_come_as_they_go() {
        let reason = || Some("you".into());
        for action in [
            Action::Disconnect { code: Some(4001), reason: reason() },
            Action::Disconnect { code: None, reason: None },
            Action::Unsubscribe { channel: Some("a:b".into()), reason: reason() },
            Action::Unsubscribe { channel: None, reason: None },
            Action::Refresh { expires: UnixSeconds::new(5) },
            Action::Refresh { expires: None },
            Action::Expire,
        ] {
            let message = Message { from: 7, user: "ann".into(), action: Wanted::from(&action) };
            let text = serde_json::to_vec(&message).expect("JSON");
            let read: Message = serde_json::from_slice(&text).expect("an order");
            assert_eq!((&read, Action::from(&read.action)), (&message, action));
        }
    }
}
