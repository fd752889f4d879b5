//! Initial parameters.

use super::Real;
use ndarray::Array1;
use ndarray_rand::{RandomExt, rand_distr::Uniform};
use rand::Rng;

/// Where the parameters of a layer from `in` inputs to `out` outputs begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "program", derive(serde::Serialize, serde::Deserialize))]
pub enum Init {
    /// PyTorch's default for linear layers: weights and biases uniform on ±1/√in.
    #[cfg_attr(feature = "program", serde(rename = "pytorch"))]
    PyTorch,
    /// Weights and biases uniform on ±0.003, as DDPG began its last layers (Lillicrap et al., arXiv 1509.02971).
    #[cfg_attr(feature = "program", serde(rename = "uniform-3e-3"))]
    Small,
    /// Weights uniform on ±√(6/(in + out)), biases zero (Glorot and Bengio, 2010).
    #[cfg_attr(feature = "program", serde(rename = "xavier"))]
    Xavier,
}

/// Fills `parameters` uniformly on ±`bound`.
pub(super) fn draw<T: Real>(bound: f64, parameters: &mut [T], rng: &mut impl Rng) {
    let distribution = Uniform::new_inclusive(T::of(-bound), T::of(bound)).expect("the bound of a layer is finite");
    let values = Array1::random_using(parameters.len(), distribution, rng);
    parameters.copy_from_slice(values.as_slice().expect("a new array is contiguous"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Activation, Network};
    use crate::rng::{Philox, Stream};

    /// Each rule fills its range, in hidden layers and in the last, and no more.
    #[test]
    fn fills_the_range_of_every_layer() {
        let network = Network::new(4, &[100, 64], 10, Activation::Relu);
        for (hidden, last) in [(Init::PyTorch, Init::Small), (Init::Xavier, Init::PyTorch), (Init::Small, Init::Xavier)]
        {
            let parameters: Vec<f32> = network.initial(2, hidden, last, &mut Philox::new(3, Stream::Init, 0));
            for (layer, (rule, outputs)) in network.layers().iter().zip([(hidden, 100), (hidden, 64), (last, 5)]) {
                let bound = match rule {
                    Init::PyTorch => 1.0 / (layer.inputs as f32).sqrt(),
                    Init::Small => 3e-3,
                    Init::Xavier => (6.0 / (layer.inputs + outputs) as f32).sqrt(),
                };
                for (range, is_bias) in [(layer.weight.clone(), false), (layer.bias.clone(), true)] {
                    let values = &parameters[range];
                    if rule == Init::Xavier && is_bias {
                        assert!(values.iter().all(|&x| x == 0.0));
                        continue;
                    }
                    let largest = values.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
                    // So many weights come within a fiftieth of the bound, which tells one head from two.
                    let reach = if is_bias { 0.5 } else { 0.98 };
                    assert!(largest <= bound && largest > reach * bound);
                    assert!(values.iter().any(|&x| x < 0.0) && values.iter().any(|&x| x > 0.0));
                }
            }
        }
    }
}
