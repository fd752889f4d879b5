//! The replay memory: a ring of flat arrays that keeps each observation once.
//!
//! Within an episode the next observation of a transition is the observation of the next row. Only where that does not
//! hold, at the end of an episode, is the next observation stored apart. A transition takes
//! 4·(O + A + 1) + 1 bytes, against 4·(2·O + A + 2) where both observations are stored.
//!
//! N environments push their transitions in turn, so that each of them has every Nth row, a ring of its own within the ring:
//! the next row of its episode lies N further on.
//!
//! *Terminated* stops the bootstrap: discount = γ(1 − terminated). *Truncated* never does; it only ends the episode.
//!
//! Returns over several steps are summed when a batch is gathered, from the rows as they are then:
//! r + γr′ + … + γᵏ⁻¹r⁽ᵏ⁻¹⁾, bootstrapped from the observation after k steps with the discount γᵏ(1 − d)
//! (Sutton and Barto, *Reinforcement Learning*, 2nd edition, section 7.1, there with n for k). They are sums of rewards
//! alone: the entropy of the actions on the way is not in them, see [`Config::n_step`](crate::config::Config::n_step).

use crate::error::Error;
use crate::nn::{Real, assert_shape};
use crate::normalizer::Normalizer;
use ndarray::{Array1, Array2};
use rand::Rng;
use std::collections::VecDeque;

/// `B` transitions, each of them a row.
#[derive(Clone, Debug, Default)]
pub struct Batch<T> {
    /// s, `[B, O]`.
    pub observation: Array2<T>,
    /// a in \[−1, 1], `[B, A]`.
    pub action: Array2<T>,
    /// r, `[B]`; over k steps r + γr′ + … + γᵏ⁻¹r⁽ᵏ⁻¹⁾.
    pub reward: Array1<T>,
    /// γᵏ(1 − d), `[B]`, where d tells whether the episode *terminated* with the last of those steps.
    pub discount: Array1<T>,
    /// s′ after those steps, `[B, O]`.
    pub next_observation: Array2<T>,
}

impl<T: Real> Batch<T> {
    /// Room for `batch_size` transitions.
    pub fn zeros(batch_size: usize, observation_size: usize, action_size: usize) -> Self {
        Self {
            observation: Array2::zeros((batch_size, observation_size)),
            action: Array2::zeros((batch_size, action_size)),
            reward: Array1::zeros(batch_size),
            discount: Array1::zeros(batch_size),
            next_observation: Array2::zeros((batch_size, observation_size)),
        }
    }

    /// Panics unless there are `b` transitions of `o` observation and `a` action dimensions.
    #[track_caller]
    pub(crate) fn assert_shapes(&self, [b, o, a]: [usize; 3]) {
        assert_shape("the batch's observation", self.observation.shape(), &[b, o]);
        assert_shape("the batch's action", self.action.shape(), &[b, a]);
        assert_shape("the batch's reward", self.reward.shape(), &[b]);
        assert_shape("the batch's discount", self.discount.shape(), &[b]);
        assert_shape("the batch's next_observation", self.next_observation.shape(), &[b, o]);
    }
}

/// One step of an environment, as borrowed by [`Replay::push`].
#[derive(Clone, Copy, Debug)]
pub struct Transition<'a> {
    /// s, `[O]`.
    pub observation: &'a [f32],
    /// a in \[−1, 1], `[A]`.
    pub action: &'a [f32],
    /// r
    pub reward: f32,
    /// s′, `[O]`.
    pub next_observation: &'a [f32],
    /// Whether the episode reached a terminal state: nothing follows, so nothing is bootstrapped.
    pub terminated: bool,
    /// Whether the episode was cut off here although it could have gone on, by a time limit for instance.
    pub truncated: bool,
}

/// What follows a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The row of the same environment that follows, or [`Replay::newest_next`] if this is its newest.
    InRing,
    /// An entry of [`Replay::apart`]; the bootstrap goes on.
    Apart,
    /// An entry of [`Replay::apart`]; the bootstrap stops.
    ApartTerminated,
}

