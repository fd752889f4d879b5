//! The replay memory: a ring of flat arrays that keeps each observation once.
//!
//! Within an episode the next observation of a transition is the observation of the next row. Only where that does not
//! hold, at the end of an episode, is the next observation stored apart. A transition takes
//! 4·(O + A + 1) + 1 bytes, against 4·(2·O + A + 2) where both observations are stored.
//!
//! *Terminated* stops the bootstrap: discount = γ(1 − terminated). *Truncated* never does; it only ends the episode.

use crate::error::Error;
use crate::nn::Real;
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
    /// r, `[B]`.
    pub reward: Array1<T>,
    /// γ(1 − d), `[B]`, where d tells whether the episode *terminated*.
    pub discount: Array1<T>,
    /// s′, `[B, O]`.
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
    /// The next row, or [`Replay::newest_next`] if this is the newest.
    InRing,
    /// An entry of [`Replay::apart`]; the bootstrap goes on.
    Apart,
    /// An entry of [`Replay::apart`]; the bootstrap stops.
    ApartTerminated,
}

/// A ring of the latest transitions of one environment.
#[derive(Clone, Debug)]
pub struct Replay {
    observation_size: usize,
    action_size: usize,
    capacity: usize,
    /// Transitions ever pushed; transition t lies in row t mod capacity.
    pushed: usize,
    observations: Vec<f32>,
    actions: Vec<f32>,
    rewards: Vec<f32>,
    next: Vec<Next>,
    /// s′ of the newest transition, `[O]`.
    newest_next: Vec<f32>,
    /// Transitions whose s′ is stored apart, oldest first, and those s′, `[len, O]`.
    apart: VecDeque<usize>,
    apart_observations: VecDeque<f32>,
    /// What [`Self::gather`] shows observations through; none, to begin with. They are stored as they are.
    pub normalizer: Option<Normalizer>,
}

impl Replay {
    /// An empty memory for `capacity` transitions. Memory is reserved now, and taken from the system as it fills.
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

