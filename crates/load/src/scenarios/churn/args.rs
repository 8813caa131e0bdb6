//! The scenario's arguments.

use std::sync::{Arc, OnceLock};

use serde::Serialize;

use crate::cli::args::{self, Span};
use crate::scenarios::churn::shared::Shared;

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// Range of seconds from one change of a subscriber to the next
    #[arg(long, value_name = "FROM-TO", default_value = "0.1-1")]
    pub(super) idle: Span,

    /// Channels that the subscribers are spread over
    #[arg(long, alias = "topics", value_name = "N", default_value_t = 10)]
    #[arg(value_parser = args::number(u32::MAX))]
    pub(super) channels: u32,

    /// How many of the channels have history, in the namespace `kept` [default: half]
    #[arg(long, value_name = "N")]
    pub(super) kept: Option<u32>,

    /// Publications per second, on a fixed schedule
    #[arg(long, value_name = "N/s", default_value = "1000", value_parser = args::rate)]
    pub(super) rate: f64,

    #[arg(skip)]
    #[serde(skip)]
    pub(super) shared: OnceLock<Arc<Shared>>,
}

impl Args {
    /// Channels with history.
    pub(super) fn kept(&self) -> u32 {
        self.kept.unwrap_or(self.channels / 2)
    }
}
