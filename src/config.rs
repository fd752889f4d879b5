//! Every hyper-parameter, once: its meaning, unit, default and source.

use crate::error::Error;
use crate::nn::{Activation, LogStd};

/// What an agent learns with. Its TOML form has one key for each field; what is left out keeps its default.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "program", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct Config {
    /// Seed of every random stream of the run. Default 0.
    pub seed: u64,
    /// Environment steps to train for. Default 10 000, which Pendulum-v1 needs.
    pub steps: u64,
    /// Environment steps, at the start, whose actions are drawn uniformly at random. Default 100
    /// (`learning_starts` of Stable-Baselines3). The first update follows once a batch is stored as well.
    pub random_steps: u64,

    /// Widths of the policy's hidden layers. Default 256, 256 (arXiv 1812.05905, table 1).
    pub policy_hidden: Vec<usize>,
    /// Widths of each critic's hidden layers. Default 256, 256 (arXiv 1812.05905, table 1).
    pub critic_hidden: Vec<usize>,
    /// Activation of the hidden layers, `"relu"` or `"tanh"`. Default ReLU (arXiv 1812.05905, table 1).
    pub activation: Activation,
    /// How log σ comes from the policy's raw output, `"clamp"` or `"tanh"`. Default clamp.
    pub log_std: LogStdForm,
    /// Lower bound of log σ. Default −20 (the authors' code).
    pub log_std_min: f64,
    /// Upper bound of log σ. Default 2 (the authors' code).
    pub log_std_max: f64,

    /// Learning rate of the policy. Default 1e-3 (Spinning Up), which learns Pendulum-v1 sooner than 3e-4.
    pub policy_learning_rate: f64,
    /// Learning rate of the critics. Default 1e-3 (Spinning Up).
    pub critic_learning_rate: f64,
    /// Learning rate of log α. Default 1e-3, as for the networks.
    pub temperature_learning_rate: f64,
    /// γ, the discount per step. Default 0.99 (arXiv 1812.05905, table 1).
    pub gamma: f64,
    /// τ, the share of the critics that enters their targets at each update. Default 0.01, twice that of
    /// arXiv 1812.05905, table 1, which learns Pendulum-v1 sooner.
    pub tau: f64,
    /// α, the temperature: `"auto"` to tune it towards the target entropy, or a number to keep. Default auto.
    pub alpha: Alpha,
    /// α before the first update when it is tuned. Default 1.
    pub initial_alpha: f64,
    /// H̄, the entropy that a tuned temperature aims at, in nats over actions in \[−1, 1]: `"auto"` for −dim A, or a
    /// number. Default auto (arXiv 1812.05905, table 1).
    pub target_entropy: TargetEntropy,

    /// Transitions in a batch. Default 256 (arXiv 1812.05905, table 1).
    pub batch_size: usize,
    /// Transitions that the replay memory keeps. Default 1 000 000 (arXiv 1812.05905, table 1).
    pub replay_capacity: usize,

    /// Environment steps from one evaluation to the next; 0 for none at all, not even at the end. Default 1 000.
    pub eval_every: u64,
    /// Episodes of an evaluation during training. Default 10.
    pub eval_episodes: u64,
    /// Episodes of the evaluation at the end. Default 100.
    pub final_episodes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            steps: 10_000,
            random_steps: 100,
            policy_hidden: vec![256, 256],
            critic_hidden: vec![256, 256],
            activation: Activation::Relu,
            log_std: LogStdForm::Clamp,
            log_std_min: -20.0,
            log_std_max: 2.0,
            policy_learning_rate: 1e-3,
            critic_learning_rate: 1e-3,
            temperature_learning_rate: 1e-3,
            gamma: 0.99,
            tau: 0.01,
            alpha: Alpha::Auto,
            initial_alpha: 1.0,
            target_entropy: TargetEntropy::Auto,
            batch_size: 256,
            replay_capacity: 1_000_000,
            eval_every: 1_000,
            eval_episodes: 10,
            final_episodes: 100,
        }
    }
}

