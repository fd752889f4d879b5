//! Multilayer perceptrons over one flat parameter vector.
//!
//! hₗ = φ(hₗ₋₁·Wₗ + bₗ), h₀ = x, and a last layer without φ. A weight is stored `[in, out]` in row-major order, followed
//! by its bias `[out]`, layer after layer. Files hold weights `[out, in]` as PyTorch does; see `run::policy_file`.

use super::aligned::Matrix;
use super::finish::{Activation, Finish};
use super::gemm::{Product, product};
use super::real::Real;
use super::threads::{join, join_if};
use super::weights::Weights;
use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
use std::ops::Range;

/// Fewest parameters whose gradients are worth sharing among threads.
const WORTHWHILE: usize = 1 << 14;

/// One layer and where its parameters lie in the flat vector.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Width of its input.
    pub inputs: usize,
    /// Width of its output.
    pub outputs: usize,
    /// W, `[inputs, outputs]` in row-major order.
    pub weight: Range<usize>,
    /// b, `[outputs]`.
    pub bias: Range<usize>,
}

/// The shape of a network. Parameters, gradients, moments and targets are flat vectors that this shape describes.
#[derive(Clone, Debug)]
pub struct Mlp {
    layers: Vec<Layer>,
    activation: Activation,
}

/// A pass over `B` rows: what goes in, what comes out, and what the backward pass leaves.
#[derive(Clone, Debug)]
pub struct Pass<T> {
    /// x, `[B, inputs]`.
    pub x: Matrix<T>,
    /// hₗ after φ, `[B, Hₗ]` for each hidden layer.
    pub hidden: Vec<Matrix<T>>,
    /// y, `[B, outputs]`.
    pub y: Matrix<T>,
    /// ∂L/∂y, `[B, outputs]`.
    pub d_y: Matrix<T>,
    /// ∂L/∂(hₗ before φ), `[B, Hₗ]` for each hidden layer.
    pub d_hidden: Vec<Matrix<T>>,
}

impl Mlp {
    /// A network from `inputs` through layers of the widths `hidden` to `outputs`; `hidden` may be empty.
    pub fn new(inputs: usize, hidden: &[usize], outputs: usize, activation: Activation) -> Self {
        let mut layers: Vec<Layer> = Vec::with_capacity(hidden.len() + 1);
        for &width in hidden.iter().chain([&outputs]) {
            let inputs = layers.last().map_or(inputs, |layer| layer.outputs);
            let start = layers.last().map_or(0, |layer| layer.bias.end);
            let middle = start + inputs * width;
            layers.push(Layer { inputs, outputs: width, weight: start..middle, bias: middle..middle + width });
        }
        Self { layers, activation }
    }

    /// The layers, first to last.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// φ of the hidden layers.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Width of x.
    pub fn inputs(&self) -> usize {
        self.layers[0].inputs
    }

    /// Width of y.
    pub fn outputs(&self) -> usize {
        self.layers[self.layers.len() - 1].outputs
    }

    /// Length of the flat parameter vector.
    pub fn parameters(&self) -> usize {
        self.layers[self.layers.len() - 1].bias.end
    }

    /// Room for passes over `rows` rows.
    pub fn pass<T: Real>(&self, rows: usize) -> Pass<T> {
        let (input, output) = (|columns| Matrix::zeros_and_ones(rows, columns), |columns| Matrix::zeros(rows, columns));
        let widths = || self.layers[..self.layers.len() - 1].iter().map(|layer| layer.outputs);
        Pass {
            x: input(self.inputs()),
            hidden: widths().map(input).collect(),
            y: output(self.outputs()),
            d_y: output(self.outputs()),
            d_hidden: widths().map(output).collect(),
        }
    }

