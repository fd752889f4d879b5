//! What it costs that an environment of Gymnasium lives in a process of its own: steps with random actions in Python alone, and
//! the same from here, in alternating pairs.
//!
//! `cargo bench --bench bridge -- [ID]`, by default HalfCheetah-v5, in the Python that `PYTHON` names, or else `python3`. If that
//! cannot make the environment, a line says why, and nothing is measured.

use rand::Rng;
use soft_actor_critic::env::{Env, EnvError, Gym};
use soft_actor_critic::rng::{Philox, Stream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const PAIRS: usize = 10;
/// Steps that are measured, after a tenth of them.
const STEPS: usize = 20_000;

/// Prints the seconds that so many steps take.
const ALONE: &str = r#"
import sys, time
import gymnasium
env, steps = gymnasium.make(sys.argv[1]), int(sys.argv[2])
env.reset(seed=0)
env.action_space.seed(0)
actions = [env.action_space.sample() for _ in range(steps)]
def take(steps):
    began = time.perf_counter()
    for action in actions[:steps]:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return time.perf_counter() - began
take(steps // 10)
print(take(steps))
"#;

/// What `code` prints last.
fn last_line(python: &Path, code: &str, arguments: [&str; 2]) -> Result<String, EnvError> {
    let output = Command::new(python).args(["-c", code]).args(arguments).output()?;
    let last = |printed: &[u8]| String::from_utf8_lossy(printed).lines().last().unwrap_or_default().to_string();
    if output.status.success() { Ok(last(&output.stdout)) } else { Err(last(&output.stderr).into()) }
}

fn alone(python: &Path, id: &str) -> Result<f64, EnvError> {
    Ok(last_line(python, ALONE, [id, &STEPS.to_string()])?.parse()?)
}

fn from_here(python: &Path, id: &str) -> Result<f64, EnvError> {
    let mut env = Gym { id: id.into(), python: Some(python.to_path_buf()), ..Gym::default() }.make()?;
    let (bounds, mut rng) = (env.action_bounds(), Philox::new(0, Stream::Action, 0));
    let ranges = || bounds.low().iter().zip(bounds.high());
    let mut draw = || ranges().map(|(&low, &high)| rng.random_range(low..=high)).collect::<Vec<_>>();
    let actions: Vec<_> = (0..STEPS).map(|_| draw()).collect();
    env.reset(0)?;
    let mut take = |steps| {
        let began = Instant::now();
        for (number, action) in actions[..steps].iter().enumerate() {
            let step = env.step(action)?;
            if step.terminated || step.truncated {
                env.reset(number as u64)?;
            }
        }
        Ok::<_, EnvError>(began.elapsed().as_secs_f64())
    };
    take(STEPS / 10)?;
    take(STEPS)
}

fn main() -> Result<(), EnvError> {
    let id = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let id = id.unwrap_or_else(|| "HalfCheetah-v5".into());
    let python = std::env::var_os("PYTHON").map_or_else(|| "python3".into(), PathBuf::from);
    if let Err(error) = last_line(&python, ALONE, [&id, "1"]) {
        let (python, needs) = (python.display(), "pip install 'gymnasium[mujoco]', or name another Python in PYTHON");
        println!("not measured: {python} does not make {id}: {error}; {needs}");
        return Ok(());
    }
    let mut added = Vec::new();
    for pair in 1..=PAIRS {
        let [alone, here] = [alone(&python, &id)?, from_here(&python, &id)?];
        let [alone, here] = [alone, here].map(|seconds| 1e6 * seconds / STEPS as f64);
        println!(
            "pair {pair}: {alone:.1} µs a step in Python alone, {here:.1} µs from here: {:.0} and {:.0} steps/s",
            1e6 / alone,
            1e6 / here
        );
        added.push(here - alone);
    }
    added.sort_by(f64::total_cmp);
    let median = (added[(PAIRS - 1) / 2] + added[PAIRS / 2]) / 2.0;
    println!("{id}: a step takes {median:.1} µs more, by the median");
    Ok(())
}
