//! The schema of a record: one line of JSON about one run of `murre-load`, with everything that is
//! needed to read its numbers. `murre-load` writes it, `murre-report` reads it.
//!
//! A record is never changed once it is written, so the schema only grows: a field that older records
//! lack has a default, and a field with a new name has the old one as an alias.
#![forbid(unsafe_code)]

mod backend;
mod machine;
mod memory;
mod nodes;
mod phases;
mod presence;
mod recover;
mod run;

pub use backend::{ApplicationFacts, Arrival, BackendFacts};
pub use machine::Machine;
pub use memory::{CacheCharge, Memory, ProcessMemory, SOCKET_BYTES};
pub use nodes::{NodeEnd, NodesFacts, ProcessFacts, SessionCount};
pub use phases::{AbuseFacts, OneStorm, PhaseFacts, Remains, SoakFacts, StormFacts, VisitFacts};
pub use presence::{PhoenixFacts, PresenceCount, PresenceFacts};
pub use recover::{InterestFacts, Outage, RecoverFacts};
pub use run::{
    Article, ChurnFacts, ClientFacts, Connect, CountedFrom, FanoutFacts, Hold, Latency, Outcome,
    Record, Row, Scenario, Series,
};
