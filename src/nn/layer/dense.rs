//! A dense layer and its activation: y = φ(x·W + b).

use crate::nn::aligned::Matrix;
use crate::nn::epilogue::{Activation, Epilogue};
use crate::nn::gemm::{Factor, Product, product};
use crate::nn::init::{Init, draw};
use crate::nn::real::Real;
use crate::nn::threads::join;
use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
use rand::Rng;
use std::ops::Range;

/// Fewest gradients, and fewest columns of them, that are worth computing by several threads.
const MANY_GRADIENTS: usize = 1 << 14;
const MANY_COLUMNS: usize = 64;

/// The shape of the layer, and where its parameters are in the flat vector: the weight, then the bias.
#[derive(Clone, Debug)]
pub struct Dense {
    /// Width of x.
    pub inputs: usize,
    /// Width of y.
    pub outputs: usize,
    /// W, `[inputs, outputs]` in row-major order.
    pub weight: Range<usize>,
    /// b, `[outputs]`.
    pub bias: Range<usize>,
    /// φ; the last layer of a network has none.
    pub activation: Option<Activation>,
}

impl Dense {
    /// A layer whose parameters begin at `start`.
    pub fn new(inputs: usize, outputs: usize, activation: Option<Activation>, start: usize) -> Self {
        let middle = start + inputs * outputs;
        Self { inputs, outputs, weight: start..middle, bias: middle..middle + outputs, activation }
    }

    /// The layer's parameters.
    pub fn parameters(&self) -> Range<usize> {
        self.weight.start..self.bias.end
    }

    /// W, `[inputs, outputs]`, as a view into the flat vector.
    pub fn weight_of<'a, T>(&self, theta: &'a [T]) -> ArrayView2<'a, T> {
        let shape = (self.inputs, self.outputs);
        ArrayView2::from_shape(shape, &theta[self.weight.clone()]).expect("a weight has its shape")
    }

    /// Draws the initial parameters. If the layer is several `heads` side by side, each counts as a layer of its own.
    pub fn initialize<T: Real>(&self, rule: Init, heads: usize, theta: &mut [T], rng: &mut impl Rng) {
        let (inputs, outputs) = (self.inputs, self.outputs / heads);
        match rule {
            Init::PyTorch => draw(1.0 / (inputs.max(1) as f64).sqrt(), &mut theta[self.parameters()], rng),
            Init::Small => draw(3e-3, &mut theta[self.parameters()], rng),
            Init::Xavier => {
                draw((6.0 / (inputs + outputs) as f64).sqrt(), &mut theta[self.weight.clone()], rng);
            }
        }
    }

    /// y = φ(x·W + b), x `[B, inputs]`, y `[B, outputs]`.
    pub fn forward<T: Real>(&self, theta: &[T], x: ArrayView2<T>, y: ArrayViewMut2<T>) {
        let epilogue = Epilogue::Bias(&theta[self.bias.clone()], self.activation);
        product(x, self.weight_of(theta), y, epilogue);
    }

    /// ∂L/∂x = δ·Wᵀ, where δ `[B, outputs]` is the gradient of x·W + b; `below` makes of it what the layer below calls δ.
    /// It overwrites `d_x`.
    pub fn backward<'a, T: Real>(
        weight_transposed: Factor<'a, T>,
        delta: ArrayView2<'a, T>,
        below: Epilogue<'a, T>,
        d_x: ArrayViewMut2<'a, T>,
    ) {
        product(delta, weight_transposed, d_x, below);
    }

    /// What makes δ of ∂L/∂y: a factor φ′, computed from y. If there are `rows`, row `rows[i]` of y belongs to row i of δ.
    pub fn slope<'a, T>(&self, y: ArrayView2<'a, T>, rows: Option<&'a [usize]>) -> Epilogue<'a, T> {
        match self.activation {
            Some(activation) => Epilogue::Slope { hidden: y, rows, activation },
            None => Epilogue::Nothing,
        }
    }

    /// ∂L/∂W = xᵀ·δ and ∂L/∂b = Σ over rows of δ, summed over all `blocks` of rows, each with its x and δ. They overwrite
    /// `d_theta`, the gradients of this layer alone.
    pub fn gradient<'a, T: Real>(
        &self,
        blocks: &(impl Iterator<Item = (&'a Matrix<T>, &'a Matrix<T>)> + Clone + Sync),
        d_theta: &mut [T],
    ) {
        // The bias follows the weight, and its gradient that of the weight: as if one more input were always 1.
        let d_layer = ArrayViewMut2::from_shape((self.inputs + 1, self.outputs), d_theta).expect("it has its shape");
        columns_gradient(0, blocks, d_layer);
    }
}

/// The gradients of as many outputs as `d_layer` has columns, from output `first` on. Each sum goes through the blocks in
/// their order, however the outputs are divided among threads.
fn columns_gradient<'a, T: Real>(
    first: usize,
    blocks: &(impl Iterator<Item = (&'a Matrix<T>, &'a Matrix<T>)> + Clone + Sync),
    mut d_layer: ArrayViewMut2<T>,
) {
    let columns = d_layer.ncols();
    if columns >= 2 * MANY_COLUMNS && d_layer.len() >= MANY_GRADIENTS {
        let middle = columns / MANY_COLUMNS / 2 * MANY_COLUMNS;
        let (d_left, d_right) = d_layer.split_at(Axis(1), middle);
        join(|| columns_gradient(first, blocks, d_left), || columns_gradient(first + middle, blocks, d_right));
        return;
    }
    for (i, (x, delta)) in blocks.clone().enumerate() {
        let delta = delta.view().slice_move(s![.., first..first + columns]);
        let (a, c) = (x.with_ones().reversed_axes(), d_layer.view_mut());
        Product { a, b: delta.into(), c, accumulate: i > 0, epilogue: Epilogue::Nothing }.run();
    }
}