/// A ring of the latest transitions of one environment, or of several in turn.
#[derive(Clone, Debug)]
pub struct Replay {
    environments: usize,
    observation_size: usize,
    action_size: usize,
    capacity: usize,
    /// Transitions ever pushed; transition t lies in row t mod capacity.
    pushed: usize,
    observations: Vec<f32>,
    actions: Vec<f32>,
    rewards: Vec<f32>,
    next: Vec<Next>,
    /// s′ of the newest transition of each environment, `[environments, O]`; that of transition t lies in row t mod
    /// environments.
    newest_next: Vec<f32>,
    /// Transitions whose s′ is stored apart, oldest first, and those s′, `[len, O]`.
    apart: VecDeque<usize>,
    apart_observations: VecDeque<f32>,
    /// What [`Self::gather`] shows observations through; none, to begin with. They are stored as they are.
    pub normalizer: Option<Normalizer>,
}

impl Replay {
    /// An empty memory for `capacity` transitions of one environment. Memory is reserved now, and taken from the system as
    /// it fills.
    ///
    /// # Errors
    /// If so much memory cannot be reserved.
    ///
    /// # Panics
    /// If `capacity` is zero.
    pub fn new(capacity: usize, observation_size: usize, action_size: usize) -> Result<Self, Error> {
        assert!(capacity > 0, "a replay memory holds at least one transition");
        fn reserve<T>(capacity: usize, width: usize) -> Result<Vec<T>, Error> {
            let too_large = || Error::Memory { transitions: capacity };
            let mut vec = Vec::new();
            let length = capacity.checked_mul(width).ok_or_else(too_large)?;
            vec.try_reserve_exact(length).map_err(|_| too_large())?;
            Ok(vec)
        }
        Ok(Self {
            environments: 1,
            observation_size,
            action_size,
            capacity,
            pushed: 0,
            observations: reserve(capacity, observation_size)?,
            actions: reserve(capacity, action_size)?,
            rewards: reserve(capacity, 1)?,
            next: reserve(capacity, 1)?,
            newest_next: vec![0.0; observation_size],
            apart: VecDeque::new(),
            apart_observations: VecDeque::new(),
            normalizer: None,
        })
    }

    /// Numbers that [`Self::write_transition`] writes, 2·O + A + 2.
    pub fn transition_size(&self) -> usize {
        2 * self.observation_size + self.action_size + 2
    }

    /// The most transitions that it holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Number of transitions ever pushed; transition t, counted from 0, lies in row t mod [`Self::capacity`].
    pub fn pushed(&self) -> usize {
        self.pushed
    }

    /// This memory, which must be empty, for transitions of so many environments, which are pushed in turn.
    ///
    /// # Panics
    /// If something has been pushed, or the capacity is no multiple of `environments`.
    #[must_use]
    pub fn of_environments(mut self, environments: usize) -> Self {
        assert_eq!(self.pushed, 0, "transitions have been pushed in another order");
        assert!(environments > 0 && self.capacity.is_multiple_of(environments), "each environment has as many rows");
        self.environments = environments;
        self.newest_next = vec![0.0; environments * self.observation_size];
        self
    }

    /// How many environments push their transitions in turn.
    pub fn environments(&self) -> usize {
        self.environments
    }

