//! A configuration: whatever is accepted is written and read back the same.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use soft_actor_critic::config::Config;
use soft_actor_critic::run::config_file::{parse, to_toml};
use std::sync::LazyLock;

/// Keys with other values, and text before them.
#[derive(Arbitrary, Debug)]
struct Input<'a> {
    text: &'a str,
    lines: Vec<(u8, Value<'a>)>,
}

#[derive(Arbitrary, Debug)]
enum Value<'a> {
    Integer(i64),
    Real(f64),
    Word(&'a str),
    Widths(Vec<u16>),
    Text(&'a str),
}

static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let text = to_toml("pendulum", &Config::default()).expect("it has a TOML form");
    text.lines().filter_map(|line| Some(line.split_once(" = ")?.0.to_string())).collect()
});

fuzz_target!(|input: Input| {
    let lines = input.lines.iter().map(|(key, value)| {
        let value = match value {
            Value::Integer(value) => value.to_string(),
            Value::Real(value) => format!("{value:?}").replace("NaN", "nan"),
            Value::Word(value) => format!("{value:?}"),
            Value::Widths(value) => format!("{value:?}"),
            Value::Text(value) => value.to_string(),
        };
        format!("\n{} = {value}", KEYS[usize::from(*key) % KEYS.len()])
    });
    let text = input.text.to_string() + &lines.collect::<String>();
    match parse(&text, "pendulum") {
        Err(error) => assert!(!format!("{error:#}").contains('\n'), "{error:#}"),
        Ok(config) => match config.validate() {
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
            Ok(()) => {
                let text = to_toml("pendulum", &config).expect("what is valid has a TOML form");
                assert_eq!(parse(&text, "pendulum").expect("it was just written"), config);
            }
        },
    }
});
