//! Situations that the models do not look for: which shards are visited, which readers wait, which
//! publications are refused.

mod backplane;
mod behind;
mod fan_out;
mod overload;
mod publish;
mod recovery;
mod subscribe;
mod support;
