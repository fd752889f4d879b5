//! The kernels, their arguments as the files in `kernels/` declare them, and launches of them.

use super::Buffer;
use std::any::type_name;

/// Threads in a block of every kernel; `THREADS` of `kernels/prelude.cu`.
pub const THREADS: usize = 128;
/// Rows and columns that a block of a product makes; `TILE` of `kernels/prelude.cu`.
pub const TILE: usize = 32;
/// Networks that take steps; `NETWORKS` of `kernels/prelude.cu`.
pub const NETWORKS: usize = 5;

/// The kernels as one source, in their order.
pub const FILES: [(&str, &str); 16] = [
    ("prelude.cu", include_str!("../../kernels/prelude.cu")),
    ("formulas.cu", include_str!("../../kernels/formulas.cu")),
    ("mlp.cu", include_str!("../../kernels/mlp.cu")),
    ("tanh_gaussian.cu", include_str!("../../kernels/tanh_gaussian.cu")),
    ("adam.cu", include_str!("../../kernels/adam.cu")),
    ("loss.cu", include_str!("../../kernels/loss.cu")),
    ("replay.cu", include_str!("../../kernels/replay.cu")),
    ("tf32.cu", include_str!("../../kernels/tf32.cu")),
    ("tile.cu", include_str!("../../kernels/tile.cu")),
    ("fused.cu", include_str!("../../kernels/fused.cu")),
    ("fused_pass.cu", include_str!("../../kernels/fused_pass.cu")),
    ("fused_forward.cu", include_str!("../../kernels/fused_forward.cu")),
    ("fused_gradient.cu", include_str!("../../kernels/fused_gradient.cu")),
    ("fused_loss.cu", include_str!("../../kernels/fused_loss.cu")),
    ("fused_step.cu", include_str!("../../kernels/fused_step.cu")),
    ("pendulum.cu", include_str!("../../kernels/pendulum.cu")),
];

/// One launch of a kernel: so many blocks of [`THREADS`] threads, and the bytes of its arguments.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// The struct of arguments, aligned to eight bytes.
    pub arguments: Vec<u64>,
}

/// The struct of arguments of one kernel.
///
/// # Safety
/// The type must be laid out as the kernel's own struct, and have no padding, so that all its bytes are initialised.
pub unsafe trait Arguments: Copy {
    /// The kernel's name.
    const KERNEL: &'static str;

    /// A launch in so many blocks.
    fn launch(self, grid: [usize; 3]) -> Launch {
        let size = size_of::<Self>();
        assert!(size.is_multiple_of(8) && align_of::<Self>() <= 8, "{} has padding at its end", type_name::<Self>());
        let mut arguments = vec![0_u64; size / 8];
        // SAFETY: both are `size` bytes long, and a kernel's arguments have no padding.
        unsafe { std::ptr::copy_nonoverlapping((&raw const self).cast::<u8>(), arguments.as_mut_ptr().cast(), size) };
        Launch { kernel: Self::KERNEL, grid: grid.map(narrow), arguments }
    }

    /// A launch with a thread for each of `elements`.
    fn launch_over(self, elements: usize) -> Launch {
        // Kernels count the elements themselves in 32 bits.
        narrow(elements);
        self.launch([elements.div_ceil(THREADS), 1, 1])
    }

    /// A launch of as many blocks as make `networks` matrices of `rows` and `columns`.
    fn launch_tiles(self, rows: usize, columns: usize, networks: usize) -> Launch {
        self.launch([rows.div_ceil(TILE), columns.div_ceil(TILE), networks])
    }
}

/// A size as kernels have it.
///
/// # Panics
/// If it does not fit, which takes networks or batches of 2³² elements.
pub fn narrow(size: usize) -> u32 {
    u32::try_from(size).expect("kernels count to 2³²")
}

