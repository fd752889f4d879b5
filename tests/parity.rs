//! The learner for GPUs against that for the CPU, buffer by buffer, for every preset: here with its kernels run on the CPU
//! (`tests/host`), in `tests/gpu.rs` on a GPU.
#![cfg(all(feature = "program", target_os = "linux"))]

mod comparison;
mod host;

use comparison::{Case, F32, TF32, batch_and_noise, cases, fused_cases, tf32_cases};
use host::Host;
use ndarray::Array2;
use rand::Rng;
use rand_distr::StandardNormal;
use soft_actor_critic::config::{Config, FirstUpdateAlpha, Precision};
use soft_actor_critic::env::{Bounds, Env, EnvError, Pendulum, Step};
use soft_actor_critic::error::Error;
use soft_actor_critic::gpu::Gpu;
use soft_actor_critic::gpu::kernels::{KERNELS, TILE};
use soft_actor_critic::replay::Replay;
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::sac::cuda::{Form, PendulumState, Status};
use soft_actor_critic::sac::{AgentLearner, CpuLearner, CudaLearner, Learner, Metric};
use soft_actor_critic::train::{Trainer, TrainerState};

fn host() -> Option<Box<dyn Gpu>> {
    Host::new().map(|host| Box::new(host) as Box<dyn Gpu>)
}

fn tf32_host() -> Option<Box<dyn Gpu>> {
    Host::tf32().map(|host| Box::new(host) as Box<dyn Gpu>)
}

#[test]
fn arguments_are_laid_out_as_the_kernels_have_them() {
    let Some(host) = Host::new() else { return };
    for (name, size) in KERNELS {
        assert_eq!(host.sizes()[name], *size, "{name}");
    }
    assert_eq!(host.sizes()["status"], size_of::<Status>());
    assert_eq!(host.sizes()["pendulum"], size_of::<PendulumState>());
}

#[test]
fn every_intermediate_agrees_with_the_cpu() {
    comparison::every_intermediate(host);
}

#[test]
fn gradients_and_parameters_agree_over_twenty_updates() {
    comparison::twenty_updates(host, CudaLearner::new, [7, 33].into_iter().flat_map(cases).collect(), &F32);
}

#[test]
fn fused_updates_agree_over_twenty_updates() {
    comparison::twenty_updates(host, CudaLearner::new, [7, 33].into_iter().flat_map(fused_cases).collect(), &F32);
}

#[test]
fn updates_in_tf32_agree_over_twenty_updates() {
    let cases = [7, 33].into_iter().flat_map(tf32_cases).collect();
    comparison::twenty_updates(tf32_host, CudaLearner::new, cases, &TF32);
}

/// Two hundred updates from the same memory: what is seen in the last hundred of them is the same within 0.1 %.
#[test]
fn learning_in_tf32_goes_where_it_does_in_f32() {
    let learn = |host: Option<Host>| {
        let gpu = Box::new(host?);
        let (o, hidden) = (3, vec![32; 2]);
        let config = Config {
            batch_size: 32,
            policy_hidden: hidden.clone(),
            critic_hidden: hidden,
            steps: 1000,
            precision: gpu.precision(),
            ..Config::default()
        };
        let replay = comparison::replay(&config, 500, o, 1);
        let mut cuda = CudaLearner::new(&config, o, &[1.0], gpu).expect("it fits");
        let mut learn = |updates: std::ops::Range<u64>| {
            updates.for_each(|update| cuda.learn(&replay, update).expect("it works"));
            cuda.metrics().expect("it works")
        };
        let half = learn(0..100);
        learn(100..200).means_since(&half)
    };
    let (Some(f32), Some(tf32)) = (learn(Host::new()), learn(Host::tf32())) else { return };
    for (x, y) in [Metric::CriticLoss, Metric::Q, Metric::Entropy].map(|metric| (f32[metric], tf32[metric])) {
        println!("{x} in f32, {y} in tf32");
        assert!((x - y).abs() <= 1e-3 * x.abs(), "{x} in f32, {y} in tf32");
    }
}

