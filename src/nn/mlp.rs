//! Multilayer perceptrons over one flat parameter vector.
//!
//! hₗ = φ(hₗ₋₁·Wₗ + bₗ), h₀ = x, and a last layer without φ. A weight is stored `[in, out]` in row-major order, followed
//! by its bias `[out]`, layer after layer. Files hold weights `[out, in]` as PyTorch does; see `run::policy_file`.

use super::finish::{Activation, Finish};
use super::gemm::product;
use super::real::Real;
use super::simd::simd;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use std::ops::Range;

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

/// What a forward pass over `B` rows leaves for the backward pass, and what that needs for itself.
#[derive(Clone, Debug)]
pub struct Workspace<T> {
    /// hₗ after φ, `[B, Hₗ]` for each hidden layer.
    pub hidden: Vec<Array2<T>>,
    /// ∂L/∂(hₗ before φ), `[B, Hₗ]` for each hidden layer.
    pub d_hidden: Vec<Array2<T>>,
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
    pub fn workspace<T: Real>(&self, rows: usize) -> Workspace<T> {
        let hidden = &self.layers[..self.layers.len() - 1];
        let buffers: Vec<_> = hidden.iter().map(|layer| Array2::zeros((rows, layer.outputs))).collect();
        Workspace { d_hidden: buffers.clone(), hidden: buffers }
    }

    /// y = h_L·W_L + b_L with hₗ = φ(hₗ₋₁·Wₗ + bₗ) and h₀ = x.
    ///
    /// `x` is `[B, inputs]`, `y` is `[B, outputs]`, both in row-major order; `workspace` was made for B rows.
    pub fn forward<T: Real>(&self, theta: &[T], x: ArrayView2<T>, workspace: &mut Workspace<T>, y: ArrayViewMut2<T>) {
        assert_eq!(theta.len(), self.parameters());
        let last = self.layers.len() - 1;
        let mut y = Some(y);
        for (l, layer) in self.layers.iter().enumerate() {
            let (below, above) = workspace.hidden.split_at_mut(l);
            let input = below.last().map_or(x, |h| h.view());
            let output = if l < last { above[0].view_mut() } else { y.take().expect("there is one last layer") };
            let weight = weight(layer, theta);
            let activation = (l < last).then_some(self.activation);
            let bias = Finish::Bias(&theta[layer.bias.clone()], activation);
            product(input, weight, output, bias);
        }
    }

    /// The backward pass of [`Self::forward`], which must have run before over the same `theta`, `x` and `workspace`.
    ///
    /// Given ∂L/∂y as `d_y` `[B, outputs]`:
    /// - ∂L/∂Wₗ = hₗ₋₁ᵀ·δₗ and ∂L/∂bₗ = Σ over rows of δₗ overwrite `d_theta`, if it is asked for;
    /// - δₗ₋₁ = (δₗ·Wₗᵀ) ⊙ φ′(hₗ₋₁) goes down the layers;
    /// - ∂L/∂x = δ₁·W₁ᵀ overwrites `d_x` `[B, n]`, if it is asked for, over the *last* n inputs (n = inputs for all).
    pub fn backward<T: Real>(
        &self,
        theta: &[T],
        x: ArrayView2<T>,
        d_y: ArrayView2<T>,
        workspace: &mut Workspace<T>,
        mut d_theta: Option<&mut [T]>,
        d_x: Option<ArrayViewMut2<T>>,
    ) {
        assert_eq!(theta.len(), self.parameters());
        let Workspace { hidden, d_hidden } = workspace;
        for (l, layer) in self.layers.iter().enumerate().rev() {
            let (d_below, d_above) = d_hidden.split_at_mut(l);
            let d_output = d_above.first().map_or(d_y, |d| d.view());
            let below = if l > 0 { hidden[l - 1].view() } else { x };
            let d_layer = d_theta.as_deref_mut().map(|d| &mut d[layer.weight.start..layer.bias.end]);
            let d_below = d_below.last_mut();
            // The two gradients do not need each other.
            rayon::join(
                || d_layer.map(|d_layer| layer_parameters_backward(layer, below, d_output, d_layer)),
                || {
                    d_below.map(|d| {
                        layer_input_backward(layer, theta, below, None, d_output, self.activation, d.view_mut())
                    })
                },
            );
        }
        if let Some(d_x) = d_x {
            let d_output = d_hidden.first().map_or(d_y, |d| d.view());
            last_inputs_backward(&self.layers[0], theta, d_output, d_x);
        }
    }

