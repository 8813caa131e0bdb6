//! Request and reply, as its caller sees it.

mod cases;
mod oracles;
mod seeds;

use murre_router::services::{ByteLen, ServiceLimits, Services};

fn one_shard<P: ByteLen>(limits: ServiceLimits) -> Services<P> {
    Services::new(0, 1, 0, limits)
}
