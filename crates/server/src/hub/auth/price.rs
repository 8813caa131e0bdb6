//! What checking a token costs, in microseconds of a shard's time. A table instead of a clock: what a
//! turn admits then depends on nothing but what it is asked.
//!
//! `cargo run --release -p murre --example token_prices` measures it. On a core of an AMD EPYC
//! with SHA extensions, as the median of 501 checks of a signature that does not fit, over 300 bytes:
//!
//! | algorithm | time | over 64 KiB |
//! |---|---|---|
//! | HS256 | 0.4 us | 36 us |
//! | HS384, HS512 | 1.6 us | 107 us |
//! | EdDSA | 33 us | 139 us |
//! | ES256 | 229 us | 265 us |
//! | RS256, 2048 bits | 180 us | 216 us |
//! | RS256, 4096 bits | 670 us | 707 us |

use jsonwebtoken::AlgorithmFamily;

/// Microseconds that one turn may still spend on checks.
pub(super) struct Budget(u32);

/// Checks delay other connections by no more than this and one check in a turn.
const TURN_MICROS: u32 = 250;

impl Budget {
    /// What a turn has to spend.
    pub(super) fn of_turn() -> Self {
        Budget(TURN_MICROS)
    }

    /// Whether no other check may begin.
    pub(super) fn is_spent(&self) -> bool {
        self.0 == 0
    }

    /// Takes what a check has cost: the last one may cost more than is left.
    pub(super) fn spend(&mut self, micros: u32) {
        self.0 = self.0.saturating_sub(micros);
    }
}

/// Microseconds of one signature check with a key of `bits`, beside [`of_bytes`].
pub(super) fn of_signature(family: AlgorithmFamily, bits: usize) -> u32 {
    match family {
        AlgorithmFamily::Hmac => 2,
        AlgorithmFamily::Ed => 34,
        AlgorithmFamily::Ec => 230,
        // It grows with the square of the modulus, which has 4096 bits at most.
        AlgorithmFamily::Rsa => (180 * (bits * bits) / (2048 * 2048)) as u32,
    }
}

/// Microseconds of reading a token of `bytes` and hashing it: 2 us for a KiB where SHA-512 is the
/// hash, as many again for base64 and JSON, and one at least.
pub(super) fn of_bytes(bytes: usize) -> u32 {
    u32::try_from(bytes >> 8).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prices are no less than what was measured, and at most a quarter more.
    #[test]
    fn prices_are_as_measured() {
        for (family, bits, micros) in [
            (AlgorithmFamily::Ed, 256, 33),
            (AlgorithmFamily::Ec, 256, 229),
            (AlgorithmFamily::Rsa, 2048, 180),
            (AlgorithmFamily::Rsa, 4096, 670),
        ] {
            let price = of_signature(family, bits);
            assert!((micros..=micros * 5 / 4).contains(&price), "{family:?} {bits} {price}");
        }
    }
}
