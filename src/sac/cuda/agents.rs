//! Agents that differ in their seeds alone, side by side: what crosses the bus for each, and what they do in the same launches.

use super::memory::{Allocate, Draws, Parameters, STATUS_WORDS, Status, passes};
use super::{CudaLearner, Form};
use crate::error::Error;
use crate::gpu::kernels::{self, Arguments, Launch, narrow};
use crate::gpu::mlp::Matrix;
use crate::gpu::{Buffer, Graph, with_buffers, words, words_mut};
use crate::nn::assert_shape;
use crate::replay::Replay;
use crate::sac::{Metric, Metrics, Snapshot};
use ndarray::ArrayView2;

/// What is known of an agent without asking the device.
pub(super) struct Agent {
    pub(super) seed: u64,
    /// Updates asked for; those made, unless one has failed.
    pub(super) updates: u64,
    /// Transitions of its replay memory that are on the device, or wait to be.
    pub(super) mirrored: usize,
    /// Whether some of them wait.
    pub(super) waits: bool,
}

/// The next update of an agent.
#[derive(Clone, Copy, Debug)]
pub struct UpdateRequest {
    /// Whose it is.
    pub agent: usize,
    /// Its number, from 0.
    pub update: u64,
    /// Transitions that the agent's replay memory holds.
    pub stored: u64,
}

/// What acting of all agents on some number of observations each needs.
pub(super) struct Acting {
    /// Observations `[agents, rows, O]`, and noise `[agents, rows, A]` right behind them, here and on the device.
    pub(super) staged: Vec<f32>,
    pub(super) input: Buffer,
    pub(super) action: Buffer,
    pub(super) sampled: Graph,
    pub(super) deterministic: Graph,
}

/// New transitions that wait until all agents have theirs.
#[derive(Default)]
pub(super) struct Waiting {
    /// Where each row goes, counted in elements from the beginning of the first agent's memory.
    pub(super) places: Vec<u64>,
    pub(super) values: Vec<f32>,
    /// Where both go on their way.
    pub(super) device: Option<Buffer>,
}

/// The rounds of steps whose transitions an agent may leave waiting; what is more goes to the device by itself.
pub(super) const WAITING_ROUNDS: usize = 4;