/// Declares the structs of arguments, each after the one of the same name in `kernels/`.
macro_rules! kernels {
    ($($(#[$about:meta])* $kernel:ident: $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$about])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug)]
            #[allow(missing_docs)]
            pub struct $name {
                $(pub $field: $type),*
            }

            // SAFETY: it repeats the kernel's struct, and the sum of its fields is its size.
            unsafe impl Arguments for $name {
                const KERNEL: &'static str = {
                    assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())*, "it has padding");
                    stringify!($kernel)
                };
            }
        )*

        /// Every kernel, and the size in bytes of its arguments.
        pub const KERNELS: &[(&str, usize)] = &[$(($name::KERNEL, size_of::<$name>())),*];
    };
}

/// [`crate::nn::LogStd`] and [`crate::nn::Mean`] as kernels have them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Distribution {
    pub mean: u32,
    pub log_std: u32,
    pub log_std_min: f32,
    pub log_std_max: f32,
}

/// α: exp(log α), or a fixed one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Alpha {
    pub log_alpha: Buffer,
    pub fixed: f32,
    pub is_fixed: u32,
}

/// A network, or both critics, as the kernels of `kernels/fused.cu` have it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct FusedNetwork {
    pub theta: Buffer,
    pub gradient: Buffer,
    pub m: Buffer,
    pub v: Buffer,
    pub h1: Buffer,
    pub h2: Buffer,
    pub partial_sums: Buffer,
    pub d_first: Buffer,
    pub inputs: u32,
    pub h1_width: u32,
    pub h2_width: u32,
    pub outputs: u32,
    pub step: u32,
    pub parameters: u32,
}

/// What all kernels of `kernels/fused.cu` take.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Fused {
    pub policy: FusedNetwork,
    pub critics: FusedNetwork,
    pub memory: Buffer,
    pub draws: Buffer,
    pub rows: Buffer,
    pub noise: Buffer,
    pub inputs: Buffer,
    pub reward: Buffer,
    pub discount: Buffer,
    pub raw: Buffer,
    pub log_prob: Buffer,
    pub q: Buffer,
    pub target: Buffer,
    pub d_q: Buffer,
    pub d_action: Buffer,
    pub d_raw: Buffer,
    pub d_action_partial_sums: Buffer,
    pub sums: Buffer,
    pub alpha: Alpha,
    pub log_alpha: Buffer,
    pub log_alpha_gradient: Buffer,
    pub log_alpha_m: Buffer,
    pub log_alpha_v: Buffer,
    pub status: Buffer,
    pub agent_bytes: u64,
    pub distribution: Distribution,
    pub batch: u32,
    pub observations: u32,
    pub actions: u32,
    pub from_memory: u32,
    pub gamma: f32,
    pub tau: f32,
    pub target_entropy: f32,
    pub is_tuned: u32,
    pub over_alpha: u32,
    pub some_rest: u32,
}

