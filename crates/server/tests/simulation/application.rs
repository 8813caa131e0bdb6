//! What an application knows from the events of webhooks, which it must be able to apply in their order.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The state of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Application {
    /// Connections, with their users.
    pub(crate) connections: BTreeMap<String, Option<String>>,
    /// Channels that have subscribers.
    pub(crate) occupied: BTreeSet<String>,
    /// Members by channel and connection, with their users.
    pub(crate) members: BTreeMap<(String, String), String>,
}

impl Application {
    /// Applies the next event. Each must be a change.
    pub(crate) fn apply(&mut self, event: &Value) {
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        let needed = |name: &str| text(name).unwrap_or_else(|| panic!("no {name} in {event}"));
        assert!(event["time"].is_u64(), "{event}");
        match &*needed("event") {
            "connected" => {
                let before = self.connections.insert(needed("connection"), text("user"));
                assert_eq!(before, None, "{event}");
            }
            "authenticated" => {
                let before = self.connections.insert(needed("connection"), Some(needed("user")));
                assert!(before.is_some_and(|before| before != text("user")), "{event}");
            }
            "disconnected" => {
                let user = self.connections.remove(&needed("connection"));
                assert_eq!(user, Some(text("user")), "{event}");
            }
            "joined" => {
                let member = (needed("channel"), needed("connection"));
                assert_eq!(self.members.insert(member, needed("user")), None, "{event}");
            }
            "left" => {
                let member = self.members.remove(&(needed("channel"), needed("connection")));
                assert_eq!(member, text("user"), "{event}");
            }
            "occupied" => assert!(self.occupied.insert(needed("channel")), "{event}"),
            "vacated" => assert!(self.occupied.remove(&needed("channel")), "{event}"),
            _ => panic!("{event}"),
        }
    }
}
