//! Small problems whose answers are known in closed form, and a short run of Pendulum. A subtle mistake in the algorithm
//! moves these answers, even where it still seems to learn.

use soft_actor_critic::config::{Alpha, Config};
use soft_actor_critic::env::{Bounds, Env, EnvError, Pendulum, Step};
use soft_actor_critic::sac::{Metric, Metrics};
use soft_actor_critic::train::{Trainer, with_threads};

fn small() -> Config {
    Config {
        policy_hidden: vec![32, 32],
        critic_hidden: vec![32, 32],
        policy_learning_rate: 3e-3,
        critic_learning_rate: 3e-3,
        temperature_learning_rate: 3e-3,
        tau: 0.05,
        batch_size: 64,
        steps: 4000,
        eval_every: 0,
        ..Config::default()
    }
}

/// Trains to the end; returns the means over the last quarter of the updates, and the run.
fn train(make_env: impl Fn() -> Box<dyn Env> + Send + 'static, config: Config) -> (Metrics, Trainer) {
    with_threads(1, || {
        let mut trainer = Trainer::new(make_env, config).expect("the configuration is valid");
        let mut earlier = Metrics::default();
        while !trainer.is_finished() {
            trainer.step().expect("nothing goes wrong");
            if trainer.steps() == trainer.config().steps * 3 / 4 {
                earlier = trainer.metrics().expect("it runs on the CPU");
            }
        }
        let means = trainer.metrics().expect("it runs on the CPU").means_since(&earlier).expect("there were updates");
        (means, trainer)
    })
    .expect("there is a thread")
}

/// One observation, one action that changes nothing, a reward of 1 at every step, episodes of ten steps.
struct Treadmill {
    steps: u32,
    terminates: bool,
}

impl Env for Treadmill {
    fn observation_size(&self) -> usize {
        1
    }

    fn action_bounds(&self) -> Bounds {
        Bounds::new(vec![-1.0], vec![1.0]).expect("it is a range")
    }

    fn reset(&mut self, _: u64) -> Result<Vec<f32>, EnvError> {
        self.steps = 0;
        Ok(vec![1.0])
    }

    fn step(&mut self, _: &[f32]) -> Result<Step, EnvError> {
        self.steps += 1;
        let over = self.steps == 10;
        let (terminated, truncated) = (over && self.terminates, over && !self.terminates);
        Ok(Step { observation: vec![1.0], reward: 1.0, terminated, truncated })
    }
}

/// Nothing tells the steps of an episode apart, so Q is a constant: Q = 1 + γ·p·(Q + α·H), with H the policy's entropy
/// and p the share of steps that are not terminal. A truncated episode has p = 1, a terminated one p = 9/10.
#[test]
fn the_soft_value_of_a_constant_reward() {
    let (gamma, alpha) = (0.9, 0.3);
    for (terminates, p) in [(false, 1.0), (true, 0.9)] {
        let config = Config { gamma, alpha: Alpha::Fixed(alpha), ..small() };
        let (means, _) = train(move || Box::new(Treadmill { steps: 0, terminates }), config);
        let expected = (1.0 + gamma * p * alpha * means[Metric::Entropy]) / (1.0 - gamma * p);
        println!(
            "terminates {terminates}: Q {:.3}, expected {expected:.3}, entropy {:.3}",
            means[Metric::Q],
            means[Metric::Entropy]
        );
        // No policy on [−1, 1] has more entropy than the uniform one, log 2; a tanh-Gaussian comes close to it.
        assert!(
            means[Metric::Entropy] < 2_f64.ln() && means[Metric::Entropy] > 0.62,
            "entropy {}",
            means[Metric::Entropy]
        );
        assert!((means[Metric::Q] / expected - 1.0).abs() < 0.02, "Q {} instead of {expected}", means[Metric::Q]);
    }
}

/// One step an episode; the reward is −5(a − 0.5)², so that the best policy is nearly N(0.5, α/10).
struct Bandit;

impl Env for Bandit {
    fn observation_size(&self) -> usize {
        1
    }

    fn action_bounds(&self) -> Bounds {
        Bounds::new(vec![-1.0], vec![1.0]).expect("it is a range")
    }

    fn reset(&mut self, _: u64) -> Result<Vec<f32>, EnvError> {
        Ok(vec![1.0])
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        let reward = -5.0 * (f64::from(action[0]) - 0.5).powi(2);
        Ok(Step { observation: vec![1.0], reward, terminated: true, truncated: false })
    }
}

#[test]
fn the_policy_becomes_the_boltzmann_distribution_of_its_temperature() {
    let alpha: f64 = 0.1;
    let (means, mut trainer) = train(|| Box::new(Bandit), Config { alpha: Alpha::Fixed(alpha), ..small() });
    let variance = alpha / 10.0;
    let entropy = 0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E * variance).ln();
    let mut action = [0.0];
    trainer.actor().expect("it runs on the CPU").act(&[1.0], None, &mut action);
    println!("best action {:.3} (0.5), entropy {:.3} ({entropy:.3})", action[0], means[Metric::Entropy]);
    assert!((action[0] - 0.5).abs() < 0.03);
    assert!((means[Metric::Entropy] - entropy).abs() < 0.1);
}

#[test]
fn a_tuned_temperature_brings_the_entropy_to_its_target() {
    let (means, _) = train(|| Box::new(Bandit), Config { steps: 6000, ..small() });
    println!("entropy {:.3} (target −1), α {:.3}", means[Metric::Entropy], means[Metric::Alpha]);
    assert!((means[Metric::Entropy] + 1.0).abs() < 0.1);
}

/// A random policy has about −1 200, and the best one −136.6, which this run comes close to.
#[test]
fn pendulum_is_swung_up_within_four_thousand_steps() {
    let config = Config {
        policy_hidden: vec![64, 64],
        critic_hidden: vec![64, 64],
        policy_learning_rate: 1e-3,
        critic_learning_rate: 1e-3,
        temperature_learning_rate: 1e-3,
        tau: 0.01,
        batch_size: 100,
        ..small()
    };
    let (_, mut trainer) = train(|| Box::new(Pendulum::new()), config);
    let evaluation = trainer.evaluate(100).expect("the pendulum does not fail");
    println!("Pendulum after 4000 steps: {:.1}", evaluation.mean());
    assert!(evaluation.mean() > -250.0);
}
