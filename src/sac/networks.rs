//! The one list of networks. Learners, files, counts of work and `--init-from` derive from it what networks there are.

use super::Policy;
use crate::config::{Bootstrap, Config};
use crate::nn::Network;

/// A network that is trained: its names, its shape and what an update does with it.
#[derive(Clone, Debug)]
pub struct NetworkSpec {
    /// In snapshots; the target network of `q1` is `target_q1`.
    pub name: &'static str,
    /// In files of tensors.
    pub file_name: &'static str,
    /// A policy with separate heads is two networks, whose parameters follow each other.
    pub shape: Vec<Network>,
    /// How many heads the last layer of each has, side by side.
    pub heads: usize,
    /// Whether a target network follows it.
    pub has_target: bool,
    /// α_Q and the like.
    pub learning_rate: f64,
    /// The stream of random numbers that its initial parameters come from.
    pub stream: u64,
    /// Multiplications of an update at which the policy takes a step, for each row of the batch.
    pub multiplications: usize,
}

/// The networks of `config`, policy first.
pub fn networks(config: &Config, observation_size: usize, action_size: usize) -> Vec<NetworkSpec> {
    // Multiplications in a row of the batch: what goes forward, and what a gradient takes as well; what goes backward.
    let from = |network: &Network, layer| network.layers()[layer..].iter().map(|l| l.weight.len()).sum::<usize>();
    let (forward, backward) = (|network: &Network| from(network, 0), |network: &Network| from(network, 1));
    let training = |network: &Network| 2 * forward(network) + backward(network);

    let has_value = config.bootstrap == Bootstrap::ValueNetwork;
    let policy = Policy::new(config, observation_size, action_size).networks;
    let scalar = |inputs| Network::new(inputs, &config.critic_hidden, 1, config.activation);
    let critic = scalar(observation_size + action_size);
    let next_actions = if has_value { 0 } else { policy.iter().map(forward).sum() };
    let mut list = vec![NetworkSpec {
        name: "policy",
        file_name: "policy",
        heads: 2 / policy.len(),
        has_target: false,
        learning_rate: config.policy_learning_rate,
        stream: 0,
        multiplications: policy.iter().map(training).sum::<usize>() + next_actions,
        shape: policy,
    }];
    // Q(s, a) and what it learns from it, Q(s, ã), and for the smaller one the way back to ã; Q̄(s′, ã′).
    let to_action = backward(&critic) + action_size * critic.layers()[0].outputs;
    let target = if has_value { 0 } else { forward(&critic) };
    let twin = |name, file_name, stream, multiplications| NetworkSpec {
        name,
        file_name,
        shape: vec![critic.clone()],
        heads: 1,
        has_target: !has_value,
        learning_rate: config.critic_learning_rate,
        stream,
        multiplications: training(&critic) + forward(&critic) + target + multiplications,
    };
    list.extend([twin("q1", "critic.0", 1, to_action), twin("q2", "critic.1", 2, 0)]);
    if has_value {
        let value = scalar(observation_size);
        list.push(NetworkSpec {
            name: "value",
            file_name: "value",
            heads: 1,
            has_target: true,
            learning_rate: config.value_learning_rate,
            stream: 3,
            multiplications: training(&value) + forward(&value),
            shape: vec![value],
        });
    }
    list
}
