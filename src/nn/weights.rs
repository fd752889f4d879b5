//! The parameters of networks, with the transposes of their weights as the kernel reads them.
//!
//! Within an update a weight is a factor of up to a dozen products, and it changes once. On the way forward the kernel reads
//! it as it is; for the way back it is transposed once, after each step, instead of in each product.

use super::aligned::Aligned;
use super::gemm::Factor;
use super::layer::Dense;
use super::network::Network;
use super::real::Real;
use super::threads::join;
use ndarray::{ArrayView2, Axis};
use std::ops::{Deref, Range};

/// Fewest weights of a layer that are worth packing by several threads.
const WORTHWHILE: usize = 1 << 14;

/// θ of some networks, flat, network after network.
#[derive(Clone, Debug)]
pub struct Theta<T> {
    values: Aligned<T>,
    networks: Vec<Packed<T>>,
}

/// A network, which of the parameters are its own, and of each layer Wᵀ as [`Real::pack`] writes it; nothing where no
/// product would take it from here.
#[derive(Clone, Debug)]
struct Packed<T> {
    shape: Network,
    parameters: Range<usize>,
    transposed: Vec<Aligned<T>>,
}

/// θ of one network.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a, T> {
    /// θ, flat.
    pub theta: &'a [T],
    transposed: Option<&'a [Aligned<T>]>,
}

impl<T: Real> Theta<T> {
    /// The parameters `values` of `networks`, which will go forward and, if there is one, the way `back`.
    pub fn new<'a>(values: &[T], networks: impl IntoIterator<Item = &'a Network>, back: bool) -> Self {
        let mut end = 0;
        let networks = networks.into_iter().map(|network| {
            let start = end;
            end += network.parameters();
            let transposed = network.layers().iter().enumerate().map(|(l, layer)| {
                // Nothing that was hidden lies below the first layer.
                Aligned::zeros(if back && l > 0 { T::packed_len(layer.outputs, layer.inputs) } else { 0 })
            });
            Packed { shape: network.clone(), parameters: start..end, transposed: transposed.collect() }
        });
        let mut theta = Self { networks: networks.collect(), values: Aligned::from(values) };
        theta.pack();
        theta
    }

    /// The parameters of network `i`.
    pub fn weights(&self, i: usize) -> Weights<'_, T> {
        let Packed { parameters, transposed, .. } = &self.networks[i];
        Weights { theta: &self.values[parameters.clone()], transposed: Some(transposed) }
    }

    /// All parameters, to be changed; [`Self::pack`] must follow.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// Takes over changed parameters.
    pub fn pack(&mut self) {
        for Packed { shape, parameters, transposed } in &mut self.networks {
            let theta = &self.values[parameters.clone()];
            for (layer, panels) in shape.layers().iter().zip(transposed) {
                pack(layer.weight_of(theta).reversed_axes(), panels);
            }
        }
    }
}

impl<T> Deref for Theta<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values
    }
}

/// [`Real::pack`], with columns beside each other where there are many, unless there is no room for any.
fn pack<T: Real>(matrix: ArrayView2<T>, panels: &mut [T]) {
    /// A multiple of the width of any panel.
    const COLUMNS: usize = 128;
    let (k, n) = matrix.dim();
    if panels.is_empty() {
        return;
    }
    if n < 2 * COLUMNS || matrix.len() < WORTHWHILE {
        return T::pack(matrix, panels);
    }
    let middle = n / COLUMNS / 2 * COLUMNS;
    let (left, right) = matrix.split_at(Axis(1), middle);
    let (to_left, to_right) = panels.split_at_mut(k * middle);
    join(|| pack(left, to_left), || pack(right, to_right));
}

/// Parameters alone: products transpose weights for themselves.
impl<'a, T> From<&'a [T]> for Weights<'a, T> {
    fn from(theta: &'a [T]) -> Self {
        Self { theta, transposed: None }
    }
}

impl<'a, T: Real> Weights<'a, T> {
    /// Wᵀ of layer `l`, `[out, in]`.
    pub(super) fn transposed(self, l: usize, layer: &Dense) -> Factor<'a, T> {
        let panels = self.transposed.map(|transposed| &*transposed[l]).filter(|panels| !panels.is_empty());
        Factor { matrix: layer.weight_of(self.theta).reversed_axes(), panels }
    }
}
