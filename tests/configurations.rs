//! Whatever configuration is accepted trains: fifty updates on random data leave every parameter finite, and where no
//! learning rate is extreme, none of them fails.

use ndarray::{Array1, Array2};
use ndarray_rand::RandomExt;
use ndarray_rand::rand_distr::StandardNormal;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use soft_actor_critic::config::*;
use soft_actor_critic::nn::{Activation, Init, Mean};
use soft_actor_critic::replay::Batch;
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::sac::{CpuLearner, Noise};

const OBSERVATIONS: usize = 3;
const ACTIONS: usize = 2;
const UPDATES: u64 = 50;

fn init() -> impl Strategy<Value = Init> {
    prop_oneof![Just(Init::PyTorch), Just(Init::Small), Just(Init::Xavier)]
}

/// Every choice that a learner knows, and numbers from the greater part of what is accepted; networks are small.
fn configurations() -> impl Strategy<Value = Config> {
    let rate = || -6.0..=0.0;
    let algorithm = (
        prop_oneof![Just(Bootstrap::TargetQ), Just(Bootstrap::ValueNetwork)],
        prop_oneof![Just(LossOrder::Sequential), Just(LossOrder::Simultaneous), Just(LossOrder::TemperatureFirst)],
        1_u64..=3,
        prop_oneof![Just(TemperatureLoss::LogAlpha), Just(TemperatureLoss::Alpha)],
        prop_oneof![Just(EntropyUnits::Normalized), Just(EntropyUnits::Environment)],
        option::of(0.0..=10.0),
        option::of(0.0..=10.0),
        option::of(-20.0..=5.0),
    );
    let networks = (
        vec(1_usize..=9, 0..=4),
        vec(1_usize..=9, 0..=4),
        prop_oneof![Just(Activation::Relu), Just(Activation::Tanh)],
        prop_oneof![Just(Heads::Shared), Just(Heads::Separate)],
        prop_oneof![Just(Mean::Raw), Just(Mean::Tanh)],
        prop_oneof![Just(LogStdForm::Clamp), Just(LogStdForm::Tanh)],
        (-30.0..=0.0, 0.0..=20.0),
        (init(), init()),
    );
    let numbers = (rate(), rate(), rate(), rate(), option::of(-3.0..=3.0), 0.0..=1.0, 1e-4..=1.0, 1_usize..=17);
    let max_norm = option::of(-3.0..=3.0);
    (any::<u32>(), algorithm, networks, numbers, max_norm).prop_map(|(seed, algorithm, networks, numbers, max_norm)| {
        let (bootstrap, loss_order, policy_delay, temperature_loss, target_entropy_units, alpha, first, entropy) =
            algorithm;
        let (policy_hidden, critic_hidden, activation, policy_heads, mean, log_std, bounds, inits) = networks;
        let (policy_rate, critic_rate, value_rate, temperature_rate, clamp, gamma, tau, batch_size) = numbers;
        let first = first.filter(|_| alpha.is_none());
        Config {
            seed: seed.into(),
            bootstrap,
            loss_order,
            policy_delay,
            temperature_loss,
            target_entropy_units,
            alpha: alpha.map_or(Alpha::Auto, Alpha::Fixed),
            first_update_alpha: first.map_or(FirstUpdateAlpha::Initial, FirstUpdateAlpha::Fixed),
            target_entropy: entropy.map_or(TargetEntropy::Auto, TargetEntropy::Fixed),
            policy_hidden,
            critic_hidden,
            activation,
            policy_heads,
            mean,
            log_std,
            log_std_min: bounds.0 - 1e-3,
            log_std_max: bounds.1,
            hidden_init: inits.0,
            output_init: inits.1,
            policy_learning_rate: 10_f64.powf(policy_rate),
            critic_learning_rate: 10_f64.powf(critic_rate),
            value_learning_rate: 10_f64.powf(value_rate),
            temperature_learning_rate: 10_f64.powf(temperature_rate),
            gradient_clamp: clamp.map_or(GradientClamp::Off, |power| GradientClamp::Fixed(10_f64.powf(power))),
            max_gradient_norm: max_norm
                .map_or(MaxGradientNorm::Off, |power| MaxGradientNorm::Fixed(10_f64.powf(power))),
            gamma,
            tau,
            batch_size,
            ..Config::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, rng_seed: RngSeed::Fixed(0), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_accepted_trains(config in configurations()) {
        prop_assert_eq!(config.validate(), Ok(()));
        let mut learner = CpuLearner::<f32>::new(&config, OBSERVATIONS, &[2.0, 0.5]);
        let mut noise = Noise::zeros(config.batch_size, ACTIONS);
        for update in 0..UPDATES {
            let mut rng = Philox::new(config.seed, Stream::Environment, update);
            let mut matrix = |columns| Array2::random_using((config.batch_size, columns), StandardNormal, &mut rng);
            let batch = Batch {
                observation: matrix(OBSERVATIONS),
                action: matrix(ACTIONS).mapv(f32::tanh),
                reward: matrix(1).column(0).to_owned(),
                discount: Array1::from_elem(config.batch_size, config.gamma as f32),
                next_observation: matrix(OBSERVATIONS),
            };
            noise.fill(&mut Philox::new(config.seed, Stream::Update, update));
            learner.update(&batch, &noise);
        }
        let metrics = learner.metrics();
        // A temperature or a critic that moves by more than a tenth at each step can leave the range of f32 in fifty.
        let rates = [config.critic_learning_rate, config.value_learning_rate, config.temperature_learning_rate];
        if rates.iter().all(|&rate| rate <= 0.1) {
            prop_assert_eq!((metrics.updates, metrics.failure), (UPDATES, None));
            prop_assert_eq!(metrics.policy_updates, UPDATES / config.policy_delay);
        }
        // A moment may overflow where a gradient's square does; its parameter then stays where it is.
        for (name, values) in learner.snapshot().vectors.iter().filter(|(name, _)| !name.contains("moment")) {
            prop_assert!(values.iter().all(|value| value.is_finite()), "{} is not finite", name);
        }
    }
}