/// The lower and the upper word of a number.
fn halves(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

impl CudaLearner {
    /// Copies to the device what an agent's replay memory has got since the last time, and once more what was the newest then:
    /// returns over several steps have grown. A few transitions of one of several agents may wait for
    /// [`Self::learn_together`].
    ///
    /// # Errors
    /// If the GPU fails.
    ///
    /// # Panics
    /// If it is not the agent's own memory, which has grown.
    pub fn mirror(&mut self, agent: usize, replay: &Replay) -> Result<(), Error> {
        let (_, o, a) = self.sizes();
        let width = 2 * o + a + 2;
        assert_eq!(replay.capacity(), self.capacity, "the memory was made for another replay");
        assert!(replay.normalizer.is_none(), "observations are normalized on the CPU alone");
        if self.agents[agent].waits {
            // What comes now is not to be overtaken by what came before.
            self.store()?;
        }
        let (pushed, mirrored) = (replay.pushed(), self.agents[agent].mirrored);
        assert!(!replay.is_empty() && pushed >= mirrored, "a learner learns from one memory that grows");
        let (gamma, n_step) = (self.config.gamma as f32, self.config.n_step);
        let grown = (n_step - 1) * replay.environments();
        let mut next = mirrored.saturating_sub(grown).max(pushed - replay.len());
        let waits = self.waiting.device.is_some() && pushed - next <= WAITING_ROUNDS * replay.environments() * n_step;
        while next < pushed {
            // As many as lie in one piece, and not more than a few megabytes.
            let row = next % self.capacity;
            let count = (pushed - next).min(self.capacity - row).min((1 << 20) / width + 1);
            self.staging.resize(count * width, 0.0);
            for (i, to) in self.staging.chunks_exact_mut(width).enumerate() {
                replay.write_n_step_transition(row + i, gamma, n_step, to);
                to[o + a] *= self.config.reward_scale as f32;
            }
            let place = agent * self.agent_step + row * width;
            if waits {
                self.waiting.places.extend((0..count).map(|i| (place + i * width) as u64));
                self.waiting.values.extend(&self.staging);
            } else {
                // SAFETY: `row + count` is at most the capacity that the memory was made for.
                unsafe { self.gpu.upload(self.buffers.memory.at(place), words(&self.staging)) }?;
            }
            next += count;
        }
        (self.agents[agent].mirrored, self.agents[agent].waits) = (pushed, waits);
        Ok(())
    }

    /// Puts what waits into the memories.
    pub(super) fn store(&mut self) -> Result<(), Error> {
        let Waiting { places, values, device } = &mut self.waiting;
        let (Some(device), false) = (*device, places.is_empty()) else { return Ok(()) };
        let (rows, width) = (places.len(), values.len() / places.len());
        let halves: Vec<_> = places.iter().map(|&place| halves(place)).collect();
        let all = [halves.as_flattened(), words(values)].concat();
        let (places_at, values_at) = (device, device.at(2 * rows));
        places.clear();
        values.clear();
        self.agents.iter_mut().for_each(|agent| agent.waits = false);
        let memory = self.buffers.memory;
        let store =
            kernels::Store { memory, places: places_at, values: values_at, rows: narrow(rows), width: narrow(width) };
        // SAFETY: the buffer has room for what each agent may leave waiting, and places are those of rows of their memories.
        unsafe {
            self.gpu.upload(device, &all)?;
            self.gpu.run(&[store.launch_over(rows * width)])
        }
    }

    /// Makes these updates, of one agent each, in the same launches; all agents that are not among them stay as they are. What
    /// they learn from must have been [mirrored](Self::mirror).
    ///
    /// # Errors
    /// If the GPU fails.
    ///
    /// # Panics
    /// If nothing is stored for one of them.
    pub fn learn_together(&mut self, requests: &[UpdateRequest]) -> Result<(), Error> {
        self.store()?;
        // The first update of all can have an α of its own.
        let (first, others): (Vec<UpdateRequest>, _) =
            requests.iter().partition(|request| self.agents[request.agent].updates == 0);
        for requests in [first, others] {
            if requests.is_empty() {
                continue;
            }
            let mut draws = self.resting();
            let mut form = Form::USUAL;
            for UpdateRequest { agent, update, stored } in &requests {
                assert!(
                    *stored > 0 && draws[*agent].stored == 0,
                    "each takes one update, and has something to learn from"
                );
                (draws[*agent].update, draws[*agent].stored) = (*update, *stored);
                form = self.next_update(*agent);
            }
            form.some_rest = requests.len() < self.agents();
            self.set_draws(&draws)?;
            let graph = match self.graphs.get(&form) {
                Some(&graph) => graph,
                None => {
                    // SAFETY: they are this learner's own.
                    let graph = unsafe { self.gpu.capture(self.launches(true, form)) }?;
                    self.graphs.insert(form, graph);
                    graph
                }
            };
            self.gpu.run_graph(graph)?;
        }
        Ok(())
    }

    /// What each agent draws with if all of them rest.
    pub(super) fn resting(&self) -> Vec<Draws> {
        self.agents.iter().map(|&Agent { seed, .. }| Draws { seed, ..Draws::default() }).collect()
    }

    /// Puts what each agent draws with where kernels find it.
    pub(super) fn set_draws(&mut self, draws: &[Draws]) -> Result<(), Error> {
        assert_eq!(draws.len(), self.agents());
        let words: Vec<_> =
            draws.iter().flat_map(|draws| [draws.update, draws.stored, draws.seed].map(halves)).collect();
        // SAFETY: the buffer was made for so many words of each agent.
        unsafe { self.gpu.upload(self.draws, words.as_flattened()) }
    }

    /// [`Learner::metrics`](crate::sac::Learner::metrics) of every agent.
    ///
    /// # Errors
    /// If the GPU fails.
    pub fn metrics_of_all(&mut self) -> Result<Vec<Metrics>, Error> {
        let all = self.download_status(0, self.agents())?;
        Ok(all.iter().zip(&self.agents).map(|(status, agent)| self.metrics_from(status, agent)).collect())
    }

    /// [`Learner::metrics`](crate::sac::Learner::metrics) of one of the agents.
    ///
    /// # Errors
    /// As there.
    pub fn metrics_of(&mut self, agent: usize) -> Result<Metrics, Error> {
        let status = self.download_status(agent, 1)?;
        Ok(self.metrics_from(&status[0], &self.agents[agent]))
    }

    pub(super) fn metrics_from(&self, status: &Status, agent: &Agent) -> Metrics {
        let alpha = self.alpha(agent.updates == 0);
        let alpha = if alpha.is_fixed > 0 { alpha.fixed } else { (status.log_alpha as f32).exp() };
        let mut metrics = status.metrics();
        metrics[Metric::Alpha] = alpha.into();
        metrics
    }

    /// A buffer of one of the agents, from that of the first.
    pub(super) fn of(&self, agent: usize, first: Buffer) -> Buffer {
        first.at(agent * self.agent_step)
    }

    /// [`Learner::snapshot`](crate::sac::Learner::snapshot) of one of the agents.
    ///
    /// # Errors
    /// As there.
    pub fn snapshot_of(&mut self, agent: usize) -> Result<Snapshot<f32>, Error> {
        let (vectors, places) = self.state();
        let status = self.download_status(agent, 1)?[0];
        let sums = status.metrics().sums().map(|(name, sum)| (name.to_string(), sum)).collect();
        let mut counts =
            vec![("updates".to_string(), status.updates), ("policy_updates".to_string(), status.policy_updates)];
        counts.extend(places.into_iter().map(|(name, place)| (name, status.steps[place])));
        let vectors = vectors.into_iter().map(|(name, buffer, length)| {
            // SAFETY: the state is told by its own lengths, and every agent has it.
            Ok((name, unsafe { self.read_buffer(self.of(agent, buffer), length) }?))
        });
        Ok(Snapshot { vectors: vectors.collect::<Result<_, Error>>()?, counts, sums })
    }

    /// [`Learner::restore`](crate::sac::Learner::restore) of one of the agents.
    ///
    /// # Errors
    /// As there.
    pub fn restore_of(&mut self, agent: usize, snapshot: &Snapshot<f32>) -> Result<(), Error> {
        let (vectors, places) = self.state();
        let names = places.iter().map(|(name, _)| name.as_str()).chain(["updates", "policy_updates"]);
        snapshot.check(vectors.iter().map(|(name, _, length)| (name.as_str(), *length)), names)?;
        for (name, buffer, _) in &vectors {
            let values = words(snapshot.get(name).expect("it has been checked"));
            // SAFETY: the vector has the length of the buffer, as has been checked, and every agent has it.
            unsafe { self.gpu.upload(self.of(agent, *buffer), values) }?;
        }
        // A failure is behind it.
        let metrics = Metrics::of(snapshot);
        self.agents[agent].updates = metrics.updates;
        let mut status = Status {
            updates: metrics.updates,
            policy_updates: metrics.policy_updates,
            critic_loss: metrics[Metric::CriticLoss],
            value_loss: metrics[Metric::ValueLoss],
            policy_loss: metrics[Metric::PolicyLoss],
            temperature_loss: metrics[Metric::TemperatureLoss],
            q: metrics[Metric::Q],
            entropy: metrics[Metric::Entropy],
            learning_rate: self.learning_rates(),
            ..Status::default()
        };
        for (name, place) in places {
            status.steps[place] = snapshot.count(&name).expect("it has been checked");
        }
        // SAFETY: a `Status` is so many words of plain numbers, without padding.
        let words = unsafe { std::mem::transmute::<Status, [u32; STATUS_WORDS]>(status) };
        let (status, log_alpha) = (self.status.at(agent * STATUS_WORDS), self.of(agent, self.buffers.log_alpha.values));
        // The device works out what the next steps take, as it does while it trains.
        let prepare = kernels::PrepareSteps { status, log_alpha }.launch([1; 3]);
        // SAFETY: the buffer was made for a `Status` of each agent.
        unsafe {
            self.gpu.upload(status, &words)?;
            self.gpu.run(&[prepare])
        }
    }

    /// Puts the observations that an agent is to act upon, `[B, O]`, and noise, `[B, A]`, where [`Self::act_together`] finds
    /// them.
    ///
    /// # Errors
    /// If the GPU fails.
    ///
    /// # Panics
    /// If one of them is of another shape.
    pub fn observe(
        &mut self,
        agent: usize,
        observation: ArrayView2<f32>,
        noise: Option<ArrayView2<f32>>,
    ) -> Result<(), Error> {
        let (_, o, a) = self.sizes();
        let (rows, agents) = (observation.nrows(), self.agents());
        assert_shape("the observation", observation.shape(), &[rows, o]);
        let staged = &mut self.acting(rows)?.staged;
        let put = |to: &mut [f32], from: ArrayView2<f32>| to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
        put(&mut staged[agent * rows * o..][..rows * o], observation);
        if let Some(noise) = noise {
            assert_shape("the noise", noise.shape(), &[rows, a]);
            put(&mut staged[agents * rows * o + agent * rows * a..][..rows * a], noise);
        }
        Ok(())
    }

    /// [`Learner::act`](crate::sac::Learner::act) of all agents upon what each has [observed](Self::observe) last, `rows` observations each, with noise
    /// if the actions are to be `sampled`: `[agents, rows, A]`.
    ///
    /// # Errors
    /// If the GPU fails.
    pub fn act_together(&mut self, rows: usize, sampled: bool) -> Result<Vec<f32>, Error> {
        let (_, o, a) = self.sizes();
        let agents = self.agents();
        self.acting(rows)?;
        let acting = &self.acting[&rows];
        let (graph, length) = if sampled { (acting.sampled, o + a) } else { (acting.deterministic, o) };
        let action = acting.action;
        // SAFETY: the buffers were made for so many rows of each agent.
        unsafe {
            self.gpu.upload(acting.input, words(&acting.staged[..agents * rows * length]))?;
            self.gpu.run_graph(graph)?;
            self.read_buffer(action, agents * rows * a)
        }
    }

    /// Counts an update of an agent, and says what form it has if all agents take theirs.
    pub(super) fn next_update(&mut self, agent: usize) -> Form {
        let updates = &mut self.agents[agent].updates;
        *updates += 1;
        Form { policy_is_due: updates.is_multiple_of(self.config.policy_delay), first: *updates == 1, some_rest: false }
    }

    /// What acting on so many observations needs, which is made when it is first asked for.
    pub(super) fn acting(&mut self, rows: usize) -> Result<&mut Acting, Error> {
        if !self.acting.contains_key(&rows) {
            let acting = self.new_acting(rows)?;
            self.acting.insert(rows, acting);
        }
        Ok(self.acting.get_mut(&rows).expect("it is there now"))
    }

    pub(super) fn new_acting(&mut self, rows: usize) -> Result<Acting, Error> {
        let (_, o, a) = self.sizes();
        let agents = self.agents();
        let all = agents * rows;
        let make = |allocate: Allocate| {
            let passes = passes(allocate, &self.policy, [agents, rows], [0, 0]);
            let passes: Vec<_> = passes.into_iter().map(|pass| pass.apart(self.agent_step)).collect();
            (passes, allocate(all * (o + a)), [allocate(all * 2 * a), allocate(all * a), allocate(all)])
        };
        let ((passes, input, [raw, action, log_prob]), _) = with_buffers(&mut *self.gpu, 1, make)?;
        let distribution = self.distribution();
        let sample = kernels::Sample {
            raw,
            noise: input.at(all * o),
            action,
            log_prob,
            distribution,
            rows: narrow(all),
            actions: narrow(a),
            action_step: narrow(a),
            unused: 0,
        };
        let mode = kernels::Mode { raw, action, distribution, rows: narrow(all), actions: narrow(a) };
        let with = |last: Launch| {
            let (x, y) = (Matrix::of_each(input, o, rows), Matrix::of_each(raw, 2 * a, rows));
            let mut launches = self.policy_forward(&passes, agents, [0, rows], x, y);
            launches.push(last);
            launches
        };
        let (sampled, deterministic) = (with(sample.launch_over(all)), with(mode.launch_over(all)));
        // SAFETY: they are of the buffers that have just been made, with these sizes.
        let (sampled, deterministic) = unsafe { (self.gpu.capture(sampled)?, self.gpu.capture(deterministic)?) };
        Ok(Acting { staged: vec![0.0; all * (o + a)], input, action, sampled, deterministic })
    }

    /// Every network by name, with its place among those of its shape.
    pub(super) fn all_networks(&self) -> Vec<(&'static str, &Parameters, usize)> {
        let (theta, critics, log_alpha) = (&self.buffers.theta, &self.buffers.critics, &self.buffers.log_alpha);
        let mut list = vec![("policy", theta, 0), ("q1", critics, 0), ("q2", critics, 1)];
        list.extend(self.buffers.value_parameters.iter().map(|value| ("value", value, 0)));
        list.push(("log_alpha", log_alpha, 0));
        list
    }

    /// Every vector that updates depend on, by the names and in the order of [`CpuLearner`](crate::sac::CpuLearner)'s, and the places of its counts.
    #[allow(clippy::type_complexity)]
    pub(super) fn state(&self) -> (Vec<(String, Buffer, usize)>, Vec<(String, usize)>) {
        let (mut vectors, mut counts) = (Vec::new(), Vec::new());
        for (name, parameters, i) in self.all_networks() {
            let (length, at) = (parameters.mlp_parameters, i * parameters.step());
            vectors.push((name.to_string(), parameters.values.at(at), length));
            if parameters.has_target {
                vectors.push((format!("target_{name}"), parameters.targets().at(at), length));
            }
            vectors.push((format!("{name}.adam_first_moment"), parameters.first_moment.at(at), length));
            vectors.push((format!("{name}.adam_second_moment"), parameters.second_moment.at(at), length));
            counts.push((format!("{name}.adam_steps"), parameters.first + i));
        }
        (vectors, counts)
    }

    /// The status of so many agents from one on.
    pub(super) fn download_status(&mut self, first: usize, agents: usize) -> Result<Vec<Status>, Error> {
        let mut words = vec![[0_u32; STATUS_WORDS]; agents];
        // SAFETY: the buffer was made with a status of this length for each agent.
        unsafe { self.gpu.download(self.status.at(first * STATUS_WORDS), words.as_flattened_mut()) }?;
        // SAFETY: a `Status` is so many words of plain numbers, and every bit pattern is valid.
        let status = |words| unsafe { std::mem::transmute::<[u32; STATUS_WORDS], Status>(words) };
        Ok(words.into_iter().map(status).collect())
    }

    /// # Safety
    /// The buffer must be so long.
    pub(super) unsafe fn read_buffer(&mut self, from: Buffer, length: usize) -> Result<Vec<f32>, Error> {
        let mut values = vec![0.0; length];
        // SAFETY: the caller promises the same.
        unsafe { self.gpu.download(from, words_mut(&mut values)) }?;
        Ok(values)
    }
}
