//! The cost of checking a token, in microseconds of a shard's time. The costs are constants and not
//! measured at run time, so the checks of a turn depend only on its tokens.
//!
//! `cargo run --release -p murre --example token_prices` measures it. On a core of an AMD EPYC with
//! SHA extensions, the median of 501 checks of a wrong signature over 300 bytes is:
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

/// The microseconds that the current turn may still spend on checks.
pub(super) struct Budget(u32);

/// The budget of a turn. Checks delay other connections by at most this and one check per turn.
const TURN_MICROS: u32 = 250;

impl Budget {
    /// The budget of a new turn.
    pub(super) fn of_turn() -> Self {
        Budget(TURN_MICROS)
    }

    /// Whether no further check may begin in this turn.
    pub(super) fn is_spent(&self) -> bool {
        self.0 == 0
    }

    /// Subtracts the cost of a check. The last check of a turn may cost more than the rest of the
    /// budget.
    pub(super) fn spend(&mut self, micros: u32) {
        self.0 = self.0.saturating_sub(micros);
    }
}

/// The microseconds of one signature check with a key of `bits` bits, without [`of_bytes`].
pub(super) fn of_signature(family: AlgorithmFamily, bits: usize) -> u32 {
    match family {
        AlgorithmFamily::Hmac => 2,
        AlgorithmFamily::Ed => 34,
        AlgorithmFamily::Ec => 230,
        // The cost grows with the square of the bits of the modulus, which has at most 4096.
        AlgorithmFamily::Rsa => (180 * (bits * bits) / (2048 * 2048)) as u32,
    }
}

/// The microseconds of parsing and hashing a token of `bytes` bytes: 2 us per KiB for SHA-512, 2 us
/// per KiB for base64 and JSON, and at least 1 us.
pub(super) fn of_bytes(bytes: usize) -> u32 {
    u32::try_from(bytes >> 8).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prices are at least the measured costs, and at most a quarter higher.
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
