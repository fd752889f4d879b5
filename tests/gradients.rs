//! Every backward pass against central finite differences, in f64.
//!
//! For each tensor the largest error over the largest gradient must be at most [`TOLERANCE`]; the worst is printed. A
//! difference says nothing where a ReLU, a min or a clamp changes side between its two points, so such a point is drawn
//! anew, and the redraws are counted. Which side everything is on is told by the plain loops in [`Sides`], which share
//! no code with what they check.

use ndarray::{Array1, Array2, ArrayView2, Axis, arr2, s};
use ndarray_rand::RandomExt;
use ndarray_rand::rand_distr::{StandardNormal, Uniform};
use soft_actor_critic::config::{Bootstrap, Config, Heads, LogStdForm, LossOrder, MaxGradientNorm, TemperatureLoss};
use soft_actor_critic::nn::{Activation, LogStd, Mean, Network, TanhGaussian, undivided};
use soft_actor_critic::replay::Batch;
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::sac::{CpuLearner, Learner, Noise};

const TOLERANCE: f64 = 1e-7;
/// Half the distance of the two points of a difference.
const STEP: f64 = 3e-6;

/// The largest error over the largest gradient of one tensor.
fn relative_error(analytic: &[f64], numeric: &[f64]) -> f64 {
    assert_eq!(analytic.len(), numeric.len());
    // A maximum would pass over what is no number.
    assert!(analytic.iter().chain(numeric).all(|gradient| !gradient.is_nan()), "a gradient is no number");
    let largest = numeric.iter().fold(0.0_f64, |m, g| m.max(g.abs()));
    let error = analytic.iter().zip(numeric).fold(0.0_f64, |m, (a, n)| m.max((a - n).abs()));
    assert!(largest > 0.0, "a gradient that is zero everywhere proves nothing");
    error / largest
}

/// Central differences of `loss` over every element of `point`, or nothing if `sides` differ within some step.
fn differences<S: PartialEq>(
    point: &[f64],
    mut loss: impl FnMut(&[f64]) -> f64,
    sides: impl Fn(&[f64]) -> S,
) -> Option<Vec<f64>> {
    let mut moved = point.to_vec();
    let mut numeric = Vec::with_capacity(point.len());
    for i in 0..point.len() {
        moved[i] = point[i] + STEP;
        let (above, sides_above) = (loss(&moved), sides(&moved));
        moved[i] = point[i] - STEP;
        let (below, sides_below) = (loss(&moved), sides(&moved));
        moved[i] = point[i];
        if sides_above != sides_below {
            return None;
        }
        numeric.push((above - below) / (2.0 * STEP));
    }
    Some(numeric)
}

/// Keeps drawing until a draw succeeds; returns it with the number of redraws.
fn redraw<R>(mut draw: impl FnMut(&mut Philox) -> Option<R>) -> (R, u64) {
    (0..1000)
        .find_map(|attempt| draw(&mut Philox::new(11, Stream::Init, attempt)).map(|result| (result, attempt)))
        .expect("one draw in a thousand keeps clear of every kink")
}

fn random(rng: &mut Philox, rows: usize, columns: usize) -> Array2<f64> {
    Array2::random_using((rows, columns), StandardNormal, rng)
}

/// A network in plain loops: its outputs, and the side of every ReLU.
#[derive(Default)]
struct Sides(Vec<bool>);

impl Sides {
    fn forward(&mut self, mlp: &Network, theta: &[f64], x: ArrayView2<f64>) -> Array2<f64> {
        let last = mlp.layers().len() - 1;
        let mut h = x.to_owned();
        for (l, layer) in mlp.layers().iter().enumerate() {
            let mut y = Array2::zeros((h.nrows(), layer.outputs));
            for ((row, out), y) in y.indexed_iter_mut() {
                let mut sum = theta[layer.bias.start + out];
                for input in 0..layer.inputs {
                    sum += h[[row, input]] * theta[layer.weight.start + input * layer.outputs + out];
                }
                *y = match mlp.activation() {
                    _ if l == last => sum,
                    Activation::Tanh => sum.tanh(),
                    Activation::Relu => {
                        self.0.push(sum > 0.0);
                        sum.max(0.0)
                    }
                };
            }
            h = y;
        }
        h
    }
}