    /// This memory, which must be empty, as one that was as large was after `pushed` transitions. `transitions` are those it
    /// still held, oldest first, each as [`Self::write_transition`] writes it, and `cuts` its [`Self::cuts`].
    ///
    /// # Panics
    /// If something has been pushed, if there are not as many transitions as such a memory holds, or one is of another size.
    #[must_use]
    pub fn restored<'a>(
        mut self,
        pushed: usize,
        cuts: &[u64],
        transitions: impl ExactSizeIterator<Item = &'a [f32]>,
    ) -> Self {
        assert_eq!((self.pushed, transitions.len()), (0, pushed.min(self.capacity)));
        let first = pushed - transitions.len();
        if first > 0 {
            // The ring has been filled once; its rows are overwritten one after another.
            self.observations.resize(self.capacity * self.observation_size, 0.0);
            self.actions.resize(self.capacity * self.action_size, 0.0);
            self.rewards.resize(self.capacity, 0.0);
            self.next.resize(self.capacity, Next::InRing);
            self.pushed = first;
        }
        for transition in transitions {
            let truncated = cuts.binary_search(&(self.pushed as u64)).is_ok();
            self.push_written(transition, truncated);
        }
        self
    }

    /// The transitions, by number and in order, that were truncated although what is stored does not show it: because
    /// nothing follows them yet, or because the episode after them begins with the very observation that they ended with.
    pub fn cuts(&self) -> Vec<u64> {
        let o = self.observation_size;
        let cut = |(entry, &t): (usize, &usize)| {
            let following = (t + self.environments) % self.capacity * o;
            let unseen = t + self.environments >= self.pushed
                || self
                    .apart_observations
                    .range(entry * o..)
                    .zip(&self.observations[following..][..o])
                    .all(|(a, b)| a == b);
            (self.next[t % self.capacity] == Next::Apart && unseen).then_some(t as u64)
        };
        self.apart.iter().enumerate().filter_map(cut).collect()
    }

    /// A memory for `capacity` transitions of `environments` that begins with the newest of this one, as many as it has room
    /// for. Where the environments are not as many as here, their transitions are taken one environment after another and
    /// dealt out anew, so that those of an episode still follow each other.
    ///
    /// # Errors
    /// As from [`Self::new`].
    ///
    /// # Panics
    /// As [`Self::new`] and [`Self::of_environments`] do.
    pub fn resized(&self, capacity: usize, environments: usize) -> Result<Self, Error> {
        let mut replay = Self::new(capacity, self.observation_size, self.action_size)?.of_environments(environments);
        let mut kept: Vec<_> = (self.pushed - self.len().min(capacity)..self.pushed).collect();
        if environments != self.environments {
            kept.sort_by_key(|t| t % self.environments);
            let (rest, dealt) = kept.split_at(kept.len() % environments);
            let rounds = dealt.len() / environments;
            let dealt = (0..dealt.len()).map(|i| dealt[i % environments * rounds + i / environments]);
            kept = rest.iter().copied().chain(dealt).collect();
        }
        let mut transition = vec![0.0; self.transition_size()];
        for row in kept.into_iter().map(|t| t % self.capacity) {
            self.write_transition(row, &mut transition);
            replay.push_written(&transition, self.next[row] == Next::Apart);
        }
        Ok(replay)
    }

    /// [`Self::push`] of what [`Self::write_transition`] has written.
    fn push_written(&mut self, transition: &[f32], truncated: bool) {
        let (observation, rest) = transition.split_at(self.observation_size);
        let (action, rest) = rest.split_at(self.action_size);
        let [reward, not_terminated, next_observation @ ..] = rest else { panic!("a transition has its size") };
        let (reward, terminated) = (*reward, *not_terminated == 0.0);
        self.push(Transition { observation, action, reward, next_observation, terminated, truncated });
    }

    /// Number of transitions that can be drawn.
    pub fn len(&self) -> usize {
        self.next.len()
    }

    /// Whether nothing has been pushed yet.
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// Bytes that the stored transitions take.
    pub fn bytes(&self) -> usize {
        let floats = self.observations.len()
            + self.actions.len()
            + self.rewards.len()
            + self.newest_next.len()
            + self.apart_observations.len();
        floats * size_of::<f32>() + self.next.len() * size_of::<Next>() + self.apart.len() * size_of::<usize>()
    }

    /// Adds a transition, in place of the oldest if the memory is full.
    ///
    /// Transitions of an episode are pushed in order; several environments push one each in turn. One whose `observation` is
    /// not the `next_observation` of the one before it is accepted as well: the memory then treats it as the start of another
    /// episode.
    ///
    /// # Panics
    /// If an observation or the action is of another length than the memory was made for.
    pub fn push(&mut self, transition: Transition) {
        let Transition { observation, action, reward, next_observation, terminated, truncated } = transition;
        assert_shape("the observation", &[observation.len()], &[self.observation_size]);
        assert_shape("the next_observation", &[next_observation.len()], &[self.observation_size]);
        assert_shape("the action", &[action.len()], &[self.action_size]);

        let t = self.pushed;
        if let Some(before) = t.checked_sub(self.environments)
            && self.next[before % self.capacity] == Next::InRing
            && self.newest_next(before) != observation
        {
            self.set_apart(before, false);
        }
        let row = t % self.capacity;
        if row == self.next.len() {
            self.observations.extend_from_slice(observation);
            self.actions.extend_from_slice(action);
            self.rewards.push(reward);
            self.next.push(Next::InRing);
        } else {
            if self.apart.front().is_some_and(|oldest| oldest + self.capacity == t) {
                self.apart.pop_front();
                self.apart_observations.drain(..self.observation_size);
            }
            self.observations[row * self.observation_size..][..self.observation_size].copy_from_slice(observation);
            self.actions[row * self.action_size..][..self.action_size].copy_from_slice(action);
            self.rewards[row] = reward;
            self.next[row] = Next::InRing;
        }
        let newest = t % self.environments * self.observation_size;
        self.newest_next[newest..][..self.observation_size].copy_from_slice(next_observation);
        self.pushed += 1;
        if terminated || truncated {
            self.set_apart(t, terminated);
        }
    }

    /// s′ of transition `t`, the newest of its environment.
    fn newest_next(&self, t: usize) -> &[f32] {
        &self.newest_next[t % self.environments * self.observation_size..][..self.observation_size]
    }

    /// Stores s′ of transition `t`, the newest of its environment, apart from the ring.
    fn set_apart(&mut self, t: usize, terminated: bool) {
        // Of other environments there may be later ones, but never more than a few.
        let entry = self.apart.partition_point(|&other| other < t);
        self.apart.insert(entry, t);
        for i in 0..self.observation_size {
            let value = self.newest_next[t % self.environments * self.observation_size + i];
            self.apart_observations.insert(entry * self.observation_size + i, value);
        }
        self.next[t % self.capacity] = if terminated { Next::ApartTerminated } else { Next::Apart };
    }

    /// Draws rows uniformly, with replacement.
    ///
    /// # Panics
    /// If nothing has been pushed yet.
    pub fn sample(&self, rng: &mut impl Rng, rows: &mut [usize]) {
        rows.iter_mut().for_each(|row| *row = rng.random_range(0..self.len()));
    }

    /// Copies the transitions in `rows` (each below [`Self::len`]) into `batch`, with observations as [`Self::normalizer`]
    /// shows them, and returns over `n_step` steps, or fewer where the episode ends sooner or no more of it is stored yet; γ is
    /// `gamma`.
    ///
    /// # Panics
    /// If a row is out of range, or if `batch` was made for other sizes.
    pub fn gather<T: Real>(&self, rows: &[usize], gamma: T, n_step: usize, batch: &mut Batch<T>) {
        let (o, a) = (self.observation_size, self.action_size);
        batch.assert_shapes([rows.len(), o, a]);
        for (i, &row) in rows.iter().enumerate() {
            let (reward, weight, last) = self.n_step_return(row, gamma, n_step);
            convert(row_mut(&mut batch.observation, i), &self.observations[row * o..][..o]);
            convert(row_mut(&mut batch.action, i), &self.actions[row * a..][..a]);
            batch.reward[i] = reward;
            batch.discount[i] = if self.next[last] == Next::ApartTerminated { T::zero() } else { weight * gamma };
            self.copy_next_observation(last, row_mut(&mut batch.next_observation, i));
        }
        if let Some(normalizer) = &self.normalizer {
            for i in 0..rows.len() {
                normalizer.apply(row_mut(&mut batch.observation, i));
                normalizer.apply(row_mut(&mut batch.next_observation, i));
            }
        }
    }

    /// The sum r + γr′ + … + γᵏ⁻¹r⁽ᵏ⁻¹⁾ from `row` on, γᵏ⁻¹, and the row of its last reward; k is `n_step`, or less where the
    /// episode ends sooner or no more of it is stored yet.
    fn n_step_return<T: Real>(&self, row: usize, gamma: T, n_step: usize) -> (T, T, usize) {
        let (mut reward, mut weight, mut last) = (T::of(self.rewards[row].into()), T::one(), row);
        for _ in 1..n_step {
            if self.next[last] != Next::InRing || self.age(last) < self.environments {
                break;
            }
            last = self.following(last);
            weight *= gamma;
            reward += weight * T::of(self.rewards[last].into());
        }
        (reward, weight, last)
    }

    /// How many transitions have been pushed after the one in `row`.
    fn age(&self, row: usize) -> usize {
        let newest = (self.pushed - 1) % self.capacity;
        if row <= newest { newest - row } else { newest + self.capacity - row }
    }

    /// The row of the same environment after `row`, which is not its newest.
    fn following(&self, row: usize) -> usize {
        let following = row + self.environments;
        if following < self.capacity { following } else { following - self.capacity }
    }

    /// Writes the transition in `row` as s, a, r, 1 − d, s′, `[2·O + A + 2]`, where d tells whether the episode *terminated*.
    ///
    /// # Panics
    /// If the row, or the length of `to`, is out of range.
    pub fn write_transition(&self, row: usize, to: &mut [f32]) {
        self.write_n_step_transition(row, 1.0, 1, to);
    }

    /// As [`Self::write_transition`], with the return over `n_step` steps for r, γᵏ⁻¹(1 − d) for 1 − d, and s′ after k steps;
    /// see [`Self::gather`].
    ///
    /// # Panics
    /// As [`Self::write_transition`] does.
    pub fn write_n_step_transition(&self, row: usize, gamma: f32, n_step: usize, to: &mut [f32]) {
        let (o, a) = (self.observation_size, self.action_size);
        assert_eq!(to.len(), self.transition_size());
        let (reward, weight, last) = self.n_step_return(row, gamma, n_step);
        to[..o].copy_from_slice(&self.observations[row * o..][..o]);
        to[o..o + a].copy_from_slice(&self.actions[row * a..][..a]);
        to[o + a] = reward;
        to[o + a + 1] = if self.next[last] == Next::ApartTerminated { 0.0 } else { weight };
        self.copy_next_observation(last, &mut to[o + a + 2..]);
    }

    fn copy_next_observation<T: Real>(&self, row: usize, to: &mut [T]) {
        let (o, age) = (self.observation_size, self.age(row));
        let t = self.pushed - 1 - age;
        if self.next[row] != Next::InRing {
            let entry = self.apart.binary_search(&t).expect("the end of an episode is stored apart");
            let from = self.apart_observations.range(entry * o..);
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = T::of(from.into()));
        } else if age < self.environments {
            convert(to, self.newest_next(t));
        } else {
            convert(to, &self.observations[self.following(row) * o..][..o]);
        }
    }
}