    /// From x of `pass` to its y = h_L·W_L + b_L, with hₗ = φ(hₗ₋₁·Wₗ + bₗ) and h₀ = x.
    pub fn forward<'a, T: Real>(&self, weights: impl Into<Weights<'a, T>>, pass: &mut Pass<T>) {
        let weights = weights.into();
        assert_eq!(weights.theta.len(), self.parameters());
        let Pass { x, hidden, y, .. } = pass;
        let last = self.layers.len() - 1;
        for (l, layer) in self.layers.iter().enumerate() {
            let (below, above) = hidden.split_at_mut(l);
            let input = below.last().unwrap_or(x).view();
            let output = above.first_mut().unwrap_or(y).view_mut();
            let bias = Finish::Bias(&weights.theta[layer.bias.clone()], (l < last).then_some(self.activation));
            product(input, weight(layer, weights.theta), output, bias);
        }
    }

    /// The backward pass of [`Self::forward`], which must have run before over the same parameters, from d_y of `pass` down
    /// to the first layer: δₗ₋₁ = (δₗ·Wₗᵀ) ⊙ φ′(hₗ₋₁), where δₗ is what hₗ was before φ has as its gradient.
    pub fn backward<'a, T: Real>(&self, weights: impl Into<Weights<'a, T>>, pass: &mut Pass<T>) {
        let (rows, weights) = (pass.x.view().nrows(), weights.into());
        self.backward_some(weights, rows, None, pass);
    }

    /// As [`Self::backward`], for some `rows` of the forward pass alone: the first rows of d_y and of all δₗ belong to
    /// them, in their order.
    pub fn backward_rows<'a, T: Real>(&self, weights: impl Into<Weights<'a, T>>, rows: &[usize], pass: &mut Pass<T>) {
        self.backward_some(weights.into(), rows.len(), Some(rows), pass);
    }

    fn backward_some<T: Real>(&self, weights: Weights<T>, count: usize, rows: Option<&[usize]>, pass: &mut Pass<T>) {
        let Pass { hidden, d_y, d_hidden, .. } = pass;
        let selected = s![..count, ..];
        for (l, layer) in self.layers.iter().enumerate().skip(1).rev() {
            let (d_below, d_above) = d_hidden.split_at_mut(l);
            let delta = d_above.first().unwrap_or(d_y).view().slice_move(selected);
            let d_below = d_below[l - 1].view_mut().slice_move(selected);
            let h = hidden[l - 1].view();
            let h = if rows.is_none() { h.slice_move(selected) } else { h };
            let slope = Finish::Slope { hidden: h, rows, activation: self.activation };
            product(delta, weights.transposed(l, layer), d_below, slope);
        }
    }

    /// ∂L/∂x = δ₁·W₁ᵀ over the last inputs, as many as `d_x` has columns, in as many rows as `d_x` has; the last
    /// backward pass has left δ₁ in `pass`.
    pub fn last_inputs_backward<T: Real>(&self, theta: &[T], pass: &Pass<T>, d_x: ArrayViewMut2<T>) {
        let layer = &self.layers[0];
        let from = layer.inputs.checked_sub(d_x.ncols()).expect("d_x is at most as wide as x");
        let delta = pass.d_hidden.first().unwrap_or(&pass.d_y).view().slice_move(s![..d_x.nrows(), ..]);
        product(delta, weight(layer, theta).split_at(Axis(0), from).1.reversed_axes(), d_x, Finish::Nothing);
    }

    /// ∂L/∂Wₗ = hₗ₋₁ᵀ·δₗ and ∂L/∂bₗ = Σ over rows of δₗ, over all rows of all `passes`, each of which has gone forward and
    /// backward; they overwrite `d_theta`.
    pub fn gradient<'a, T: Real>(&self, passes: impl Iterator<Item = &'a Pass<T>> + Clone + Sync, d_theta: &mut [T]) {
        assert_eq!(d_theta.len(), self.parameters());
        self.layers_gradient(0..self.layers.len(), &passes, d_theta);
    }

    /// That of some layers, whose parameters are those of `d_theta`.
    fn layers_gradient<'a, T: Real>(
        &self,
        layers: Range<usize>,
        passes: &(impl Iterator<Item = &'a Pass<T>> + Clone + Sync),
        d_theta: &mut [T],
    ) {
        if layers.len() > 1 {
            let middle = layers.start.midpoint(layers.end);
            let start = self.layers[layers.start].weight.start;
            let (d_lower, d_upper) = d_theta.split_at_mut(self.layers[middle].weight.start - start);
            join_if(
                d_lower.len().max(d_upper.len()) >= WORTHWHILE,
                || self.layers_gradient(layers.start..middle, passes, d_lower),
                || self.layers_gradient(middle..layers.end, passes, d_upper),
            );
            return;
        }
        // The bias follows the weight, and its gradient that of the weight: as if one more input were always 1.
        let (l, layer) = (layers.start, &self.layers[layers.start]);
        let d_layer = ArrayViewMut2::from_shape((layer.inputs + 1, layer.outputs), d_theta).expect("it has its shape");
        columns_gradient(l, 0, passes, d_layer);
    }
}

