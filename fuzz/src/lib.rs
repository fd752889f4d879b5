//! What the targets share: a safetensors file in pieces, so that the fuzzer changes those and lengths are right again.

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use serde_json::{Map, Value, json};
use soft_actor_critic::config::{Config, Heads};
use soft_actor_critic::env::{self, MountainCar};
use soft_actor_critic::export::{to_c, to_onnx, to_rust};
use soft_actor_critic::run::policy_file;
use soft_actor_critic::train::Trainer;
use std::fs;
use std::num::NonZero;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

/// Text, or bytes, in place of others.
#[derive(Arbitrary, Debug)]
pub struct Splice<'a> {
    at: u16,
    remove: u8,
    insert: &'a [u8],
}

impl Splice<'_> {
    /// Puts it where it fits.
    pub fn apply(&self, to: &mut Vec<u8>) {
        let at = usize::from(self.at) % (to.len() + 1);
        let end = to.len().min(at + usize::from(self.remove));
        to.splice(at..end, self.insert.iter().copied());
    }
}

/// A number, as likely as not one at which something may overflow.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Number {
    Any(u64),
    /// One of [`EDGES`], and up to two less or one more.
    Edge(u8, u8),
}

const EDGES: [u64; 8] = [0, 1 << 8, 1 << 16, 1 << 31, 1 << 32, 1 << 53, 1 << 62, 1 << 63];

impl Number {
    pub fn value(self) -> u64 {
        match self {
            Self::Any(value) => value,
            Self::Edge(edge, by) => EDGES[usize::from(edge) % EDGES.len()].wrapping_add_signed(i64::from(by % 4) - 2),
        }
    }
}

/// A change to one piece of a file. Numbers choose among the pieces there are.
#[derive(Arbitrary, Debug)]
pub enum Change<'a> {
    Tensor(u8, TensorChange<'a>),
    Remove(u8),
    /// A tensor of one number.
    Add(&'a str, Number),
    Metadata(u8, Text<'a>),
    MetadataRemove(u8),
    /// Of the text that tells the tensors; its length is told right.
    Header(Splice<'a>),
}

#[derive(Arbitrary, Debug)]
pub enum Text<'a> {
    Words(&'a str),
    Number(Number),
    /// Numbers between commas.
    List(Vec<f32>),
}

#[derive(Arbitrary, Debug)]
pub enum TensorChange<'a> {
    /// Eight of its bytes, or the half of them.
    Number(u8, Number, bool),
    /// The data of a vector, and its length with them.
    Vector(&'a [u8]),
    /// A shape, and as many zeros.
    Size([u8; 2]),
    /// A shape that the data do not have.
    Shape(Vec<u64>),
    Type(u8),
    Name(&'a str),
}

#[derive(Clone)]
struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    data: Vec<u8>,
}

impl Tensor {
    fn apply(&mut self, change: &TensorChange) {
        let width = match self.dtype.as_str() {
            "U8" | "BOOL" => 1,
            "F16" => 2,
            "F32" => 4,
            _ => 8,
        };
        match change {
            TensorChange::Number(at, number, half) => {
                let bytes = &number.value().to_le_bytes()[..if *half { 4 } else { 8 }];
                if let Some(places) = NonZero::new(self.data.len() / bytes.len()) {
                    let at = usize::from(*at) % places * bytes.len();
                    self.data[at..][..bytes.len()].copy_from_slice(bytes);
                }
            }
            TensorChange::Vector(data) => {
                self.shape = vec![(data.len() / width) as u64];
                self.data = data[..data.len() / width * width].to_vec();
            }
            TensorChange::Size(shape) => {
                let shape = &shape[..self.shape.len().min(2)];
                self.shape = shape.iter().map(|&n| n.into()).collect();
                self.data.resize(shape.iter().map(|&n| usize::from(n)).product::<usize>() * width, 0);
            }
            TensorChange::Shape(shape) => self.shape = shape.clone(),
            TensorChange::Type(to) => self.dtype = TYPES[usize::from(*to) % TYPES.len()].into(),
            TensorChange::Name(to) => self.name = to.to_string(),
        }
    }
}

/// A safetensors file in pieces.
#[derive(Clone)]
pub struct Pieces {
    tensors: Vec<Tensor>,
    metadata: Map<String, Value>,
}

const TYPES: [&str; 6] = ["F32", "F64", "U64", "U8", "BOOL", "F16"];

impl Pieces {
    /// Takes a file apart.
    pub fn of(file: &[u8]) -> Self {
        let (length, rest) = file.split_first_chunk().expect("it has a length");
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header: Map<String, Value> = serde_json::from_slice(header).expect("it is whole");
        let number = |value: &Value| value.as_u64().expect("it is a number");
        let tensors = header.iter().filter(|(name, _)| *name != "__metadata__").map(|(name, tensor)| {
            let [start, end] = [0, 1].map(|i| number(&tensor["data_offsets"][i]) as usize);
            Tensor {
                name: name.clone(),
                dtype: tensor["dtype"].as_str().expect("it has a type").into(),
                shape: tensor["shape"].as_array().expect("it has a shape").iter().map(number).collect(),
                data: data[start..end].to_vec(),
            }
        });
        let metadata = header["__metadata__"].as_object().expect("it has metadata").clone();
        Self { tensors: tensors.collect(), metadata }
    }

    /// The file after these changes, and its pieces.
    pub fn changed(&self, changes: &[Change]) -> (Vec<u8>, Self) {
        let mut pieces = self.clone();
        changes.iter().for_each(|change| pieces.apply(change));
        let metadata = ("__metadata__".to_string(), json!(pieces.metadata));
        let (mut header, mut data) = (Map::from_iter([metadata]), Vec::new());
        for Tensor { name, dtype, shape, data: added } in &pieces.tensors {
            let offsets = [data.len(), data.len() + added.len()];
            header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
            data.extend(added);
        }
        let mut header = serde_json::to_vec(&header).expect("it is JSON");
        for change in changes {
            if let Change::Header(splice) = change {
                splice.apply(&mut header);
            }
        }
        ([&(header.len() as u64).to_le_bytes(), header.as_slice(), &data].concat(), pieces)
    }

    fn apply(&mut self, change: &Change) {
        let key = |key: u8| self.metadata.keys().cycle().nth(key.into()).cloned();
        match change {
            &Change::Add(name, number) => {
                let data = number.value().to_le_bytes().to_vec();
                self.tensors.push(Tensor { name: name.into(), dtype: "U64".into(), shape: vec![1], data });
            }
            Change::Metadata(at, value) => {
                let value = match value {
                    Text::Words(words) => json!(words),
                    Text::Number(number) => json!(number.value().to_string()),
                    Text::List(numbers) => {
                        json!(numbers.iter().map(f32::to_string).collect::<Vec<_>>().join(","))
                    }
                };
                key(*at).map(|key| self.metadata.insert(key, value));
            }
            Change::MetadataRemove(at) => drop(key(*at).map(|key| self.metadata.remove(&key))),
            Change::Remove(at) if !self.tensors.is_empty() => {
                self.tensors.remove(usize::from(*at) % self.tensors.len());
            }
            Change::Tensor(at, change) if !self.tensors.is_empty() => {
                let at = usize::from(*at) % self.tensors.len();
                self.tensors[at].apply(change);
            }
            // The header is changed when there is one.
            Change::Tensor(..) | Change::Remove(_) | Change::Header(_) => (),
        }
    }

    /// The data of a tensor.
    pub fn data(&self, name: &str) -> Option<&[u8]> {
        Some(&self.tensors.iter().find(|tensor| tensor.name == name)?.data)
    }

    /// An entry of the metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key)?.as_str()
    }
}

/// A path of this process in the temporary directory, which is best in memory.
pub fn own_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("soft-actor-critic-fuzz-{}-{name}", std::process::id()))
}

