//! A configuration as TOML: the keys of [`Config`], after the name of the environment.

use super::{files, typed};
use crate::config::Config;
use crate::error::Error;
use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use std::path::Path;

const ENVIRONMENT: &str = "environment";
/// The layout of a run directory, of which this file is a part.
const FORMAT: (&str, i64) = ("format", 1);

/// The complete configuration of a run.
///
/// # Errors
/// If a value has no TOML form.
pub fn to_toml(environment: &str, config: &Config) -> Result<String, Error> {
    let (format, version) = FORMAT;
    let environment = toml::Value::from(environment);
    let config = toml::to_string(config).context("the configuration has no TOML form")?;
    Ok(format!("{format} = {version}\n{ENVIRONMENT} = {environment}\n{config}"))
}

/// Reads what [`to_toml`] or a person has written; what is left out keeps its default.
///
/// # Errors
/// If the file cannot be read, is no TOML, has an unknown key or a value of the wrong type, or was written for another
/// environment than `environment`.
pub fn read(path: &Path, environment: &str) -> Result<Config, Error> {
    let shown = path.display();
    // The user may name it by a link.
    let text = path.canonicalize().and_then(|path| files::read_text(&path, files::MOST_OF_CONFIG));
    let text = text.with_context(|| format!("the configuration {shown} cannot be read; give a TOML file"))?;
    Ok(parse(&text, environment).with_context(|| format!("the configuration {shown} cannot be used"))?)
}

/// [`read`] from the text of a file that names its environment, with that name.
///
/// # Errors
/// As for [`read`], but without the name of a file; or if no environment is named.
pub fn parse_with_environment(text: &str) -> Result<(String, Config), Error> {
    let named = |table: &toml::Table| Some(table.get(ENVIRONMENT)?.as_str()?.to_string());
    let environment = text.parse().ok().as_ref().and_then(named);
    let config = parse(text, environment.as_deref().unwrap_or_default())?;
    Ok((environment.context("it names no environment")?, config))
}

/// [`read`] from the text of a file.
///
/// # Errors
/// As for [`read`], but without the name of a file.
pub fn parse(text: &str, environment: &str) -> Result<Config, Error> {
    typed(|| {
        let mut table = table(text)?;
        let (format, version) = FORMAT;
        // A text of several lines is shown in one.
        let shown = |value: toml::Value| value.to_string().replace('\n', " ");
        if let Some(other) = table.remove(format)
            && other.as_integer() != Some(version)
        {
            let other = shown(other);
            bail!("it is of format {other}, not {version}; use the version of `sac` that wrote it");
        }
        if let Some(written_for) = table.remove(ENVIRONMENT)
            && written_for.as_str() != Some(environment)
        {
            let written_for = shown(written_for);
            bail!("it was written for the environment {written_for}, not \"{environment}\"; mend or remove that line");
        }
        let defaults = toml::Table::try_from(Config::default()).context("the default has no TOML form")?;
        for (key, value) in &mut table {
            // 1e6 is how people write a count, and a floating point number to TOML.
            let is_count = defaults.get(key).is_some_and(toml::Value::is_integer) || key == "first_update";
            if let Some(number) = value.as_float().filter(|number| is_count && number.fract() == 0.0)
                && (0.0..9e15).contains(&number)
            {
                *value = toml::Value::Integer(number as i64);
            }
        }
        Config::deserialize(table).map_err(|error| {
            let text = error.to_string().trim().replace('\n', " ");
            // A number, which stands between these marks, may have 300 digits.
            let parts = text.split('`').map(|part| match part.parse::<f64>() {
                Ok(number) if part.len() > 24 => format!("{number:e}"),
                _ => part.to_string(),
            });
            anyhow!("{}", parts.collect::<Vec<_>>().join("`"))
        })
    })
}

