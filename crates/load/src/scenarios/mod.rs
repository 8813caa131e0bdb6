//! The scenarios: a file each, with its arguments ([`scenario::Scenario`]) and its virtual clients.

pub(crate) mod abuse;
pub(crate) mod backend;
pub(crate) mod churn;
pub(crate) mod fanout;
pub(crate) mod http_keepalive;
pub(crate) mod interest;
pub(crate) mod phoenix;
pub(crate) mod presence;
pub(crate) mod pubsub;
pub(crate) mod quotes;
pub(crate) mod recover;
pub(crate) mod request_reply;
pub(crate) mod scenario;
pub(crate) mod soak;
pub(crate) mod storm;
pub(crate) mod ws_echo;
pub(crate) mod ws_idle;
pub(crate) mod ws_upper;