/// The product of tiles is that of what they hold, or in tf32 of that to 10 bits of mantissa, ties away from zero; what is no
/// number shows.
#[test]
fn products_of_tiles_are_those_of_their_elements() {
    let to_tf32 = |x: f32| f32::from_bits((x.to_bits() + 0x1000) & !0x1fff);
    let mut rng = Philox::new(5, Stream::Evaluation, 0);
    for (host, round) in [(Host::new(), (|x| x) as fn(f32) -> f32), (Host::tf32(), to_tf32)] {
        let Some(host) = host else { return };
        const TILES: usize = 3;
        let mut tiles =
            || -> Vec<f32> { (0..TILES * TILE * TILE).map(|_| rng.sample::<f32, _>(StandardNormal)).collect() };
        let (mut a, b) = (tiles(), tiles());
        // As near to one number of 10 bits as to the next.
        a[7] = f32::from_bits(0x3f80_1000);
        let found = host.product_of_tiles(&a, &b);
        for (i, j) in (0..TILE).flat_map(|i| (0..TILE).map(move |j| (i, j))) {
            let product = |k: usize| f64::from(round(a[k * TILE + i])) * f64::from(round(b[k * TILE + j]));
            let (sum, size) = (0..TILES * TILE).map(product).fold((0.0, 0.0), |(s, t), x| (s + x, t + x.abs()));
            let error = (f64::from(found[i * TILE + j]) - sum).abs() / size;
            assert!(error <= 1e-6, "{}: row {i}, column {j} is off by {error:.1e}", host.precision());
        }
        a[TILE + 3] = f32::NAN;
        let found = host.product_of_tiles(&a, &b);
        assert!((0..TILE * TILE).all(|e| found[e].is_nan() == (e / TILE == 3)), "{}", host.precision());
    }
}

#[test]
fn fused_intermediates_agree_with_those_layer_by_layer() {
    comparison::fused_intermediates(host);
}

#[test]
fn published_presets_agree_over_twenty_updates() {
    comparison::twenty_updates(host, CudaLearner::layer_by_layer, comparison::published(), &F32);
}

#[test]
fn actions_agree_with_the_cpu() {
    comparison::actions(host);
}

#[test]
fn metrics_and_failures_agree_with_the_cpu() {
    comparison::failures(host);
}

#[test]
fn snapshots_go_from_one_learner_to_the_other() {
    let Some(gpu) = host() else { return };
    let Case { config, observation_size: o, half_range, .. } = cases(7).remove(0);
    let mut cpu = CpuLearner::<f32>::new(&config, o, &half_range);
    let mut cuda = CudaLearner::new(&config, o, &half_range, gpu).expect("it fits");
    assert_eq!(cuda.snapshot().expect("it works"), cpu.snapshot(), "both begin alike");
    let (batch, noise) = batch_and_noise(&config, o, half_range.len(), 0);
    cpu.update(&batch, &noise);
    let snapshot = cpu.snapshot();
    cuda.restore(&snapshot).expect("it fits");
    assert_eq!(cuda.snapshot().expect("it works"), snapshot);
    let mut short = snapshot.clone();
    short.get_mut("q2").expect("every learner has it").pop();
    let error = cuda.restore(&short).expect_err("it does not fit").to_string();
    assert!(error.contains("q2 must have length"), "{error}");
    assert_eq!(cuda.snapshot().expect("it works"), snapshot, "nothing is changed");
}

#[test]
fn a_run_on_the_device_is_made_of_its_steps() {
    comparison::pendulum(host);
}

#[test]
fn learning_is_an_update_with_what_is_drawn() {
    comparison::learning(host);
}

