//! `fanout`: subscribers of one channel, or spread over several, and connections that publish to them.
//! Each delivery is checked byte by byte and must be the next of its channel: none is lost, none comes
//! twice, all come in order. Connections beside them ping the server meanwhile.
//!
//! Without a rate the loop is closed: a publisher has up to `pipeline` publications under way, and one
//! is over when its last subscriber has it. With a rate publication `k` of all is due `k / rate`
//! seconds after the beginning, and its times count from then. The last
//! delivery of a publication may be on another worker than its publisher: `shared.rs` has the state of both.

mod clients;
mod publisher;
mod settings;
mod shared;
mod texts;

pub(crate) use self::settings::Args;

use std::sync::Arc;

use murre_record::{CountedFrom, FanoutFacts, Scenario as Kind};

use crate::cli::common::Common;
use crate::client::ws::WsClient;
use crate::engine::fleet::Fleet;
use crate::engine::share::part;
use crate::engine::times::{Times, latency};
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::fanout::clients::Fanout;
use crate::scenarios::fanout::settings::Settings;
use crate::scenarios::fanout::texts::PAYLOAD_BYTES_MIN;
use crate::scenarios::scenario::{
    Apart, Profile, Scenario, Setup, check_in_flight, check_rate, counted_from,
};

impl Scenario for Args {
    fn profile(&self) -> Profile {
        Profile {
            apart: Apart::with_beside(self.beside),
            in_flight_bytes: self.payload * self.pipeline,
            counted_from: counted_from(self.rate),
            must_receive: true,
            ..Profile::new(Kind::Fanout, Fleet::<WsClient<Fanout>>::MEMBER_BYTES)
        }
    }

    fn check(&self, common: &Common) -> Result<(), String> {
        check_rate(self.rate)?;
        if self.channels > common.conns {
            return Err("--channels without subscribers: give as many --conns".to_owned());
        }
        if self.publishers > self.channels {
            return Err("--publishers without channels: give as many --channels".to_owned());
        }
        if self.payload < PAYLOAD_BYTES_MIN {
            return Err(format!("--payload is {PAYLOAD_BYTES_MIN} at least"));
        }
        check_in_flight(self.payload, self.pipeline)
    }

    fn conns_all(&self, common: &Common) -> u64 {
        [common.conns, self.publishers, self.beside].map(u64::from).iter().sum()
    }

    fn conns(&self, common: &Common, worker: usize, workers: usize) -> u32 {
        let publishing = workers - usize::from(self.beside > 0);
        if worker == publishing {
            return self.beside;
        }
        part(self.publishers + common.conns, worker, publishing)
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let settings = Settings { args: self.clone(), setup: setup.client(&config) };
        let shared = || Arc::new(settings.shared(Arc::clone(setup.wakeups)));
        let shared = Arc::clone(self.shared.get_or_init(shared));
        let conns = config.share.conns;
        setup.start_ws(config, move |_| Fanout::new(settings, shared, conns))
    }

    fn fanout_facts(&self, times: &Times) -> Option<FanoutFacts> {
        Some(FanoutFacts {
            publications: self.shared.get()?.over(),
            last_delivery_us: latency(&times.over, counted_from(self.rate)),
            beside_us: (self.beside > 0).then(|| latency(&times.beside, CountedFrom::Due)),
        })
    }
}