    /// ∂L/∂x alone, as from [`Self::backward`], for `rows` of the B rows of the forward pass, in that order.
    ///
    /// `d_y` is `[rows, outputs]`, and `d_x` `[rows, n]` takes the gradient over the last n inputs.
    pub fn backward_rows<T: Real>(
        &self,
        theta: &[T],
        rows: &[usize],
        d_y: ArrayView2<T>,
        workspace: &mut Workspace<T>,
        d_x: ArrayViewMut2<T>,
    ) {
        let Workspace { hidden, d_hidden } = workspace;
        let selected = s![..rows.len(), ..];
        for (l, layer) in self.layers.iter().enumerate().skip(1).rev() {
            let (d_below, d_above) = d_hidden.split_at_mut(l);
            let d_output = d_above.first().map_or(d_y, |d| d.slice(selected));
            let d_below = d_below[l - 1].slice_mut(selected);
            let below = hidden[l - 1].view();
            layer_input_backward(layer, theta, below, Some(rows), d_output, self.activation, d_below);
        }
        let d_output = d_hidden.first().map_or(d_y, |d| d.slice(selected));
        last_inputs_backward(&self.layers[0], theta, d_output, d_x);
    }
}

/// ∂L/∂W = hᵀ·δ and ∂L/∂b = Σ over rows of δ, with h the layer's input `[B, in]` and δ its output's gradient `[B, out]`.
fn layer_parameters_backward<T: Real>(layer: &Layer, h: ArrayView2<T>, delta: ArrayView2<T>, d_layer: &mut [T]) {
    let (d_weight, d_bias) = d_layer.split_at_mut(layer.weight.len());
    let d_weight = ArrayViewMut2::from_shape((layer.inputs, layer.outputs), d_weight).expect("a weight has its shape");
    rayon::join(
        || product(h.t(), delta, d_weight, Finish::Nothing),
        || sum_rows(delta.to_slice().expect("gradients lie in row-major order"), d_bias),
    );
}

/// The gradient over the sums that the layer below has formed: (δ·Wᵀ) ⊙ φ′(h), as above; if there are `rows`, row
/// `rows[i]` of h belongs to row i of δ.
fn layer_input_backward<T: Real>(
    layer: &Layer,
    theta: &[T],
    h: ArrayView2<T>,
    rows: Option<&[usize]>,
    delta: ArrayView2<T>,
    activation: Activation,
    d_below: ArrayViewMut2<T>,
) {
    let slope = Finish::Slope { hidden: h, rows, activation };
    product(delta, weight(layer, theta).t(), d_below, slope);
}

/// ∂L/∂x = δ·Wᵀ over the last inputs, as many as `d_x` has columns.
fn last_inputs_backward<T: Real>(layer: &Layer, theta: &[T], delta: ArrayView2<T>, d_x: ArrayViewMut2<T>) {
    let from = layer.inputs.checked_sub(d_x.ncols()).expect("d_x is at most as wide as x");
    product(delta, weight(layer, theta).split_at(Axis(0), from).1.t(), d_x, Finish::Nothing);
}

/// W of a layer, `[in, out]`, as a view into the flat vector.
pub fn weight<'a, T>(layer: &Layer, theta: &'a [T]) -> ArrayView2<'a, T> {
    let shape = (layer.inputs, layer.outputs);
    ArrayView2::from_shape(shape, &theta[layer.weight.clone()]).expect("a weight has its shape")
}

simd! {
    /// ∂L/∂b ← Σ over rows of δ.
    fn sum_rows<T>(delta: &[T], d_bias: &mut [T]) {
        d_bias.fill(T::zero());
        for row in delta.chunks_exact(d_bias.len()) {
            d_bias.iter_mut().zip(row).for_each(|(sum, &d)| *sum += d);
        }
    }
}