    /// A memory as it was after `pushed` transitions, of which `transitions` are those it still held, oldest first, each as
    /// [`Self::write_transition`] writes it.
    ///
    /// # Errors
    /// As from [`Self::new`].
    ///
    /// # Panics
    /// If there are not as many transitions as such a memory holds, or one is of another size.
    pub fn restore<'a>(
        capacity: usize,
        observation_size: usize,
        action_size: usize,
        pushed: usize,
        transitions: impl ExactSizeIterator<Item = &'a [f32]>,
    ) -> Result<Self, Error> {
        let mut replay = Self::new(capacity, observation_size, action_size)?;
        assert_eq!(transitions.len(), pushed.min(capacity));
        let first = pushed - transitions.len();
        if first > 0 {
            // The ring has been filled once; its rows are overwritten one after another.
            replay.observations.resize(capacity * observation_size, 0.0);
            replay.actions.resize(capacity * action_size, 0.0);
            replay.rewards.resize(capacity, 0.0);
            replay.next.resize(capacity, Next::InRing);
            replay.pushed = first;
        }
        transitions.for_each(|transition| replay.push_written(transition));
        Ok(replay)
    }

    /// A memory for `capacity` transitions that begins with the newest of this one, as many as it has room for.
    ///
    /// # Errors
    /// As from [`Self::new`].
    ///
    /// # Panics
    /// As [`Self::new`] does.
    pub fn resized(&self, capacity: usize) -> Result<Self, Error> {
        let mut replay = Self::new(capacity, self.observation_size, self.action_size)?;
        let mut transition = vec![0.0; self.transition_size()];
        for t in self.pushed - self.len().min(capacity)..self.pushed {
            self.write_transition(t % self.capacity, &mut transition);
            replay.push_written(&transition);
        }
        Ok(replay)
    }

    /// [`Self::push`] of what [`Self::write_transition`] has written.
    fn push_written(&mut self, transition: &[f32]) {
        let (observation, rest) = transition.split_at(self.observation_size);
        let (action, rest) = rest.split_at(self.action_size);
        let [reward, not_terminated, next_observation @ ..] = rest else { panic!("a transition has its size") };
        let (reward, terminated) = (*reward, *not_terminated == 0.0);
        // A truncated one shows by the observation that follows it.
        self.push(Transition { observation, action, reward, next_observation, terminated, truncated: false });
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
    /// Transitions of an episode are pushed in order. One whose `observation` is not the `next_observation` of the one
    /// before is accepted as well: the memory then treats it as the start of another episode.
    pub fn push(&mut self, transition: Transition) {
        let Transition { observation, action, reward, next_observation, terminated, truncated } = transition;
        assert_eq!(observation.len(), self.observation_size);
        assert_eq!(next_observation.len(), self.observation_size);
        assert_eq!(action.len(), self.action_size);

        let t = self.pushed;
        if t > 0 && self.next[(t - 1) % self.capacity] == Next::InRing && self.newest_next != observation {
            self.set_apart(t - 1, false);
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
        self.newest_next.copy_from_slice(next_observation);
        self.pushed += 1;
        if terminated || truncated {
            self.set_apart(t, terminated);
        }
    }

    /// Stores s′ of transition `t`, the newest, apart from the ring.
    fn set_apart(&mut self, t: usize, terminated: bool) {
        self.apart.push_back(t);
        self.apart_observations.extend(&self.newest_next);
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
    /// shows them; γ is `gamma`.
    ///
    /// # Panics
    /// If a row is out of range, or if `batch` was made for other sizes.
    pub fn gather<T: Real>(&self, rows: &[usize], gamma: T, batch: &mut Batch<T>) {
        let (o, a) = (self.observation_size, self.action_size);
        assert_eq!(batch.observation.dim(), (rows.len(), o));
        assert_eq!(batch.action.dim(), (rows.len(), a));
        for (i, &row) in rows.iter().enumerate() {
            convert(row_mut(&mut batch.observation, i), &self.observations[row * o..][..o]);
            convert(row_mut(&mut batch.action, i), &self.actions[row * a..][..a]);
            batch.reward[i] = T::of(self.rewards[row].into());
            batch.discount[i] = if self.next[row] == Next::ApartTerminated { T::zero() } else { gamma };
            self.copy_next_observation(row, row_mut(&mut batch.next_observation, i));
        }
        if let Some(normalizer) = &self.normalizer {
            for i in 0..rows.len() {
                normalizer.apply(row_mut(&mut batch.observation, i));
                normalizer.apply(row_mut(&mut batch.next_observation, i));
            }
        }
    }

    /// Writes the transition in `row` as s, a, r, 1 − d, s′, `[2·O + A + 2]`, where d tells whether the episode *terminated*.
    ///
    /// # Panics
    /// If the row, or the length of `to`, is out of range.
    pub fn write_transition(&self, row: usize, to: &mut [f32]) {
        let (o, a) = (self.observation_size, self.action_size);
        assert_eq!(to.len(), self.transition_size());
        to[..o].copy_from_slice(&self.observations[row * o..][..o]);
        to[o..o + a].copy_from_slice(&self.actions[row * a..][..a]);
        to[o + a] = self.rewards[row];
        to[o + a + 1] = if self.next[row] == Next::ApartTerminated { 0.0 } else { 1.0 };
        self.copy_next_observation(row, &mut to[o + a + 2..]);
    }

    fn copy_next_observation<T: Real>(&self, row: usize, to: &mut [T]) {
        let o = self.observation_size;
        let newest = (self.pushed - 1) % self.capacity;
        if self.next[row] != Next::InRing {
            let age = (newest + self.capacity - row) % self.capacity;
            let entry =
                self.apart.binary_search(&(self.pushed - 1 - age)).expect("the end of an episode is stored apart");
            let from = self.apart_observations.range(entry * o..);
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = T::of(from.into()));
        } else if row == newest {
            convert(to, &self.newest_next);
        } else {
            convert(to, &self.observations[(row + 1) % self.capacity * o..][..o]);
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

    proptest! {
        /// Against the naive model that keeps the last `capacity` steps whole.
        #[test]
        fn agrees_with_a_naive_model(
            episodes in prop::collection::vec((1_usize..12, 0_u8..4), 1..20),
            capacity in 1_usize..50,
            o in 1_usize..4,
            a in 1_usize..3,
        ) {
            let gamma = 0.9;
            let mut replay = Replay::new(capacity, o, a).expect("it is small");
            let mut model: Vec<Option<Step>> = vec![None; capacity];
            for (t, step) in steps(&episodes, o, a).iter().enumerate() {
                push(&mut replay, step);
                model[t % capacity] = Some(step.clone());
                prop_assert_eq!(replay.len(), (t + 1).min(capacity));
                let rows: Vec<usize> = (0..replay.len()).collect();
                let mut batch = Batch::zeros(rows.len(), o, a);
                replay.gather(&rows, gamma, &mut batch);
                for (row, expected) in rows.iter().zip(model.iter().flatten()) {
                    prop_assert_eq!(batch.observation.row(*row).to_vec(), expected.observation.clone());
                    prop_assert_eq!(batch.action.row(*row).to_vec(), expected.action.clone());
                    prop_assert_eq!(batch.reward[*row], expected.reward);
                    prop_assert_eq!(batch.next_observation.row(*row).to_vec(), expected.next_observation.clone());
                    prop_assert_eq!(batch.discount[*row], if expected.terminated { 0.0 } else { gamma });
                    let mut whole = vec![0.0; 2 * o + a + 2];
                    replay.write_transition(*row, &mut whole);
                    let not_terminated = if expected.terminated { 0.0 } else { 1.0 };
                    let parts = [&expected.observation[..], &expected.action, &[expected.reward, not_terminated]];
                    prop_assert_eq!(whole, [parts.concat(), expected.next_observation.clone()].concat());
                }
            }
        }
    }

    /// A memory that is restored draws what the other draws, and goes on like it.
    #[test]
    fn a_restored_memory_goes_on_like_the_first() {
        let (o, a) = (2, 1);
        let all = steps(&[(5, 0), (4, 1), (6, 2), (3, 3), (9, 1)], o, a);
        for (capacity, until) in (1..30).flat_map(|capacity| (0..all.len()).map(move |until| (capacity, until))) {
            let mut replay = Replay::new(capacity, o, a).expect("it is small");
            all[..until].iter().for_each(|step| push(&mut replay, step));
            let oldest = replay.pushed() - replay.len();
            let rows: Vec<Vec<f32>> = (oldest..until)
                .map(|t| {
                    let mut row = vec![0.0; 2 * o + a + 2];
                    replay.write_transition(t % capacity, &mut row);
                    row
                })
                .collect();
            let rows = rows.iter().map(Vec::as_slice);
            let mut restored = Replay::restore(capacity, o, a, until, rows).expect("it is small");
            for step in &all[until..] {
                push(&mut replay, step);
                push(&mut restored, step);
                assert_eq!((replay.pushed(), replay.len()), (restored.pushed(), restored.len()));
                let rows: Vec<usize> = (0..replay.len()).collect();
                let (mut one, mut other) = (Batch::zeros(rows.len(), o, a), Batch::zeros(rows.len(), o, a));
                replay.gather(&rows, 0.9_f32, &mut one);
                restored.gather(&rows, 0.9_f32, &mut other);
                assert_eq!(one.next_observation, other.next_observation, "capacity {capacity}, until {until}");
                assert_eq!((one.observation, one.action), (other.observation, other.action));
                assert_eq!((one.reward, one.discount), (other.reward, other.discount));
            }
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
            let mut second = first.resized(room).expect("it is small");
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
}
