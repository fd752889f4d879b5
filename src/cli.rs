//! Arguments: parsed to plain values, and nothing done with them here.

use crate::progress::Log;
use clap::{Args, Parser, Subcommand, ValueEnum};
use soft_actor_critic::actor::UNSEEN;
use soft_actor_critic::config::{
    Alpha, Config, FirstUpdate, FirstUpdateAlpha, MaxGradientNorm, Precision, TargetEntropy, UntilReturn,
};
use soft_actor_critic::device::Device;
use soft_actor_critic::env;
use soft_actor_critic::run::group::parse_seeds;
use std::ops::Range;
use std::path::PathBuf;

/// Soft Actor-Critic: train an agent on an environment, and evaluate it.
#[derive(Debug, Parser)]
#[command(name = "sac", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(
    override_usage = "sac ENVIRONMENT [OPTIONS]\n       sac eval DIR [OPTIONS]\n       sac resume DIR [OPTIONS]\n       sac render DIR [OPTIONS]\n       sac export DIR --format FORMAT [OPTIONS]\n       sac runs [DIR]\n       sac plot DIR... [OPTIONS]\n       sac compare DIR... [OPTIONS]\n       sac presets [NAME]"
)]
#[command(
    after_help = "Environments: pendulum, mountain-car, and gym:ID for every one of Gymnasium with a Box of observations and of \
                        actions, as in gym:HalfCheetah-v5, or gym:MODULE:ID to import what registers it first"
)]
pub struct Cli {
    /// What to do instead of training.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to train.
    #[command(flatten)]
    pub train: Option<TrainArgs>,
    // These are not within the options above, because no options within options can be left out.
    /// What the environment is made with.
    #[command(flatten)]
    pub env_args: EnvArgs,
    /// What Python it runs in.
    #[command(flatten)]
    pub python: PythonArgs,
}

/// What the program does besides training.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Evaluate the policy of a run
    Eval(EvalArgs),
    /// Go on with a run that was interrupted, as if it had not been
    Resume(ResumeArgs),
    /// Film an episode of the policy of a run, as an animated GIF
    Render(RenderArgs),
    /// Write the policy of a run in a form that runs elsewhere
    Export(ExportArgs),
    /// List runs: steps, best and last return, and whether they are finished
    Runs(RunsArgs),
    /// Draw the learning curve and the losses of a run, or several runs in one picture
    Plot(PlotArgs),
    /// Compare groups of runs: means, interquartile means and their 95 % intervals
    Compare(CompareArgs),
    /// List the presets, or print one as TOML
    Presets(PresetsArgs),
}

/// `sac ENVIRONMENT`
#[derive(Args, Debug)]
pub struct TrainArgs {
    /// The environment to train on
    pub environment: String,

