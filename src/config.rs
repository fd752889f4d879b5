//! Every hyper-parameter, once: its meaning, unit, default and source.

use crate::error::Error;
use crate::nn::{Activation, Init, LogStd, Mean, TanhGaussian};
use std::collections::BTreeMap;

/// What an agent learns with. Its TOML form has one key for each field; what is left out keeps its default.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "program", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct Config {
    /// Seed of every random stream of the run. Default 0.
    pub seed: u64,
    /// Environment steps to train for, those of all environments together. Default 10 000, which Pendulum-v1 needs.
    ///
    /// Several environments take their steps in rounds, one step each. What is due at some step, the end for instance, then
    /// comes after the round that reaches it.
    pub steps: u64,
    /// Environments that are trained on side by side. Default 1. Their policy's actions are computed together, and where
    /// steps take long, each environment takes them on a thread of its own.
    pub envs: usize,
    /// Environment steps, at the start, whose actions are drawn uniformly at random. Default 100
    /// (`learning_starts` of Stable-Baselines3). A round that begins before their end is random altogether.
    pub random_steps: u64,
    /// Steps of an environment for which each of those random actions is held. Default 1. Where a goal is reached only by pushing
    /// the same way for a while, as in MountainCarContinuous-v0, actions that change at every step never find it.
    pub random_hold: u64,
    /// The environment step after which the first update is made. `"auto"`, the default, waits for the random steps to end
    /// and a batch to be stored; a number may come earlier.
    pub first_update: FirstUpdate,
    /// Updates for each environment step from that one on, however many environments there are: with 0.5 one after every
    /// second step, with 4 four after every step. Default 1 (arXiv 1812.05905, table 1).
    pub utd: f64,

    /// What the critics' target takes for the value of s′: `"target-q"`, the smaller of two target critics less
    /// α log π (arXiv 1812.05905), or `"value-network"`, the target copy of a network V trained beside them
    /// (arXiv 1801.01290). Default target-q.
    pub bootstrap: Bootstrap,
    /// When each loss is evaluated and each network takes its step. Default sequential.
    pub loss_order: LossOrder,
    /// From one update at which the policy takes a step to the next. Default 1, every update. It delays the targets as
    /// well, those of the critics or of V: they follow in these updates alone, by τ each time, as in TD3 (arXiv
    /// 1802.09477, algorithm 1), so that they are slower by as much. Critics, V and the temperature take a step in
    /// every update.
    pub policy_delay: u64,

    /// Widths of the policy's hidden layers. Default 256, 256 (arXiv 1812.05905, table 1).
    pub policy_hidden: Vec<usize>,
    /// Widths of the hidden layers of each critic, and of V. Default 256, 256 (arXiv 1812.05905, table 1).
    pub critic_hidden: Vec<usize>,
    /// Activation of the hidden layers, `"relu"` or `"tanh"`. Default ReLU (arXiv 1812.05905, table 1).
    pub activation: Activation,
    /// Whether one network gives μ and log σ, `"shared"`, or one each, `"separate"`. Default shared.
    pub policy_heads: Heads,
    /// How μ comes from the policy's raw output, `"raw"` or `"tanh"`. Default raw.
    pub mean: Mean,
    /// How log σ comes from the policy's raw output, `"clamp"` or `"tanh"`. Default clamp.
    pub log_std: LogStdForm,
    /// Lower bound of log σ. Default −20 (the authors' code).
    pub log_std_min: f64,
    /// Upper bound of log σ. Default 2 (the authors' code).
    pub log_std_max: f64,
    /// Initial parameters of hidden layers, `"pytorch"`, `"xavier"` or `"uniform-3e-3"`. Default pytorch.
    pub hidden_init: Init,
    /// Initial parameters of each network's last layer, as above. Default pytorch.
    pub output_init: Init,

    /// Learning rate of the policy. Default 1e-3 (Spinning Up), which learns Pendulum-v1 sooner than 3e-4.
    pub policy_learning_rate: f64,
    /// Learning rate of the critics. Default 1e-3 (Spinning Up).
    pub critic_learning_rate: f64,
    /// Learning rate of V, where there is one. Default 1e-3, as for the critics.
    pub value_learning_rate: f64,
    /// Learning rate of log α. Default 1e-3, as for the networks.
    pub temperature_learning_rate: f64,
    /// Bound on each element of a network's gradient before Adam sees it: `"off"`, or a number. Default off.
    pub gradient_clamp: GradientClamp,
    /// Bound on ‖g‖₂ over all parameters of a network, after `gradient_clamp` and before Adam, as PyTorch's
    /// `clip_grad_norm_`: g ← g·min(1, bound/(‖g‖₂ + 1e-6)). The policy counts as one, be its heads separate or not, and so does
    /// V; each critic is bounded alone, where a single optimizer for both would take the norm over both. `"off"`, or a number.
    /// Default off.
    pub max_gradient_norm: MaxGradientNorm,
    /// Whether observations are learned from and acted upon as (x − mean)/√(variance + 1e-8), clipped to ±10, with the mean
    /// and variance of all observations of training so far, those of resets included (`VecNormalize` of
    /// Stable-Baselines3). Default false.
    pub normalize_observations: bool,
    /// What every reward is multiplied by before it is learned from; returns are reported as the environment gives them.
    /// Default 1. A larger one gives rewards more weight against entropy under a fixed α (arXiv 1801.01290, section 5.2).
    pub reward_scale: f64,
    /// γ, the discount per step. Default 0.99 (arXiv 1812.05905, table 1).
    pub gamma: f64,
    /// Steps whose rewards a critic's target sums before it bootstraps, fewer where an episode ends or is not further yet; see
    /// [`crate::replay`]. Default 1 (arXiv 1812.05905, equation 3). Over k steps, with s⁽ᵏ⁾ the observation after them
    /// and ã⁽ᵏ⁾ ~ π(·|s⁽ᵏ⁾), it is
    ///
    /// y = r + γr′ + … + γᵏ⁻¹r⁽ᵏ⁻¹⁾ + γᵏ(1 − d)·(minᵢ Q̄ᵢ(s⁽ᵏ⁾, ã⁽ᵏ⁾) − α log π(ã⁽ᵏ⁾|s⁽ᵏ⁾)),
    ///
    /// or V̄(s⁽ᵏ⁾) in the place of what γᵏ(1 − d) multiplies. The entropy of the actions on the way is left out:
    /// equations 2 and 3 there, applied k times, would add −γʲα log π(a⁽ʲ⁾|s⁽ʲ⁾) for each j from 1 to k − 1. These
    /// actions are those that were taken then, and nothing corrects for the policy having changed since.
    pub n_step: usize,
    /// τ, the share of a network that enters its target whenever that follows. Default 0.01, twice that of
    /// arXiv 1812.05905, table 1, which learns Pendulum-v1 sooner.
    pub tau: f64,
    /// α, the temperature: `"auto"` to tune it towards the target entropy, or a number to keep. Default auto.
    pub alpha: Alpha,
    /// α before the first update when it is tuned. Default 1.
    pub initial_alpha: f64,
    /// α in the first update, if it is to differ from the `initial_alpha` that tuning starts from: `"initial"`, or a
    /// number. Default initial.
    pub first_update_alpha: FirstUpdateAlpha,
    /// The loss of a tuned temperature: `"log-alpha"` for −log α·(log π + H̄), as in the authors' code, or `"alpha"` for
    /// −α·(log π + H̄), as in their paper. Default log-alpha.
    pub temperature_loss: TemperatureLoss,
    /// H̄, the entropy that a tuned temperature aims at, in nats: `"auto"` for −dim A, or a number. Default auto
    /// (arXiv 1812.05905, table 1).
    pub target_entropy: TargetEntropy,
    /// Over which actions H̄ is measured: those in \[−1, 1], `"normalized"`, or those of the `"environment"`, whose
    /// entropy is larger by Σ log of half their range. Default normalized.
    pub target_entropy_units: EntropyUnits,

    /// Transitions in a batch. Default 256 (arXiv 1812.05905, table 1).
    pub batch_size: usize,
    /// Transitions that the replay memory keeps. Default 1 000 000 (arXiv 1812.05905, table 1).
    pub replay_capacity: usize,

    /// What the products between hidden layers are made of in training: `"f32"`, or `"tf32"` for tensor cores of an NVIDIA GPU, which
    /// round what is multiplied to 10 bits of mantissa and add in `f32`. That wants compute capability 8.0 or later, NVRTC, and a
    /// configuration whose updates are fused (`docs/cuda.md`). Default f32.
    pub precision: Precision,

    /// Environment steps from one evaluation to the next; 0 for none at all, not even at the end. Default 1 000.
    pub eval_every: u64,
    /// Environment steps from one checkpoint to the next; 0 for none but at the beginning, at the end, when the run is
    /// interrupted, before an evaluation that may take long, and whenever the replay memory has been filled anew. It changes no
    /// result. Default 1 000.
    pub checkpoint_every: u64,
    /// Episodes of an evaluation during training. Default 10.
    pub eval_episodes: u64,
    /// Episodes of the evaluation at the end. Default 100.
    pub final_episodes: u64,
    /// Whether the policy whose evaluation had the highest mean return, the last evaluation among them, is kept besides the
    /// last policy. It changes no result. Default false.
    pub keep_best: bool,
    /// The mean return of an evaluation at which `sac` stops: `"off"`, or a number. Default off. A loop of one's own around a
    /// trainer asks [`Self::is_reached_by`].
    pub until_return: UntilReturn,

    /// What an environment of Gymnasium is made with besides its identifier, see [`crate::env::Gym`]; the others take
    /// nothing. Default nothing.
    #[cfg_attr(feature = "program", serde(skip_serializing_if = "BTreeMap::is_empty"))]
    pub env_args: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            steps: 10_000,
            envs: 1,
            random_steps: 100,
            random_hold: 1,
            first_update: FirstUpdate::Auto,
            utd: 1.0,
            bootstrap: Bootstrap::TargetQ,
            loss_order: LossOrder::Sequential,
            policy_delay: 1,
            policy_hidden: vec![256, 256],
            critic_hidden: vec![256, 256],
            activation: Activation::Relu,
            policy_heads: Heads::Shared,
            mean: Mean::Raw,
            log_std: LogStdForm::Clamp,
            log_std_min: -20.0,
            log_std_max: 2.0,
            hidden_init: Init::PyTorch,
            output_init: Init::PyTorch,
            policy_learning_rate: 1e-3,
            critic_learning_rate: 1e-3,
            value_learning_rate: 1e-3,
            temperature_learning_rate: 1e-3,
            gradient_clamp: GradientClamp::Off,
            max_gradient_norm: MaxGradientNorm::Off,
            normalize_observations: false,
            reward_scale: 1.0,
            gamma: 0.99,
            n_step: 1,
            tau: 0.01,
            alpha: Alpha::Auto,
            initial_alpha: 1.0,
            first_update_alpha: FirstUpdateAlpha::Initial,
            temperature_loss: TemperatureLoss::LogAlpha,
            target_entropy: TargetEntropy::Auto,
            target_entropy_units: EntropyUnits::Normalized,
            batch_size: 256,
            replay_capacity: 1_000_000,
            precision: Precision::F32,
            eval_every: 1_000,
            checkpoint_every: 1_000,
            eval_episodes: 10,
            final_episodes: 100,
            keep_best: false,
            until_return: UntilReturn::Off,
            env_args: BTreeMap::new(),
        }
    }
}

