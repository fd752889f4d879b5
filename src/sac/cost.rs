//! How much work an update on the CPU is, and how many threads that is worth.

use super::{Policy, networks};
use crate::config::Config;
use crate::nn::gemm::SPLIT_COLUMNS;

/// What each row of a batch takes besides products, as many FLOPs of products as last as long: drawing it, its noise, the
/// tanh-Gaussian, the losses.
const FLOPS_OF_ROW: f64 = 20e3;
/// Least work of an update that two threads do sooner than one, in FLOPs. What they save is then more than the dozen
/// hand-overs that it takes; measured on two cores, see `docs/scaling.md`.
const FLOPS_FOR_TWO: f64 = 2.5e6;
/// Least work for each thread of more than two, in FLOPs: about 100 µs, so that each of the dozen phases of an update keeps
/// a thread ten times as long busy as a hand-over takes. Not measured.
const FLOPS_FOR_EACH: f64 = 8e6;

/// Floating-point operations of an update at which the policy takes a step: two for each multiplication and addition of
/// its matrix products, thin ones included. Nothing else is counted.
pub fn flops(config: &Config, observation_size: usize, action_size: usize) -> f64 {
    let specs = networks(config, observation_size, action_size);
    let row = specs.iter().map(|spec| spec.multiplications).sum::<usize>();
    2.0 * row as f64 * config.batch_size as f64
}

/// How many threads make updates of this size faster: a power of two, before cores and `--threads` bound it.
///
/// Two take a critic each. More of them share the rows of a batch, block by block, and the columns of wide layers, so that
/// beyond as many as there are such pieces they would only wait.
pub fn threads(config: &Config, observation_size: usize, action_size: usize) -> usize {
    let work = flops(config, observation_size, action_size) + FLOPS_OF_ROW * config.batch_size as f64;
    if work < FLOPS_FOR_TWO {
        return 1;
    }
    let policy = Policy::new(config, observation_size, action_size);
    let widest = config.critic_hidden.iter().copied().max().unwrap_or(1);
    let pieces = 2 * policy.networks[0].divide(config.batch_size).len() * (widest / SPLIT_COLUMNS).max(1);
    let most = pieces.min((work / FLOPS_FOR_EACH) as usize).max(2);
    1 << most.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bootstrap, Heads};

    fn config(batch_size: usize, width: usize, depth: usize) -> Config {
        let hidden = vec![width; depth];
        Config { batch_size, policy_hidden: hidden.clone(), critic_hidden: hidden, ..Config::default() }
    }

    /// Counted by hand for one hidden layer of 8, observations of 3 and actions of 2.
    #[test]
    fn flops_are_those_of_the_products() {
        let one = config(10, 8, 1);
        let (policy, critic, value) = (3 * 8 + 8 * 4, 5 * 8 + 8, 3 * 8 + 8);
        // Backward, a pass goes through the last layer alone, and in that of the critic for the policy on to the action.
        let (policy_update, critic_update) = (2 * policy + 8 * 4, 2 * (2 * critic + 8));
        let through_critics = 2 * critic + 8 + 8 * 2;
        let by_hand = |row: usize| (2 * 10 * row) as f64;
        let target_q = policy + 2 * critic + critic_update + policy_update + through_critics;
        assert_eq!(flops(&one, 3, 2), by_hand(target_q));
        let with_value = Config { bootstrap: Bootstrap::ValueNetwork, ..one.clone() };
        let value_update = value + 2 * value + 8;
        assert_eq!(flops(&with_value, 3, 2), by_hand(target_q - policy - 2 * critic + value_update));
        let separate = Config { policy_heads: Heads::Separate, ..one };
        let (policy, policies) = (policy + policy_update, 3 * (3 * 8 + 8 * 2) * 2 + 2 * 8 * 2);
        assert_eq!(flops(&separate, 3, 2), by_hand(target_q - policy + policies));
    }

    #[test]
    fn small_updates_have_one_thread_and_large_ones_as_many_as_there_are_pieces() {
        for (batch, width, depth, expected) in [
            (1, 1, 0, 1),
            (16, 32, 2, 1),
            (64, 16, 1, 1),
            (64, 32, 2, 2),
            (100, 64, 2, 2),
            (256, 32, 1, 2),
            (256, 256, 2, 4),
            (1024, 256, 2, 16),
            (4096, 256, 2, 64),
            (64, 1024, 2, 16),
        ] {
            assert_eq!(threads(&config(batch, width, depth), 3, 1), expected, "batch {batch}, {depth} × {width}");
        }
    }

    #[test]
    fn more_work_never_has_fewer_threads() {
        let sizes = [1, 8, 32, 64, 100, 128, 200, 256, 500, 512, 1024, 4096, 65_536];
        let depths = [0, 1, 2, 3, 4, 8];
        for ((batch, width), depth) in
            sizes.into_iter().flat_map(|b| sizes.map(|w| (b, w))).flat_map(|s| depths.map(|d| (s, d)))
        {
            let of = |batch, width, depth, observations, actions| {
                threads(&config(batch, width, depth), observations, actions)
            };
            let here = of(batch, width, depth, 3, 1);
            assert!(here >= 1 && here.is_power_of_two());
            for more in [
                of(2 * batch, width, depth, 3, 1),
                of(batch, 2 * width, depth, 3, 1),
                of(batch, width, depth + 1, 3, 1),
                of(batch, width, depth, 30, 10),
            ] {
                assert!(
                    more >= here,
                    "batch {batch}, {depth} × {width}: {more} threads for more work instead of {here}"
                );
            }
        }
    }
}