/// The form of log σ; the bounds stand beside it in [`Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "program", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum LogStdForm {
    /// [`LogStd::Clamp`]
    Clamp,
    /// [`LogStd::Tanh`]
    Tanh,
}

/// Defines an enum that reads and writes itself as `"auto"` or a number.
macro_rules! auto_or_number {
    ($(#[$attribute:meta])* $name:ident, $auto:literal, $number:literal) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[cfg_attr(feature = "program", derive(serde::Serialize, serde::Deserialize), serde(try_from = "AutoOrNumber", into = "AutoOrNumber"))]
        pub enum $name {
            #[doc = $auto]
            Auto,
            #[doc = $number]
            Fixed(f64),
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    "auto" => Ok(Self::Auto),
                    _ => text.parse().map(Self::Fixed).map_err(|_| format!("it is neither auto nor a number: {text}")),
                }
            }
        }

        #[cfg(feature = "program")]
        impl TryFrom<AutoOrNumber> for $name {
            type Error = String;

            fn try_from(value: AutoOrNumber) -> Result<Self, String> {
                match value {
                    AutoOrNumber::Number(number) => Ok(Self::Fixed(number)),
                    AutoOrNumber::Text(text) => text.parse(),
                }
            }
        }

        #[cfg(feature = "program")]
        impl From<$name> for AutoOrNumber {
            fn from(value: $name) -> Self {
                match value {
                    $name::Auto => Self::Text("auto".into()),
                    $name::Fixed(number) => Self::Number(number),
                }
            }
        }
    };
}

/// What an `auto_or_number` looks like in a file.
#[cfg(feature = "program")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged, expecting = "expected \"auto\" or a number")]
enum AutoOrNumber {
    Number(f64),
    Text(String),
}

auto_or_number! {
    /// The temperature α.
    Alpha, "Tuned so that the policy's entropy approaches the target entropy.", "Kept at this value."
}
auto_or_number! {
    /// The target entropy H̄.
    TargetEntropy, "−dim A", "This many nats, over actions in \\[−1, 1]."
}

impl TargetEntropy {
    /// H̄ in nats for actions of `action_size` dimensions.
    pub fn nats(self, action_size: usize) -> f64 {
        match self {
            Self::Auto => -(action_size as f64),
            Self::Fixed(nats) => nats,
        }
    }
}

impl Config {
    /// log σ with its bounds.
    pub fn log_std(&self) -> LogStd {
        let (min, max) = (self.log_std_min, self.log_std_max);
        match self.log_std {
            LogStdForm::Clamp => LogStd::Clamp { min, max },
            LogStdForm::Tanh => LogStd::Tanh { min, max },
        }
    }