/// Defines the choices that are nothing but names.
macro_rules! names {
    ($($(#[$attribute:meta])* $name:ident { $($(#[$about:meta])* $variant:ident),* $(,)? })*) => {
        $(
            $(#[$attribute])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            #[cfg_attr(feature = "program", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
            pub enum $name {
                $($(#[$about])* $variant),*
            }
        )*
    };
}

names! {
    /// What the critics' target takes for the value of s′.
    Bootstrap {
        /// y = r + γ(1 − d)·(minᵢ Q̄ᵢ(s′, ã′) − α log π(ã′|s′))
        TargetQ,
        /// y = r + γ(1 − d)·V̄(s′)
        ValueNetwork,
    }
    /// When each loss is evaluated and each network takes its step.
    LossOrder {
        /// One after the other, each with what the step before it has left: critics, V, policy, temperature.
        Sequential,
        /// All at the parameters from before the update.
        Simultaneous,
        /// The temperature takes its step first and the other losses use it; they are all at the parameters from before
        /// the update, and those are what the targets follow.
        TemperatureFirst,
    }
    /// The form of log σ; the bounds stand beside it in [`Config`].
    LogStdForm {
        /// [`LogStd::Clamp`]
        Clamp,
        /// [`LogStd::Tanh`]
        Tanh,
    }
    /// How many networks the policy is.
    Heads {
        /// One, which gives both heads.
        Shared,
        /// One for μ and one for log σ.
        Separate,
    }
    /// The loss of a tuned temperature.
    TemperatureLoss {
        /// −log α·(log π + H̄)
        LogAlpha,
        /// −α·(log π + H̄)
        Alpha,
    }
    /// The actions over which the target entropy is measured.
    EntropyUnits {
        /// Those that are learned, in \[−1, 1].
        Normalized,
        /// Those that the environment takes.
        Environment,
    }
    /// What the products between hidden layers are made of.
    Precision {
        /// Numbers with 23 bits of mantissa.
        F32,
        /// Numbers with 10 bits of mantissa, whose products are added with 23.
        Tf32,
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "tf32" => Ok(Self::Tf32),
            _ => Err("it is neither f32 nor tf32".into()),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
        })
    }
}

/// Defines an enum that reads and writes itself as a word or a number.
macro_rules! word_or_number {
    ($(#[$attribute:meta])* $name:ident, $word:literal = $variant:ident, $about:literal, $number:ty as $file:literal, $about_number:literal) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[cfg_attr(
            feature = "program",
            derive(serde::Serialize, serde::Deserialize),
            serde(try_from = $file, into = $file)
        )]
        pub enum $name {
            #[doc = $about]
            $variant,
            #[doc = $about_number]
            Fixed($number),
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $word => Ok(Self::$variant),
                    _ => text
                        .parse()
                        .map(Self::Fixed)
                        .map_err(|_| format!("it is neither {} nor a number: {text}", $word)),
                }
            }
        }

        #[cfg(feature = "program")]
        impl TryFrom<WordOrNumber<$number>> for $name {
            type Error = String;

            fn try_from(value: WordOrNumber<$number>) -> Result<Self, String> {
                match value {
                    WordOrNumber::Number(number) => Ok(Self::Fixed(number)),
                    WordOrNumber::Word(text) => text.parse(),
                }
            }
        }

        #[cfg(feature = "program")]
        impl From<$name> for WordOrNumber<$number> {
            fn from(value: $name) -> Self {
                match value {
                    $name::$variant => Self::Word($word.into()),
                    $name::Fixed(number) => Self::Number(number),
                }
            }
        }
    };
}

