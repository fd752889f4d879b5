//! What updates measure: one table, by which learners, files, TensorBoard and pictures go.

use super::Snapshot;
use std::ops::{Index, IndexMut};

/// Over what the mean of a metric is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// All updates.
    Update,
    /// Updates at which the policy took a step.
    PolicyUpdate,
    /// It is no mean, but the present value.
    Now,
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $metric:ident: $name:literal, $tag:literal, $label:literal, $per:ident;)*) => {
        /// Something that updates measure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Metric {
            $($(#[$doc])* $metric,)*
        }

        impl Metric {
            /// All of them, in the order of their columns.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$metric),*];

            /// The name of its column in `metrics.csv`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$metric => $name,)* }
            }

            /// What TensorBoard shows it under.
            pub fn tag(self) -> &'static str {
                match self { $(Self::$metric => $tag,)* }
            }

            /// What a picture calls it.
            pub fn label(self) -> &'static str {
                match self { $(Self::$metric => $label,)* }
            }

            /// Over what its mean is taken.
            pub fn per(self) -> Per {
                match self { $(Self::$metric => Per::$per,)* }
            }
        }
    };
}

metrics! {
    /// J_Q, summed over the critics.
    CriticLoss: "critic_loss", "loss/critic", "critic loss", Update;
    /// J_V; zero where there is no value network.
    ValueLoss: "value_loss", "loss/value", "value loss", Update;
    /// J_π.
    PolicyLoss: "policy_loss", "loss/policy", "policy loss", PolicyUpdate;
    /// J_α; zero for a fixed temperature.
    TemperatureLoss: "temperature_loss", "loss/temperature", "temperature loss", Update;
    /// α.
    Alpha: "alpha", "policy/alpha", "temperature α", Now;
    /// −mean log π(ã|s), the policy's entropy in nats over actions in \[−1, 1].
    Entropy: "entropy", "policy/entropy", "entropy (nats)", Update;
    /// The mean of Q(s, a) over the batch and the critics.
    Q: "q", "critic/q", "Q", Update;
}

/// Sums over all updates so far; the difference of two of them, divided by the updates between, is a mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Number of updates made.
    pub updates: u64,
    /// Number of updates at which the policy took a step.
    pub policy_updates: u64,
    /// The sum of each metric, or its present value; in the order of [`Metric::ALL`].
    pub values: [f64; Metric::ALL.len()],
    /// The first quantity that was not finite, and the update, counted from 1, that met it.
    pub failure: Option<(u64, &'static str)>,
}

impl Index<Metric> for Metrics {
    type Output = f64;

    fn index(&self, metric: Metric) -> &f64 {
        &self.values[metric as usize]
    }
}

impl IndexMut<Metric> for Metrics {
    fn index_mut(&mut self, metric: Metric) -> &mut f64 {
        &mut self.values[metric as usize]
    }
}

impl Metrics {
    /// The metrics that are sums, by name.
    pub fn sums(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let sums = Metric::ALL.into_iter().filter(|metric| metric.per() != Per::Now);
        sums.map(|metric| (metric.name(), self[metric]))
    }

    /// Metrics whose sums and counts are those of a snapshot, without a failure; what is no sum is not among them.
    ///
    /// # Panics
    /// If the snapshot has not been checked to have them.
    pub fn of<T>(snapshot: &Snapshot<T>) -> Self {
        let count = |name| snapshot.count(name).expect("the snapshot has been checked");
        let mut metrics =
            Self { updates: count("updates"), policy_updates: count("policy_updates"), ..Self::default() };
        for metric in Metric::ALL.into_iter().filter(|metric| metric.per() != Per::Now) {
            metrics[metric] = snapshot.sum(metric.name()).expect("the snapshot has been checked");
        }
        metrics
    }

    /// Means over the updates since `earlier`; none if there were none. What is no mean has its present value, and what is
    /// one over the policy's updates is NaN if there was no such.
    pub fn means_since(&self, earlier: &Self) -> Option<Self> {
        let updates = self.updates.saturating_sub(earlier.updates);
        let policy_updates = self.policy_updates.saturating_sub(earlier.policy_updates);
        let mut means = Self { updates, policy_updates, ..*self };
        for metric in Metric::ALL {
            let count = match metric.per() {
                Per::Update => updates,
                Per::PolicyUpdate => policy_updates,
                Per::Now => continue,
            };
            means[metric] = (self[metric] - earlier[metric]) / count as f64;
        }
        (updates > 0).then_some(means)
    }
}