    /// Environment steps to train for, those of all environments together
    #[arg(long, value_name = "N", value_parser = count::<u64>, allow_negative_numbers = true, help_heading = "Run")]
    pub steps: Option<u64>,
    /// Environments to train on side by side, a step of each in turn
    #[arg(long, value_name = "N", value_parser = count::<usize>, allow_negative_numbers = true, help_heading = "Run")]
    pub envs: Option<usize>,
    /// Seed of every random stream
    #[arg(long, value_name = "N", value_parser = count::<u64>, allow_negative_numbers = true, help_heading = "Run")]
    pub seed: Option<u64>,
    /// Several runs in one process, a run for each seed from A to below B, as many at once as there are threads, or on
    /// one GPU all at once, if their updates are fused; each is the same as by itself. --out is then the directory of
    /// their directories [default: runs/ENVIRONMENT-N], and `sac resume` of it goes on with what is left
    #[arg(
        long, value_name = "A..B", value_parser = parse_seeds, allow_hyphen_values = true, conflicts_with = "seed",
        help_heading = "Run"
    )]
    pub seeds: Option<Range<u64>>,
    /// Upper bound on threads, besides those that wait for the steps of --envs or for a GPU that they share; 0 for one for
    /// each core. Small networks and batches use fewer, because more would be slower. Results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, help_heading = "Run")]
    pub threads: usize,
    /// Where to train: cpu, cuda or cuda:N for an NVIDIA GPU, auto for the faster one, found by trying
    #[arg(long, value_name = "DEVICE", default_value = "cpu", help_heading = "Run")]
    pub device: Device,
    /// Run directory, new or empty [default: runs/ENVIRONMENT-N]
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    pub out: Option<PathBuf>,
    /// Read the configuration from a TOML file; options given here override it
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub config: Option<PathBuf>,
    /// Make the environment with the env_args of that file, which you have not given here before
    #[arg(long, requires = "config", help_heading = "Gymnasium")]
    pub trust: bool,
    /// Begin with a preset, see `sac presets`; options given here override it
    #[arg(long, value_name = "NAME", conflicts_with = "config", help_heading = "Run")]
    pub preset: Option<String>,
    /// Begin with the networks of another run, or with those of a .safetensors file
    #[arg(long, value_name = "PATH", help_heading = "Run")]
    pub init_from: Option<PathBuf>,
    /// Begin with the replay memory of that run as well
    #[arg(long, requires = "init_from", help_heading = "Run")]
    pub with_replay: bool,
    /// Environment steps from one evaluation to the next; 0 for never
    #[arg(long, value_name = "N", value_parser = count::<u64>, allow_negative_numbers = true, help_heading = "Run")]
    pub eval_every: Option<u64>,
    /// Environment steps from one checkpoint to the next; 0 for as few as can be
    #[arg(long, value_name = "N", value_parser = count::<u64>, allow_negative_numbers = true, help_heading = "Run")]
    pub checkpoint_every: Option<u64>,
    /// Episodes of an evaluation during training
    #[arg(long, value_name = "N", value_parser = count::<u64>, allow_negative_numbers = true, help_heading = "Run")]
    pub eval_episodes: Option<u64>,
    /// Episodes of the evaluation at the end
    #[arg(long, value_name = "N", value_parser = count::<u64>, allow_negative_numbers = true, help_heading = "Run")]
    pub final_episodes: Option<u64>,
    /// Keep the policy of the best evaluation as well, for `sac eval DIR --best` and the like
    #[arg(long, help_heading = "Run")]
    pub keep_best: bool,
    /// Stop when the mean return of an evaluation reaches this: off, or a number
    #[arg(long, value_name = "off|RETURN", allow_negative_numbers = true, help_heading = "Run")]
    pub until_return: Option<UntilReturn>,
    /// Print errors only
    #[arg(long, conflicts_with = "log", help_heading = "Run")]
    pub quiet: bool,
    /// How to tell of progress
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Log::Text, help_heading = "Run")]
    pub log: Log,

    /// Widths of the hidden layers of policy, critics and value network, as in 256,256
    #[arg(long, value_name = "WIDTHS", value_delimiter = ',', value_parser = count::<usize>, help_heading = "Algorithm")]
    pub hidden: Option<Vec<usize>>,
    /// Transitions in a batch
    #[arg(long, value_name = "N", value_parser = count::<usize>, allow_negative_numbers = true, help_heading = "Algorithm")]
    pub batch: Option<usize>,
    /// Learning rate of policy, critics, value network and temperature
    #[arg(long, value_name = "RATE", allow_negative_numbers = true, help_heading = "Algorithm")]
    pub lr: Option<f64>,
    /// Bound on the Euclidean norm of each network's gradient: off, or a number
    #[arg(long, value_name = "off|NUMBER", allow_negative_numbers = true, help_heading = "Algorithm")]
    pub max_gradient_norm: Option<MaxGradientNorm>,
    /// Learn from observations less their running mean, over their running standard deviation
    #[arg(long, help_heading = "Algorithm")]
    pub normalize_observations: bool,
    /// What every reward is multiplied by before it is learned from; reported returns stay as they are
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Algorithm")]
    pub reward_scale: Option<f64>,
    /// γ, the discount per step
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Algorithm")]
    pub gamma: Option<f64>,
    /// τ, the share of a network that enters its target whenever that follows
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Algorithm")]
    pub tau: Option<f64>,
    /// α, the temperature: auto, or a number to keep
    #[arg(long, value_name = "auto|NUMBER", allow_negative_numbers = true, help_heading = "Algorithm")]
    pub alpha: Option<Alpha>,
    /// H̄, what a tuned temperature aims at, in nats: auto for −dim A, or a number
    #[arg(long, value_name = "auto|NUMBER", allow_negative_numbers = true, help_heading = "Algorithm")]
    pub target_entropy: Option<TargetEntropy>,
    /// Transitions that the replay memory keeps
    #[arg(long, value_name = "N", value_parser = count::<usize>, allow_negative_numbers = true, help_heading = "Algorithm")]
    pub replay: Option<usize>,
    /// Uniformly random steps at the start
    #[arg(long, value_name = "N", value_parser = count::<u64>, allow_negative_numbers = true, help_heading = "Algorithm")]
    pub random_steps: Option<u64>,
    /// Steps of an environment for which each of those random actions is held
    #[arg(long, value_name = "N", value_parser = count::<u64>, allow_negative_numbers = true, help_heading = "Algorithm")]
    pub random_hold: Option<u64>,
    /// The step after which the first update is made: auto for when the random steps are over and a batch is stored
    #[arg(long, value_name = "auto|N", value_parser = first_update, allow_negative_numbers = true, help_heading = "Algorithm")]
    pub first_update: Option<FirstUpdate>,
    /// Updates for each environment step from then on, as in 0.5 or 4
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Algorithm")]
    pub utd: Option<f64>,
    /// Steps whose rewards a critic's target sums before it bootstraps, without the entropy of the actions on the way
    #[arg(long, value_name = "N", value_parser = count::<usize>, allow_negative_numbers = true, help_heading = "Algorithm")]
    pub n_step: Option<usize>,
    /// What the products between hidden layers are made of: f32, or tf32 on the tensor cores of an NVIDIA GPU
    #[arg(long, value_name = "f32|tf32", help_heading = "Algorithm")]
    pub precision: Option<Precision>,
}

