//! Masking (RFC 6455 section 5.3).

/// Masks or unmasks `bytes` in place. Returns the mask rotated to fit the byte after them.
///
/// Works on blocks of 32 bytes, which the compiler turns into vector instructions.
pub fn apply(bytes: &mut [u8], mut mask: [u8; 4]) -> [u8; 4] {
    const BLOCK: usize = 32;
    const WORD: usize = 4;
    let mut wide = [0; BLOCK];
    for quarter in wide.chunks_exact_mut(4) {
        quarter.copy_from_slice(&mask);
    }
    let (blocks, rest) = bytes.as_chunks_mut::<BLOCK>();
    for block in blocks {
        for (byte, mask) in block.iter_mut().zip(wide) {
            *byte ^= mask;
        }
    }
    // Most frames are shorter than a few blocks, so the rest goes by words.
    let (words, rest) = rest.as_chunks_mut::<WORD>();
    for word in words {
        for (byte, mask) in word.iter_mut().zip(wide) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in rest.iter_mut().zip(wide) {
        *byte ^= mask;
    }
    mask.rotate_left(bytes.len() % 4);
    mask
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(bytes: &mut [u8], mask: [u8; 4]) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte ^= mask[index % 4];
        }
    }

    /// Blocks give what the naive loop gives, at every length and every cut.
    #[test]
    fn blocks_mask_as_the_naive_loop() {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let plain: Vec<u8> = (0..200u8).collect();
        for len in 0..plain.len() {
            let mut expected = plain[..len].to_vec();
            naive(&mut expected, mask);
            for cut in [0, 1, 2, 3, 5, 31, 32, 33, len / 2, len] {
                let mut bytes = plain[..len].to_vec();
                let (first, second) = bytes.split_at_mut(cut.min(len));
                let turned = apply(first, mask);
                apply(second, turned);
                assert_eq!(bytes, expected, "{len} bytes cut at {cut}");
            }
        }
    }

    proptest! {
        /// Wherever the bytes lie, however many there are: as the naive loop, and no byte beside
        /// them is touched. Twice is not at all.
        #[test]
        fn any_bytes_at_any_alignment(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            mask in any::<[u8; 4]>(),
            offset in 0..64_usize,
        ) {
            let from = offset.min(bytes.len());
            let mut expected = bytes.clone();
            naive(&mut expected[from..], mask);
            let mut masked = bytes.clone();
            let turned = apply(&mut masked[from..], mask);
            prop_assert_eq!(&masked, &expected);
            prop_assert_eq!(turned[0], mask[(bytes.len() - from) % 4]);
            apply(&mut masked[from..], mask);
            prop_assert_eq!(masked, bytes);
        }
    }
}