kernels! {
    /// y ← φ(x·W + b)
    forward_layer: ForwardLayer {
        x: Buffer, theta: Buffer, y: Buffer,
        x_network: u64, theta_network: u64, y_network: u64,
        x_sharing: u32, rows: u32, inputs: u32, outputs: u32, x_step: u32, y_step: u32, activation: u32, unused: u32,
    }
    /// ∂L/∂W ← hᵀ·δ and ∂L/∂b ← Σ over rows of δ
    backward_parameters: BackwardParameters {
        h: Buffer, delta: Buffer, d_theta: Buffer,
        h_network: u64, delta_network: u64, d_theta_network: u64,
        rows: u32, inputs: u32, outputs: u32, h_step: u32, delta_step: u32, unused: u32,
    }
    /// ∂L/∂x ← (δ·Wᵀ) ⊙ φ′(h)
    backward_input: BackwardInput {
        delta: Buffer, weight: Buffer, h: Buffer, d_x: Buffer,
        delta_network: u64, weight_network: u64, h_network: u64, d_x_network: u64,
        rows: u32, inputs: u32, outputs: u32, delta_step: u32, h_step: u32, activation: u32,
    }
    /// a ← tanh(μ + σε) and log π(a)
    sample: Sample {
        raw: Buffer, noise: Buffer, action: Buffer, log_prob: Buffer,
        distribution: Distribution, rows: u32, actions: u32, action_step: u32, unused: u32,
    }
    /// The backward pass of `sample`
    sample_backward: SampleBackward {
        raw: Buffer, noise: Buffer, d_action: Buffer, alpha: Alpha, d_raw: Buffer,
        distribution: Distribution, rows: u32, actions: u32,
    }
    /// a ← tanh(μ)
    mode: Mode {
        raw: Buffer, action: Buffer, distribution: Distribution, rows: u32, actions: u32,
    }
    /// Adam's step
    adam_step: AdamStep {
        theta: Buffer, gradient: Buffer, m: Buffer, v: Buffer, status: Buffer,
        networks: u32, parameters: u32, first: u32, clamp: f32, is_clamped: u32, unused: u32,
    }
    /// θ̄ ← θ̄ + τ(θ − θ̄)
    polyak: PolyakStep {
        target: Buffer, online: Buffer, status: Buffer, parameters: u32, tau: f32,
    }
    /// J_Q
    critic_loss: CriticLoss {
        q: Buffer, target_q: Buffer, value: Buffer, next_log_prob: Buffer, log_prob: Buffer,
        reward: Buffer, discount: Buffer, alpha: Alpha, target: Buffer, d_q: Buffer, status: Buffer,
        rows: u32, has_value: u32,
    }
    /// J_V
    value_loss: ValueLoss {
        v: Buffer, q: Buffer, log_prob: Buffer, alpha: Alpha, d_v: Buffer, status: Buffer, rows: u32, unused: u32,
    }
    /// J_π
    policy_loss: PolicyLoss {
        q: Buffer, log_prob: Buffer, alpha: Alpha, d_q: Buffer, status: Buffer, rows: u32, unused: u32,
    }
    /// J_α and Adam's step
    temperature_step: TemperatureStep {
        log_prob: Buffer, log_alpha: Buffer, gradient: Buffer, m: Buffer, v: Buffer, status: Buffer,
        rows: u32, target_entropy: f32, over_alpha: u32, unused: u32,
    }
    /// What steps take, from their counts
    prepare_steps: PrepareSteps { status: Buffer, log_alpha: Buffer }
    /// The counts and sums at the end of an update
    finish_update: FinishUpdate { status: Buffer, log_alpha: Buffer }
    /// The rows and the noise of a batch
    draw: Draw {
        draws: Buffer, rows: Buffer, noise: Buffer, batch: u32, count: u32,
    }
    /// The transitions of a batch
    gather: Gather {
        memory: Buffer, rows: Buffer, inputs: Buffer, reward: Buffer, discount: Buffer,
        batch: u32, observations: u32, actions: u32, gamma: f32,
    }
    /// New transitions of several agents
    store: Store {
        memory: Buffer, places: Buffer, values: Buffer, rows: u32, width: u32,
    }
    /// π and Q(s, a) up to the partial sums of their outputs, and the batch
    fused_forward: FusedForward { fused: Fused }
    /// ã, ã′, and Q̄(s′, ã′) up to its partial sums
    fused_target: FusedTarget { fused: Fused }
    /// J_Q and its gradient
    fused_critic_loss: FusedCriticLoss { fused: Fused }
    /// The critics' steps, and their targets
    fused_critic_step: FusedCriticStep { fused: Fused }
    /// Q(s, ã) up to its partial sums
    fused_evaluate: FusedEvaluate { fused: Fused }
    /// J_π, and ∂J_π/∂ã up to its partial sums
    fused_action_gradient: FusedActionGradient { fused: Fused }
    /// The gradient of J_π over the policy
    fused_policy_loss: FusedPolicyLoss { fused: Fused }
    /// The steps of the policy and of the temperature, and the end of an update
    fused_policy_step: FusedPolicyStep { fused: Fused }
    /// A step of runs on Pendulum-v1
    pendulum_step: PendulumStep {
        fused: Fused, pendulum: Buffer,
        random_steps: u64, random_hold: u64, capacity: u64, first_update: u64, parts: u32, reward_scale: f32,
    }
}
