//! The record of a group: an error of one line, or its runs are valid, and what is written again is read as the same.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use soft_actor_critic::config::Config;
use soft_actor_critic::device::Device;
use soft_actor_critic::run::{Group, Plan, group};
use soft_actor_critic_fuzz::{Number, Splice, own_path};
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

#[derive(Arbitrary, Debug)]
enum Change<'a> {
    /// The value of a line.
    Value(u8, Value<'a>),
    /// A line that stands there twice, or in another order.
    Again(u8),
    Remove(u8),
    Splice(Splice<'a>),
}

#[derive(Arbitrary, Debug)]
enum Value<'a> {
    Toml(&'a str),
    Text(&'a str),
    Number(Number),
    Seeds(Number, u8),
}

static PLACE: LazyLock<PathBuf> = LazyLock::new(|| own_path("group"));

/// The lines of a record.
static LINES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let plan = Plan {
        environment: "pendulum".into(),
        config: Config::default(),
        device: Device::Cpu,
        init_from: Some("other".into()),
        with_replay: true,
    };
    let _ = fs::remove_dir_all(&*PLACE);
    drop(Group::create(Some(&PLACE), 0..3, plan).expect("the temporary directory can be written"));
    let text = fs::read_to_string(PLACE.join("group.toml")).expect("it was just written");
    text.lines().map(String::from).collect()
});

fn changed(changes: &[Change]) -> Vec<u8> {
    let mut lines = LINES.clone();
    for change in changes {
        let at = |line: &u8, lines: &[String]| usize::from(*line) % lines.len().max(1);
        match change {
            Change::Value(line, value) => {
                let value = match value {
                    Value::Toml(text) => text.to_string(),
                    Value::Text(text) => format!("{text:?}"),
                    Value::Number(number) => number.value().to_string(),
                    Value::Seeds(number, more) => {
                        format!("\"{}..{}\"", number.value(), number.value().wrapping_add((*more).into()))
                    }
                };
                let at = at(line, &lines);
                if let Some((key, _)) = lines.get(at).and_then(|line| line.split_once(" = ")) {
                    lines[at] = format!("{key} = {value}");
                }
            }
            Change::Again(line) => lines.extend(lines.get(at(line, &lines)).cloned()),
            Change::Remove(line) if !lines.is_empty() => drop(lines.remove(at(line, &lines))),
            Change::Remove(_) | Change::Splice(_) => (),
        }
    }
    let mut bytes = lines.join("\n").into_bytes();
    for change in changes {
        if let Change::Splice(splice) = change {
            splice.apply(&mut bytes);
        }
    }
    bytes
}

/// What decides the first and the last run of the group in the directory, and where they are.
fn ends() -> Result<Vec<(PathBuf, Plan)>, soft_actor_critic::error::Error> {
    let group = Group::open(&PLACE)?.expect("it has a record");
    let runs: Vec<_> = group.runs().collect();
    Ok(vec![runs[0].clone(), runs[runs.len() - 1].clone()])
}

fuzz_target!(|changes: Vec<Change>| {
    LazyLock::force(&LINES);
    fs::write(PLACE.join("group.toml"), changed(&changes)).expect("the temporary directory can be written");
    let ends_before = match ends() {
        Err(error) => return assert!(!error.to_string().contains('\n'), "{error}"),
        Ok(ends) => ends,
    };
    for (path, plan) in &ends_before {
        assert_eq!(path.parent(), Some(PLACE.as_path()));
        assert!(plan.config.validate().is_ok(), "{plan:?}");
        assert!(group::is_unbegun(path));
    }
    assert!(group::strangers(&PLACE).is_empty());
    // Written as something else, and then as it was.
    let mut group = Group::open(&PLACE).expect("it is a group").expect("it has a record");
    let config = group.config().clone();
    let other = Config { steps: config.steps ^ 1, ..config.clone() };
    group.replace_config(other).and_then(|()| group.replace_config(config)).expect("it can be written");
    drop(group);
    assert_eq!(ends().expect("it was just written"), ends_before);
});