/// A whole number as people type it: 1000000, 1_000_000 or 1e6.
fn count<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let digits = text.trim().replace('_', "");
    let whole = |value: f64| value.fract() == 0.0 && (0.0..9e15).contains(&value);
    let number = digits.parse().ok().or_else(|| Some(digits.parse::<f64>().ok().filter(|&value| whole(value))? as u64));
    let is_large = digits.parse::<f64>().is_ok_and(|value| value > 1e15 && value.is_finite());
    let problem = if is_large { "it is too large" } else { "it is not a whole number, as in 1000000 or 1e6" };
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| problem.into())
}

/// The step of the first update: auto, or a whole number.
fn first_update(text: &str) -> Result<FirstUpdate, String> {
    if text == "auto" { Ok(FirstUpdate::Auto) } else { count(text).map(FirstUpdate::Fixed) }
}

/// A whole number that is at least 1.
fn positive(text: &str) -> Result<u64, String> {
    count(text).and_then(|number| if number > 0 { Ok(number) } else { Err("it must be at least 1".into()) })
}

fn seconds(text: &str) -> Result<u64, String> {
    let seconds = positive(text)?;
    if seconds <= 1_000_000 { Ok(seconds) } else { Err("it must be at most 1000000".into()) }
}

/// The option for what another program calls so.
pub fn option_of_others(name: &str) -> Option<&'static str> {
    const OTHERS: [(&str, &str); 18] = [
        ("--batch-size", "--batch"),
        ("--batchsize", "--batch"),
        ("--learning-rate", "--lr"),
        ("--policy-lr", "--lr"),
        ("--q-lr", "--lr"),
        ("--buffer-size", "--replay"),
        ("--replay-size", "--replay"),
        ("--total-timesteps", "--steps"),
        ("--timesteps", "--steps"),
        ("--n-timesteps", "--steps"),
        ("--learning-starts", "--random-steps"),
        ("--start-steps", "--random-steps"),
        ("--gradient-steps", "--utd"),
        ("--ent-coef", "--alpha"),
        ("--num-envs", "--envs"),
        ("--n-envs", "--envs"),
        ("--net-arch", "--hidden"),
        ("--env-id", "the environment's name without an option, as in sac pendulum"),
    ];
    let name = name.split('=').next().unwrap_or(name).replace('_', "-").to_lowercase();
    OTHERS.iter().find(|(other, _)| *other == name).map(|(_, ours)| *ours)
}

/// What an environment of Gymnasium is made with.
#[derive(Args, Debug)]
pub struct EnvArgs {
    /// An argument that gym:ID is made with. Its value is read as JSON or as Python (2, true, None, (1, 2)), any other is a
    /// text. Can be given several times
    #[arg(long = "env-arg", value_name = "KEY=VALUE", value_parser = key_and_value, help_heading = "Gymnasium")]
    pub env_args: Vec<(String, String)>,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("it is not of the form KEY=VALUE".into()),
    }
}

/// What the files of a run may make Python do.
#[derive(Args, Debug)]
pub struct TrustArgs {
    /// Import the Python modules that the files name, and make environments with their arguments, though you have not named
    /// them in this directory before: only for files that you trust as a program that you run
    #[arg(long, help_heading = "Gymnasium")]
    pub trust: bool,
}

/// The Python that an environment of Gymnasium runs in.
#[derive(Args, Debug)]
pub struct PythonArgs {
    /// The interpreter that has Gymnasium and gym:ID [default: the active virtual environment's, else python3 on the path]
    #[arg(long, value_name = "PATH", help_heading = "Gymnasium")]
    pub python: Option<PathBuf>,
    /// How long a step or a reset of gym:ID may take; to be made, it may take five times as long [default: 60]
    #[arg(
        long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds, help_heading = "Gymnasium"
    )]
    pub env_timeout: Option<u64>,
}

