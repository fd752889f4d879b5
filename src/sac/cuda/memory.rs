//! What a learner has in the memory of a GPU.

use super::fused;
use crate::gpu::Buffer;
use crate::gpu::kernels::{NETWORKS, TILE};
use crate::gpu::mlp::{DeviceWorkspace, parameters_step};
use crate::nn::Network;
use crate::sac::{Metric, Metrics, Policy};

/// Where a buffer of so many words is.
pub(super) type Allocate<'a> = &'a mut dyn FnMut(usize) -> Buffer;

/// What an update can fail by, in the order of `kernels/prelude.cu`.
pub(super) const QUANTITIES: [&str; 5] = ["critic loss", "value loss", "policy loss", "temperature loss", "action"];

/// The places in [`Status`] of the networks that take steps, as in `kernels/prelude.cu`.
pub(super) const POLICY: usize = 0;
pub(super) const Q1: usize = 1;
pub(super) const VALUE: usize = 3;
pub(super) const LOG_ALPHA: usize = 4;

/// What the device remembers besides vectors; `Status` of `kernels/prelude.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Status {
    pub(super) updates: u64,
    pub(super) policy_updates: u64,
    pub(super) failure: u64,
    pub(super) failure_update: u64,
    pub(super) critic_loss: f64,
    pub(super) value_loss: f64,
    pub(super) policy_loss: f64,
    pub(super) temperature_loss: f64,
    pub(super) q: f64,
    pub(super) entropy: f64,
    pub(super) this_update: [f64; 3],
    pub(super) steps: [u64; NETWORKS],
    pub(super) stepped: [u64; NETWORKS],
    pub(super) is_halted: u64,
    pub(super) log_alpha: f64,
    pub(super) learning_rate: [f64; NETWORKS],
    pub(super) step: [f32; NETWORKS],
    pub(super) inverse_root: [f32; NETWORKS],
}

impl Status {
    /// Without α.
    pub(super) fn metrics(&self) -> Metrics {
        let quantity = |code: u64| QUANTITIES[code as usize - 1];
        Metrics {
            updates: self.updates,
            policy_updates: self.policy_updates,
            values: Metric::ALL.map(|metric| match metric {
                Metric::CriticLoss => self.critic_loss,
                Metric::ValueLoss => self.value_loss,
                Metric::PolicyLoss => self.policy_loss,
                Metric::TemperatureLoss => self.temperature_loss,
                Metric::Alpha => 0.0,
                Metric::Entropy => self.entropy,
                Metric::Q => self.q,
            }),
            failure: (self.failure > 0).then(|| (self.failure_update, quantity(self.failure))),
        }
    }
}

pub(super) const STATUS_WORDS: usize = size_of::<Status>() / 4;

/// Networks of one shape whose parameters follow each other by [`parameters_step`], their targets after them; and what their
/// steps need.
pub(super) struct Parameters {
    pub(super) mlp_parameters: usize,
    pub(super) networks: usize,
    /// The first one's place in [`Status`].
    pub(super) first: usize,
    /// θ of all, then θ̄ of all if there are targets.
    pub(super) values: Buffer,
    pub(super) gradient: Buffer,
    pub(super) first_moment: Buffer,
    pub(super) second_moment: Buffer,
    pub(super) has_target: bool,
}

impl Parameters {
    pub(super) fn new(allocate: Allocate, parameters: usize, networks: usize, first: usize, has_target: bool) -> Self {
        let all = networks * parameters_step(parameters);
        Self {
            mlp_parameters: parameters,
            networks,
            first,
            values: allocate(all * if has_target { 2 } else { 1 }),
            gradient: allocate(all),
            first_moment: allocate(all),
            second_moment: allocate(all),
            has_target,
        }
    }

    /// From one network to the next.
    pub(super) fn step(&self) -> usize {
        parameters_step(self.mlp_parameters)
    }