/// Sees to it that nothing is handed to other threads, so that the same input takes the same path.
pub fn stay_in_this_thread() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
    pool.build_global().expect("there is no pool yet");
}

/// Where a policy lies.
static PATH: LazyLock<PathBuf> = LazyLock::new(|| own_path("policy"));

/// Policies of each shape.
pub static POLICIES: LazyLock<Vec<Pieces>> = LazyLock::new(|| {
    stay_in_this_thread();
    let shapes = [(Heads::Shared, vec![2, 3]), (Heads::Separate, vec![2]), (Heads::Shared, vec![])];
    let policies = shapes.map(|(policy_heads, policy_hidden)| {
        let normalize_observations = policy_hidden.is_empty();
        let config =
            Config { policy_heads, policy_hidden, normalize_observations, replay_capacity: 300, ..Config::default() };
        let mut trainer = Trainer::new(|| Box::new(MountainCar::new()), config).expect("it is valid");
        let actor = trainer.actor().expect("it is on the CPU");
        policy_file::save(&PATH, "mountain-car", &actor).expect("the temporary directory can be written");
        Pieces::of(&fs::read(&*PATH).expect("it was just written"))
    });
    policies.into()
});

/// What holds for whatever is in a file of a policy: an error of one line, or it acts, is exported, and is saved and loaded as
/// the same.
pub fn check_policy(bytes: &[u8]) {
    fs::write(&*PATH, bytes).expect("the temporary directory can be written");
    let (environment, mut actor) = match policy_file::load(&PATH) {
        Ok(loaded) => loaded,
        Err(error) => return assert!(!format!("{error:#}").contains('\n'), "{error:#}"),
    };
    let (observations, actions) = (actor.policy().observation_size(), actor.bounds().dimensions());
    assert!(observations > 0, "a policy of nothing");
    // Runs and pictures are called by it, and stay where they are.
    let name = format!("{}.gif", env::file_name(&environment));
    let parts: Vec<_> = Path::new(&name).components().collect();
    assert!(matches!(parts[..], [Component::Normal(_)]) && !name.contains(char::is_control), "{name:?}");
    for noise in [None, Some(vec![0.5; actions])] {
        let stochastic = noise.is_some();
        actor.act(&vec![0.1; observations], noise.as_deref(), &mut vec![0.0; actions]);
        let _ = to_c(&actor, &environment, stochastic);
        let _ = to_rust(&actor, &environment, stochastic);
        let _ = to_onnx(&actor, &environment, stochastic);
    }
    policy_file::save(&PATH, &environment, &actor).expect("the temporary directory can be written");
    let saved = fs::read(&*PATH).expect("it was just written");
    let (again, other) = policy_file::load(&PATH).expect("it was just written");
    assert_eq!((&again, other.theta(), other.bounds()), (&environment, actor.theta(), actor.bounds()));
    assert_eq!(other.normalizer(), actor.normalizer());
    policy_file::save(&PATH, &again, &other).expect("the temporary directory can be written");
    assert!(fs::read(&*PATH).expect("it was just written") == saved);
}
