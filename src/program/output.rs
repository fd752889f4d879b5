//! What the program writes: lines on a terminal, and the files of its results.

use anyhow::{Result, anyhow};
use serde_json::{Value, json};
use soft_actor_critic::actor::Evaluation;
use soft_actor_critic::picture;
use std::fs::File;
use std::io::{self, ErrorKind, Write, stderr, stdout};
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

/// Writes a result to standard output. A reader that has gone away is no error.
pub fn print(text: &str) -> Result<()> {
    match stdout().write_all(shown(text).as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes an error as one line.
pub fn print_error(message: &str) {
    write_line(&format!("error: {message}"));
}

/// Writes a line to standard error.
pub fn write_line(line: &str) {
    // Nobody is left to be told if standard error is gone.
    let _ = writeln!(stderr(), "{}", shown(&line.replace('\n', " ")));
}

/// Writes an event for a script as a line of JSON to standard output.
pub fn write_event(event: &Value) {
    if let Err(error) = print(&format!("{event}\n"))
        && LOST.set(error.to_string()).is_ok()
    {
        print_error(&format!("standard output cannot be written: {error}; the command goes on without"));
    }
}

/// Why events were lost, if some were.
static LOST: OnceLock<String> = OnceLock::new();

/// # Errors
/// If an event was lost, other than by a reader that has gone away.
pub fn all_is_written() -> Result<()> {
    match LOST.get() {
        Some(error) => Err(anyhow!("standard output could not be written: {error}; its events are not complete")),
        None => Ok(()),
    }
}

/// An evaluation in words.
pub fn describe(evaluation: &Evaluation) -> String {
    let [mean, std, min, max] =
        [evaluation.mean(), evaluation.std(), evaluation.min(), evaluation.max()].map(|value| short(value, 1));
    let episodes = evaluation.returns.len();
    const MOST: usize = 6;
    let all = evaluation.info.iter().map(|(name, mean)| format!("{name} {}", short(mean, 3)));
    let more = all.clone().count().saturating_sub(MOST);
    let more = (more > 0).then(|| format!("and {more} more"));
    let info = all.take(MOST).chain(more).collect::<Vec<_>>().join(", ");
    let info = if info.is_empty() { info } else { format!("; {info}") };
    format!("mean return {mean}, std {std}, min {min}, max {max}, over {episodes} episodes{info}")
}

/// An evaluation for a script.
pub fn to_json(evaluation: &Evaluation) -> serde_json::Value {
    let mut object = json!({
        "episodes": evaluation.returns.len(),
        "mean_return": evaluation.mean(),
        "std_return": evaluation.std(),
        "min_return": evaluation.min(),
        "max_return": evaluation.max(),
        "returns": evaluation.returns,
    });
    if !evaluation.info.is_empty() {
        object["info"] = evaluation.info.iter().map(|(name, mean)| (name.to_string(), json!(mean))).collect();
    }
    object
}

/// Rows of cells as columns, of which those of `numbers` end at their right.
pub fn columns<R: AsRef<[String]>>(rows: &[R], numbers: Range<usize>) -> String {
    let count = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let length = |cell: &String| cell.chars().count();
    let width = |i: usize| rows.iter().filter_map(|row| row.as_ref().get(i)).map(length).max().unwrap_or(0);
    let widths: Vec<_> = (0..count).map(width).collect();
    let line = |row: &R| {
        let cells =
            row.as_ref().iter().zip(&widths).enumerate().map(|(i, (cell, &width))| match numbers.contains(&i) {
                true => format!("{cell:>width$}"),
                false => format!("{cell:width$}"),
            });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// A measured number in a few characters, however large.
pub fn short(value: f64, decimals: usize) -> String {
    if value.abs() < 1e7 { format!("{value:.decimals$}") } else { format!("{value:.2e}") }
}

/// What a run is called among others: its path inside the directory that holds them.
pub fn name_within(root: &Path, run: &Path) -> String {
    shown(&run.strip_prefix(root).unwrap_or(run).to_string_lossy().replace('\n', " "))
}

/// A word as a shell reads it.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-+=:,./@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A path in a command that is shown to be typed.
pub fn quoted_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    // Otherwise it would be an option.
    if text.starts_with('-') { quoted(&format!("./{text}")) } else { quoted(&text) }
}

/// What a text from a file or an environment can hold and a terminal would obey, or show in another order, is spelled
/// out, in the way of JSON.
pub fn shown(text: &str) -> String {
    let is_harmful = |c: char| {
        c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push(c),
            c if is_harmful(c) => shown += &format!("\\u{:04x}", u32::from(c)),
            c => shown.push(c),
        }
    }
    shown
}

/// Writes a result to a file that must not be there yet, whole or not at all.
pub fn write_new(out: &Path, bytes: &[u8]) -> Result<()> {
    let shown = out.display();
    let write = |mut file: File| file.write_all(bytes).inspect_err(|_| drop(std::fs::remove_file(out)));
    File::create_new(out).and_then(write).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => taken(out),
        _ => anyhow!("{shown} cannot be written ({error}); choose another file with --out"),
    })
}

/// The error of a result whose file is there already.
pub fn taken(out: &Path) -> anyhow::Error {
    anyhow!("{} is there already; choose another file with --out", out.display())
}

/// Writes a picture in the form that the name of the file says.
pub fn write_picture(out: &Path, svg: &str) -> Result<()> {
    let extension = out.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match extension.as_str() {
        "svg" => write_new(out, svg.as_bytes()),
        "png" => write_new(out, &picture::to_png(svg)?),
        _ => anyhow::bail!("{} is no name of a picture; let it end in .svg or .png", out.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soft_actor_critic::env::Info;

    #[test]
    fn the_numbers_of_an_environment_are_shown_where_there_are_some() {
        let mut evaluation = Evaluation { returns: vec![1.0, 2.0], info: Info::NONE };
        assert_eq!(describe(&evaluation), "mean return 1.5, std 0.5, min 1.0, max 2.0, over 2 episodes");
        assert_eq!(to_json(&evaluation).get("info"), None);
        evaluation.info = Info::new([("is_success", 0.9276), ("distance", 2.0)]);
        assert!(describe(&evaluation).ends_with("over 2 episodes; distance 2.000, is_success 0.928"));
        assert_eq!(to_json(&evaluation)["info"], json!({ "is_success": 0.9276, "distance": 2.0 }));
    }

    #[test]
    fn what_a_terminal_obeys_is_spelled_out() {
        assert_eq!(shown("a\nb ä α▁ \u{1f600}"), "a\nb ä α▁ \u{1f600}");
        assert_eq!(
            shown("\x1b[2J\r\t\u{7f}\u{9b}\u{202e}\u{2069}"),
            "\\u001b[2J\\u000d\\u0009\\u007f\\u009b\\u202e\\u2069"
        );
    }
}
