//! Soft Actor-Critic with its forward and backward passes written by hand.
//!
//! The smallest program that trains an agent:
//!
//! ```
//! use soft_actor_critic::{config::Config, env::Pendulum, train::Trainer};
//!
//! # fn main() -> Result<(), soft_actor_critic::error::Error> {
//! let config = Config { steps: 300, policy_hidden: vec![16], critic_hidden: vec![16], ..Config::default() };
//! let mut trainer = Trainer::new(|| Box::new(Pendulum::new()), config)?;
//! while !trainer.is_finished() {
//!     for episode in trainer.step()? {
//!         println!("episode {}: {:.1}", episode.number, episode.total_reward);
//!     }
//! }
//! println!("mean return {:.1}", trainer.evaluate(10)?.mean());
//! # Ok(())
//! # }
//! ```
//!
//! # Reading order
//!
//! 1. [`sac::cpu`]: the algorithm; [`sac::CpuLearner::update`] reads like the paper's pseudo-code.
//! 2. [`nn::tanh_gaussian`] and [`nn::network`]: each backward pass right below its forward pass.
//! 3. [`train`]: the loop around it; [`replay`] and [`mod@env`], which it joins.
//! 4. [`sac`]: the seam, [`sac::Learner`], behind which other learners fit; `sac::cuda`, over `gpu`, is one.
//! 5. `run`, `picture` and `session`: what a run leaves on disk, and one run from its first step to its last.
//! 6. The program `sac`, in `src/program/`: what users see.
//!
//! # Symbols and conventions
//!
//! | symbol | meaning |
//! |---|---|
//! | B, O, A | batch size; dimensions of an observation and of an action; shapes are written `[B, O]` |
//! | s, a, r, s′, d | observation, action in \[−1, 1], reward, next observation, whether s′ is terminal |
//! | μ, σ, ε, u, ã | mean and standard deviation, standard normal noise, u = μ + σε, ã = tanh u |
//! | π, Q, Q̄, V, V̄ | policy, critic, target critic, value network and its target |
//! | α, H̄, γ, τ | temperature, target entropy, discount, Polyak share |
//! | θ, m, v | parameters of a network, Adam's moments; each one flat vector |
//!
//! Symbols stand inside formulas, words at boundaries. Gradients are named after what they are taken over, with the
//! prefix `d_`. Arrays are in row-major order. A wrong shape is a mistake of the program and panics; whatever comes from
//! outside is checked and becomes an [`error::Error`] that names the mend.
//!
//! The same configuration gives the same bits on any number of threads, see [`nn::gemm`] and [`rng`].
#![doc(test(attr(deny(warnings))))]

pub mod actor;
pub mod config;
#[cfg(feature = "cuda")]
pub mod device;
pub mod env;
pub mod error;
#[cfg(feature = "program")]
pub mod export;
#[cfg(feature = "cuda")]
pub mod gpu;
mod lanes;
pub mod nn;
pub mod normalizer;
#[cfg(feature = "program")]
pub mod picture;
#[cfg(feature = "program")]
pub mod presets;
pub mod replay;
pub mod rng;
#[cfg(feature = "program")]
pub mod run;
pub mod sac;
#[cfg(feature = "program")]
pub mod session;
#[cfg(feature = "program")]
pub mod statistics;
pub mod train;
