//! What an update needs of the critics, whatever they are; each kind is a file.

use super::trainable::Trainable;
use crate::config::Config;
use crate::nn::{Network, Pass, Real, Rows};
use crate::replay::Batch;
use crate::sac::{NetworkSpec, PolicyPass};
use std::ops::Range;

/// The critics, with their targets and their losses. The functions are called in this order.
pub(super) trait Critics<T: Real>: Send {
    /// Whether [`Self::loss`] needs ã′.
    fn uses_next_actions(&self) -> bool {
        true
    }

    /// J_Q, summed over the critics, and its gradient over their parameters, with ã′ and log π(ã′|s′) in `next`.
    fn loss(&mut self, batch: &Batch<T>, next: &PolicyPass<T>, alpha: T) -> T;

    /// The mean of Q(s, a) over batch and critics, of the last [`Self::loss`].
    fn mean_q(&self) -> T;

    /// The critics' step; their targets move as well if they are to `follow`.
    fn step(&mut self, follow: bool);

    /// Computes Q(s, ã), with ã in `current`.
    fn evaluate(&mut self, batch: &Batch<T>, current: &PolicyPass<T>);

    /// What the policy maximises, row by row, `[B]`: of the last [`Self::evaluate`].
    fn q(&self) -> &[T];

    /// J_V, if there is a value network, and its gradient.
    fn value_loss(&mut self, _: &Batch<T>, _: &PolicyPass<T>, _alpha: T) -> Option<T> {
        None
    }

    /// The step of the value network.
    fn value_step(&mut self, _follow: bool) {}

    /// Makes ∂L/∂ã of `current` that of −mean Q(s, ã), of the last [`Self::evaluate`].
    fn action_gradient(&mut self, current: &mut PolicyPass<T>);

    /// All networks. Snapshots, gradients and packed weights derive from this list.
    fn networks(&mut self) -> Vec<&mut Trainable<T>>;

    /// The targets y of the last [`Self::loss`], `[B]`.
    fn targets(&self) -> &[T];

    /// What the last calls have left, for comparisons.
    fn intermediates(&self) -> Intermediates<'_, T>;
}

/// What is left of a loss.
pub(super) struct Intermediates<'a, T> {
    /// The passes by the name of their network, those of twins one after the other.
    pub(super) passes: Vec<(&'static str, Vec<&'a Pass<T>>)>,
    /// Vectors between them.
    pub(super) vectors: Vec<(&'static str, Vec<T>)>,
}

/// A network with a single output, as a scalar critic or a value function has.
pub(super) struct Scalar<T> {
    shape: Network,
    pub(super) parameters: Trainable<T>,
    /// Whichever was last asked for.
    pub(super) pass: Pass<T>,
    /// Its outputs, `[B]`.
    pub(super) y: Vec<T>,
    /// ∂L/∂y, `[B]`, where a backward pass begins.
    pub(super) d_y: Vec<T>,
}

impl<T: Real> Scalar<T> {
    /// A network with its initial parameters, and room for ∂L/∂x over its last `inputs`.
    pub(super) fn new(spec: &NetworkSpec, config: &Config, blocks: &[Range<usize>], inputs: usize) -> Self {
        let shape = spec.shape[0].clone();
        let column = vec![T::zero(); config.batch_size];
        Self {
            parameters: Trainable::new(spec, config),
            pass: shape.pass_to_inputs(blocks, inputs),
            shape,
            y: column.clone(),
            d_y: column,
        }
    }

    /// y from `inputs` side by side.
    pub(super) fn forward(&mut self, inputs: &[&dyn Rows<T>]) {
        self.shape.forward(self.parameters.theta.weights(0), inputs, &mut self.pass);
        self.pass.copy_column(&mut self.y);
    }

    /// y of the target network.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn forward_target(&mut self, inputs: &[&dyn Rows<T>]) {
        let target = self.parameters.target.as_ref().expect("it has a target network");
        self.shape.forward(target.weights(0), inputs, &mut self.pass);
        self.pass.copy_column(&mut self.y);
    }

    /// ∂L/∂θ from ∂L/∂y, after [`Self::forward`].
    pub(super) fn backward(&mut self) {
        self.pass.set_column_gradient(&self.d_y);
        self.shape.backward(self.parameters.theta.weights(0), &mut self.pass);
        self.shape.gradient(self.pass.blocks(), &mut self.parameters.gradient);
    }

    /// ∂L/∂x from ∂L/∂y, after [`Self::forward`], for the rows that `choose` accepts; see [`Network::backward_to_inputs`].
    pub(super) fn backward_to_inputs(&mut self, choose: impl Fn(usize) -> bool + Sync) {
        self.pass.set_column_gradient(&self.d_y);
        self.shape.backward_to_inputs(self.parameters.theta.weights(0), choose, &mut self.pass);
    }
}