/// The tensors of a flat parameter vector: each weight, each bias.
fn tensors(mlp: &Network) -> impl Iterator<Item = std::ops::Range<usize>> {
    mlp.layers().iter().flat_map(|layer| [layer.weight.clone(), layer.bias.clone()])
}

#[test]
fn networks_over_parameters_and_inputs() {
    let (mut worst, mut redraws): (f64, u64) = (0.0, 0);
    for hidden in [&[][..], &[5], &[3, 7], &[7, 1, 5], &[5, 3, 9, 7]] {
        for batch in [1, 2, 7] {
            for activation in [Activation::Relu, Activation::Tanh] {
                let mlp = Network::new(3, hidden, 2, activation);
                let (error, attempts) = redraw(|rng| network_error(&mlp, batch, rng));
                println!("network 3-{hidden:?}-2, {activation:?}, batch {batch}: {error:.1e}");
                assert!(error <= TOLERANCE);
                (worst, redraws) = (worst.max(error), redraws + attempts);
            }
        }
    }
    println!("networks: worst error {worst:.1e}, {redraws} redraws");
}

/// The worst error for L = Σ c ⊙ y with random c, so that ∂L/∂y = c.
fn network_error(mlp: &Network, batch: usize, rng: &mut Philox) -> Option<f64> {
    let theta = random(rng, 1, mlp.parameters()).into_raw_vec_and_offset().0;
    let (x, c) = (random(rng, batch, mlp.inputs()), random(rng, batch, mlp.outputs()));
    let mut pass = mlp.pass_to_inputs(&undivided(batch), mlp.inputs());
    pass.blocks_mut()[0].d_y.view_mut().assign(&c);
    let mut loss = |theta: &[f64], x: ArrayView2<f64>| {
        mlp.forward(theta, &[&x], &mut pass);
        (&pass.blocks()[0].y.view() * &c).sum()
    };
    let sides = |theta: &[f64], x: ArrayView2<f64>| {
        let mut sides = Sides::default();
        sides.forward(mlp, theta, x);
        sides.0
    };
    let shape = x.dim();
    let as_x = |x: &[f64]| Array2::from_shape_vec(shape, x.to_vec()).expect("it has the shape of x");
    let numeric_theta = differences(&theta, |theta| loss(theta, x.view()), |theta| sides(theta, x.view()))?;
    let flat_x = x.as_slice().expect("it is contiguous");
    let numeric_x = differences(flat_x, |x| loss(&theta, as_x(x).view()), |x| sides(&theta, as_x(x).view()))?;

    loss(&theta, x.view());
    let mut d_theta = vec![f64::NAN; theta.len()];
    mlp.backward(&*theta, &mut pass);
    mlp.gradient(pass.blocks(), &mut d_theta);
    mlp.backward_to_inputs(&*theta, |_| true, &mut pass);
    let d_x = pass.blocks()[0].input_gradient().1.to_owned();

    // The last inputs of some rows alone are the same, and so is the gradient over blocks of rows.
    let mut blocks = mlp.pass_to_inputs(&[0..batch / 2, batch / 2..batch], 2);
    mlp.forward(&*theta, &[&x], &mut blocks);
    let rows = blocks.blocks_mut().iter_mut().flat_map(|block| block.d_y.rows_mut());
    rows.zip(c.rows()).for_each(|(d_y, c)| d_y.copy_from_slice(c.to_slice().expect("it is contiguous")));
    mlp.backward(&*theta, &mut blocks);
    let mut in_blocks = vec![f64::NAN; theta.len()];
    mlp.gradient(blocks.blocks(), &mut in_blocks);
    assert!(relative_error(&in_blocks, &d_theta) < 1e-14);
    mlp.backward_to_inputs(&*theta, |row| row % 3 != 0, &mut blocks);
    for block in blocks.blocks() {
        let (rows, gradient) = block.input_gradient();
        assert!(rows.iter().all(|row| (block.rows.start + row) % 3 != 0));
        assert_eq!(rows.len(), block.rows.clone().filter(|row| row % 3 != 0).count());
        for (&row, found) in rows.iter().zip(gradient.rows()) {
            let expected = d_x.slice(s![block.rows.start + row, 1..]);
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-14 * b.abs().max(1e-3)));
        }
    }

    let mut worst = relative_error(d_x.as_slice()?, &numeric_x);
    for range in tensors(mlp) {
        // With every ReLU of a layer on its flat side, zero is right, and proves nothing.
        if numeric_theta[range.clone()].iter().all(|&g| g == 0.0) {
            return None;
        }
        worst = worst.max(relative_error(&d_theta[range.clone()], &numeric_theta[range]));
    }
    Some(worst)
}