    /// Of all networks.
    pub(super) fn length(&self) -> usize {
        self.networks * self.step()
    }

    pub(super) fn targets(&self) -> Buffer {
        self.values.at(self.length())
    }
}

/// What the fused kernels need besides the buffers of the others.
pub(super) struct FusedBuffers {
    pub(super) policy_partial_sums: Buffer,
    pub(super) critic_partial_sums: Buffer,
    pub(super) d_action_partial_sums: Buffer,
    pub(super) d_policy_first: Buffer,
    pub(super) d_critics_first: Buffer,
    pub(super) sums: Buffer,
}

impl FusedBuffers {
    pub(super) fn new(allocate: Allocate, batch: usize, policy: &Network, critic: &Network, actions: usize) -> Self {
        let (tiles, columns) = (batch.div_ceil(TILE), |mlp: &Network, l: usize| mlp.layers()[l].outputs.div_ceil(TILE));
        let first = |mlp: &Network| mlp.layers()[0].bias.end;
        Self {
            policy_partial_sums: allocate(columns(policy, 1) * policy.outputs() * 2 * batch),
            critic_partial_sums: allocate(4 * columns(critic, 1) * batch),
            d_action_partial_sums: allocate(2 * columns(critic, 0) * actions * batch),
            d_policy_first: allocate(tiles * first(policy)),
            d_critics_first: allocate(2 * tiles * first(critic)),
            sums: allocate(fused::SUMS * tiles),
        }
    }
}

/// What one agent has on the device besides its [`Status`]: all agents have the same, each so much behind that of the one before
/// it. These are the first one's.
pub(super) struct Buffers {
    pub(super) theta: Parameters,
    pub(super) critics: Parameters,
    pub(super) value_parameters: Option<Parameters>,
    pub(super) log_alpha: Parameters,

    pub(super) policy_passes: Vec<DeviceWorkspace>,
    pub(super) critic_pass: DeviceWorkspace,
    pub(super) value_pass: Option<DeviceWorkspace>,
    /// \[s, a], \[s′, ã′] and \[s, ã], `[3, B, O + A]`; the policy looks at the last two as 2B rows.
    pub(super) inputs: Buffer,
    pub(super) reward: Buffer,
    pub(super) discount: Buffer,
    /// Of 2B rows: ε, raw μ and log σ, log π.
    pub(super) noise: Buffer,
    pub(super) raw: Buffer,
    pub(super) log_prob: Buffer,
    /// Q₁, Q₂ and Q̄₁, Q̄₂, `[4, B]`; V̄(s′) or V(s), `[B]`; y, `[B]`.
    pub(super) q: Buffer,
    pub(super) v: Buffer,
    pub(super) target: Buffer,
    /// Gradients over Q `[2, B]`, V `[B]`, ã through each critic `[2, B, A]`, and raw μ and log σ `[B, 2A]`.
    pub(super) d_q: Buffer,
    pub(super) d_v: Buffer,
    pub(super) d_action: Buffer,
    pub(super) d_raw: Buffer,
    /// Where updates are fused.
    pub(super) fused: Option<FusedBuffers>,

    /// The replay memory, `[capacity, 2O + A + 2]`, and what is drawn from it.
    pub(super) memory: Buffer,
    pub(super) rows: Buffer,
}

/// Room for passes of so many policies over so many rows.
pub(super) fn passes(
    allocate: Allocate,
    policy: &Policy,
    forward: [usize; 2],
    backward: [usize; 2],
) -> Vec<DeviceWorkspace> {
    policy.networks.iter().map(|mlp| DeviceWorkspace::new(allocate, mlp, forward, backward)).collect()
}

/// What an update draws with; `Draws` of `kernels/replay.cu`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Draws {
    pub(super) update: u64,
    /// Transitions in the memory; none for an agent that takes no part.
    pub(super) stored: u64,
    pub(super) seed: u64,
}

pub(super) const DRAWS_WORDS: usize = size_of::<Draws>() / 4;