/// As `docs/cuda.md` says.
#[test]
fn an_update_by_the_defaults_is_31_launches_or_8_fused_ones() {
    let Some(gpu) = host() else { return };
    let cuda = CudaLearner::new(&Config::default(), 3, &[2.0], gpu).expect("it fits");
    assert_eq!(cuda.update_launches(true, false).len(), 31);
    assert_eq!(cuda.launches(true, Form::USUAL).len(), 8);
}

/// Order of blocks and threads, which the host shuffles by the number of the launch, changes no bit.
#[test]
fn the_order_of_threads_changes_nothing() {
    let cases = [cases(7), fused_cases(39), tf32_cases(39)].into_iter().flatten();
    for Case { name, config, observation_size: o, half_range } in cases {
        let learn = |updates_before: u64| {
            let gpu = if config.precision == Precision::Tf32 { tf32_host()? } else { host()? };
            let mut cuda = CudaLearner::new(&config, o, &half_range, gpu).expect("it fits");
            let start = cuda.snapshot().expect("it works");
            let (batch, noise) = batch_and_noise(&config, o, half_range.len(), 5);
            (0..updates_before).for_each(|_| cuda.update(&batch, &noise).expect("it works"));
            cuda.restore(&start).expect("it fits");
            cuda.update(&batch, &noise).expect("it works");
            Some(cuda.snapshot().expect("it works"))
        };
        assert_eq!(learn(0), learn(1), "{name}");
    }
}

#[test]
fn agents_that_learn_together_learn_as_each_does_alone() {
    comparison::together(host);
}

#[test]
fn too_little_memory_names_the_replay() {
    let Some(host) = Host::new() else { return };
    let config = Config { policy_hidden: vec![4], critic_hidden: vec![4], batch_size: 4, ..Config::default() };
    let result = CudaLearner::new(&config, 3, &[1.0], Box::new(host.with_memory(10_000)));
    let error = result.err().expect("it does not fit").to_string();
    assert!(error.contains("a replay memory of 10000 transitions") && error.contains("--replay"), "{error}");
    let Some(host) = Host::new() else { return };
    let config = Config { policy_hidden: vec![32; 2], critic_hidden: vec![32; 2], ..config };
    let result = CudaLearner::of_seeds(&config, &[0, 1], 3, &[1.0], Box::new(host.with_memory(200_000)));
    let error = result.err().expect("it does not fit").to_string();
    let fewer = "2 agents with replay memories of 10000 transitions do not fit there";
    assert!(error.contains(fewer) && error.contains("--seeds"), "{error}");
}

/// A device that fails while training is an error of the step, and of every step that follows.
#[test]
fn a_device_that_fails_ends_training() {
    let Some(host) = Host::new() else { return };
    let hidden = vec![5];
    let config = Config {
        policy_hidden: hidden.clone(),
        critic_hidden: hidden,
        batch_size: 4,
        random_steps: 4,
        steps: 20,
        ..Config::default()
    };
    let mut trainer = Trainer::with_learner(
        || Ok(Box::new(Pendulum::new())),
        config,
        |config, o, half_range| {
            Ok(Box::new(CudaLearner::new(config, o, half_range, Box::new(host.that_fails_at(200)))?))
        },
    )
    .expect("it begins");
    let mut steps = 0;
    let error = loop {
        match trainer.step() {
            Ok(_) => steps += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Device(_)), "{error}");
    assert!((5..20).contains(&steps) && trainer.steps() >= steps, "{steps}");
    assert!(trainer.step().is_err());
}

/// Pendulum whose reward is beyond all measure from one step on.
struct Spoilt {
    pendulum: Pendulum,
    steps: u64,
    spoilt_from: u64,
}

impl Env for Spoilt {
    fn observation_size(&self) -> usize {
        self.pendulum.observation_size()
    }