/// What a `word_or_number` looks like in a file.
#[cfg(feature = "program")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged, expecting = "expected a number or the word for its default")]
enum WordOrNumber<N> {
    Number(N),
    Word(String),
}

word_or_number! {
    /// The temperature α.
    Alpha, "auto" = Auto, "Tuned so that the policy's entropy approaches the target entropy.", f64 as "WordOrNumber<f64>", "Kept at this value."
}
word_or_number! {
    /// The target entropy H̄.
    TargetEntropy, "auto" = Auto, "−dim A", f64 as "WordOrNumber<f64>", "This many nats."
}
word_or_number! {
    /// When the first update is made.
    FirstUpdate, "auto" = Auto, "After the random steps, once a batch is stored.", u64 as "WordOrNumber<u64>", "After this environment step."
}
word_or_number! {
    /// α in the first update.
    FirstUpdateAlpha, "initial" = Initial, "The one that tuning starts from.", f64 as "WordOrNumber<f64>", "This value."
}
word_or_number! {
    /// The bound on each element of a gradient.
    GradientClamp, "off" = Off, "None.", f64 as "WordOrNumber<f64>", "Elements beyond ± this value are set to it."
}

word_or_number! {
    /// The bound on the norm of a gradient.
    MaxGradientNorm, "off" = Off, "None.", f64 as "WordOrNumber<f64>", "A gradient whose norm is larger is scaled down to this one."
}