/// ∂L/∂W = hᵀ·δ, and below it ∂L/∂b = 1ᵀ·δ, for the outputs of layer `l` from `first` on, as many as `d_layer` has columns;
/// pass after pass, so that no sum depends on how the outputs are divided.
fn columns_gradient<'a, T: Real>(
    l: usize,
    first: usize,
    passes: &(impl Iterator<Item = &'a Pass<T>> + Clone + Sync),
    mut d_layer: ArrayViewMut2<T>,
) {
    /// Fewest outputs.
    const COLUMNS: usize = 64;
    let columns = d_layer.ncols();
    if columns >= 2 * COLUMNS && d_layer.len() >= WORTHWHILE {
        let middle = columns / COLUMNS / 2 * COLUMNS;
        let (d_left, d_right) = d_layer.split_at(Axis(1), middle);
        join(|| columns_gradient(l, first, passes, d_left), || columns_gradient(l, first + middle, passes, d_right));
        return;
    }
    for (i, pass) in passes.clone().enumerate() {
        let h = if l > 0 { &pass.hidden[l - 1] } else { &pass.x };
        let delta = pass.d_hidden.get(l).unwrap_or(&pass.d_y).view().slice_move(s![.., first..first + columns]);
        let (a, c) = (h.with_ones().reversed_axes(), d_layer.view_mut());
        Product { a, b: delta.into(), c, accumulate: i > 0, finish: Finish::Nothing }.run();
    }
}

/// W of a layer, `[in, out]`, as a view into the flat vector.
pub fn weight<'a, T>(layer: &Layer, theta: &'a [T]) -> ArrayView2<'a, T> {
    let shape = (layer.inputs, layer.outputs);
    ArrayView2::from_shape(shape, &theta[layer.weight.clone()]).expect("a weight has its shape")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Philox, Stream};
    use ndarray::Array2;
    use rand::Rng;
    use rand_distr::StandardNormal;

    /// Layers so wide that their gradients are divided by outputs, one of them more than once, have hᵀ·δ and Σδ all the same.
    #[test]
    fn divided_gradients_are_sums_over_all_rows() {
        let network = Mlp::new(40, &[130, 300, 150], 2, Activation::Tanh);
        let mut rng = Philox::new(0, Stream::Init, 0);
        let theta: Vec<f64> = (0..network.parameters()).map(|_| 0.1 * rng.sample::<f64, _>(StandardNormal)).collect();
        let passes = [5, 7].map(|rows| {
            let mut pass = network.pass(rows);
            let inputs = pass.x.rows_mut().chain(pass.d_y.rows_mut());
            inputs.flatten().for_each(|input| *input = rng.sample(StandardNormal));
            network.forward(&theta[..], &mut pass);
            network.backward(&theta[..], &mut pass);
            pass
        });
        let mut gradient = vec![f64::NAN; theta.len()];
        network.gradient(passes.iter(), &mut gradient);
        for (l, layer) in network.layers().iter().enumerate() {
            let mut expected = Array2::zeros((layer.inputs + 1, layer.outputs));
            for pass in &passes {
                let h = if l > 0 { &pass.hidden[l - 1] } else { &pass.x };
                let delta = pass.d_hidden.get(l).unwrap_or(&pass.d_y).view();
                let (mut weight, mut bias) = expected.view_mut().split_at(Axis(0), layer.inputs);
                weight += &h.view().t().dot(&delta);
                bias += &delta.sum_axis(Axis(0));
            }
            for (found, expected) in gradient[layer.weight.start..layer.bias.end].iter().zip(&expected) {
                assert!((found - expected).abs() <= 1e-12, "layer {l}: {found} instead of {expected}");
            }
        }
    }
}