    fn action_bounds(&self) -> Bounds {
        self.pendulum.action_bounds()
    }

    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, EnvError> {
        self.pendulum.reset(seed)
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.steps += 1;
        let step = self.pendulum.step(action)?;
        Ok(if self.steps < self.spoilt_from { step } else { Step { reward: 1e30, ..step } })
    }

    fn save(&self) -> Option<Vec<u8>> {
        self.pendulum.save()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), EnvError> {
        self.pendulum.restore(state)
    }
}

/// What a run of a few steps on a GPU is to be.
#[derive(Clone, Copy)]
struct Plan {
    seed: u64,
    /// The step at which it leaves, as if interrupted.
    until: u64,
    /// The step from which it is resumed.
    from: u64,
    spoilt_from: u64,
}

impl Plan {
    fn config(self, steps: u64, envs: usize) -> Config {
        Config {
            seed: self.seed,
            policy_hidden: vec![32; 2],
            critic_hidden: vec![32; 2],
            batch_size: 8,
            random_steps: 12,
            replay_capacity: 30,
            first_update_alpha: FirstUpdateAlpha::Fixed(0.4),
            eval_every: 9,
            eval_episodes: 1,
            steps,
            envs,
            ..Config::default()
        }
    }

    fn trainer(self, envs: usize, learner: impl FnOnce(&Config, usize, &[f32]) -> Box<dyn Learner>) -> Trainer {
        let spoilt = move || Spoilt { pendulum: Pendulum::new(), steps: 0, spoilt_from: self.spoilt_from };
        let make = |config: &Config, o, half_range: &[f32]| Ok(learner(config, o, half_range));
        Trainer::with_learner(move || Ok(Box::new(spoilt())), self.config(36, envs), make).expect("it begins")
    }

    /// Trains as planned, and tells how it ended, where it then stood, and what was seen.
    fn go(
        self,
        mut trainer: Trainer,
        from: Option<&(TrainerState, Replay)>,
    ) -> (Result<(), Error>, TrainerState, String) {
        if let Some((state, replay)) = from {
            trainer.restore(state.clone(), replay.clone()).expect("it fits");
        }
        let mut seen = String::new();
        let mut step = |trainer: &mut Trainer| {
            trainer.step()?;
            let evaluation = trainer.evaluate_if_due()?;
            seen += &format!("{:?} {evaluation:?}\n", trainer.metrics()?);
            Ok(())
        };
        let mut ended = Ok(());
        while ended.is_ok() && trainer.steps() < self.until {
            ended = step(&mut trainer);
        }
        (ended, trainer.save().expect("it works"), seen)
    }
}

