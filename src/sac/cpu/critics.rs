//! What an update needs of the critics, whatever they are; each kind is a file.

use super::trainable::Trainable;
use crate::nn::{Network, Pass, Real};
use crate::replay::Batch;
use crate::sac::PolicyPass;
use ndarray::ArrayView1;

/// The critics, with their targets and their losses. The functions are called in this order.
pub(super) trait Critics<T: Real>: Send {
    /// Whether [`Self::target`] needs ã′.
    fn uses_next_actions(&self) -> bool {
        true
    }

    /// Computes the targets y of the next [`Self::loss`], with ã′ and log π(ã′|s′) in `next`.
    fn target(&mut self, batch: &Batch<T>, next: &PolicyPass<T>, alpha: T);

    /// J_Q, summed over the critics, and its gradient over their parameters.
    fn loss(&mut self, batch: &Batch<T>) -> T;

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

    /// y, `[B]`.
    fn targets(&self) -> ArrayView1<'_, T>;

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

/// A network with the only output that a scalar critic or a value function has, and room for its passes.
pub(super) struct Scalar<T> {
    pub(super) shape: Network,
    pub(super) parameters: Trainable<T>,
    /// Whichever was last asked for.
    pub(super) pass: Pass<T>,
}