/// Differences for L = Σ c log π + Σ e ⊙ a, by element, over `[mean, raw log σ]`; one-sided where `side` says so.
fn tanh_gaussian_error(
    head: TanhGaussian,
    mean: &Array2<f64>,
    raw: &Array2<f64>,
    noise: &Array2<f64>,
    side: f64,
) -> f64 {
    let mut rng = Philox::new(5, Stream::Init, 0);
    let (batch, actions) = mean.dim();
    let c = Array1::random_using(batch, Uniform::new(0.5, 2.0).expect("it is a range"), &mut rng);
    let e = random(&mut rng, batch, actions);
    let loss = |mean: &Array2<f64>, raw: &Array2<f64>| {
        let (mut action, mut log_prob) = (Array2::zeros((batch, actions)), Array1::zeros(batch));
        head.sample(mean.view(), raw.view(), noise.view(), action.view_mut(), log_prob.view_mut());
        (&log_prob * &c).sum() + (&action * &e).sum()
    };
    let (mut d_mean, mut d_raw) = (mean * f64::NAN, raw * f64::NAN);
    let (mean_view, raw_view, noise_view) = (mean.view(), raw.view(), noise.view());
    head.sample_backward(mean_view, raw_view, noise_view, e.view(), c.view(), d_mean.view_mut(), d_raw.view_mut());

    let moved = |array: &Array2<f64>, i: usize, by: f64| {
        let mut moved = array.clone();
        moved.as_slice_mut().expect("it is contiguous")[i] += by;
        moved
    };
    let slope = |loss: &dyn Fn(f64) -> f64, side: f64| match side {
        0.0 => (loss(STEP) - loss(-STEP)) / (2.0 * STEP),
        // Second order from one side: the derivative that a bound itself has.
        _ => side * (4.0 * loss(side * STEP) - 3.0 * loss(0.0) - loss(2.0 * side * STEP)) / (2.0 * STEP),
    };
    let each = 0..mean.len();
    let numeric_mean: Vec<_> = each.clone().map(|i| slope(&|by| loss(&moved(mean, i, by), raw), 0.0)).collect();
    let numeric_raw: Vec<_> = each.map(|i| slope(&|by| loss(mean, &moved(raw, i, by)), side)).collect();
    let of = |array: &Array2<f64>| array.iter().copied().collect::<Vec<_>>();
    let raw_error = if numeric_raw.iter().all(|&g| g == 0.0) {
        of(&d_raw).iter().fold(0.0, |m: f64, g| m.max(g.abs()))
    } else {
        relative_error(&of(&d_raw), &numeric_raw)
    };
    relative_error(&of(&d_mean), &numeric_mean).max(raw_error)
}