word_or_number! {
    /// The mean return at which training stops.
    UntilReturn, "off" = Off, "None; training goes on to its last step.", f64 as "WordOrNumber<f64>", "This one, or any higher."
}

/// The option of the program that sets a field, if it has one.
fn option(name: &str) -> Option<String> {
    Some(match name {
        "policy_hidden" | "critic_hidden" => "--hidden".into(),
        "batch_size" => "--batch".into(),
        "replay_capacity" => "--replay".into(),
        "log_std_min" | "log_std_max" | "initial_alpha" | "first_update_alpha" | "gradient_clamp" | "policy_delay"
        | "final_episodes" => return None,
        _ if name.ends_with("learning_rate") => "--lr".into(),
        _ => format!("--{}", name.replace('_', "-")),
    })
}

/// The ends of what is accepted, so that a number keeps its meaning as an `f32`.
const TINY: f64 = 1e-30;
const HUGE: f64 = 1e30;
/// Updates are counted in parts of one, so that a ratio with as many decimals is kept exactly.
const PARTS_OF_UPDATE: u32 = 1_000_000;

impl Config {
    /// How the policy's raw outputs become a distribution.
    pub fn distribution(&self) -> TanhGaussian {
        let (min, max) = (self.log_std_min, self.log_std_max);
        let log_std = match self.log_std {
            LogStdForm::Clamp => LogStd::Clamp { min, max },
            LogStdForm::Tanh => LogStd::Tanh { min, max },
        };
        TanhGaussian { mean: self.mean, log_std }
    }