impl PythonArgs {
    /// Refuses options that mean nothing to any of these environments.
    pub fn check<'a>(&self, environments: impl IntoIterator<Item = &'a str>) -> anyhow::Result<()> {
        let mut environments = environments.into_iter();
        let given = self.python.is_some() || self.env_timeout.is_some();
        match environments.next() {
            Some(name)
                if given && env::gym_id(name).is_none() && !environments.any(|name| env::gym_id(name).is_some()) =>
            {
                anyhow::bail!("{name} needs no Python; leave out --python and --env-timeout")
            }
            _ => Ok(()),
        }
    }
}

impl TrainArgs {
    /// Puts every option that was given into `config`.
    pub fn apply(&self, config: &mut Config) {
        fn set<T: Clone>(field: &mut T, option: &Option<T>) {
            if let Some(value) = option {
                field.clone_from(value);
            }
        }
        set(&mut config.steps, &self.steps);
        set(&mut config.envs, &self.envs);
        set(&mut config.seed, &self.seed);
        set(&mut config.eval_every, &self.eval_every);
        set(&mut config.checkpoint_every, &self.checkpoint_every);
        set(&mut config.eval_episodes, &self.eval_episodes);
        set(&mut config.final_episodes, &self.final_episodes);
        config.keep_best |= self.keep_best;
        set(&mut config.until_return, &self.until_return);
        set(&mut config.policy_hidden, &self.hidden);
        set(&mut config.critic_hidden, &self.hidden);
        set(&mut config.batch_size, &self.batch);
        set(&mut config.policy_learning_rate, &self.lr);
        set(&mut config.critic_learning_rate, &self.lr);
        set(&mut config.value_learning_rate, &self.lr);
        set(&mut config.temperature_learning_rate, &self.lr);
        set(&mut config.max_gradient_norm, &self.max_gradient_norm);
        config.normalize_observations |= self.normalize_observations;
        set(&mut config.reward_scale, &self.reward_scale);
        set(&mut config.gamma, &self.gamma);
        set(&mut config.tau, &self.tau);
        set(&mut config.alpha, &self.alpha);
        if let Some(Alpha::Fixed(_)) = self.alpha {
            // What a preset says of the first of many temperatures does not apply to a single one.
            config.first_update_alpha = FirstUpdateAlpha::Initial;
        }
        set(&mut config.target_entropy, &self.target_entropy);
        set(&mut config.replay_capacity, &self.replay);
        set(&mut config.random_steps, &self.random_steps);
        set(&mut config.random_hold, &self.random_hold);
        set(&mut config.first_update, &self.first_update);
        set(&mut config.utd, &self.utd);
        set(&mut config.n_step, &self.n_step);
        set(&mut config.precision, &self.precision);
    }
}

/// `sac resume`
#[derive(Args, Debug)]
pub struct ResumeArgs {
    /// The run directory, or a directory of runs, of which all that are not finished then go on; if --seeds has made it,
    /// those that had not begun begin
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
    /// Environment steps to train for, in all, at least those that the run was begun with [default: those]
    #[arg(long, value_name = "N", value_parser = count::<u64>, allow_negative_numbers = true)]
    pub steps: Option<u64>,
    /// Where to train [default: where the run was trained]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Device>,
    /// Upper bound on threads, besides those that wait for the steps of several environments; 0 for one for each core. Small
    /// networks and batches use fewer, because more would be slower. Results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub threads: usize,
    /// Stop when the mean return of an evaluation reaches this: off, or a number. A run whose last evaluation has reached it
    /// is finished [default: that which the run was begun with]
    #[arg(long, value_name = "off|RETURN", allow_negative_numbers = true)]
    pub until_return: Option<UntilReturn>,
    /// Print errors only
    #[arg(long, conflicts_with = "log")]
    pub quiet: bool,
    /// How to tell of progress
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Log::Text)]
    pub log: Log,
    /// An environment that the files name, so that its module may be imported; needed once in a directory. Can be given
    /// several times
    #[arg(long = "env", value_name = "gym:MODULE:ID", help_heading = "Gymnasium")]
    pub envs: Vec<String>,
    /// What the files may make Python do.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// What Python the environment runs in.
    #[command(flatten)]
    pub python: PythonArgs,
}

/// `sac runs`
#[derive(Args, Debug)]
pub struct RunsArgs {
    /// The directory that holds them
    #[arg(value_name = "DIR", default_value = "runs")]
    pub path: PathBuf,
}

