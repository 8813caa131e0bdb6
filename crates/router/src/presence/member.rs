//! Members of a channel, as values that clients are told.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::channels::Origin;

/// The number of a node of a cluster; [`HERE`] is the node of this process.
pub type Node = u16;

/// This node.
pub const HERE: Node = 0;

/// The name of a user: one pointer to a text that the sessions and the members of the user share.
pub type UserName = arcstr::ArcStr;

/// What a member says of itself. The router does not read it. It takes 8 bytes beside its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta(Arc<Box<[u8]>>);

const _: () = assert!(size_of::<Option<Meta>>() == 8);

impl Meta {
    /// Metadata of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Meta(Arc::new(bytes.into()))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A member of a channel: one connection of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresentMember {
    /// The node of the connection.
    pub node: Node,
    /// The session of the connection, as the caller encodes it.
    pub origin: Origin,
    /// The version of the member. No two members or updates of a channel's owner have the same one, until
    /// 2^32 of them have passed. Never 0.
    pub stamp: u32,
    /// In a join that is an update: the version before. 0 otherwise.
    pub replaces: u32,
    /// The user.
    pub user: UserName,
    /// What the member says of itself.
    pub meta: Option<Meta>,
}

/// Changes of the members of a small channel. A receiver removes the leaves first, then adds the joins,
/// each by the member's node and origin. A leave may be of a member that the receiver does not know. An
/// update is a leave of the old version and a join of the new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Members that have joined, and new versions of members.
    pub joins: Vec<PresentMember>,
    /// Members that have left, and old versions of members.
    pub leaves: Vec<PresentMember>,
}

/// How many are in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Number of connections.
    pub clients: u64,
    /// Number of different users. In a large channel of a cluster a user may count once for each node at
    /// which it is.
    pub users: u64,
}

/// What watchers of a channel are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// All members. Replaces all that the watcher knows; changes follow.
    Members(Arc<[PresentMember]>),
    /// Changes since the news before.
    Changes(Arc<Changes>),
    /// The counts. A watcher of members knows by it that the channel is large: the members that it knows
    /// are not kept up to date until it is told all of them.
    Count(Count),
}

/// What a watcher wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Watch {
    /// Counts.
    Counts,
    /// Members, as long as the channel is small, and counts otherwise.
    Members,
}

/// How a member leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Departure {
    /// It has said so, and leaves at once.
    Left,
    /// Its connection is lost. It leaves when it does not come back within the channel's grace.
    Lost,
}

/// A page of the members of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresencePage {
    /// The counts of the channel.
    pub count: Count,
    /// Members. A member that is there throughout is in one page.
    pub members: Vec<PresentMember>,
    /// The start of the next page, if there is one.
    pub next: Option<u64>,
    /// The names of the nodes whose members are missing, in the numbers as well. The router has this node only.
    pub unanswered: Vec<Arc<str>>,
}

/// Which page of a channel's members is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceQuery {
    /// 0, or `next` of the page before.
    pub from: u64,
    /// Number of members at most. With 0 the page has the counts alone.
    pub limit: u32,
    /// Bytes of names and metadata at most, and 64 for each member. A page has at least one member if
    /// there is one.
    pub bytes_max: u32,
}