fn convert<T: Real>(to: &mut [T], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = T::of(from.into()));
}

fn row_mut<T>(array: &mut Array2<T>, i: usize) -> &mut [T] {
    array.row_mut(i).into_slice().expect("a batch lies in row-major order")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One step as a value that owns its parts.
    #[derive(Clone, Debug)]
    struct Step {
        observation: Vec<f32>,
        action: Vec<f32>,
        reward: f32,
        next_observation: Vec<f32>,
        terminated: bool,
        truncated: bool,
    }

    fn push(replay: &mut Replay, step: &Step) {
        replay.push(Transition {
            observation: &step.observation,
            action: &step.action,
            reward: step.reward,
            next_observation: &step.next_observation,
            terminated: step.terminated,
            truncated: step.truncated,
        });
    }

    /// Episodes as (length, how it ends): 0 terminated, 1 truncated, 2 both, 3 broken off without a word.
    fn steps(episodes: &[(usize, u8)], o: usize, a: usize) -> Vec<Step> {
        let mut counter = 0.0;
        let mut values = |n: usize| -> Vec<f32> {
            (0..n)
                .map(|_| {
                    counter += 1.0;
                    counter
                })
                .collect()
        };
        let mut steps = Vec::new();
        for &(length, end) in episodes {
            let mut observation = values(o);
            for i in 0..length {
                let next_observation = values(o);
                let last = i + 1 == length;
                steps.push(Step {
                    observation: std::mem::replace(&mut observation, next_observation.clone()),
                    action: values(a),
                    reward: values(1)[0],
                    next_observation,
                    terminated: last && (end == 0 || end == 2),
                    truncated: last && (end == 1 || end == 2),
                });
            }
        }
        steps
    }

    /// The steps of several environments, no number twice.
    fn of_each(episodes: &[Vec<(usize, u8)>], o: usize, a: usize) -> Vec<Vec<Step>> {
        let mut environments: Vec<_> = episodes.iter().map(|episodes| steps(episodes, o, a)).collect();
        for (i, steps) in environments.iter_mut().enumerate() {
            for Step { observation, action, reward, next_observation, .. } in steps {
                let numbers = observation.iter_mut().chain(action).chain([reward]).chain(next_observation);
                numbers.for_each(|number| *number += 10_000.0 * i as f32);
            }
        }
        environments
    }

    /// What is stored of the last `capacity` steps that environments have pushed in turn: each with its environment and its
    /// number there.
    fn in_turn(environments: &[Vec<Step>], pushed: usize, capacity: usize) -> Vec<(usize, usize)> {
        let n = environments.len();
        (pushed - pushed.min(capacity)..pushed).map(|t| (t % n, t / n)).collect()
    }

    /// r, γᵏ⁻¹(1 − d) and s′ over up to `n_step` steps from step number `from` of an environment that has made `made`.
    fn naive_return(steps: &[Step], made: usize, from: usize, gamma: f64, n_step: usize) -> (f64, f64, Vec<f32>) {
        let (mut reward, mut weight, mut i) = (f64::from(steps[from].reward), 1.0, from);
        for _ in 1..n_step {
            let goes_on = i + 1 < made
                && !steps[i].terminated
                && !steps[i].truncated
                && steps[i + 1].observation == steps[i].next_observation;
            if !goes_on {
                break;
            }
            i += 1;
            weight *= gamma;
            reward += weight * f64::from(steps[i].reward);
        }
        (reward, if steps[i].terminated { 0.0 } else { weight }, steps[i].next_observation.clone())
    }

    /// Everything that can be gathered or written of a memory.
    fn content(replay: &Replay, n_step: usize) -> (Batch<f32>, Vec<Vec<f32>>) {
        let rows: Vec<usize> = (0..replay.len()).collect();
        let mut batch = Batch::zeros(rows.len(), replay.observation_size, replay.action_size);
        replay.gather(&rows, 0.9, n_step, &mut batch);
        let write = |&row: &usize| {
            let mut whole = vec![0.0; replay.transition_size()];
            replay.write_transition(row, &mut whole);
            whole
        };
        (batch, rows.iter().map(write).collect())
    }

    fn assert_same(one: &Replay, other: &Replay, n_step: usize) {
        assert_eq!((one.pushed(), one.len(), one.cuts()), (other.pushed(), other.len(), other.cuts()));
        let ((one, one_rows), (other, other_rows)) = (content(one, n_step), content(other, n_step));
        assert_eq!(one_rows, other_rows);
        assert_eq!((one.observation, one.action), (other.observation, other.action));
        assert_eq!((one.reward, one.discount), (other.reward, other.discount));
        assert_eq!(one.next_observation, other.next_observation);
    }

    fn restored(replay: &Replay) -> Replay {
        let (o, a, capacity, pushed) = (replay.observation_size, replay.action_size, replay.capacity, replay.pushed);
        let (_, rows) = content(replay, 1);
        let held = pushed - replay.len()..pushed;
        let oldest_first: Vec<&[f32]> = held.map(|t| rows[t % capacity].as_slice()).collect();
        let empty = Replay::new(capacity, o, a).expect("it is small").of_environments(replay.environments);
        empty.restored(pushed, &replay.cuts(), oldest_first.into_iter())
    }

    proptest! {
        /// Against the naive model that keeps the last `capacity` steps whole, environment by environment.
        #[test]
        fn agrees_with_a_naive_model(
            episodes in prop::collection::vec(prop::collection::vec((1_usize..12, 0_u8..4), 1..10), 1..5),
            rows_of_each in 1_usize..20,
            n_step in 1_usize..6,
            o in 1_usize..4,
            a in 1_usize..3,
        ) {
            let gamma = 0.9;
            let environments = of_each(&episodes, o, a);
            let n = environments.len();
            let rounds = environments.iter().map(Vec::len).min().expect("there is one");
            let capacity = n * rows_of_each;
            let mut replay = Replay::new(capacity, o, a).expect("it is small").of_environments(n);
            for t in 0..n * rounds {
                push(&mut replay, &environments[t % n][t / n]);
                let pushed = t + 1;
                prop_assert_eq!((replay.pushed(), replay.len()), (pushed, pushed.min(capacity)));
                let rows: Vec<usize> = (0..replay.len()).collect();
                let mut batch = Batch::zeros(rows.len(), o, a);
                replay.gather(&rows, gamma, n_step, &mut batch);
                for (held, (environment, i)) in in_turn(&environments, pushed, capacity).into_iter().enumerate() {
                    let row = (pushed - replay.len() + held) % capacity;
                    let (steps, made) = (&environments[environment], (pushed + n - 1 - environment) / n);
                    let expected = &steps[i];
                    let (reward, weight, next_observation) = naive_return(steps, made, i, gamma, n_step);
                    prop_assert_eq!(batch.observation.row(row).to_vec(), to_f64(&expected.observation));
                    prop_assert_eq!(batch.action.row(row).to_vec(), to_f64(&expected.action));
                    prop_assert_eq!(batch.reward[row], reward);
                    prop_assert_eq!(batch.next_observation.row(row).to_vec(), to_f64(&next_observation));
                    prop_assert_eq!(batch.discount[row], weight * gamma);
                    let mut whole = vec![0.0; 2 * o + a + 2];
                    replay.write_transition(row, &mut whole);
                    let not_terminated = if expected.terminated { 0.0 } else { 1.0 };
                    let parts = [&expected.observation[..], &expected.action, &[expected.reward, not_terminated]];
                    prop_assert_eq!(&whole, &[parts.concat(), expected.next_observation.clone()].concat());
                    replay.write_n_step_transition(row, gamma as f32, n_step, &mut whole);
                    let (reward, weight, _) = naive_return(steps, made, i, f64::from(gamma as f32), n_step);
                    prop_assert!((f64::from(whole[o + a]) - reward).abs() <= 1e-6 * reward.abs().max(1.0));
                    prop_assert!((f64::from(whole[o + a + 1]) - weight).abs() <= 1e-6);
                    prop_assert_eq!(&whole[o + a + 2..], &next_observation[..]);
                }
            }
        }

        /// A memory that is restored gives what the other gives, and goes on like it: also where an episode begins with the
        /// observation that the one before was truncated at.
        #[test]
        fn a_restored_memory_goes_on_like_the_first(
            episodes in prop::collection::vec(prop::collection::vec((1_usize..6, 0_u8..4), 1..8), 1..4),
            rows_of_each in 1_usize..12,
            n_step in 1_usize..5,
            until in 0_usize..40,
            constant in any::<bool>(),
        ) {
            let mut environments = of_each(&episodes, 2, 1);
            if constant {
                for step in environments.iter_mut().flatten() {
                    (step.observation, step.next_observation) = (vec![0.5; 2], vec![0.5; 2]);
                }
            }
            let n = environments.len();
            let rounds = environments.iter().map(Vec::len).min().expect("there is one");
            let until = until.min(rounds);
            let mut replay = Replay::new(n * rows_of_each, 2, 1).expect("it is small").of_environments(n);
            let push_round = |replay: &mut Replay, i: usize| environments.iter().for_each(|steps| push(replay, &steps[i]));
            (0..until).for_each(|i| push_round(&mut replay, i));
            let mut other = restored(&replay);
            for i in until..rounds {
                push_round(&mut replay, i);
                push_round(&mut other, i);
                assert_same(&replay, &other, n_step);
            }
        }
    }

    fn to_f64(values: &[f32]) -> Vec<f64> {
        values.iter().map(|&value| value.into()).collect()
    }

    /// Where an episode is truncated, its return ends, although the next begins with the observation it ended with.
    #[test]
    fn a_return_never_goes_beyond_a_truncated_episode() {
        let mut replay = Replay::new(4, 1, 1).expect("it is small");
        for (reward, truncated) in [(1.0, false), (10.0, true), (100.0, false), (1000.0, false)] {
            let step = Step {
                observation: vec![0.5],
                action: vec![0.0],
                reward,
                next_observation: vec![0.5],
                terminated: false,
                truncated,
            };
            push(&mut replay, &step);
        }
        for replay in [&replay, &restored(&replay), &replay.resized(4, 1).expect("it is small")] {
            let mut batch = Batch::<f64>::zeros(4, 1, 1);
            replay.gather(&[0, 1, 2, 3], 0.5, 3, &mut batch);
            assert_eq!(batch.reward.to_vec(), [6.0, 10.0, 600.0, 1000.0]);
            assert_eq!(batch.discount.to_vec(), [0.25, 0.5, 0.25, 0.5]);
        }
    }

    /// Transitions from another memory are the newest of that one, also those after which another episode begins: the last
    /// s′ of the old stays what it was.
    #[test]
    fn a_memory_begins_with_the_newest_of_another() {
        let (o, a, width) = (2, 1, 2 * 2 + 1 + 2);
        let (old, new) =
            (steps(&[(5, 0), (4, 1), (6, 2), (3, 3), (4, 1), (2, 3)], o, a), steps(&[(7, 1), (3, 3)], o, a));
        let row = |replay: &Replay, t: usize| {
            let mut row = vec![0.0; width];
            replay.write_transition(t % replay.capacity(), &mut row);
            row
        };
        for (capacity, until, room) in
            (1..30).flat_map(|c| (0..=old.len()).flat_map(move |u| [1, 4, 40].map(|r| (c, u, r))))
        {
            let mut first = Replay::new(capacity, o, a).expect("it is small");
            old[..until].iter().for_each(|step| push(&mut first, step));
            let mut second = first.resized(room, 1).expect("it is small");
            let kept = first.len().min(room);
            assert_eq!((second.pushed(), second.len(), second.capacity()), (kept, kept, room));
            let expected: Vec<_> = (until - kept..until).map(|t| row(&first, t)).collect();
            for (n, step) in new.iter().enumerate() {
                push(&mut second, step);
                let still = (second.pushed() - second.len()).min(kept)..kept;
                still.for_each(|t| assert_eq!(row(&second, t), expected[t], "{capacity}, {until}, {room}, {n}"));
                let whole = row(&second, kept + n);
                assert_eq!((&whole[..o], &whole[width - o..]), (&step.observation[..], &step.next_observation[..]));
            }
        }
    }

    /// Dealt out to another number of environments, the newest transitions are all there, as they were, and those of an
    /// episode still follow each other: the observations between them take no room of their own.
    #[test]
    fn a_memory_is_dealt_out_to_another_number_of_environments() {
        let (o, a) = (2, 1);
        for (from, to) in [(1, 3), (3, 1), (4, 3), (2, 4)] {
            let environments = of_each(&vec![vec![(60, 1)]; from], o, a);
            let mut first = Replay::new(50 * from, o, a).expect("it is small").of_environments(from);
            (0..60).for_each(|i| environments.iter().for_each(|steps| push(&mut first, &steps[i])));
            for capacity in [12, 36, 600] {
                let second = first.resized(capacity, to).expect("it is small");
                let kept = first.len().min(capacity);
                assert_eq!((second.len(), second.environments()), (kept, to));
                let rows = content(&first, 1).1;
                let newest = first.pushed() - kept..first.pushed();
                let mut expected: Vec<_> = newest.map(|t| rows[t % first.capacity()].clone()).collect();
                expected.sort_by(|one, other| one.partial_cmp(other).expect("they are numbers"));
                let mut found = content(&second, 1).1;
                found.sort_by(|one, other| one.partial_cmp(other).expect("they are numbers"));
                assert_eq!(found, expected, "{from} to {to}, {capacity}");
                assert!(second.apart.len() <= from + to + to, "{from} to {to}, {capacity}: {}", second.apart.len());
            }
        }
    }

    /// The bar is 60 % of the bytes of two observations, an action, a reward and a terminated flag as f32.
    #[test]
    fn takes_at_most_sixty_percent_of_storing_both_observations() {
        let (o, a, episode, episodes) = (17, 6, 1000, 20);
        let mut replay = Replay::new(episode * episodes, o, a).expect("it is small");
        for step in steps(&vec![(episode, 1); episodes], o, a) {
            push(&mut replay, &step);
        }
        let both = episode * episodes * (2 * o + a + 2) * size_of::<f32>();
        let share = replay.bytes() as f64 / both as f64;
        println!("bytes of the replay over storing both observations: {share:.3}");
        assert!(share <= 0.6);
    }

    #[test]
    fn a_capacity_beyond_memory_is_an_error() {
        assert!(Replay::new(usize::MAX / 1024, 17, 6).is_err());
    }

    #[test]
    #[should_panic(expected = "the next_observation must be of shape [3], not [2]")]
    fn a_transition_of_another_shape_is_named() {
        let (observation, next_observation) = (&[0.0; 3][..], &[0.0; 2][..]);
        let (action, reward, terminated, truncated) = (&[0.0][..], 0.0, false, false);
        Replay::new(10, 3, 1).expect("there is memory").push(Transition {
            observation,
            action,
            reward,
            next_observation,
            terminated,
            truncated,
        });
    }
}
