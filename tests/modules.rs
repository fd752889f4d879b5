//! The modules of the program, and those of a session, import each other without circles, and nothing of the program but
//! its parser imports a command.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Imports = BTreeMap<String, BTreeSet<String>>;

/// The Rust files in a folder and in those below it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let inside = |path: PathBuf| match path.is_dir() {
        true => files(&path),
        false => vec![path],
    };
    paths.flat_map(inside).filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// Which module directly inside a module imports which of the others. `folder` is that of the module, and `path` its
/// name in code.
fn imports(folder: &str, path: &str) -> Imports {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut imports = Imports::new();
    for file in files(&folder) {
        let inside = file.strip_prefix(&folder).expect("it is inside").with_extension("");
        let names: Vec<_> = inside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        let name = &names[0];
        if name == "mod" {
            continue;
        }
        let text = fs::read_to_string(&file).expect("it can be read");
        let text: String =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        // Only a file at this level reaches the others by `super`.
        let prefixes = [Some(format!("{path}::")), (names.len() == 1).then(|| "use super::".into())];
        let found = imports.entry(name.clone()).or_default();
        for (at, prefix) in prefixes.iter().flatten().flat_map(|prefix| text.match_indices(prefix.as_str())) {
            let rest = &text[at + prefix.len()..];
            assert!(!rest.starts_with('{'), "{}: write a line for each module", file.display());
            found.insert(rest.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect());
        }
    }
    let known: BTreeSet<_> = imports.keys().cloned().collect();
    for (name, found) in &mut imports {
        found.retain(|other| other != name && known.contains(other));
    }
    imports
}

/// Takes modules away that import none of the rest, until none is left.
fn assert_no_circle(mut imports: Imports) {
    while !imports.is_empty() {
        let free = |(name, found): (&String, &BTreeSet<String>)| found.is_empty().then(|| name.clone());
        let free: BTreeSet<_> = imports.iter().filter_map(free).collect();
        assert!(!free.is_empty(), "these import each other in a circle, or lead into one: {imports:#?}");
        imports.retain(|name, _| !free.contains(name));
        imports.values_mut().for_each(|found| found.retain(|other| !free.contains(other)));
    }
}

#[test]
fn the_program_has_no_circles() {
    let program = imports("src/program", "crate::program");
    assert!(program["pool"].contains("session") && program["cli"].contains("commands"), "{program:#?}");
    for (name, found) in &program {
        assert!(name == "cli" || !found.contains("commands"), "{name} imports the commands");
        assert!(!found.contains("cli"), "{name} imports the parser");
    }
    assert_no_circle(program);
    assert_no_circle(imports("src/program/commands", "crate::program::commands"));
    assert_no_circle(imports("src/program/progress", "crate::program::progress"));
}

#[test]
fn a_session_has_no_circles() {
    let session = imports("src/session", "crate::session");
    assert!(session["begin"].contains("training"), "{session:#?}");
    assert_no_circle(session);
}

#[test]
#[should_panic(expected = "in a circle")]
fn a_circle_is_found() {
    let one = |name: &str, other: &str| (name.to_string(), BTreeSet::from([other.to_string()]));
    assert_no_circle(Imports::from([one("a", "b"), one("b", "c"), one("c", "b")]));
}