/// Runs that share a GPU, each on its own thread, have the bits that each has alone: with seeds in no order, where one leaves
/// early, where one goes on from another step, where one fails.
#[test]
fn runs_that_share_a_gpu_are_what_each_is_alone() {
    const PLANS: [Plan; 4] = [
        Plan { seed: 8, until: 36, from: 0, spoilt_from: u64::MAX },
        Plan { seed: 3, until: 20, from: 0, spoilt_from: u64::MAX },
        Plan { seed: 50, until: 36, from: 17, spoilt_from: u64::MAX },
        Plan { seed: 4, until: 36, from: 0, spoilt_from: 14 },
    ];
    for envs in [1, 2] {
        let alone = |plan: Plan| {
            plan.trainer(envs, |config, o, half_range| {
                let gpu = host().expect("there is a compiler");
                Box::new(CudaLearner::new(config, o, half_range, gpu).expect("it fits"))
            })
        };
        let Some(gpu) = host() else { return };
        let starts = PLANS.map(|plan| {
            let mut trainer = alone(plan);
            while trainer.steps() < plan.from {
                trainer.step().expect("it works");
            }
            (plan.from > 0).then(|| (trainer.save().expect("it works"), trainer.replay().clone()))
        });
        let expected: Vec<_> =
            PLANS.iter().zip(&starts).map(|(plan, start)| plan.go(alone(*plan), start.as_ref())).collect();
        let (config, seeds) = (PLANS[0].config(36, envs), PLANS.map(|plan| plan.seed));
        let learner = CudaLearner::of_seeds(&config, &seeds, 3, &[2.0], gpu).expect("it fits");
        let found: Vec<_> = std::thread::scope(|scope| {
            let begin = |((plan, start), learner): ((&Plan, _), AgentLearner)| {
                let (plan, trainer) = (*plan, plan.trainer(envs, |_, _, _| Box::new(learner)));
                let start: &Option<(TrainerState, Replay)> = start;
                scope.spawn(move || plan.go(trainer, start.as_ref()))
            };
            let threads: Vec<_> = PLANS.iter().zip(&starts).zip(AgentLearner::of(learner)).map(begin).collect();
            threads.into_iter().map(|thread| thread.join().expect("it works")).collect()
        });
        for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.0, expected.0, "run {number}");
            let finite =
                |state: &TrainerState| state.learner.vectors.iter().all(|(_, v)| v.iter().all(|x| x.is_finite()));
            assert!(finite(&expected.1), "run {number}");
            assert!(found.1 == expected.1 && found.2 == expected.2, "run {number} of {envs} environments");
            assert_eq!(found.0.is_err(), number == 3, "run {number}: {:?}", found.0);
        }
        let steps: Vec<_> = found.iter().map(|(_, state, _)| state.steps).collect();
        assert_eq!((steps[0], steps[1], steps[2]), (36, 20, 36));
    }
}

/// So do runs whose environment is on the GPU as well.
#[test]
fn whole_runs_that_share_a_gpu_are_what_each_is_alone() {
    const STEPS: u64 = 260;
    // The seed of each, the steps to begin after and those to leave after, and whether its numbers are lost at its beginning.
    const PLANS: [(u64, u64, u64, bool); 4] =
        [(8, 0, STEPS, false), (3, 0, 90, false), (50, 33, STEPS, false), (4, 21, STEPS, true)];
    let config = |seed| Config {
        seed,
        steps: STEPS,
        policy_hidden: vec![32; 2],
        critic_hidden: vec![32; 2],
        batch_size: 8,
        random_steps: 12,
        replay_capacity: 150,
        utd: 0.7,
        eval_every: 70,
        eval_episodes: 1,
        final_episodes: 1,
        ..Config::default()
    };
    let trainer = |seed, learner: Box<dyn Learner>| {
        let make = |_: &Config, _, _: &[f32]| Ok(learner);
        Trainer::with_learner(|| Ok(Box::new(Pendulum::new())), config(seed), make).expect("it begins")
    };
    let alone = |seed| {
        let gpu = host().expect("there is a compiler");
        trainer(seed, Box::new(CudaLearner::new(&config(seed), 3, &[2.0], gpu).expect("it fits")))
    };
    let go = |mut trainer: Trainer, (state, replay): (TrainerState, Replay), until: u64| {
        trainer.restore(state, replay).expect("it fits");
        assert!(trainer.is_on_device());
        let mut seen = String::new();
        while trainer.steps() < until {
            let episodes = trainer.advance(until - trainer.steps());
            let evaluation = trainer.evaluate_if_due().expect("it works");
            let metrics = trainer.metrics().expect("it works");
            seen += &format!("{episodes:?} {evaluation:?} {metrics:?} {:?}\n", trainer.replay().cuts());
            if episodes.is_err() {
                break;
            }
        }
        seen + &format!("{:?}", trainer.save().expect("it works"))
    };
    let Some(gpu) = host() else { return };
    let starts = PLANS.map(|(seed, from, _, is_lost)| {
        let mut trainer = alone(seed);
        while trainer.steps() < from {
            trainer.advance(from - trainer.steps()).expect("it works");
        }
        let mut state = trainer.save().expect("it works");
        if is_lost {
            state.learner.get_mut("q2").expect("every learner has it").fill(f32::NAN);
        }
        (state, trainer.replay().clone())
    });
    let plans = || PLANS.into_iter().zip(starts.clone());
    let expected: Vec<_> = plans().map(|((seed, _, until, _), start)| go(alone(seed), start, until)).collect();
    let learner = CudaLearner::of_seeds(&config(0), &PLANS.map(|plan| plan.0), 3, &[2.0], gpu).expect("it fits");
    let found: Vec<_> = std::thread::scope(|scope| {
        let begin = |(((seed, _, until, _), start), learner)| {
            let trainer = trainer(seed, Box::new(learner));
            scope.spawn(move || go(trainer, start, until))
        };
        let threads: Vec<_> = plans().zip(AgentLearner::of(learner)).map(begin).collect();
        threads.into_iter().map(|thread| thread.join().expect("it works")).collect()
    });
    for ((found, expected), (seed, .., is_lost)) in found.iter().zip(&expected).zip(PLANS) {
        assert!(found == expected, "the run of seed {seed}");
        assert_eq!(found.contains("NonFinite"), is_lost, "the run of seed {seed}");
    }
}

