//! `sac ENVIRONMENT`: trains one run, or one for each of several seeds.

use super::presets::find_preset;
use crate::program::agents::Agents;
use crate::program::arguments::{EnvArgs, PythonArgs, count, first_update};
use crate::program::failure::{Failure, Outcome};
use crate::program::interruption;
use crate::program::pool::{Budget, at_once};
use crate::program::progress::{Board, Log, Many};
use crate::program::session::{self, begin, share};
use crate::program::trust::{self, Named};
use anyhow::Result;
use clap::Args;
use soft_actor_critic::config::{
    Alpha, Config, FirstUpdate, FirstUpdateAlpha, MaxGradientNorm, Precision, TargetEntropy, UntilReturn,
};
use soft_actor_critic::device::Device;
use soft_actor_critic::run::group::parse_seeds;
use soft_actor_critic::run::{Group, Plan, config_file};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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
    /// Upper bound on threads, besides those that wait for the steps of --envs or for a GPU that they share; 0 for one
    /// for each core. Small networks and batches use fewer, because more would be slower. Results do not depend on it
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
    #[arg(
        long, value_name = "WIDTHS", value_delimiter = ',', value_parser = count::<usize>,
        help_heading = "Algorithm"
    )]
    pub hidden: Option<Vec<usize>>,
    /// Transitions in a batch
    #[arg(
        long, value_name = "N", value_parser = count::<usize>, allow_negative_numbers = true,
        help_heading = "Algorithm"
    )]
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
    #[arg(
        long, value_name = "N", value_parser = count::<usize>, allow_negative_numbers = true,
        help_heading = "Algorithm"
    )]
    pub replay: Option<usize>,
    /// Uniformly random steps at the start
    #[arg(
        long, value_name = "N", value_parser = count::<u64>, allow_negative_numbers = true,
        help_heading = "Algorithm"
    )]
    pub random_steps: Option<u64>,
    /// Steps of an environment for which each of those random actions is held
    #[arg(
        long, value_name = "N", value_parser = count::<u64>, allow_negative_numbers = true,
        help_heading = "Algorithm"
    )]
    pub random_hold: Option<u64>,
    /// The step after which the first update is made: auto for when the random steps are over and a batch is stored
    #[arg(
        long, value_name = "auto|N", value_parser = first_update, allow_negative_numbers = true,
        help_heading = "Algorithm"
    )]
    pub first_update: Option<FirstUpdate>,
    /// Updates for each environment step from then on, as in 0.5 or 4
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Algorithm")]
    pub utd: Option<f64>,
    /// Steps whose rewards a critic's target sums before it bootstraps, without the entropy of the actions on the way
    #[arg(
        long, value_name = "N", value_parser = count::<usize>, allow_negative_numbers = true,
        help_heading = "Algorithm"
    )]
    pub n_step: Option<usize>,
    /// What the products between hidden layers are made of: f32, or tf32 on the tensor cores of an NVIDIA GPU
    #[arg(long, value_name = "f32|tf32", help_heading = "Algorithm")]
    pub precision: Option<Precision>,
}

impl TrainArgs {
    /// Puts every option that was given into `config`.
    fn apply(&self, config: &mut Config) {
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

/// `sac ENVIRONMENT`
pub fn run(args: &TrainArgs, EnvArgs { env_args }: &EnvArgs, python: &PythonArgs) -> Outcome {
    let prepare = || -> Result<_> {
        let mut config = match (&args.config, &args.preset) {
            (Some(path), _) => config_file::read(path, &args.environment)?,
            (None, Some(name)) => config_file::parse(find_preset(name)?, &args.environment)?,
            (None, None) => Config::default(),
        };
        python.check([args.environment.as_str()])?;
        args.apply(&mut config);
        config.env_args.extend(env_args.iter().cloned());
        let named = Named {
            by: args.config.as_deref().unwrap_or(Path::new(&args.environment)),
            environment: &args.environment,
            is_given: true,
            arguments: &config.env_args,
            given: env_args,
        };
        trust::check(&[named], args.trust)?;
        let seeds = args.seeds.clone();
        let budget = seeds.as_ref().map(|seeds| Budget::new(args.threads, seeds.end - seeds.start)).transpose()?;
        if let Some(Range { start, end }) = seeds {
            // Whatever is wrong with one of them is found before the first begins.
            Config { seed: end - 1, ..config.clone() }.validate()?;
            config.seed = start;
        }
        let plan = Plan {
            environment: args.environment.clone(),
            config,
            device: args.device,
            init_from: match (&args.init_from, &seeds) {
                // A group may be resumed from elsewhere.
                (Some(path), Some(_)) => Some(std::path::absolute(path)?),
                (path, _) => path.clone(),
            },
            with_replay: args.with_replay,
        };
        let mut first = session::prepare(plan, python, budget.map_or(args.threads, |budget| budget.threads))?;
        let mut agents = Agents::default();
        if let Some(seeds) = &seeds {
            (first, agents) = share(first, seeds.clone())?;
        }
        Ok((seeds.zip(budget), first, agents))
    };
    interruption::catch().map_err(Failure::input)?;
    let (many, first, agents) = prepare().map_err(Failure::input)?;
    let board = |many: Option<Many>| Board::new(args.quiet, args.log, many);
    let Some((seeds, budget)) = many else {
        return begin(first, None, args.out.as_deref(), &board(None)).map(drop);
    };
    let budget = budget.with(&agents, seeds.end - seeds.start);
    interruption::begin(board(None).sayer());
    let group = Group::create(args.out.as_deref(), seeds, first.plan().clone()).map_err(Failure::input)?;
    let runs: Vec<_> = group.runs().collect();
    let paths: Vec<_> = runs.iter().map(|(path, _)| path.as_path()).collect();
    let first = Mutex::new(Some(first));
    let board = board(Some(Many { root: group.path(), runs: runs.len(), at_once: budget.runs }));
    interruption::begin(board.sayer());
    let outcome = at_once(group.path(), &paths, true, budget, &agents, &board, |number, board| {
        // The first run has been prepared already, and the others are not all to be in memory before their time.
        let prepared = first.lock().unwrap_or_else(PoisonError::into_inner).take_if(|_| number == 0);
        let (path, plan) = &runs[number];
        // Whatever happens to it, the runs that share a GPU with it must not wait for it.
        let learner = agents.take(number);
        let prepare = || session::prepare(plan.clone(), python, budget.threads);
        begin(prepared.map_or_else(prepare, Ok).map_err(Failure::input)?, learner, Some(path), board)
    });
    group.withdraw_if_empty();
    outcome
}