#[test]
fn log_probability_over_mean_and_log_std() {
    let mut worst: f64 = 0.0;
    let mut check = |what: &str, error: f64| {
        println!("log π, {what}: {error:.1e}");
        assert!(error <= TOLERANCE);
        worst = worst.max(error);
    };
    let mut rng = Philox::new(3, Stream::Init, 0);
    let clamp = TanhGaussian { mean: Mean::Raw, log_std: LogStd::Clamp { min: -20.0, max: 2.0 } };
    let tanh = TanhGaussian { mean: Mean::Raw, log_std: LogStd::Tanh { min: -20.0, max: 2.0 } };
    for (name, head) in [("clamped", clamp), ("squashed", tanh)] {
        for (mean_form, batch) in [Mean::Raw, Mean::Tanh].into_iter().flat_map(|form| [1, 2, 7].map(|b| (form, b))) {
            let (mean, noise) = (random(&mut rng, batch, 3), random(&mut rng, batch, 3));
            let raw = random(&mut rng, batch, 3) * 0.5;
            let error = tanh_gaussian_error(TanhGaussian { mean: mean_form, ..head }, &mean, &raw, &noise, 0.0);
            check(&format!("{mean_form:?} μ, {name} log σ, batch {batch}"), error);
        }
    }
    // Far into saturation, one point at a time, so that no large gradient hides the error of a small one.
    for u in [-12.0, -8.0, -4.0, 4.0, 8.0, 12.0] {
        for log_std in [-3.0, 0.0, 1.5] {
            let noise: f64 = 0.7;
            let mean = arr2(&[[u - f64::exp(log_std) * noise]]);
            let error = tanh_gaussian_error(clamp, &mean, &arr2(&[[log_std]]), &arr2(&[[noise]]), 0.0);
            check(&format!("u = {u}, log σ = {log_std}"), error);
        }
    }
    // At a bound the gradient is the inner one, as in PyTorch; beyond it there is none.
    let (mean, noise) = (random(&mut rng, 3, 2), random(&mut rng, 3, 2));
    let narrow = TanhGaussian { mean: Mean::Raw, log_std: LogStd::Clamp { min: -1.0, max: 0.5 } };
    for (what, raw, side) in [
        ("at the lower bound", -1.0, 1.0),
        ("at the upper bound", 0.5, -1.0),
        ("below", -1.1, 0.0),
        ("above", 0.6, 0.0),
    ] {
        let raw = Array2::from_elem((3, 2), raw);
        check(&format!("log σ {what}"), tanh_gaussian_error(narrow, &mean, &raw, &noise, side));
    }
    println!("log π: worst error {worst:.1e}");
}

const OBSERVATIONS: usize = 3;
const ACTIONS: usize = 2;

/// One way to put an agent together.
#[derive(Clone, Copy, Debug)]
struct Form {
    activation: Activation,
    log_std: LogStdForm,
    mean: Mean,
    heads: Heads,
    bootstrap: Bootstrap,
    temperature: TemperatureLoss,
}

/// Both activations with both forms of log σ; and each other choice with either of them.
const FORMS: [Form; 8] = {
    use {Activation::*, Bootstrap::*, Heads::*};
    const fn form(activation: Activation, log_std: LogStdForm, mean: Mean, heads: Heads, bootstrap: Bootstrap) -> Form {
        let temperature = match mean {
            Mean::Raw => TemperatureLoss::LogAlpha,
            Mean::Tanh => TemperatureLoss::Alpha,
        };
        Form { activation, log_std, mean, heads, bootstrap, temperature }
    }
    [
        form(Relu, LogStdForm::Clamp, Mean::Raw, Shared, TargetQ),
        form(Relu, LogStdForm::Tanh, Mean::Raw, Shared, TargetQ),
        form(Tanh, LogStdForm::Clamp, Mean::Raw, Shared, TargetQ),
        form(Tanh, LogStdForm::Tanh, Mean::Raw, Shared, TargetQ),
        form(Relu, LogStdForm::Tanh, Mean::Tanh, Shared, ValueNetwork),
        form(Relu, LogStdForm::Clamp, Mean::Raw, Separate, TargetQ),
        form(Tanh, LogStdForm::Tanh, Mean::Tanh, Separate, ValueNetwork),
        form(Tanh, LogStdForm::Clamp, Mean::Tanh, Shared, TargetQ),
    ]
};

