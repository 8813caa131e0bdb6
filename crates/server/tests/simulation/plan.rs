//! A run, drawn from bytes: those that follow from a seed, or those of a fuzzer.

use std::fmt;

use super::choices::Choices;
use super::operations::authenticate::Authenticate;
use super::operations::connect::Connect;
use super::operations::control::ControlRequest;
use super::operations::drain::Drain;
use super::operations::history::History;
use super::operations::leave::Leave;
use super::operations::mood::SetMood;
use super::operations::pace::SetPace;
use super::operations::ping::Ping;
use super::operations::poll::SendPoll;
use super::operations::presence::Presence;
use super::operations::publish::Publish;
use super::operations::service::{Offer, SendRequest};
use super::operations::subscribe::Subscribe;
use super::operations::time::Time;
use super::operations::unsubscribe::Unsubscribe;
use super::operations::{CLIENTS, Operation};
use super::setup::Setup;

/// Everything that a run depends on.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) setup: Setup,
    pub(super) steps: Vec<Step>,
    /// Whether all clients leave before the drain; otherwise the drain ends their sessions.
    pub(super) all_leave: bool,
}

macro_rules! steps {
    ($($step:ident),*) => {
        /// One step of a run.
        #[derive(Clone, Debug)]
        pub(super) enum Step { $($step($step)),* }

        impl Step {
            pub(super) fn operation(&self) -> &dyn Operation {
                match self { $(Step::$step(step) => step),* }
            }
        }
    };
}

steps!(
    Authenticate,
    Connect,
    ControlRequest,
    Drain,
    History,
    Leave,
    SetMood,
    SetPace,
    Ping,
    SendPoll,
    Presence,
    Publish,
    Offer,
    SendRequest,
    Subscribe,
    Time,
    Unsubscribe
);

impl Plan {
    /// The plan that follows from a seed.
    #[cfg(test)]
    pub(super) fn of_seed(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let length = rng.usize(100..700);
        let bytes: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
        Plan::read(&bytes)
    }

    pub(super) fn read(bytes: &[u8]) -> Self {
        let choices = &mut Choices::new(bytes);
        let setup = Setup::draw(choices);
        let all_leave = choices.bool();
        // At first there are some clients, which is what most steps need.
        let mut steps: Vec<_> = (0..4 * CLIENTS)
            .map(|at| match at % 4 {
                0 => Step::Connect(Connect::draw(choices)),
                3 => Step::SetPace(SetPace::draw(choices)),
                _ => Step::Subscribe(Subscribe::draw(choices)),
            })
            .collect();
        while choices.has_more() && steps.len() < STEPS_MAX {
            steps.push(Step::draw(choices));
        }
        Plan { setup, steps, all_leave }
    }
}

/// A run has no more steps, whatever the bytes say.
const STEPS_MAX: usize = 400;

impl Step {
    fn draw(choices: &mut Choices) -> Self {
        match choices.number(64) {
            0..7 => Step::Time(Time::draw(choices)),
            7 => Step::SetMood(SetMood::draw(choices)),
            8..12 => Step::Presence(Presence::draw(choices)),
            12..26 => Step::Publish(Publish::draw(choices)),
            26..32 => Step::Subscribe(Subscribe::draw(choices)),
            32..35 => Step::Unsubscribe(Unsubscribe::draw(choices)),
            35..41 => Step::Connect(Connect::draw(choices)),
            41..44 => Step::Leave(Leave::draw(choices)),
            44..48 => Step::SetPace(SetPace::draw(choices)),
            48..51 => Step::SendPoll(SendPoll::draw(choices)),
            51..54 => Step::ControlRequest(ControlRequest::draw(choices)),
            54..56 => Step::History(History::draw(choices)),
            56..58 => Step::Offer(Offer::draw(choices)),
            58..60 => Step::SendRequest(SendRequest::draw(choices)),
            60..62 => Step::Authenticate(Authenticate::draw(choices)),
            62 => Step::Ping(Ping::draw(choices)),
            // Nothing can begin after it, so most runs have none before their end.
            _ if choices.number(3) == 0 => Step::Drain(Drain::draw(choices)),
            _ => Step::Time(Time::draw(choices)),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, all_leave: {}", self.setup, self.all_leave)?;
        self.steps.iter().enumerate().try_for_each(|(at, step)| writeln!(f, "{at:4} {step:?}"))
    }
}
