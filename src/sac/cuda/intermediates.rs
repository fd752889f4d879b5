//! What an update leaves in the memory of a GPU, by name, for those who compare it.

use super::CudaLearner;
use crate::error::Error;
use crate::gpu::mlp::DeviceWorkspace;
use crate::gpu::{Buffer, words};
use crate::nn::Network;

impl CudaLearner {
    /// Every intermediate of an update by name, with its length, as [`CpuLearner::intermediates`](crate::sac::CpuLearner::intermediates) names them; the rows of
    /// s′ stand before those of s where there are both.
    pub fn intermediates(&self) -> Vec<(String, Buffer, usize)> {
        let (b, o, a) = self.sizes();
        let mut list = vec![
            ("inputs".to_string(), self.buffers.inputs, 3 * b * (o + a)),
            ("raw".into(), self.buffers.raw, 2 * b * 2 * a),
            ("log_prob".into(), self.buffers.log_prob, 2 * b),
            ("q".into(), self.buffers.q, 2 * b),
            ("target_q".into(), self.buffers.q.at(2 * b), 2 * b),
            ("target".into(), self.buffers.target, b),
            ("d_q".into(), self.buffers.d_q, 2 * b),
            ("d_action".into(), self.buffers.d_action, 2 * b * a),
            ("d_raw".into(), self.buffers.d_raw, b * 2 * a),
            ("v".into(), self.buffers.v, b),
            ("d_v".into(), self.buffers.d_v, b),
        ];
        for (i, (mlp, pass)) in self.policy.networks.iter().zip(&self.buffers.policy_passes).enumerate() {
            list.extend(hidden(&format!("policy{i}"), mlp, pass, 2 * b, b));
        }
        list.extend(hidden("critic", &self.critic, &self.buffers.critic_pass, 2 * b, 2 * b));
        for (mlp, pass) in self.value.iter().zip(&self.buffers.value_pass) {
            list.extend(hidden("value", mlp, pass, b, b));
        }
        for (name, parameters, i) in self.all_networks() {
            list.push((
                format!("{name}.gradient"),
                parameters.gradient.at(i * parameters.step()),
                parameters.mlp_parameters,
            ));
        }
        list
    }

    /// The floats of one of the [`Self::intermediates`].
    ///
    /// # Errors
    /// If the GPU fails.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn read(&mut self, name: &str) -> Result<Vec<f32>, Error> {
        let (buffer, length) = self.intermediate(name);
        // SAFETY: an intermediate is a buffer of that length.
        unsafe { self.read_buffer(buffer, length) }
    }

    /// Overwrites one of the [`Self::intermediates`].
    ///
    /// # Errors
    /// If the GPU fails.
    ///
    /// # Panics
    /// If there is none of that name and length.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<(), Error> {
        let (buffer, length) = self.intermediate(name);
        assert_eq!(values.len(), length, "{name}");
        // SAFETY: as for `read`.
        unsafe { self.gpu.upload(buffer, words(values)) }
    }

    fn intermediate(&self, name: &str) -> (Buffer, usize) {
        let list = self.intermediates();
        let found = list.into_iter().find(|(known, ..)| known == name);
        let (_, buffer, length) = found.unwrap_or_else(|| panic!("there is no intermediate {name}"));
        (buffer, length)
    }

    /// The rows of the replay memory and the noise, of s′ before that of s, which the last [`Learner::learn`](crate::sac::Learner::learn) has drawn.
    ///
    /// # Errors
    /// If the GPU fails.
    pub fn drawn(&mut self) -> Result<(Vec<u32>, Vec<f32>), Error> {
        let (b, _, a) = self.sizes();
        let mut rows = vec![0; b];
        // SAFETY: the buffers were made with these lengths.
        unsafe {
            self.gpu.download(self.buffers.rows, &mut rows)?;
            Ok((rows, self.read_buffer(self.buffers.noise, 2 * b * a)?))
        }
    }
}

/// The hidden layers of a pass and their gradients, by name; so many rows of all networks together count.
fn hidden<'a>(
    name: &'a str,
    mlp: &'a Network,
    pass: &'a DeviceWorkspace,
    rows: usize,
    d_rows: usize,
) -> impl Iterator<Item = (String, Buffer, usize)> + 'a {
    let layers = mlp.layers().iter().zip(pass.hidden.iter().zip(&pass.d_hidden)).enumerate();
    layers.flat_map(move |(l, (layer, (&h, &d)))| {
        [
            (format!("{name}.hidden{l}"), h, rows * layer.outputs),
            (format!("{name}.d_hidden{l}"), d, d_rows * layer.outputs),
        ]
    })
}