/// A learner of some form, a batch and its noise.
struct Setting {
    learner: CpuLearner<f64>,
    batch: Batch<f64>,
    noise: Noise<f64>,
}

impl Setting {
    fn draw(form: Form, rows: usize, rng: &mut Philox) -> Self {
        let config = Config {
            batch_size: rows,
            policy_hidden: vec![5, 3],
            critic_hidden: vec![7, 5],
            activation: form.activation,
            log_std: form.log_std,
            mean: form.mean,
            policy_heads: form.heads,
            bootstrap: form.bootstrap,
            temperature_loss: form.temperature,
            log_std_min: -1.0,
            log_std_max: 0.3,
            ..Config::default()
        };
        let mut learner = CpuLearner::<f64>::new(&config, OBSERVATIONS, &[1.0; ACTIONS]);
        let mut snapshot = learner.snapshot();
        for (name, values) in &mut snapshot.vectors {
            if !name.contains("adam") && name != "log_alpha" {
                *values = random(rng, 1, values.len()).into_raw_vec_and_offset().0;
            }
        }
        *snapshot.get_mut("log_alpha").expect("every learner has it") = vec![-0.4];
        learner.restore(&snapshot).expect("it came from this learner");
        let mut batch = Batch::zeros(rows, OBSERVATIONS, ACTIONS);
        batch.observation = random(rng, rows, OBSERVATIONS);
        batch.next_observation = random(rng, rows, OBSERVATIONS);
        batch.action = random(rng, rows, ACTIONS).mapv(f64::tanh);
        batch.reward = random(rng, 1, rows).remove_axis(Axis(0));
        batch.discount = Array1::from_shape_fn(rows, |i| if i % 3 == 0 { 0.0 } else { 0.99 });
        let mut noise = Noise::zeros(rows, ACTIONS);
        noise.fill(rng);
        Self { learner, batch, noise }
    }

    fn get(&mut self, name: &str) -> Vec<f64> {
        self.learner.snapshot().get(name).expect("every learner has it").to_vec()
    }

    fn set(&mut self, name: &str, values: &[f64]) {
        let mut snapshot = self.learner.snapshot();
        *snapshot.get_mut(name).expect("every learner has it") = values.to_vec();
        self.learner.restore(&snapshot).expect("it came from this learner");
    }

    fn gradient(&mut self, name: &str) -> Vec<f64> {
        let gradients = self.learner.gradients();
        gradients.iter().find(|(known, _)| *known == name).expect("every learner has it").1.to_vec()
    }
}

/// Every form, each checked by `error` over the tensors it names; `error` gives nothing where it must be drawn anew.
fn for_every_form(what: &str, forms: &[Form], error: impl Fn(&mut Setting) -> Option<f64>) {
    let (mut worst, mut redraws): (f64, u64) = (0.0, 0);
    for &form in forms {
        let (found, attempts) = redraw(|rng| error(&mut Setting::draw(form, 7, rng)));
        println!("{what}, {form:?}: {found:.1e}");
        assert!(found <= TOLERANCE);
        (worst, redraws) = (worst.max(found), redraws + attempts);
    }
    println!("{what}: worst error {worst:.1e}, {redraws} redraws");
}

/// The worst tensor of some networks that lie one after the other in a flat vector.
fn worst_tensor(networks: &[Network], analytic: &[f64], numeric: &[f64]) -> Option<f64> {
    let (mut worst, mut start): (f64, usize) = (0.0, 0);
    for mlp in networks {
        for range in tensors(mlp) {
            let range = start + range.start..start + range.end;
            if numeric[range.clone()].iter().all(|&g| g == 0.0) {
                return None;
            }
            worst = worst.max(relative_error(&analytic[range.clone()], &numeric[range]));
        }
        start += mlp.parameters();
    }
    assert_eq!(start, analytic.len());
    Some(worst)
}

