//! Counter-based random numbers: Philox4x32-10, behind `rand`'s [`RngCore`].
//!
//! A generator is fully named by three integers, (seed, stream, step), and holds no other history. Whatever needs
//! randomness at some step makes its generator there and then, so results depend neither on the order of calls nor on
//! the number of threads, and a resumed run needs to remember integers alone.
//!
//! Reference: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

use rand::RngCore;

/// What a random number is for. Streams of one seed are independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Initial network parameters.
    Init = 0,
    /// Seeds of training episodes.
    Environment = 1,
    /// Exploration: random and sampled actions.
    Action = 2,
    /// Which transitions make up a batch.
    Replay = 3,
    /// The noise ε inside an update.
    Update = 4,
    /// Evaluation episodes: their seeds and, if sampled, their actions.
    Evaluation = 5,
}

/// A Philox4x32-10 generator for one (seed, stream, step).
#[derive(Clone, Debug)]
pub struct Philox {
    key: [u32; 2],
    counter: [u32; 4],
    /// The words of [`BLOCKS`] counters, and how many of them are used.
    words: [u32; 4 * BLOCKS],
    used: usize,
}

/// Counters that are worked at together: one alone would wait for each of its products.
const BLOCKS: usize = 4;

impl Philox {
    /// The generator named by `(seed, stream, step)`.
    pub fn new(seed: u64, stream: Stream, step: u64) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            counter: [0, step as u32, (step >> 32) as u32, stream as u32],
            words: [0; 4 * BLOCKS],
            used: 4 * BLOCKS,
        }
    }

    /// The words of the next counters.
    #[inline(never)]
    fn refill(&mut self) {
        let [first, rest @ ..] = self.counter;
        let counters: [_; BLOCKS] = std::array::from_fn(|i| [first.wrapping_add(i as u32), rest[0], rest[1], rest[2]]);
        self.words.copy_from_slice(philox4x32_10(counters, self.key).as_flattened());
        self.counter[0] = first.wrapping_add(BLOCKS as u32);
        self.used = 0;
    }
}

impl RngCore for Philox {
    #[inline]
    fn next_u32(&mut self) -> u32 {
        if self.used == self.words.len() {
            self.refill();
        }
        let word = self.words[self.used];
        self.used += 1;
        word
    }

    #[inline]
    fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(4) {
            chunk.copy_from_slice(&self.next_u32().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Ten rounds of Philox over some 128-bit counters.
fn philox4x32_10<const N: usize>(mut counters: [[u32; 4]; N], key: [u32; 2]) -> [[u32; 4]; N] {
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        for counter in &mut counters {
            let [c0, c1, c2, c3] = *counter;
            let p0 = u64::from(c0) * 0xD251_1F53;
            let p1 = u64::from(c2) * 0xCD9E_8D57;
            *counter = [(p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32];
        }
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that accompany the reference implementation (Random123, `kat_vectors`).
    #[test]
    fn known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([!0; 4], [!0; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32_10([counter], key), [expected]);
        }
    }

    /// The words are those of one counter after the other, also where the lowest part of it overflows.
    #[test]
    fn counters_follow_each_other() {
        let mut rng = Philox::new(3, Stream::Update, 5);
        rng.counter[0] = u32::MAX - 5;
        for i in 0..10_u32 {
            let [expected] = philox4x32_10([[(u32::MAX - 5).wrapping_add(i), 5, 0, Stream::Update as u32]], [3, 0]);
            assert_eq!([(); 4].map(|()| rng.next_u32()), expected);
        }
    }

    /// Wider numbers, and bytes, are made of words in their order, the lowest part first, on every machine.
    #[test]
    fn wider_numbers_and_bytes_are_the_words_in_order() {
        let [mut words, mut wide, mut bytes] = [(); 3].map(|()| Philox::new(3, Stream::Update, 5));
        let [low, high] = [(); 2].map(|()| words.next_u32());
        assert_eq!(wide.next_u64(), u64::from(high) << 32 | u64::from(low));
        let mut filled = [0; 7];
        bytes.fill_bytes(&mut filled);
        assert_eq!((&filled[..4], &filled[4..]), (&low.to_le_bytes()[..], &high.to_le_bytes()[..3]));
    }

    #[test]
    fn every_part_of_the_name_matters() {
        let first = |seed, stream, step| Philox::new(seed, stream, step).next_u64();
        let base = first(1, Stream::Action, 2);
        assert_eq!(base, first(1, Stream::Action, 2));
        for other in [
            first(1 << 32 | 1, Stream::Action, 2),
            first(1, Stream::Replay, 2),
            first(1, Stream::Action, 3),
            first(1, Stream::Action, 1 << 32 | 2),
        ] {
            assert_ne!(base, other);
        }
    }
}
