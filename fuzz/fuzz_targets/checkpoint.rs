//! A checkpoint: whatever is loaded is an error or trains on, and what is then saved is loaded as the same.
//!
//! Lengths, checksums, the step in the manifest and the number of transitions are made to fit what the fuzzer has changed.
#![no_main]

use anyhow::Result;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use soft_actor_critic::config::Config;
use soft_actor_critic::env::Pendulum;
use soft_actor_critic::run::{Checked, Checkpoints, MetricsFiles, RunDirectory};
use soft_actor_critic::train::{Trainer, TrainerState};
use soft_actor_critic_fuzz::{Change, Number, Pieces, Splice, own_path, stay_in_this_thread};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    state: Vec<Change<'a>>,
    replay: Vec<Splice<'a>>,
    /// A replay file that is named although it is not needed.
    more: Option<(Number, Number)>,
    manifest: Vec<Splice<'a>>,
    config: Option<Splice<'a>>,
}

/// Transitions in a replay file.
const SEGMENT: u64 = 1 << 16;
/// A replay file is not made longer than this.
const LONGEST: u64 = 4 << 20;

struct Base {
    place: PathBuf,
    state: Pieces,
    metrics: Vec<u8>,
    config: Vec<u8>,
}

fn config() -> Config {
    Config {
        // As many as there can be, so that no step is the last.
        steps: i64::MAX as u64,
        random_steps: 2,
        batch_size: 2,
        policy_hidden: vec![4],
        critic_hidden: vec![4],
        replay_capacity: 8,
        normalize_observations: true,
        eval_every: 20,
        eval_episodes: 1,
        keep_best: true,
        ..Config::default()
    }
}

fn trainer(config: Config) -> Trainer {
    Trainer::new(|| Box::new(Pendulum::new()), config).expect("it is valid")
}

static BASE: LazyLock<Base> = LazyLock::new(|| {
    stay_in_this_thread();
    let place = own_path("run");
    let _ = fs::remove_dir_all(&place);
    let run = RunDirectory::create(Some(&place), "pendulum", &config(), None).expect("it is a new directory");
    let (mut trainer, mut files) =
        (trainer(config()), MetricsFiles::create(&run, &config()).expect("it can be written"));
    let mut checkpoints = Checkpoints::create(&run, "cpu", 1).expect("it can be written");
    for _ in 0..20 {
        trainer.step().expect("it trains");
        trainer.evaluate_if_due().expect("it works");
    }
    checkpoints.save(&mut trainer, &mut files).expect("it can be written");
    let read = |name: &str| fs::read(place.join(name)).expect("it was just written");
    Base {
        state: Pieces::of(&read("checkpoint/state-20.safetensors"))
            // What a memory that began empty leaves out.
            .changed(&[Change::Add("preloaded", Number::Any(0))])
            .1,
        metrics: read(MetricsFiles::METRICS),
        config: read("config.toml"),
        place,
    }
});

/// Writes the run that the fuzzer asks for.
fn write(input: &Input) {
    let Base { place, state, metrics, config } = &*BASE;
    let (folder, write) = (place.join("checkpoint"), |path: PathBuf, bytes: &[u8]| {
        fs::write(path, bytes).expect("the temporary directory can be written");
    });
    let _ = fs::remove_dir_all(place);
    fs::create_dir_all(&folder).expect("the temporary directory can be written");
    let mut config = config.clone();
    if let Some(splice) = &input.config {
        splice.apply(&mut config);
    }
    write(place.join("config.toml"), &config);
    write(place.join(MetricsFiles::METRICS), metrics);

    let (state, pieces) = state.changed(&input.state);
    let number = |name| pieces.data(name).and_then(|data| Some(u64::from_le_bytes(*data.first_chunk()?)));
    let step = number("steps").unwrap_or(20);
    let pushed = step.saturating_add(number("preloaded").unwrap_or(0));
    write(folder.join(format!("state-{step}.safetensors")), &state);

    let observations = pieces.data("observation").map_or(0, |data| data.len() / 4) as u64;
    let actions = pieces.metadata("actions").and_then(|actions| actions.parse::<u64>().ok()).unwrap_or(1);
    let mut replay = Map::new();
    for number in pushed.saturating_sub(8) / SEGMENT..pushed.div_ceil(SEGMENT) {
        let rows = u128::from(pushed - number * SEGMENT).min(SEGMENT.into());
        let length = rows * (2 * u128::from(observations) + u128::from(actions) + 2) * 4;
        let mut bytes = vec![1; length.min(LONGEST.into()) as usize];
        // The last transitions are those that are kept.
        let mut end = bytes.split_off(bytes.len().saturating_sub(512));
        let length = end.len();
        input.replay.iter().for_each(|splice| splice.apply(&mut end));
        end.resize(length, 0);
        bytes.extend(end);
        write(folder.join(format!("replay-{number}.bin")), &bytes);
        replay.insert(number.to_string(), json!(Checked::of(&bytes)));
    }
    if let Some((number, bytes)) = input.more {
        replay.entry(number.value().to_string()).or_insert(json!({"bytes": bytes.value(), "crc32": 0}));
    }
    let entry = json!({"step": step, "state": Checked::of(&state), "replay": replay, "metrics": Checked::of(metrics)});
    let manifest = json!({"format": "soft-actor-critic checkpoint 1", "current": entry, "previous": Value::Null});
    let mut line = manifest.to_string().into_bytes();
    input.manifest.iter().for_each(|splice| splice.apply(&mut line));
    let checksum = Checked::of(&line).crc32;
    write(folder.join("manifest"), &[&line, format!("\n{checksum:08x}\n").as_bytes()].concat());
}

/// In the order of their names, as they are read from a file.
fn sorted(mut state: TrainerState) -> TrainerState {
    state.learner.vectors.sort_by(|one, other| one.0.cmp(&other.0));
    state.learner.counts.sort();
    state.learner.sums.sort_by(|one, other| one.0.cmp(&other.0));
    state
}

fn resume(place: &Path) -> Result<()> {
    let (run, config) = RunDirectory::open(place)?;
    let (mut checkpoints, loaded) = Checkpoints::open(&run, &config)?;
    let mut trainer = trainer(config.clone());
    trainer.restore(loaded.state, loaded.replay)?;
    let mut files = MetricsFiles::reopen(&run, &config, loaded.metrics)?;
    for _ in 0..3 {
        if trainer.is_finished() {
            return Ok(());
        }
        let episodes = trainer.step()?;
        let metrics = trainer.metrics()?;
        files.write(trainer.steps(), Duration::ZERO, &episodes, None, metrics)?;
    }
    checkpoints.save(&mut trainer, &mut files)?;
    drop(checkpoints);
    let (_, loaded) = Checkpoints::open(&run, &config).expect("it was just written");
    let (found, saved) = (loaded.state, sorted(trainer.save()?));
    // As text, NaN is what it is.
    assert!(found == saved || format!("{found:?}") == format!("{saved:?}"), "{found:?} instead of {saved:?}");
    assert_eq!(loaded.warning, None);
    Ok(())
}

fuzz_target!(|input: Input| {
    write(&input);
    if let Err(error) = resume(&BASE.place) {
        assert!(!format!("{error:#}").contains('\n'), "{error:#}");
    }
});