    /// H̄ in nats over actions in \[−1, 1], for an environment with a `half_range` of ½(high − low) in each of its action
    /// dimensions: scaling an action by s adds log s to its entropy.
    pub fn target_entropy(&self, half_range: impl ExactSizeIterator<Item = f64>) -> f64 {
        let nats = match self.target_entropy {
            TargetEntropy::Auto => -(half_range.len() as f64),
            TargetEntropy::Fixed(nats) => nats,
        };
        match self.target_entropy_units {
            EntropyUnits::Normalized => nats,
            EntropyUnits::Environment => nats - half_range.map(f64::ln).sum::<f64>(),
        }
    }

    /// Whether training may stop after an evaluation with this mean return; see [`Self::until_return`].
    pub fn is_reached_by(&self, mean_return: f64) -> bool {
        matches!(self.until_return, UntilReturn::Fixed(target) if mean_return >= target)
    }

    /// The environment step after which the first update is made.
    pub fn first_update(&self) -> u64 {
        match self.first_update {
            FirstUpdate::Auto => self.random_steps.max(self.batch_size as u64),
            FirstUpdate::Fixed(step) => step,
        }
    }

    /// How many updates have been made, in all, after `steps` environment steps: `utd` for each from the step of the first
    /// update on, rounded up.
    pub fn updates_after(&self, steps: u64) -> u64 {
        let counted = steps.saturating_add(1).saturating_sub(self.first_update());
        u64::try_from((u128::from(counted) * u128::from(self.parts_of_update())).div_ceil(PARTS_OF_UPDATE.into()))
            .unwrap_or(u64::MAX)
    }

    /// [`Self::utd`] in parts of one update, which are a millionth.
    pub(crate) fn parts_of_update(&self) -> u64 {
        (self.utd * f64::from(PARTS_OF_UPDATE)).round() as u64
    }

    /// Transitions that the replay memory has room for: `replay_capacity`, or fewer if the run has fewer steps; as many for
    /// each environment.
    pub fn replay_rows(&self) -> usize {
        self.replay_rows_with(0)
    }