    /// The environment step after which the first update is made.
    pub fn first_update(&self) -> u64 {
        self.random_steps.max(self.batch_size as u64)
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`Error::Config`] names the first field at fault, its value and what it must be.
    pub fn validate(&self) -> Result<(), Error> {
        let demand = |fits: bool, name: &str, value: &dyn std::fmt::Display, must: &str| {
            if fits { Ok(()) } else { Err(Error::Config(format!("{name} is {value}; it must be {must}"))) }
        };
        // TOML, which keeps the configuration of a run, has signed integers.
        let storable = |value: u64| i64::try_from(value).is_ok();
        demand(storable(self.seed), "seed", &self.seed, "below 2⁶³")?;
        demand(self.steps > 0 && storable(self.steps), "steps", &self.steps, "at least 1 and below 2⁶³")?;
        demand(storable(self.eval_every), "eval_every", &self.eval_every, "below 2⁶³")?;
        demand(storable(self.random_steps), "random_steps", &self.random_steps, "below 2⁶³")?;
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
            ("temperature_learning_rate", self.temperature_learning_rate),
        ] {
            demand(rate > 0.0 && rate <= 1.0, name, &rate, "a number above 0 and at most 1")?;
        }
        demand((0.0..=1.0).contains(&self.gamma), "gamma", &self.gamma, "from 0 to 1")?;
        demand(self.tau > 0.0 && self.tau <= 1.0, "tau", &self.tau, "above 0 and at most 1")?;
        let bounds_fit = self.log_std_min.is_finite() && self.log_std_max.is_finite();
        let bounds = format!("{} above log_std_max {}", self.log_std_min, self.log_std_max);
        demand(bounds_fit && self.log_std_min < self.log_std_max, "log_std_min", &bounds, "finite and below it")?;
        demand(self.log_std_max <= 20.0, "log_std_max", &self.log_std_max, "at most 20, or σ leaves the range of f32")?;
        if let Alpha::Fixed(alpha) = self.alpha {
            demand(alpha.is_finite() && alpha >= 0.0, "alpha", &alpha, "auto or a number of at least 0")?;
        }
        let initial = self.initial_alpha;
        demand(initial.is_finite() && initial > 0.0, "initial_alpha", &initial, "a number above 0")?;
        if let TargetEntropy::Fixed(nats) = self.target_entropy {
            demand(nats.is_finite(), "target_entropy", &nats, "auto or a finite number")?;
        }
        let batch_size = self.batch_size;
        demand((1..=1 << 20).contains(&batch_size), "batch_size", &batch_size, "from 1 to 1048576")?;
        let steps =
            format!("at most the number of steps, {}; lower it (--batch) or train longer (--steps)", self.steps);
        demand(batch_size as u64 <= self.steps, "batch_size", &batch_size, &steps)?;
        let capacity = format!("at least the batch size, {batch_size}");
        demand(
            self.replay_capacity >= batch_size && storable(self.replay_capacity as u64),
            "replay_capacity",
            &self.replay_capacity,
            &capacity,
        )?;
        for (name, episodes) in [("eval_episodes", self.eval_episodes), ("final_episodes", self.final_episodes)] {
            demand(episodes > 0, name, &episodes, "at least 1; eval_every = 0 turns evaluation off")?;
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
        let cases: [(&str, Spoil); 18] = [
            ("seed", |c| c.seed = u64::MAX),
            ("steps", |c| c.steps = 0),
            ("policy_hidden", |c| c.policy_hidden = vec![256, 0]),
            ("critic_hidden", |c| c.critic_hidden = vec![1 << 40]),
            ("critic_hidden", |c| c.critic_hidden = vec![65_536; 4]),
            ("batch_size", |c| (c.batch_size, c.policy_hidden) = (1 << 20, vec![1024])),
            ("policy_learning_rate", |c| c.policy_learning_rate = -1.0),
            ("critic_learning_rate", |c| c.critic_learning_rate = f64::NAN),
            ("temperature_learning_rate", |c| c.temperature_learning_rate = f64::INFINITY),
            ("gamma", |c| c.gamma = 1.1),
            ("tau", |c| c.tau = 0.0),
            ("log_std_min", |c| c.log_std_min = 3.0),
            ("alpha", |c| c.alpha = Alpha::Fixed(-0.1)),
            ("initial_alpha", |c| c.initial_alpha = 0.0),
            ("target_entropy", |c| c.target_entropy = TargetEntropy::Fixed(f64::NAN)),
            ("batch_size", |c| c.steps = 100),
            ("replay_capacity", |c| c.replay_capacity = 10),
            ("final_episodes", |c| c.final_episodes = 0),
        ];
        for (name, spoil) in cases {
            let mut config = Config::default();
            spoil(&mut config);
            let Err(Error::Config(message)) = config.validate() else { panic!("{name} was accepted") };
            assert!(message.starts_with(name) && !message.contains('\n'), "{message}");
        }
    }
}