#[test]
fn critic_loss_over_the_parameters_of_both_critics() {
    for_every_form("critic loss", &FORMS, |setting| {
        let Setting { learner, batch, noise } = setting;
        learner.sample_actions(batch, noise);
        learner.critic_loss(0.7, batch);
        let critic = learner.critic().clone();
        let input = ndarray::concatenate![Axis(1), batch.observation, batch.action];
        let batch = batch.clone();
        let mut worst: f64 = 0.0;
        for name in ["q1", "q2"] {
            let (analytic, point) = (setting.gradient(name), setting.get(name));
            let loss = |values: &[f64]| {
                setting.set(name, values);
                setting.learner.critic_loss(0.7, &batch)
            };
            let numeric = differences(&point, loss, |values| {
                let mut sides = Sides::default();
                sides.forward(&critic, values, input.view());
                sides.0
            })?;
            setting.set(name, &point);
            worst = worst.max(worst_tensor(std::slice::from_ref(&critic), &analytic, &numeric)?);
        }
        Some(worst)
    });
}

#[test]
fn value_loss_over_the_parameters_of_the_value_network() {
    let forms: Vec<_> = FORMS.into_iter().filter(|form| form.bootstrap == Bootstrap::ValueNetwork).collect();
    for_every_form("value loss", &forms, |setting| {
        let Setting { learner, batch, noise } = setting;
        learner.sample_actions(batch, noise);
        learner.evaluate_actions(batch);
        learner.value_loss(0.7, batch);
        let network = learner.value().expect("this form has one").clone();
        let (analytic, point, batch) = (setting.gradient("value"), setting.get("value"), setting.batch.clone());
        let loss = |values: &[f64]| {
            setting.set("value", values);
            setting.learner.value_loss(0.7, &batch).expect("this form has one")
        };
        let numeric = differences(&point, loss, |values| {
            let mut sides = Sides::default();
            sides.forward(&network, values, batch.observation.view());
            sides.0
        })?;
        worst_tensor(&[network], &analytic, &numeric)
    });
}

#[test]
fn policy_loss_over_every_policy_parameter_through_the_critics() {
    for_every_form("policy loss", &FORMS, |setting| {
        let alpha = 0.7;
        let Setting { learner, batch, noise } = setting;
        learner.sample_actions(batch, noise);
        learner.evaluate_actions(batch);
        learner.policy_loss(alpha, noise);
        let (policy, critic) = (setting.learner.policy().clone(), setting.learner.critic().clone());
        let (batch, noise) = (setting.batch.clone(), setting.noise.clone());
        let (analytic, point) = (setting.gradient("policy"), setting.get("policy"));
        let critics = ["q1", "q2"].map(|name| setting.get(name));

        // The side of every ReLU, clamp and min, all the way through.
        let sides = |theta: &[f64]| {
            let mut sides = Sides::default();
            let mut rest = theta;
            let outputs = policy.networks.iter().map(|network| {
                let theta = rest.split_off(..network.parameters()).expect("it is as long as all of them");
                sides.forward(network, theta, batch.observation.view())
            });
            let outputs: Vec<_> = outputs.collect();
            let views: Vec<_> = outputs.iter().map(|output| output.view()).collect();
            let heads = ndarray::concatenate(Axis(1), &views).expect("they have the same rows");
            let (mean, raw) = heads.view().split_at(Axis(1), ACTIONS);
            let (mut action, mut log_prob) = (Array2::zeros(mean.dim()), Array1::zeros(mean.nrows()));
            policy.distribution.sample(mean, raw, noise.current.view(), action.view_mut(), log_prob.view_mut());
            if let LogStd::Clamp { min, max } = policy.distribution.log_std {
                sides.0.extend(raw.iter().flat_map(|&raw| [raw < min, raw > max]));
            }
            let input = ndarray::concatenate![Axis(1), batch.observation, action];
            let [q1, q2] = critics.each_ref().map(|theta| sides.forward(&critic, theta, input.view()));
            let chosen: Vec<_> = q1.iter().zip(&q2).map(|(q1, q2)| q1 < q2).collect();
            let mixed = chosen.contains(&true) && chosen.contains(&false);
            sides.0.extend(chosen);
            (sides.0, mixed)
        };
        let (_, both_critics_matter) = sides(&point);
        let loss = |values: &[f64]| {
            setting.set("policy", values);
            setting.learner.sample_actions(&batch, &noise);
            setting.learner.evaluate_actions(&batch);
            setting.learner.policy_loss(alpha, &noise)
        };
        let numeric = differences(&point, loss, sides)?;
        both_critics_matter.then_some(())?;
        worst_tensor(&policy.networks, &analytic, &numeric)
    });
}