    /// [`Self::replay_rows`] of a memory that begins with `preloaded` transitions from before the first step.
    pub fn replay_rows_with(&self, preloaded: u64) -> usize {
        let of_each = |transitions: u64| transitions.div_ceil(self.envs as u64);
        let needed = of_each(self.steps).saturating_add(of_each(preloaded));
        self.envs * (self.replay_capacity / self.envs).min(usize::try_from(needed).unwrap_or(usize::MAX))
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`Error::Config`] names the first field at fault, its value and what it must be.
    pub fn validate(&self) -> Result<(), Error> {
        let demand = |fits: bool, name: &str, value: &dyn std::fmt::Display, must: &str| {
            if fits {
                return Ok(());
            }
            let value = value.to_string();
            // A number may have 300 digits.
            let number = value.parse::<f64>().ok().filter(|_| value.len() > 24);
            let value = number.map_or(value, |number| format!("{number:e}"));
            // Where there is more to mend it with than its own option, that is told as well.
            let option = option(name).filter(|_| !must.contains("--"));
            let option = option.map_or(String::new(), |option| format!(" ({option})"));
            Err(Error::Config(format!("{name} is {value}; it must be {must}{option}")))
        };
        // TOML, which keeps the configuration of a run, has signed integers.
        let storable = |value: u64| i64::try_from(value).is_ok();
        demand(storable(self.seed), "seed", &self.seed, "below 2⁶³")?;
        demand((1..=256).contains(&self.envs), "envs", &self.envs, "from 1 to 256")?;
        // The last round may go beyond them.
        demand(
            self.steps > 0 && storable(self.steps.saturating_add(self.envs as u64 - 1)),
            "steps",
            &self.steps,
            "at least 1 and below 2⁶³",
        )?;
        demand(storable(self.eval_every), "eval_every", &self.eval_every, "below 2⁶³")?;
        demand(storable(self.checkpoint_every), "checkpoint_every", &self.checkpoint_every, "below 2⁶³")?;
        demand(storable(self.random_steps), "random_steps", &self.random_steps, "below 2⁶³")?;
        demand((1..=1 << 32).contains(&self.random_hold), "random_hold", &self.random_hold, "from 1 to 2³²")?;
        for (name, hidden) in [("policy_hidden", &self.policy_hidden), ("critic_hidden", &self.critic_hidden)] {
            let widths = format!("{hidden:?}");
            demand(hidden.iter().all(|width| (1..=65_536).contains(width)), name, &widths, "widths from 1 to 65536")?;
            demand(hidden.len() <= 64, name, &widths, "at most 64 layers")?;
            let weights: usize = hidden.windows(2).map(|pair| pair[0] * pair[1]).sum();
            demand(weights <= 1 << 26, name, &widths, "layers with at most 67108864 weights between them")?;
            let activations = hidden.iter().sum::<usize>().saturating_mul(self.batch_size);
            let must = "small enough that batch_size times the hidden widths is at most 268435456";
            demand(activations <= 1 << 28, "batch_size", &self.batch_size, must)?;
        }
        for (name, rate) in [
            ("policy_learning_rate", self.policy_learning_rate),
            ("critic_learning_rate", self.critic_learning_rate),
            ("value_learning_rate", self.value_learning_rate),
            ("temperature_learning_rate", self.temperature_learning_rate),
        ] {
            demand((TINY..=1.0).contains(&rate), name, &rate, "a number above 0, from 1e-30 on, and at most 1")?;
        }
        let scale = self.reward_scale;
        demand((TINY..=HUGE).contains(&scale), "reward_scale", &scale, "a number above 0, from 1e-30 to 1e30")?;
        demand((0.0..=1.0).contains(&self.gamma), "gamma", &self.gamma, "from 0 to 1")?;
        demand((1..=1000).contains(&self.n_step), "n_step", &self.n_step, "from 1 to 1000")?;
        demand((TINY..=1.0).contains(&self.tau), "tau", &self.tau, "a number above 0, from 1e-30 on, and at most 1")?;
        let below = format!("from -80 to below log_std_max, {}", self.log_std_max);
        let fits = self.log_std_min >= -80.0 && self.log_std_min < self.log_std_max;
        demand(fits, "log_std_min", &self.log_std_min, &below)?;
        demand(self.log_std_max <= 20.0, "log_std_max", &self.log_std_max, "at most 20, or σ leaves the range of f32")?;
        if let Alpha::Fixed(alpha) = self.alpha {
            demand((0.0..=HUGE).contains(&alpha), "alpha", &alpha, "auto or a number from 0 to 1e30")?;
        }
        let initial = self.initial_alpha;
        demand((TINY..=HUGE).contains(&initial), "initial_alpha", &initial, "from 1e-30 to 1e30")?;
        if let TargetEntropy::Fixed(nats) = self.target_entropy {
            demand(nats.abs() <= HUGE, "target_entropy", &nats, "auto or a number from -1e30 to 1e30")?;
        }
        if let FirstUpdateAlpha::Fixed(alpha) = self.first_update_alpha {
            let must = "initial, or a number from 0 to 1e30 beside a tuned temperature (alpha = \"auto\")";
            let fits = (0.0..=HUGE).contains(&alpha) && self.alpha == Alpha::Auto;
            demand(fits, "first_update_alpha", &alpha, must)?;
        }
        if let GradientClamp::Fixed(bound) = self.gradient_clamp {
            demand((TINY..=HUGE).contains(&bound), "gradient_clamp", &bound, "off or a number from 1e-30 to 1e30")?;
        }
        if let MaxGradientNorm::Fixed(bound) = self.max_gradient_norm {
            demand((TINY..=HUGE).contains(&bound), "max_gradient_norm", &bound, "off or a number from 1e-30 to 1e30")?;
        }
        let batch_size = self.batch_size;
        demand((1..=1 << 20).contains(&batch_size), "batch_size", &batch_size, "from 1 to 1048576")?;
        let steps =
            format!("at most the number of steps, {}; lower it (--batch) or train longer (--steps)", self.steps);
        demand(batch_size as u64 <= self.steps, "batch_size", &batch_size, &steps)?;
        let parts = f64::from(PARTS_OF_UPDATE);
        let fits = (1.0 / parts..=1000.0).contains(&self.utd) && (self.utd * parts).round() / parts == self.utd;
        demand(fits, "utd", &self.utd, "from 0.000001 to 1000, with six decimals at most")?;
        let (first, updates) = (self.first_update(), self.updates_after(self.steps));
        demand(storable(updates), "utd", &self.utd, "small enough that fewer than 2⁶³ updates are made")?;
        let mend = match self.first_update {
            FirstUpdate::Auto => "lower --random-steps or --batch",
            FirstUpdate::Fixed(_) => "say --first-update auto or another number",
        };
        let steps = format!("from 1 to the number of steps, {}; {mend}, or train longer (--steps)", self.steps);
        demand((1..=self.steps).contains(&first), "first_update", &first, &steps)?;
        let delay = format!(
            "from 1 to the number of updates, {updates}, or the policy never learns; lower it or train longer (--steps)"
        );
        demand((1..=updates).contains(&self.policy_delay), "policy_delay", &self.policy_delay, &delay)?;
        let capacity = format!("at least the batch size, {batch_size}, and below 2⁶³");
        demand(
            self.replay_capacity >= batch_size && storable(self.replay_capacity as u64),
            "replay_capacity",
            &self.replay_capacity,
            &capacity,
        )?;
        let least = format!("at least the number of environments, {}", self.envs);
        demand(self.replay_capacity >= self.envs, "replay_capacity", &self.replay_capacity, &least)?;
        for (name, episodes) in [("eval_episodes", self.eval_episodes), ("final_episodes", self.final_episodes)] {
            demand(episodes > 0, name, &episodes, "at least 1; eval_every = 0 turns evaluation off")?;
        }
        let must = "false where there is no evaluation; raise eval_every (--eval-every) above 0";
        demand(!self.keep_best || self.eval_every > 0, "keep_best", &self.keep_best, must)?;
        if let UntilReturn::Fixed(target) = self.until_return {
            demand(target.abs() <= HUGE, "until_return", &target, "off or a number from -1e30 to 1e30")?;
            let must = "off where there is no evaluation; raise eval_every (--eval-every) above 0";
            demand(self.eval_every > 0, "until_return", &target, must)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn each_mistake_is_named() {
        type Spoil = fn(&mut Config);
        let cases: [(&str, Spoil); 39] = [
            ("seed", |c| c.seed = u64::MAX),
            ("steps", |c| c.steps = 0),
            ("policy_hidden", |c| c.policy_hidden = vec![256, 0]),
            ("critic_hidden", |c| c.critic_hidden = vec![1 << 40]),
            ("critic_hidden", |c| c.critic_hidden = vec![65_536; 4]),
            ("batch_size", |c| (c.batch_size, c.policy_hidden) = (1 << 20, vec![1024])),
            ("policy_learning_rate", |c| c.policy_learning_rate = -1.0),
            ("critic_learning_rate", |c| c.critic_learning_rate = f64::NAN),
            ("temperature_learning_rate", |c| c.temperature_learning_rate = f64::INFINITY),
            ("reward_scale", |c| c.reward_scale = 0.0),
            ("gamma", |c| c.gamma = 1.1),
            ("tau", |c| c.tau = 0.0),
            ("log_std_min", |c| c.log_std_min = 3.0),
            ("alpha", |c| c.alpha = Alpha::Fixed(-0.1)),
            ("initial_alpha", |c| c.initial_alpha = 0.0),
            ("target_entropy", |c| c.target_entropy = TargetEntropy::Fixed(f64::NAN)),
            ("batch_size", |c| c.steps = 100),
            ("replay_capacity", |c| c.replay_capacity = 10),
            ("value_learning_rate", |c| c.value_learning_rate = 0.0),
            ("gradient_clamp", |c| c.gradient_clamp = GradientClamp::Fixed(0.0)),
            ("max_gradient_norm", |c| c.max_gradient_norm = MaxGradientNorm::Fixed(-1.0)),
            ("first_update", |c| c.first_update = FirstUpdate::Fixed(0)),
            ("first_update", |c| c.random_steps = 10_001),
            ("first_update_alpha", |c| c.first_update_alpha = FirstUpdateAlpha::Fixed(-1.0)),
            ("first_update_alpha", |c| {
                (c.alpha, c.first_update_alpha) = (Alpha::Fixed(0.1), FirstUpdateAlpha::Fixed(0.5));
            }),
            ("policy_delay", |c| c.policy_delay = 0),
            ("random_hold", |c| c.random_hold = 0),
            ("envs", |c| c.envs = 0),
            ("envs", |c| c.envs = 257),
            ("utd", |c| c.utd = 0.0),
            ("utd", |c| c.utd = f64::NAN),
            ("utd", |c| c.utd = 1.0 / 3.0),
            ("utd", |c| (c.steps, c.utd) = (1 << 62, 1000.0)),
            ("n_step", |c| c.n_step = 0),
            ("replay_capacity", |c| (c.batch_size, c.replay_capacity, c.envs) = (1, 7, 8)),
            ("final_episodes", |c| c.final_episodes = 0),
            ("keep_best", |c| (c.keep_best, c.eval_every) = (true, 0)),
            ("until_return", |c| c.until_return = UntilReturn::Fixed(f64::NAN)),
            ("until_return", |c| (c.until_return, c.eval_every) = (UntilReturn::Fixed(0.0), 0)),
        ];
        for (name, spoil) in cases {
            let mut config = Config::default();
            spoil(&mut config);
            let Err(Error::Config(message)) = config.validate() else { panic!("{name} was accepted") };
            assert!(message.starts_with(name) && !message.contains('\n'), "{message}");
        }
    }

    /// The ratio as decimals say it, also where binary fractions do not; and whole updates at every step for the default.
    #[test]
    fn updates_follow_the_ratio_exactly() {
        let with = |utd| Config { utd, ..Config::default() };
        let first = Config::default().first_update();
        for (utd, steps, expected) in [
            (1.0, 1_000, 1_000),
            (4.0, 1_000, 4_000),
            (0.5, 1, 1),
            (0.5, 2, 1),
            (0.5, 3, 2),
            (0.29, 100, 29),
            (0.7, 1_000_000_000_000_000, 700_000_000_000_000),
            (1.1, 10, 11),
            (0.000_001, 1_000_000, 1),
            (0.000_001, 1_000_001, 2),
        ] {
            assert_eq!(with(utd).validate(), Ok(()), "{utd}");
            assert_eq!(with(utd).updates_after(first - 1), 0);
            assert_eq!(with(utd).updates_after(first - 1 + steps), expected, "{utd} after {steps}");
        }
    }

    /// Every environment has as many rows, and all steps of a short run have a place.
    #[test]
    fn the_replay_memory_is_divided_among_environments() {
        for (envs, steps, preloaded, expected) in
            [(1, 500, 0, 500), (1, 500, 20, 520), (3, 500, 0, 501), (3, 500, 20, 522), (7, 10_000, 0, 994)]
        {
            let config = Config { envs, steps, replay_capacity: 1_000, ..Config::default() };
            assert_eq!(config.replay_rows_with(preloaded), expected, "{envs}");
        }
    }
}
