//! The data port: which path means what, and the application that joins paths, hub and transports.

mod app;
mod consult;
mod mail;
mod paths;
mod phoenix_polls;

pub(crate) use app::App;
pub(crate) use mail::{AppMail, AppMailbox};
