//! What every network has on the CPU: parameters, a gradient, Adam, and perhaps a target network.

use crate::config::{Config, GradientClamp, LossOrder, MaxGradientNorm};
use crate::nn::{Adam, Aligned, Real, Theta, clip_norm, polyak};
use crate::rng::{Philox, Stream};
use crate::sac::NetworkSpec;

/// The parameters of a network, or log α, with all that their steps need.
pub(super) struct Trainable<T> {
    pub(super) name: &'static str,
    pub(super) theta: Theta<T>,
    /// The target network, which follows slowly.
    pub(super) target: Option<Theta<T>>,
    /// ∂L/∂θ of the loss that was computed last.
    pub(super) gradient: Aligned<T>,
    pub(super) adam: Adam<T>,
    bounds: GradientBounds<T>,
    tau: T,
    /// Whether the target moves before θ does.
    target_first: bool,
}

/// What a gradient is held within before Adam sees it.
#[derive(Clone, Copy)]
struct GradientBounds<T> {
    /// Bound on each element.
    clamp: Option<T>,
    /// Bound on the norm of all of them.
    norm: Option<f64>,
}

impl<T: Real> Trainable<T> {
    /// A network with its initial parameters; its target, if there is one, has the same.
    pub(super) fn new(spec: &NetworkSpec, config: &Config) -> Self {
        let mut rng = Philox::new(config.seed, Stream::Init, spec.stream);
        let initial = |network: &crate::nn::Network| {
            network.initial(spec.heads, config.hidden_init, config.output_init, &mut rng)
        };
        let values: Vec<T> = spec.shape.iter().flat_map(initial).collect();
        Self {
            name: spec.name,
            target: spec.has_target.then(|| Theta::new(&values, &spec.shape, false)),
            gradient: Aligned::zeros(values.len()),
            adam: Adam::new(values.len(), spec.learning_rate),
            theta: Theta::new(&values, &spec.shape, true),
            bounds: GradientBounds {
                clamp: match config.gradient_clamp {
                    GradientClamp::Off => None,
                    GradientClamp::Fixed(bound) => Some(T::of(bound)),
                },
                norm: match config.max_gradient_norm {
                    MaxGradientNorm::Off => None,
                    MaxGradientNorm::Fixed(bound) => Some(bound),
                },
            },
            tau: T::of(config.tau),
            target_first: config.loss_order == LossOrder::TemperatureFirst,
        }
    }

    /// A single number, whose gradient is not bounded.
    pub(super) fn scalar(name: &'static str, value: T, learning_rate: f64) -> Self {
        Self {
            name,
            theta: Theta::new(&[value], [], false),
            target: None,
            gradient: Aligned::zeros(1),
            adam: Adam::new(1, learning_rate),
            bounds: GradientBounds { clamp: None, norm: None },
            tau: T::zero(),
            target_first: false,
        }
    }

    /// Adam's step of θ; and θ̄ ← θ̄ + τ(θ − θ̄), if there is a target and it is to `follow`.
    pub(super) fn step(&mut self, follow: bool) {
        if follow && self.target_first {
            self.follow();
        }
        self.bounds.apply(&mut self.gradient);
        self.adam.step(self.theta.values_mut(), &self.gradient);
        self.theta.pack();
        if follow && !self.target_first {
            self.follow();
        }
    }

    fn follow(&mut self) {
        if let Some(target) = &mut self.target {
            polyak(target.values_mut(), &self.theta, self.tau);
            target.pack();
        }
    }

    /// Takes over parameters that were changed in place.
    pub(super) fn pack(&mut self) {
        self.theta.pack();
        self.target.iter_mut().for_each(Theta::pack);
    }
}

impl<T: Real> GradientBounds<T> {
    fn apply(&self, gradient: &mut [T]) {
        if let Some(bound) = self.clamp {
            // Comparisons, unlike min and max, let NaN through.
            let clamp = |g: T| {
                if g > bound {
                    bound
                } else if g < -bound {
                    -bound
                } else {
                    g
                }
            };
            gradient.iter_mut().for_each(|g| *g = clamp(*g));
        }
        if let Some(bound) = self.norm {
            clip_norm(gradient, bound);
        }
    }
}
