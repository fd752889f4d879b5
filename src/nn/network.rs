//! Networks: lists of layers over one flat parameter vector.
//!
//! hₗ = φ(hₗ₋₁·Wₗ + bₗ), h₀ = x, and a last layer without φ. A weight is stored `[in, out]` in row-major order, followed
//! by its bias `[out]`, layer after layer. Files hold weights `[out, in]` as PyTorch does; see `run::policy_file`.
//!
//! A batch goes through a network in blocks of rows, so that what a layer leaves of a block stays in the cache for the next
//! layer, and blocks go to several threads. How a batch is divided stays in here: whoever computes a loss sees rows.

use super::aligned::Matrix;
use super::epilogue::{Activation, Epilogue};
use super::gemm::product;
use super::init::Init;
use super::layer::Dense;
use super::real::Real;
use super::threads::{for_each, join_if};
use super::weights::Weights;
use ndarray::{Array2, ArrayView2, Axis, s};
use rand::Rng;
use std::ops::Range;

/// The most rows of a batch that go through a network together, by one thread.
const BLOCK_ROWS: usize = 128;
/// Multiplications of a pass that are worth two blocks at least, although each needs all weights then.
const WORK_FOR_TWO: usize = 1 << 21;
/// Fewest parameters whose gradients are worth computing by several threads.
const MANY_GRADIENTS: usize = 1 << 14;

/// The shape of a network. Parameters, gradients, moments and targets are flat vectors that this shape describes.
#[derive(Clone, Debug)]
pub struct Network {
    layers: Vec<Dense>,
    activation: Activation,
}

/// A pass over `B` rows: what goes in, what comes out, and what the backward pass leaves.
#[derive(Clone, Debug)]
pub struct Pass<T> {
    /// In the order of their rows.
    blocks: Vec<Block<T>>,
}

/// A pass over some neighbouring rows of a batch, as many as `rows` says.
#[derive(Clone, Debug)]
pub struct Block<T> {
    /// Which rows of the batch they are.
    pub rows: Range<usize>,
    /// x, `[rows, inputs]`.
    pub x: Matrix<T>,
    /// hₗ after φ, `[rows, Hₗ]` for each hidden layer.
    pub hidden: Vec<Matrix<T>>,
    /// y, `[rows, outputs]`.
    pub y: Matrix<T>,
    /// ∂L/∂y, `[rows, outputs]`.
    pub d_y: Matrix<T>,
    /// ∂L/∂(hₗ before φ), `[rows, Hₗ]` for each hidden layer.
    pub d_hidden: Vec<Matrix<T>>,
    /// Rows of the block that [`Network::backward_to_inputs`] has gone back through, and ∂L/∂x over some inputs of these,
    /// the first rows of `[rows, inputs]`.
    chosen: Vec<usize>,
    d_x: Matrix<T>,
}

/// A batch of so many rows as a single block.
pub fn undivided(rows: usize) -> [Range<usize>; 1] {
    std::array::from_fn(|_| 0..rows)
}

/// The rows of a batch, wherever they are.
pub trait Rows<T>: Sync {
    /// The rows of a block, `[rows, columns]`.
    fn block(&self, rows: &Range<usize>) -> ArrayView2<'_, T>;
}

impl<T: Sync> Rows<T> for Array2<T> {
    fn block(&self, rows: &Range<usize>) -> ArrayView2<'_, T> {
        self.slice(s![rows.clone(), ..])
    }
}

impl<T: Sync> Rows<T> for ArrayView2<'_, T> {
    fn block(&self, rows: &Range<usize>) -> ArrayView2<'_, T> {
        self.slice(s![rows.clone(), ..])
    }
}

impl<T: Real> Pass<T> {
    /// Its blocks, in the order of their rows.
    pub fn blocks(&self) -> &[Block<T>] {
        &self.blocks
    }

    /// Its blocks, to be changed.
    pub fn blocks_mut(&mut self) -> &mut [Block<T>] {
        &mut self.blocks
    }

