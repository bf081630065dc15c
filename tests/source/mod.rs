//! Just enough of Rust's syntax to ask which paths a source file names. No parser: comments and literals are blanked, test modules
//! cut out, and what is left is read as tokens.

use std::fs;
use std::path::{Path, PathBuf};

/// One file under `src`.
pub(crate) struct Source {
    /// Path from `src`, e.g. `routing/policy/mod.rs`.
    pub(crate) path: String,
    /// Code without comments, literals and `#[cfg(test)]` items; line breaks are kept.
    pub(crate) code: String,
}

impl Source {
    /// The top-level module that it belongs to, e.g. `routing`; empty for `lib.rs` and `main.rs`.
    pub(crate) fn module(&self) -> &str {
        match self.path.split_once('/') {
            Some((module, _)) => module,
            None if self.path == "lib.rs" || self.path == "main.rs" => "",
            None => self.path.trim_end_matches(".rs"),
        }
    }

    /// How deep its module stands: 1 for `routing/mod.rs`, 2 for `routing/queue.rs`.
    fn depth(&self) -> usize {
        let parts = self.path.trim_end_matches(".rs").split('/').count();
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    /// Every path that the code names, braces of `use` written out: `std::fs`, `crate::model::Time`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let tokens = tokens(&self.code);
        let mut found = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            if is_name(tokens[at]) {
                at = tree(&tokens, at, "", &mut found);
            } else {
                at += 1;
            }
        }
        found
    }

    /// Top-level modules of gorgo that it names.
    pub(crate) fn imports(&self) -> Vec<String> {
        let root = |path: &String| {
            let mut parts = path.split("::").peekable();
            let mut ups = 0;
            while parts.next_if_eq(&"super").is_some() {
                ups += 1;
            }
            if ups >= self.depth() && ups > 0 {
                return parts.next().map(str::to_owned);
            }
            matches!(parts.next(), Some("crate" | "gorgo")).then(|| parts.next().map(str::to_owned)).flatten()
        };
        self.paths().iter().filter_map(root).collect()
    }
}

/// All source files, in the order of their paths.
pub(crate) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    let read = |file: &PathBuf| {
        let path = file.strip_prefix(&root).expect("below src").display().to_string();
        let code = without_tests(&blanked(&fs::read_to_string(file).expect("a readable file")));
        Source { path, code }
    };
    files.iter().filter(|file| !is_test(file)).map(read).collect()
}

/// `tests.rs`, or below a folder `tests`.
fn is_test(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs")
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The text with comments, strings and character literals replaced by spaces.
pub(crate) fn blanked(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let end = skip(&letters, at);
        if end == at {
            out.push(letters[at]);
            at += 1;
            continue;
        }
        out.extend(letters[at..end].iter().map(|letter| if *letter == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// End of the comment or literal that begins at `at`; `at` itself if none does.
fn skip(letters: &[char], at: usize) -> usize {
    let is = |offset: usize, letter: char| letters.get(at + offset) == Some(&letter);
    let until = |end: &[char], from: usize| {
        (from..letters.len()).find(|i| letters[*i..].starts_with(end)).map_or(letters.len(), |i| i + end.len())
    };
    if is(0, '/') && is(1, '/') {
        return until(&['\n'], at) - usize::from(letters[at..].contains(&'\n'));
    }
    if is(0, '/') && is(1, '*') {
        return until(&['*', '/'], at + 2);
    }
    let before = at.checked_sub(1).map(|i| letters[i]);
    let inside_name = before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    if is(0, 'r') && !inside_name || is(0, 'r') && before == Some('b') {
        let hashes = letters[at + 1..].iter().take_while(|letter| **letter == '#').count();
        if is(1 + hashes, '"') {
            let mut end = vec!['"'];
            end.extend(std::iter::repeat_n('#', hashes));
            return until(&end, at + hashes + 2);
        }
    }
    if is(0, '"') {
        return quoted(letters, at, '"');
    }
    // A lifetime has no closing quote one letter later.
    if is(0, '\'') && (is(1, '\\') || is(2, '\'')) {
        return quoted(letters, at, '\'');
    }
    at
}

/// End of a literal with backslash escapes.
fn quoted(letters: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < letters.len() && letters[i] != quote {
        i += if letters[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(letters.len())
}

/// Blanked code without its `#[cfg(test)]` items.
pub(crate) fn without_tests(code: &str) -> String {
    let mut rest = code;
    let mut kept = String::new();
    while let Some(start) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..start]);
        let item = &rest[start..];
        let semicolon = item.find(';').unwrap_or(item.len());
        let end = match item.find('{') {
            Some(brace) if brace < semicolon => closing(item, brace),
            _ => semicolon,
        };
        rest = &item[(end + 1).min(item.len())..];
    }
    kept + rest
}

/// The brace that closes the one at `open`.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (i, letter) in code.char_indices().skip_while(|(i, _)| *i < open) {
        match letter {
            '{' => depth += 1,
            '}' if depth == 1 => return i,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn is_name(token: &str) -> bool {
    token.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
}

/// Names, `::`, and single other letters.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_name(rest) {
            rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// Reads a path that begins at `at`, with braces if it has any; returns where it ends.
fn tree(tokens: &[&str], at: usize, prefix: &str, found: &mut Vec<String>) -> usize {
    let path = if prefix.is_empty() { tokens[at].to_owned() } else { format!("{prefix}::{}", tokens[at]) };
    if tokens.get(at + 1) != Some(&"::") {
        found.push(path);
        return at + 1;
    }
    match tokens.get(at + 2) {
        Some(&"{") => {
            let mut i = at + 3;
            while i < tokens.len() && tokens[i] != "}" {
                i = if is_name(tokens[i]) { tree(tokens, i, &path, found) } else { i + 1 };
            }
            i + 1
        }
        Some(name) if is_name(name) => tree(tokens, at + 2, &path, found),
        _ => {
            found.push(path);
            at + 2
        }
    }
}