/// `sac plot`
#[derive(Args, Debug)]
pub struct PlotArgs {
    /// Run directories, or directories that hold them; runs that differ in their seeds alone become one curve
    #[arg(value_name = "DIR", required = true)]
    pub paths: Vec<PathBuf>,
    /// The file to write, which must not be there; its extension says whether it becomes an SVG or a PNG
    #[arg(short, long, value_name = "FILE", default_value = "plot.svg")]
    pub out: PathBuf,
}

/// `sac compare`
#[derive(Args, Debug)]
pub struct CompareArgs {
    /// A directory of runs that differ in their seeds alone for each group, or a run; others are compared with the first
    #[arg(value_name = "DIR", required = true)]
    pub groups: Vec<PathBuf>,
    /// Draw them into this file, which must not be there; its extension says whether it becomes an SVG or a PNG
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print JSON, with the return of every run
    #[arg(long)]
    pub json: bool,
}

/// What `sac export` writes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// A model for onnxruntime and the like
    Onnx,
    /// The file that a run holds: weights and what they mean
    Safetensors,
    /// A module of Rust, no_std, without dependencies
    Rust,
    /// A file of C99, without headers
    C,
}

/// `sac export`
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The run directory, or a policy file
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
    /// The policy of the best evaluation, which a run with --keep-best has kept, instead of the last one
    #[arg(long)]
    pub best: bool,
    /// The form
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Format,
    /// The file to write, which must not be there [default: policy.onnx, .safetensors, .rs or .c]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The policy that samples, with its standard normal noise as an input, instead of the deterministic one
    #[arg(long)]
    pub stochastic: bool,
}

/// `sac presets`
#[derive(Args, Debug)]
pub struct PresetsArgs {
    /// The preset to print
    pub name: Option<String>,
}

/// `sac eval`
#[derive(Args, Debug)]
pub struct EvalArgs {
    /// The run directory, or a policy file
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
    /// The policy of the best evaluation, which a run with --keep-best has kept, instead of the last one
    #[arg(long)]
    pub best: bool,
    /// Episodes to run
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    pub episodes: u64,
    /// Seed of the start states, and of the noise. That of the run repeats the evaluations of its training [default:
    /// 2^63, the seed of no run, so that the policy is not judged by the episodes that --keep-best has chosen it by]
    #[arg(long, value_name = "N", default_value_t = UNSEEN, hide_default_value = true, value_parser = count::<u64>)]
    pub seed: u64,
    /// Sample actions instead of taking the deterministic ones
    #[arg(long)]
    pub stochastic: bool,
    /// Print JSON, with the return of every episode
    #[arg(long)]
    pub json: bool,
    /// The environment to act in [default: the one that the file names, whose module is imported only if you have named it in
    /// this directory before]
    #[arg(long, value_name = "ENVIRONMENT")]
    pub env: Option<String>,
    /// What the files may make Python do.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// What the environment is made with, besides what the run says.
    #[command(flatten)]
    pub env_args: EnvArgs,
    /// What Python it runs in.
    #[command(flatten)]
    pub python: PythonArgs,
}

/// `sac render`
#[derive(Args, Debug)]
pub struct RenderArgs {
    /// The run directory, or a policy file
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
    /// The policy of the best evaluation, which a run with --keep-best has kept, instead of the last one
    #[arg(long)]
    pub best: bool,
    /// The file to write, which must not be there [default: ENVIRONMENT.gif]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Seed of the start state, and of the noise: that of the first episode of `sac eval` [default: 2^63, as there]
    #[arg(long, value_name = "N", default_value_t = UNSEEN, hide_default_value = true, value_parser = count::<u64>)]
    pub seed: u64,
    /// Sample actions instead of taking the deterministic ones
    #[arg(long)]
    pub stochastic: bool,
    /// Steps of the environment shown in a second, from 1 to 50
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=50))]
    pub fps: u16,
    /// Width of the picture, from 64 to 2048; its height is larger by what the numbers and actions need
    #[arg(long, value_name = "PIXELS", default_value_t = 400, value_parser = clap::value_parser!(u16).range(64..=2048))]
    pub size: u16,
    /// The environment to act in [default: the one that the file names, whose module is imported only if you have named it in
    /// this directory before]
    #[arg(long, value_name = "ENVIRONMENT")]
    pub env: Option<String>,
    /// What the files may make Python do.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// What the environment is made with, besides what the run says.
    #[command(flatten)]
    pub env_args: EnvArgs,
    /// What Python it runs in.
    #[command(flatten)]
    pub python: PythonArgs,
}
