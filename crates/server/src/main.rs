//! The binary `murre`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    murre::run()
}