/// A device that fails is told to all that share it, and one of them that breaks down keeps nobody waiting.
#[test]
fn whatever_fails_nobody_waits_for_ever() {
    let run = |seed| Plan { seed, until: 36, from: 0, spoilt_from: u64::MAX };
    for breaks_down in [false, true] {
        let Some(host) = Host::new() else { return };
        let gpu = if breaks_down { host } else { host.that_fails_at(90) };
        let learner =
            CudaLearner::of_seeds(&run(0).config(36, 1), &[0, 1, 2], 3, &[2.0], Box::new(gpu)).expect("it fits");
        let ended: Vec<_> = std::thread::scope(|scope| {
            let begin = |(seed, learner): (u64, AgentLearner)| {
                let mut trainer = run(seed).trainer(1, |_, _, _| Box::new(learner));
                scope.spawn(move || {
                    while !trainer.is_finished() {
                        trainer.step()?;
                        if breaks_down && seed == 1 && trainer.steps() == 25 {
                            std::panic::resume_unwind(Box::new("expected"));
                        }
                    }
                    Ok::<_, Error>(())
                })
            };
            let threads: Vec<_> = (0..).zip(AgentLearner::of(learner)).map(begin).collect();
            threads.into_iter().map(|thread| thread.join().ok()).collect()
        });
        if breaks_down {
            assert_eq!(ended, [Some(Ok(())), None, Some(Ok(()))]);
        } else {
            assert!(ended.iter().all(|ended| matches!(ended, Some(Err(Error::Device(_))))), "{ended:?}");
        }
    }
}

/// One that makes a mistake while the others wait takes them with it, instead of leaving them to wait.
#[test]
fn a_mistake_where_runs_meet_is_told_to_all() {
    let Some(gpu) = host() else { return };
    let config = Plan { seed: 0, until: 0, from: 0, spoilt_from: 0 }.config(36, 1);
    let learner = CudaLearner::of_seeds(&config, &[0, 1], 3, &[2.0], gpu).expect("it fits");
    let [mut waits, mut errs] = <[_; 2]>::try_from(AgentLearner::of(learner)).ok().expect("there are two");
    let other_replay = comparison::replay(&Config { replay_capacity: 20, ..config }, 9, 3, 1);
    let (errs, waits) = std::thread::scope(|scope| {
        let (observation, mut action) = (Array2::zeros((1, 3)), Array2::zeros((1, 1)));
        let waits = scope.spawn(move || waits.act(observation.view(), None, action.view_mut()));
        let errs = scope.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            errs.learn(&other_replay, 0)
        });
        (errs.join(), waits.join().expect("it does not break down"))
    });
    let told = waits.expect_err("nobody has acted").to_string();
    assert!(errs.is_err() && told.contains("another run that shares it has broken down"), "{told}");
}
