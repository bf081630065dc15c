//! The API key: from the environment or from a file that only its owner can read. Never from argv.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::cloud::{CloudError, CloudErrorKind};
use crate::model::Secret;

/// Variable that holds the key.
pub const KEY_VARIABLE: &str = "LAMBDA_API_KEY";
/// Variable that names a file with the key.
pub const KEY_FILE_VARIABLE: &str = "LAMBDA_API_KEY_FILE";
/// A key is some dozens of characters; whatever is longer than this is another file.
const LONGEST_KEY_BYTES: u64 = 1024;

/// The key in `variable` (the content of [`KEY_VARIABLE`], if set and not blank), else the one in `file`.
///
/// # Errors
/// Neither is there, the file cannot be read or can be read by others, or the content cannot be a key. None of the texts contains it.
pub fn api_key(variable: Option<&str>, file: Option<&Path>) -> Result<Secret, CloudError> {
    if let Some(text) = variable.filter(|text| !text.trim().is_empty()) {
        return key(
            text,
            &format!("`{KEY_VARIABLE}`"),
            "copy the key again from the API keys page of the Lambda console",
        );
    }
    let Some(path) = file else {
        let hint = format!(
            "make a key in the Lambda console, then `export {KEY_VARIABLE}=…`, or name a file that holds it in `{KEY_FILE_VARIABLE}`"
        );
        return Err(refuse("no API key for Lambda".into(), hint));
    };
    let text = read_private(path)?;
    key(&text, &format!("`{}`", path.display()), "the file must hold the key and nothing else")
}

fn key(text: &str, place: &str, hint: &str) -> Result<Secret, CloudError> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refuse(
            format!("{place} does not hold an API key: it is empty or has characters that no key has"),
            hint.into(),
        ));
    }
    Ok(Secret::new(text.to_owned()))
}

/// Reads a file after a look at its mode. Both are done on the open file, so that it cannot be exchanged between them.
fn read_private(path: &Path) -> Result<String, CloudError> {
    let shown = path.display();
    let unreadable = |error: io::Error| {
        refuse(
            format!("cannot read the API key file `{shown}`: {error}"),
            format!("check the path, or set `{KEY_VARIABLE}`"),
        )
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    check_mode(path, &metadata)?;
    if metadata.len() > LONGEST_KEY_BYTES {
        return Err(refuse(
            format!("`{shown}` has {} bytes, which is no API key", metadata.len()),
            "name the file that holds only the key".into(),
        ));
    }
    let mut text = String::new();
    file.by_ref().take(LONGEST_KEY_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), CloudError> {
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_file() {
        return Err(refuse(
            format!("the API key file `{}` is not a plain file", path.display()),
            "name the file that holds the key".into(),
        ));
    }
    if mode & 0o077 != 0 {
        let message =
            format!("the API key file `{}` has mode {mode:04o}, so others can read or change it", path.display());
        return Err(refuse(message, format!("run `chmod 600 {}`", quoted(path))));
    }
    Ok(())
}

/// A path as a shell wants it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn refuse(message: String, hint: String) -> CloudError {
    CloudError { kind: CloudErrorKind::Credentials, code: None, message, hint: Some(hint) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    use super::{api_key, quoted};

    fn file(folder: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// The variable, the file, and the key or a part of the complaint.
    type Case<'a> = (Option<&'a str>, Option<&'a Path>, Result<&'a str, &'a str>);

    #[test]
    fn the_variable_wins_and_the_file_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let good = file(folder.path(), "good", b"from-file\n", 0o600);
        let wide = file(folder.path(), "wide", b"sekrit", 0o640);
        let empty = file(folder.path(), "empty", b"\n", 0o600);
        let binary = file(folder.path(), "binary", &[0xff, 0xfe], 0o600);
        let long = file(folder.path(), "long", &[b'x'; 4096], 0o400);
        let missing = folder.path().join("missing");
        let cases: [Case<'_>; 12] = [
            (Some("from-env"), None, Ok("from-env")),
            (Some(" from-env\n"), Some(&wide), Ok("from-env")),
            (Some("  "), Some(&good), Ok("from-file")),
            (None, Some(&good), Ok("from-file")),
            (None, None, Err("no API key for Lambda")),
            (None, Some(&wide), Err("has mode 0640, so others can read")),
            (None, Some(&empty), Err("does not hold an API key")),
            (None, Some(&binary), Err("cannot read the API key file")),
            (None, Some(&long), Err("has 4096 bytes, which is no API key")),
            (None, Some(&missing), Err("cannot read the API key file")),
            (None, Some(folder.path()), Err("is not a plain file")),
            (Some("two words"), None, Err("`LAMBDA_API_KEY` does not hold an API key")),
        ];
        for (variable, path, expected) in cases {
            match (api_key(variable, path), expected) {
                (Ok(key), Ok(text)) => assert_eq!(key.reveal(), text),
                (Err(error), Err(reason)) => {
                    assert!(error.message.contains(reason), "{error}");
                    assert!(error.hint.is_some() && !format!("{error:?}").contains("sekrit"), "{error:?}");
                }
                (found, expected) => panic!("{variable:?} {path:?}: found {found:?}, wanted {expected:?}"),
            }
        }
    }

    #[test]
    fn the_hint_is_a_command_that_can_be_pasted() {
        assert_eq!(quoted(Path::new("/home/me/key.txt")), "/home/me/key.txt");
        assert_eq!(quoted(Path::new("/home/it's me/key")), r"'/home/it'\''s me/key'");
    }
}