#[test]
fn temperature_loss_over_log_alpha() {
    for_every_form("temperature loss", &FORMS, |setting| {
        setting.learner.sample_actions(&setting.batch, &setting.noise);
        setting.learner.temperature_loss();
        let analytic = setting.gradient("log_alpha");
        let loss = |values: &[f64]| {
            setting.set("log_alpha", values);
            setting.learner.temperature_loss()
        };
        let numeric = differences(&[-0.4], loss, |_| ())?;
        Some(relative_error(&analytic, &numeric))
    });
}

#[test]
fn the_plain_loops_agree_with_the_networks() {
    let mlp = Network::new(4, &[6, 5], 3, Activation::Relu);
    let mut rng = Philox::new(1, Stream::Init, 0);
    let theta = random(&mut rng, 1, mlp.parameters()).into_raw_vec_and_offset().0;
    let x = random(&mut rng, 9, 4);
    let mut pass = mlp.pass(&undivided(9));
    mlp.forward(&*theta, &[&x], &mut pass);
    let plain = Sides::default().forward(&mlp, &theta, x.view());
    assert!((&pass.blocks()[0].y.view() - &plain).iter().all(|error| error.abs() < 1e-12));
    assert_eq!(mlp.layers()[1].weight_of(&theta).dim(), (6, 5));
}

/// The losses of an update at the same parameters, and then their gradients.
fn losses_and_gradients(learner: &mut CpuLearner<f64>, batch: &Batch<f64>, noise: &Noise<f64>) -> Vec<f64> {
    learner.sample_actions(batch, noise);
    let critic_loss = learner.critic_loss(0.7, batch);
    learner.evaluate_actions(batch);
    let value_loss = learner.value_loss(0.7, batch).unwrap_or(0.0);
    let policy_loss = learner.policy_loss(0.7, noise);
    let losses = [critic_loss, value_loss, policy_loss, learner.temperature_loss()];
    let gradients = learner.gradients().into_iter().flat_map(|(_, gradient)| gradient);
    losses.iter().chain(gradients).copied().collect()
}

/// A large batch goes through the networks in blocks of rows, here in three. Losses are means over rows, so those of the whole,
/// and their gradients, are the means of those of its quarters, which are a block each.
#[test]
fn a_batch_in_blocks_has_the_means_of_its_parts() {
    const PARTS: usize = 4;
    const ROWS: usize = 75;
    let mut worst: f64 = 0.0;
    for form in FORMS {
        let mut rng = Philox::new(0, Stream::Init, 0);
        let Setting { mut learner, batch, noise } = Setting::draw(form, PARTS * ROWS, &mut rng);
        let snapshot = learner.snapshot();
        let whole = losses_and_gradients(&mut learner, &batch, &noise);
        let mut means = vec![0.0; whole.len()];
        for start in (0..PARTS).map(|i| i * ROWS) {
            let part = |matrix: &Array2<f64>| matrix.slice(s![start..start + ROWS, ..]).to_owned();
            let part_of_vector = |vector: &Array1<f64>| vector.slice(s![start..start + ROWS]).to_owned();
            let batch = Batch {
                observation: part(&batch.observation),
                action: part(&batch.action),
                reward: part_of_vector(&batch.reward),
                discount: part_of_vector(&batch.discount),
                next_observation: part(&batch.next_observation),
            };
            let noise = Noise { current: part(&noise.current), next: part(&noise.next) };
            let mut learner = Setting::draw(form, ROWS, &mut rng).learner;
            learner.restore(&snapshot).expect("it is of the same form");
            let values = losses_and_gradients(&mut learner, &batch, &noise);
            means.iter_mut().zip(values).for_each(|(mean, value)| *mean += value / PARTS as f64);
        }
        worst = worst.max(relative_error(&whole, &means));
        assert!(worst <= 1e-13, "{form:?}: {worst:.1e}");
    }
    println!("a batch in blocks: worst error {worst:.1e}");
}