    /// Copies the only element of each row of y, `[B, 1]`, to `column` `[B]`.
    pub fn copy_column(&self, column: &mut [T]) {
        self.blocks.iter().for_each(|block| column[block.rows.clone()].copy_from_slice(block.y.column()));
    }

    /// Takes ∂L/∂y, `[B, 1]`, from `column` `[B]`.
    pub fn set_column_gradient(&mut self, column: &[T]) {
        self.blocks.iter_mut().for_each(|block| block.d_y.column_mut().copy_from_slice(&column[block.rows.clone()]));
    }
}

impl<T: Real> Block<T> {
    /// The rows of the block, counted from 0 in it, that [`Network::backward_to_inputs`] has gone back through, and ∂L/∂x
    /// over the inputs that were asked for, `[rows, inputs]`.
    pub fn input_gradient(&self) -> (&[usize], ArrayView2<'_, T>) {
        (&self.chosen, self.d_x.view().slice_move(s![..self.chosen.len(), ..]))
    }

    /// Fills x with the rows of `inputs`, side by side.
    fn set_inputs(&mut self, inputs: &[&dyn Rows<T>]) {
        let mut start = 0;
        for part in inputs {
            let part = part.block(&self.rows);
            let columns = start..start + part.ncols();
            assert_eq!(part.nrows(), self.rows.len());
            for (x, from) in self.x.rows_mut().zip(part.rows()) {
                let from = from.to_slice().expect("rows are contiguous");
                x[columns.clone()].iter_mut().zip(from).for_each(|(x, &from)| *x = from);
            }
            start = columns.end;
        }
        assert_eq!(start, self.x.view().ncols(), "the inputs are as wide as x");
    }
}

impl Network {
    /// A network from `inputs` through layers of the widths `hidden` to `outputs`; `hidden` may be empty.
    pub fn new(inputs: usize, hidden: &[usize], outputs: usize, activation: Activation) -> Self {
        let mut layers: Vec<Dense> = Vec::with_capacity(hidden.len() + 1);
        let hidden = hidden.iter().map(|&width| (width, Some(activation)));
        for (width, activation) in hidden.chain([(outputs, None)]) {
            let (inputs, start) = layers.last().map_or((inputs, 0), |below| (below.outputs, below.bias.end));
            layers.push(Dense::new(inputs, width, activation, start));
        }
        Self { layers, activation }
    }

    /// The layers, first to last.
    pub fn layers(&self) -> &[Dense] {
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

    /// Initial parameters, with one rule for the hidden layers and one for the last. If the last layer is several `heads`
    /// side by side, each counts as a layer of its own.
    pub fn initial<T: Real>(&self, heads: usize, hidden: Init, last: Init, rng: &mut impl Rng) -> Vec<T> {
        let mut theta = vec![T::zero(); self.parameters()];
        let (last_layer, hidden_layers) = self.layers.split_last().expect("a network has a layer");
        hidden_layers.iter().for_each(|layer| layer.initialize(hidden, 1, &mut theta, rng));
        last_layer.initialize(last, heads, &mut theta, rng);
        theta
    }

    /// The rows of a batch in blocks, as equal as can be; two at least if there is much to do. Nothing but sizes decides,
    /// because where a sum is divided matters to its last bits.
    pub fn divide(&self, rows: usize) -> Vec<Range<usize>> {
        let much = rows * self.parameters() >= WORK_FOR_TWO;
        let count = rows.div_ceil(BLOCK_ROWS).max(if much { 2 } else { 1 }).min(rows);
        (0..count).map(|i| i * rows / count..(i + 1) * rows / count).collect()
    }

    /// Room for passes over a batch divided into `blocks`.
    pub fn pass<T: Real>(&self, blocks: &[Range<usize>]) -> Pass<T> {
        self.pass_to_inputs(blocks, 0)
    }

    /// [`Self::pass`], with room for ∂L/∂x over so many inputs.
    pub fn pass_to_inputs<T: Real>(&self, blocks: &[Range<usize>], inputs: usize) -> Pass<T> {
        let block = |rows: &Range<usize>| {
            let count = rows.len();
            let input = |columns| Matrix::zeros_and_ones(count, columns);
            let output = |columns| Matrix::zeros(count, columns);
            let widths = || self.layers[..self.layers.len() - 1].iter().map(|layer| layer.outputs);
            Block {
                rows: rows.clone(),
                x: input(self.inputs()),
                hidden: widths().map(input).collect(),
                y: output(self.outputs()),
                d_y: output(self.outputs()),
                d_hidden: widths().map(output).collect(),
                chosen: Vec::with_capacity(if inputs > 0 { count } else { 0 }),
                d_x: output(inputs),
            }
        };
        Pass { blocks: blocks.iter().map(block).collect() }
    }

    /// From x, the rows of `inputs` side by side, to y = h_L·W_L + b_L, with hₗ = φ(hₗ₋₁·Wₗ + bₗ) and h₀ = x.
    pub fn forward<'a, T: Real>(
        &self,
        weights: impl Into<Weights<'a, T>>,
        inputs: &[&dyn Rows<T>],
        pass: &mut Pass<T>,
    ) {
        let theta = weights.into().theta;
        assert_eq!(theta.len(), self.parameters());
        for_each(&mut pass.blocks[..], &|_, block| {
            block.set_inputs(inputs);
            let Block { x, hidden, y, .. } = block;
            for (l, layer) in self.layers.iter().enumerate() {
                let (below, above) = hidden.split_at_mut(l);
                let input = below.last().unwrap_or(x).view();
                layer.forward(theta, input, above.first_mut().unwrap_or(y).view_mut());
            }
        });
    }

