//! `churn`: connections that subscribe, unsubscribe and reconnect at random, while one publishes
//! numbers to their channels. What a subscriber receives must be a run without gaps for as long as it is
//! subscribed. In channels with history, those of the namespace `kept`, it resumes where it was and must
//! have missed nothing and get nothing twice, across reconnects.
//!
//! A subscriber is a client that outlives its connections: the next connection of its shard takes it up.

mod args;
mod clients;
mod sequence;
mod shared;
mod subscriber;

pub(crate) use self::args::Args;

use std::sync::Arc;

use murre_record::{ChurnFacts, CountedFrom, Scenario as Kind};

use crate::cli::common::Common;
use crate::client::ws::WsClient;
use crate::engine::fleet::Fleet;
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::churn::clients::Churn;
use crate::scenarios::churn::shared::Shared;
use crate::scenarios::scenario::{FINE_TICK, Profile, Scenario, Setup, check_fine, check_rate};

impl Scenario for Args {
    fn profile(&self) -> Profile {
        Profile {
            tick: FINE_TICK,
            counted_from: CountedFrom::Sent,
            must_receive: true,
            ..Profile::new(Kind::Churn, Fleet::<WsClient<Churn>>::MEMBER_BYTES)
        }
    }

    fn check(&self, common: &Common) -> Result<(), String> {
        check_rate(Some(self.rate))?;
        if self.channels > common.conns {
            return Err("--channels without subscribers: give as many --conns".to_owned());
        }
        if self.kept() > self.channels {
            return Err("--kept is more than there are --channels".to_owned());
        }
        check_fine(self.idle.to.max(common.timeout.as_secs_f64()))
    }

    fn conns_all(&self, common: &Common) -> u64 {
        // One more publishes.
        u64::from(common.conns) + 1
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let shared = Arc::clone(self.shared.get_or_init(|| Arc::new(Shared::new(self.channels))));
        let args = self.clone();
        setup.start_ws(config, move |client| Churn::new(args, client, shared))
    }

    fn churn_facts(&self) -> Option<ChurnFacts> {
        self.shared.get().map(|shared| shared.facts())
    }
}