/// Whole updates under a bound on gradient norms, against the gradients without it, scaled down and given to Adam by plain
/// loops. Where all losses are at the same parameters, no gradient depends on another network's step.
#[test]
fn steps_are_those_of_gradients_scaled_to_their_bound() {
    let plain = Config {
        batch_size: 6,
        policy_hidden: vec![7],
        critic_hidden: vec![5, 4],
        loss_order: LossOrder::Simultaneous,
        ..Config::default()
    };
    let (mut worst, mut bounded, mut unbounded): (f64, _, _) = (0.0, 0, 0);
    for (bootstrap, policy_heads) in [(Bootstrap::TargetQ, Heads::Shared), (Bootstrap::ValueNetwork, Heads::Separate)] {
        let plain = Config { bootstrap, policy_heads, ..plain.clone() };
        let bound = 0.6;
        let config = Config { max_gradient_norm: MaxGradientNorm::Fixed(bound), ..plain.clone() };
        let mut learner = CpuLearner::<f64>::new(&config, 3, &[1.0; 2]);
        let mut without = CpuLearner::<f64>::new(&plain, 3, &[1.0; 2]);
        for update in 0..4 {
            let mut rng = Philox::new(3, Stream::Replay, update);
            let mut matrix = |columns| random(&mut rng, 6, columns);
            let batch = Batch {
                observation: matrix(3),
                action: matrix(2).mapv(f64::tanh),
                reward: matrix(1).column(0).to_owned(),
                discount: Array1::from_elem(6, 0.9),
                next_observation: matrix(3),
            };
            let noise = Noise { current: matrix(2), next: matrix(2) };
            let before = learner.snapshot();
            without.restore(&before).expect("it is of the same form");
            without.update(&batch, &noise);
            learner.update(&batch, &noise);
            let after = learner.snapshot();
            for (name, gradient) in without.gradients() {
                let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
                let factor = if name == "log_alpha" { 1.0 } else { (bound / (norm + 1e-6)).min(1.0) };
                if factor < 1.0 {
                    bounded += 1
                } else {
                    unbounded += 1
                }
                let t = after.count(&format!("{name}.adam_steps")).expect("it is counted") as i32;
                let vector = |part: &str| before.get(&format!("{name}{part}")).expect("it has it");
                let (theta, m, v) = (vector(""), vector(".adam_first_moment"), vector(".adam_second_moment"));
                let step = |i: usize| {
                    let g = factor * gradient[i];
                    let (m, v) = (0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g);
                    -1e-3 * (m / (1.0 - 0.9_f64.powi(t))) / ((v / (1.0 - 0.999_f64.powi(t))).sqrt() + 1e-8)
                };
                let expected: Vec<f64> = (0..gradient.len()).map(step).collect();
                let moved: Vec<f64> =
                    after.get(name).expect("it has it").iter().zip(theta).map(|(after, theta)| after - theta).collect();
                worst = worst.max(relative_error(&moved, &expected));
                let moments: Vec<f64> = (0..m.len()).map(|i| 0.9 * m[i] + 0.1 * factor * gradient[i]).collect();
                let found = after.get(&format!("{name}.adam_first_moment")).expect("it has it");
                worst = worst.max(relative_error(found, &moments));
            }
        }
    }
    println!("gradients within a norm: worst error {worst:.1e}, {bounded} bounded, {unbounded} not");
    assert!(worst <= 1e-12 && bounded > 8 && unbounded > 8);
}