    /// The backward pass of [`Self::forward`], which must have run before over the same parameters, from ∂L/∂y down to the
    /// first layer: δₗ₋₁ = (δₗ·Wₗᵀ) ⊙ φ′(hₗ₋₁), where δₗ is what hₗ was before φ has as its gradient.
    pub fn backward<'a, T: Real>(&self, weights: impl Into<Weights<'a, T>>, pass: &mut Pass<T>) {
        let weights = weights.into();
        for_each(&mut pass.blocks[..], &|_, block| self.block_backward(weights, None, block));
    }

    /// As [`Self::backward`], for those rows of the batch alone that `choose` accepts, and on to ∂L/∂x = δ₁·W₁ᵀ over the
    /// last inputs, as many as the pass has room for; see [`Block::input_gradient`]. The rows of ∂L/∂y that are left out are
    /// overwritten.
    pub fn backward_to_inputs<'a, T: Real>(
        &self,
        weights: impl Into<Weights<'a, T>>,
        choose: impl Fn(usize) -> bool + Sync,
        pass: &mut Pass<T>,
    ) {
        let weights = weights.into();
        for_each(&mut pass.blocks[..], &|_, block| {
            let mut chosen = std::mem::take(&mut block.chosen);
            chosen.clear();
            chosen.extend((0..block.rows.len()).filter(|row| choose(block.rows.start + row)));
            block.d_y.keep_rows(&chosen);
            self.block_backward(weights, Some(&chosen), block);
            let (selected, layer) = (s![..chosen.len(), ..], &self.layers[0]);
            let d_x = block.d_x.view_mut().slice_move(selected);
            let delta = block.d_hidden.first().unwrap_or(&block.d_y).view().slice_move(selected);
            let from = layer.inputs.checked_sub(d_x.ncols()).expect("d_x is at most as wide as x");
            let weight = layer.weight_of(weights.theta).split_at(Axis(0), from).1;
            product(delta, weight.reversed_axes(), d_x, Epilogue::Nothing);
            block.chosen = chosen;
        });
    }

    /// Some rows of a block, or all. The first rows of all δₗ then belong to them, in their order.
    fn block_backward<T: Real>(&self, weights: Weights<T>, rows: Option<&[usize]>, block: &mut Block<T>) {
        let Block { hidden, d_y, d_hidden, .. } = block;
        let selected = s![..rows.map_or(d_y.view().nrows(), <[usize]>::len), ..];
        for (l, layer) in self.layers.iter().enumerate().skip(1).rev() {
            let (d_below, d_above) = d_hidden.split_at_mut(l);
            let delta = d_above.first().unwrap_or(d_y).view().slice_move(selected);
            let slope = self.layers[l - 1].slope(hidden[l - 1].view(), rows);
            Dense::backward(weights.transposed(l, layer), delta, slope, d_below[l - 1].view_mut().slice_move(selected));
        }
    }

    /// ∂L/∂θ over all rows of `blocks`, which have gone forward and backward; it overwrites `d_theta`.
    pub fn gradient<T: Real>(&self, blocks: &[Block<T>], d_theta: &mut [T]) {
        assert_eq!(d_theta.len(), self.parameters());
        self.layers_gradient(0..self.layers.len(), blocks, d_theta);
    }

    /// That of some layers, whose parameters are those of `d_theta`.
    fn layers_gradient<T: Real>(&self, layers: Range<usize>, blocks: &[Block<T>], d_theta: &mut [T]) {
        if layers.len() > 1 {
            let middle = layers.start.midpoint(layers.end);
            let start = self.layers[layers.start].weight.start;
            let (d_lower, d_upper) = d_theta.split_at_mut(self.layers[middle].weight.start - start);
            join_if(
                d_lower.len().max(d_upper.len()) >= MANY_GRADIENTS,
                || self.layers_gradient(layers.start..middle, blocks, d_lower),
                || self.layers_gradient(middle..layers.end, blocks, d_upper),
            );
            return;
        }
        let l = layers.start;
        let inputs_and_deltas = blocks.iter().map(|block| {
            let x = if l > 0 { &block.hidden[l - 1] } else { &block.x };
            (x, block.d_hidden.get(l).unwrap_or(&block.d_y))
        });
        self.layers[l].gradient(&inputs_and_deltas, d_theta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Philox, Stream};
    use rand_distr::StandardNormal;

    /// Layers so wide that their gradients are divided by outputs, one of them more than once, have hᵀ·δ and Σδ all the same.
    #[test]
    fn divided_gradients_are_sums_over_all_rows() {
        let network = Network::new(40, &[130, 300, 150], 2, Activation::Tanh);
        let mut rng = Philox::new(0, Stream::Init, 0);
        let theta: Vec<f64> = (0..network.parameters()).map(|_| 0.1 * rng.sample::<f64, _>(StandardNormal)).collect();
        let x = Array2::from_shape_simple_fn((12, 40), || rng.sample(StandardNormal));
        let mut pass = network.pass(&[0..5, 5..12]);
        network.forward(&theta[..], &[&x], &mut pass);
        let d_y = pass.blocks.iter_mut().flat_map(|block| block.d_y.rows_mut());
        d_y.flatten().for_each(|d_y| *d_y = rng.sample(StandardNormal));
        network.backward(&theta[..], &mut pass);
        let mut gradient = vec![f64::NAN; theta.len()];
        network.gradient(&pass.blocks, &mut gradient);
        for (l, layer) in network.layers().iter().enumerate() {
            let mut expected = Array2::zeros((layer.inputs + 1, layer.outputs));
            for block in &pass.blocks {
                let h = if l > 0 { &block.hidden[l - 1] } else { &block.x };
                let delta = block.d_hidden.get(l).unwrap_or(&block.d_y).view();
                let (mut weight, mut bias) = expected.view_mut().split_at(Axis(0), layer.inputs);
                weight += &h.view().t().dot(&delta);
                bias += &delta.sum_axis(Axis(0));
            }
            for (found, expected) in gradient[layer.parameters()].iter().zip(&expected) {
                assert!((found - expected).abs() <= 1e-12, "layer {l}: {found} instead of {expected}");
            }
        }
    }

    #[test]
    fn a_batch_is_divided_by_its_size_alone() {
        let small = Network::new(3, &[64, 64], 2, Activation::Relu);
        assert_eq!(small.divide(100), undivided(100));
        assert_eq!(small.divide(300), [0..100, 100..200, 200..300]);
        let large = Network::new(3, &[256, 256], 2, Activation::Relu);
        assert_eq!(large.divide(100), [0..50, 50..100]);
        assert_eq!(large.divide(1), undivided(1));
    }
}
