//! The Python in `docs/run.md`, run as it stands there, and compared with what the run has measured.
#![cfg(feature = "program")]

use std::fs;
use std::path::Path;
use std::process::Command;

const PACKAGES: &str = "numpy, onnxruntime, pandas, safetensors, tensorboard, tomllib";

/// What must hold after all of it; the names are those of the page.
const CHECKS: &str = r#"
assert (config["environment"], config["seed"], config["gamma"]) == ("pendulum", 0, 0.99)
assert list(evaluations.index) == [500, 1000] and len(timings) == len(metrics) and seconds > 0
tags = {
    "episode": "episode/number", "episode_length": "episode/length", "episode_return": "return/episode",
    "evaluation_return": "return/evaluation", "evaluation_std": "return/evaluation_std",
    "critic_loss": "loss/critic", "value_loss": "loss/value", "policy_loss": "loss/policy",
    "temperature_loss": "loss/temperature", "alpha": "policy/alpha", "entropy": "policy/entropy", "q": "critic/q",
}
assert set(tags) | {"step"} == set(metrics.columns)
assert set(tags.values()) | {"speed/seconds", "speed/steps_per_second"} == set(events.Tags()["scalars"])
for column, tag in tags.items():
    cells = metrics.dropna(subset=column)
    shown = events.Scalars(tag)
    assert [event.step for event in shown] == list(cells.step), column
    assert [event.value for event in shown] == list(cells[column].astype("float32")), column
assert numpy.allclose([event.value for event in events.Scalars("speed/seconds")], timings.seconds, atol=6e-4)
assert list(timings.seconds) == sorted(timings.seconds)
assert numpy.isclose(timings.steps_per_second.iloc[-1] * seconds, 1000, rtol=0.05)
assert events.summary_metadata["config"].plugin_data.plugin_name == "text"
assert 'environment = "pendulum"' in events.Tensors("config")[0].tensor_proto.string_val[0].decode()
assert events.file_version == 2.0 and returns[-1][0] == 1000
assert policy.metadata()["action_low"] == "-2" and policy.get_tensor("mean.weight").shape == (1, 32)
assert exported.shape == (5, 1) and (abs(exported) <= 2).all()
assert step == 1000 and list(state["steps"]) == [1000, 1000, 745]
assert replay.shape == (1000, 9) and (abs(replay[:, 3]) <= 1).all() and (replay[:, 5] == 1).all()
assert numpy.allclose((replay[:, :2] ** 2).sum(1), 1, atol=1e-5) and (replay[0, 6:] == replay[1, :3]).all()
"#;

fn sac(folder: &Path, arguments: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sac"));
    let output = command.current_dir(folder).args(arguments.split_whitespace()).output().expect("the program is there");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `PYTHON` names the interpreter that has the packages.
#[test]
fn runs_are_read_from_python_as_documented() {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", &format!("import {PACKAGES}")]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("skipped: {python} lacks some of {PACKAGES}; pip install them (tomllib comes with Python 3.11)");
        assert!(std::env::var_os("SAC_REQUIRE_ALL_TESTS").is_none(), "SAC_REQUIRE_ALL_TESTS allows no skipping");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("documentation-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("the target directory can be written");
    // In two parts, so that the files have been reopened.
    sac(&folder, "pendulum --hidden 32,32 --steps 500 --eval-every 500 --quiet");
    sac(&folder, "resume runs/pendulum-1 --steps 1000 --quiet");
    sac(&folder, "export runs/pendulum-1 --format onnx");

    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/run.md")).expect("it is there");
    let blocks: Vec<_> = page.split("```python\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 8, "each file has its Python");
    // Something else is called actions further down.
    let script = blocks.concat().replace("actions = session", "exported = session") + CHECKS;
    let output = Command::new(&python).current_dir(&folder).args(["-c", &script]).output();
    let output = output.expect("it has just been started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::remove_dir_all(&folder).expect("it is ours");
}
