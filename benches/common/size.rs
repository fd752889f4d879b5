//! What the benches of updates measure.

use soft_actor_critic::config::Config;
use soft_actor_critic::sac::CpuLearner;

/// Dimensions of observation and action, batch size, width of both hidden layers.
#[derive(Clone, Copy)]
pub struct Size {
    pub obs: usize,
    pub act: usize,
    pub batch: usize,
    pub hidden: usize,
}

impl Size {
    pub fn learner(self) -> CpuLearner {
        let hidden = vec![self.hidden; 2];
        let (policy_hidden, critic_hidden) = (hidden.clone(), hidden);
        let config = Config { batch_size: self.batch, policy_hidden, critic_hidden, ..Config::default() };
        CpuLearner::new(&config, self.obs, &vec![1.0; self.act])
    }
}
