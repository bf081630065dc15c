//! Quoting for a POSIX shell, done exactly once, where a command leaves for a node.

use std::borrow::Cow;

/// Characters that mean nothing to a shell wherever they stand. `~` and `=` are left out: they can mean something in front.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_./:,@%+".contains(c)
}

/// `word` such that a POSIX shell reads it as one word with exactly this text. A NUL byte cannot be quoted: callers refuse it.
#[must_use]
pub fn quote(word: &str) -> Cow<'_, str> {
    if !word.is_empty() && word.chars().all(is_plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

/// The words as one shell line.
#[must_use]
pub fn quoted_line<S: AsRef<str>>(words: &[S]) -> String {
    words.iter().map(|word| quote(word.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::{quote, quoted_line};

    #[test]
    fn plain_words_stay_as_they_are() {
        let cases = [
            ("true", "true"),
            ("/opt/gorgo/bin/gorgo", "/opt/gorgo/bin/gorgo"),
            ("--listen=x", "'--listen=x'"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$(reboot)", "'$(reboot)'"),
            ("~", "'~'"),
            ("ü", "'ü'"),
        ];
        for (word, wanted) in cases {
            assert_eq!(quote(word), wanted);
        }
    }

    /// What `sh` makes of the line: its words, each ended by a NUL byte.
    fn words_of_sh(line: &str) -> Vec<u8> {
        let script = format!("set -- {line}; for w in \"$@\"; do printf '%s\\0' \"$w\"; done");
        Command::new("sh").arg("-c").arg(script).output().expect("sh runs").stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shell_reads_back_every_word(words in prop::collection::vec("[^\\x00]{0,12}", 1..8)) {
            let wanted: Vec<u8> = words.iter().flat_map(|word| word.bytes().chain([0])).collect();
            prop_assert_eq!(words_of_sh(&quoted_line(&words)), wanted);
        }

        #[test]
        fn quoting_for_a_shell_within_a_shell_works_too(words in prop::collection::vec("[ -~]{0,9}", 1..4)) {
            let inner = format!("set -- {}; for w in \"$@\"; do printf '%s\\0' \"$w\"; done", quoted_line(&words));
            let outer = quoted_line(&["sh", "-c", &inner]);
            let seen = Command::new("sh").arg("-c").arg(outer).output().expect("sh runs").stdout;
            let wanted: Vec<u8> = words.iter().flat_map(|word| word.bytes().chain([0])).collect();
            prop_assert_eq!(seen, wanted);
        }
    }
}