/// The keys and values of a text.
///
/// # Errors
/// If it is no TOML, with the line.
pub(super) fn table(text: &str) -> anyhow::Result<toml::Table> {
    // toml's own display of an error is a drawing of several lines.
    text.parse().map_err(|error: toml::de::Error| {
        let before = |at: usize| text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        let line = error.span().map(|span| before(span.start) + 1);
        let place = line.map_or(String::new(), |line| format!("line {line}: "));
        anyhow!("{place}{}", error.message().replace('\n', " "))
    })
}

/// A configuration with the default for what only says how long a run is, how it is watched, and which of many it is.
pub fn of_learning(config: &Config) -> Config {
    let of_default = Config::default();
    Config {
        seed: of_default.seed,
        steps: of_default.steps,
        eval_every: of_default.eval_every,
        checkpoint_every: of_default.checkpoint_every,
        eval_episodes: of_default.eval_episodes,
        final_episodes: of_default.final_episodes,
        keep_best: of_default.keep_best,
        until_return: of_default.until_return,
        ..config.clone()
    }
}

/// The keys in which two configurations differ, with the values of the first; but for those that only say how long a run
/// is, how it is watched, and which of many it is.
///
/// # Errors
/// If a value has no TOML form.
pub fn differences(one: &Config, other: &Config) -> Result<Vec<(String, toml::Value)>, Error> {
    typed(|| {
        let [one, other] = [of_learning(one), of_learning(other)].map(toml::Table::try_from);
        let (one, other) = (one?, other?);
        Ok(one.into_iter().filter(|(key, value)| other.get(key) != Some(value)).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Alpha, FirstUpdate, TargetEntropy};

    #[test]
    fn what_is_written_is_read_back() {
        let config = Config {
            seed: 7,
            alpha: Alpha::Fixed(0.25),
            target_entropy: TargetEntropy::Fixed(-1.5),
            policy_hidden: vec![],
            gamma: 0.1 + 0.2,
            ..Config::default()
        };
        for config in [config, Config::default()] {
            let text = to_toml("pendulum", &config).expect("it has a TOML form");
            assert_eq!(parse(&text, "pendulum").expect("it was just written"), config);
        }
    }

    #[test]
    fn whole_numbers_serve_as_real_ones() {
        let config = parse("alpha = 1\ngamma = 1", "pendulum").expect("it is valid");
        assert_eq!((config.alpha, config.gamma), (Alpha::Fixed(1.0), 1.0));
    }

    #[test]
    fn counts_may_be_written_with_an_exponent() {
        let text = "steps = 1e6\nreplay_capacity = 2.5e5\nfirst_update = 3e2\nrandom_steps = 1_000\ngamma = 1e0";
        let config = parse(text, "pendulum").expect("it is valid");
        let expected = (1_000_000, 250_000, FirstUpdate::Fixed(300), 1_000);
        assert_eq!((config.steps, config.replay_capacity, config.first_update, config.random_steps), expected);
        assert!(parse("steps = 1.5", "pendulum").is_err() && parse("steps = -1e3", "pendulum").is_err());
    }

    #[test]
    fn mistakes_are_one_line() {
        for (text, expected) in [
            ("gamma = ", "line 1"),
            ("gamma = 0.9\ngamma = 0.8", "line 2"),
            ("\n\n]", "line 3"),
            ("policy_hidden = 8", "policy_hidden"),
            ("\n\ngama = 0.9", "unknown field `gama`"),
            ("gamma = \"high\"", "gamma"),
            ("alpha = \"high\"", "neither auto nor a number"),
            ("seed = 1e300", "floating point `1e300`, expected"),
            ("alpha = []", "expected a number or the word"),
            ("format = 2", "it is of format 2, not 1"),
            ("format = \"a\\nb\"", "it is of format"),
            ("environment = \"a\\nb\"", "written for the environment"),
            ("environment = \"cart\"", "written for the environment \"cart\""),
        ] {
            let message = format!("{:#}", parse(text, "pendulum").expect_err("it is wrong"));
            assert!(message.contains(expected) && !message.contains('\n'), "{text:?}: {message}");
        }
    }
}
