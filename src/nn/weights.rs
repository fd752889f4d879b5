//! The parameters of networks, with their weights once more as the kernel reads them.
//!
//! Within an update a weight is a factor of up to a dozen products, and it changes once. So it is packed once, after each
//! step, instead of in each product.

use super::aligned::Aligned;
use super::gemm::Factor;
use super::mlp::{Layer, Mlp, weight};
use super::real::Real;
use super::threads::{join, join_if};
use ndarray::{ArrayView2, Axis};
use std::ops::{Deref, Range};

/// Fewest weights of a layer that are worth packing by several threads.
const WORTHWHILE: usize = 1 << 14;

/// θ of some networks, flat, network after network.
#[derive(Clone, Debug)]
pub struct Theta<T> {
    values: Aligned<T>,
    networks: Vec<(Mlp, Range<usize>, Panels<T>)>,
}

/// Of each layer W for the way forward and Wᵀ for the way back, as [`Real::pack`] writes them; nothing where no product
/// would take them from here.
#[derive(Clone, Debug)]
struct Panels<T> {
    forward: Vec<Aligned<T>>,
    backward: Vec<Aligned<T>>,
}

/// θ of one network.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a, T> {
    /// θ, flat.
    pub theta: &'a [T],
    panels: Option<&'a Panels<T>>,
}

impl<T: Real> Theta<T> {
    /// The parameters `values` of `networks`, which will go forward and, if there is one, the way `back`.
    pub fn new<'a>(values: &[T], networks: impl IntoIterator<Item = &'a Mlp>, back: bool) -> Self {
        let mut end = 0;
        let networks = networks.into_iter().map(|network| {
            let start = end;
            end += network.parameters();
            (network.clone(), start..end, Panels::new(network, back))
        });
        let mut theta = Self { networks: networks.collect(), values: Aligned::from(values) };
        theta.pack();
        theta
    }

    /// The parameters of network `i`.
    pub fn weights(&self, i: usize) -> Weights<'_, T> {
        let (_, range, panels) = &self.networks[i];
        Weights { theta: &self.values[range.clone()], panels: Some(panels) }
    }

    /// All parameters, to be changed; [`Self::pack`] must follow.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// Takes over changed parameters.
    pub fn pack(&mut self) {
        for (network, range, Panels { forward, backward }) in &mut self.networks {
            let theta = &self.values[range.clone()];
            for ((layer, forward), backward) in network.layers().iter().zip(forward).zip(backward) {
                let weight = weight(layer, theta);
                let many = weight.len() >= WORTHWHILE;
                join_if(many, || pack(weight, forward), || pack(weight.reversed_axes(), backward));
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

impl<T: Real> Panels<T> {
    fn new(network: &Mlp, back: bool) -> Self {
        let layers = network.layers().iter();
        let forward = layers.clone().map(|layer| Aligned::zeros(T::packed_len(layer.inputs, layer.outputs)));
        let backward = layers.enumerate().map(|(l, layer)| {
            // Nothing that was hidden lies below the first layer.
            Aligned::zeros(if back && l > 0 { T::packed_len(layer.outputs, layer.inputs) } else { 0 })
        });
        Self { forward: forward.collect(), backward: backward.collect() }
    }
}

/// [`Real::pack`], with columns beside each other where there are many, unless there is no room for any.
fn pack<T: Real>(matrix: ArrayView2<T>, panels: &mut [T]) {
    /// A multiple of any panel's.
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

/// Parameters alone: their products pack for themselves.
impl<'a, T> From<&'a [T]> for Weights<'a, T> {
    fn from(theta: &'a [T]) -> Self {
        Self { theta, panels: None }
    }
}

impl<'a, T: Real> Weights<'a, T> {
    /// W of layer `l`, `[in, out]`.
    pub(super) fn forward(self, l: usize, layer: &Layer) -> Factor<'a, T> {
        let panels = self.panels.map(|panels| &*panels.forward[l]).filter(|panels| !panels.is_empty());
        Factor { matrix: weight(layer, self.theta), panels }
    }

    /// Wᵀ of layer `l`, `[out, in]`.
    pub(super) fn backward(self, l: usize, layer: &Layer) -> Factor<'a, T> {
        let panels = self.panels.map(|panels| &*panels.backward[l]).filter(|panels| !panels.is_empty());
        Factor { matrix: weight(layer, self.theta).reversed_axes(), panels }
    }
}
