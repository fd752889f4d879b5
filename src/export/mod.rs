//! Policies in forms that run elsewhere: ONNX, and a single file of C or of Rust.
//!
//! Each takes an observation and gives an action, both in the environment's units:
//! action = low + ½(tanh(μ) + 1)(high − low), or with tanh(μ + σ·ε) where the noise ε is an input, too. Where training
//! normalizes observations, so does what is written, with the statistics at its end.
//!
//! C and Rust give for an observation that is not finite what [`Actor::act`] gives: what is not a number stays so, and
//! never becomes a bound. What becomes of it in ONNX is up to the runtime, whose Relu and Clip may hide it.

mod onnx;
mod source;

pub use onnx::to_onnx;
pub use source::{to_c, to_rust};

use crate::actor::Actor;
use crate::nn::{Activation, LogStd, Mean};
use crate::normalizer::Normalizer;
use crate::run::policy_file::{Tensors, to_tensors};

/// A policy as layers that follow each other.
struct Program {
    observation_size: usize,
    /// What the layers see observations through.
    normalizer: Option<Normalizer>,
    low: Vec<f32>,
    high: Vec<f32>,
    activation: Activation,
    mean_form: Mean,
    log_std_form: LogStd,
    /// One from the observation to both heads, or one to each.
    chains: Vec<Chain>,
}

/// Hidden layers, and the heads that look at the last of them.
struct Chain {
    trunk: Vec<Tensors>,
    heads: Vec<Tensors>,
}

impl Program {
    fn new(actor: &Actor, stochastic: bool) -> Self {
        let policy = actor.policy();
        let (mut chains, mut trunk): (Vec<Chain>, Vec<Tensors>) = (Vec::new(), Vec::new());
        for tensors in to_tensors(actor) {
            let is_head = ["mean", "log_std"].contains(&tensors.name.as_str());
            match (is_head, chains.last_mut()) {
                (false, _) => trunk.push(tensors),
                // A head without hidden layers of its own looks at those of the other.
                (true, Some(chain)) if trunk.is_empty() => chain.heads.push(tensors),
                (true, _) => chains.push(Chain { trunk: std::mem::take(&mut trunk), heads: vec![tensors] }),
            }
        }
        if !stochastic {
            chains.iter_mut().for_each(|chain| chain.heads.retain(|head| head.name == "mean"));
            chains.retain(|chain| !chain.heads.is_empty());
        }
        Self {
            observation_size: policy.observation_size(),
            normalizer: actor.normalizer().cloned(),
            low: actor.bounds().low().to_vec(),
            high: actor.bounds().high().to_vec(),
            activation: policy.networks[0].activation(),
            mean_form: policy.distribution.mean,
            log_std_form: policy.distribution.log_std,
            chains,
        }
    }

    fn actions(&self) -> usize {
        self.low.len()
    }
}
