//! Initial parameters.

use super::{Mlp, Real};
use ndarray::Array1;
use ndarray_rand::{RandomExt, rand_distr::Uniform};
use rand::Rng;

/// PyTorch's default for linear layers: weights and biases uniform on ±1/√(inputs of the layer).
///
/// Returns the flat parameter vector of `mlp`.
pub fn uniform_by_inputs<T: Real>(mlp: &Mlp, rng: &mut impl Rng) -> Vec<T> {
    let mut parameters = vec![T::zero(); mlp.parameters()];
    for layer in mlp.layers() {
        let bound = T::of(1.0 / (layer.inputs.max(1) as f64).sqrt());
        let range = layer.weight.start..layer.bias.end;
        let distribution = Uniform::new_inclusive(-bound, bound).expect("the bound of a layer is finite");
        let values = Array1::random_using(range.len(), distribution, rng);
        parameters[range].copy_from_slice(values.as_slice().expect("a new array is contiguous"));
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Activation;
    use crate::rng::{Philox, Stream};

    #[test]
    fn fills_the_range_of_every_layer() {
        let mlp = Mlp::new(4, &[100, 64], 9, Activation::Relu);
        let parameters: Vec<f32> = uniform_by_inputs(&mlp, &mut Philox::new(3, Stream::Init, 0));
        for layer in mlp.layers() {
            let bound = 1.0 / (layer.inputs as f32).sqrt();
            for values in [&parameters[layer.weight.clone()], &parameters[layer.bias.clone()]] {
                let largest = values.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
                assert!(largest <= bound && largest > 0.5 * bound);
                assert!(values.iter().any(|&x| x < 0.0) && values.iter().any(|&x| x > 0.0));
            }
        }
    }
}
