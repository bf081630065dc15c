//! Making foreign text safe inside HTML.
//!
//! Names of replicas, models, traces and errors come from outside; the page must show them, never run them.

/// For text between tags and for attribute values in double quotes.
#[must_use]
pub(super) fn text(raw: &str) -> String {
    let mut safe = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Control characters other than white space are not allowed in a document.
            c if c.is_control() && !matches!(c, '\n' | '\t') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// For JSON inside `<script type="application/json">`: still the same JSON value, but without any character that could end the
/// script element or open a comment in it.
#[must_use]
pub(super) fn json(raw: &str) -> String {
    let mut safe = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '<' => safe.push_str("\\u003c"),
            '>' => safe.push_str("\\u003e"),
            '&' => safe.push_str("\\u0026"),
            '\u{2028}' => safe.push_str("\\u2028"),
            '\u{2029}' => safe.push_str("\\u2029"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::{json, text};

    #[test]
    fn markup_becomes_text() {
        assert_eq!(text("<b a=\"1\">'&'</b>\u{7}"), "&lt;b a=&quot;1&quot;&gt;&#39;&amp;&#39;&lt;/b&gt;\u{fffd}");
    }

    proptest! {
        #[test]
        fn no_text_can_open_a_tag(raw in "\\PC*") {
            prop_assert!(!text(&raw).contains(['<', '>', '"', '\'']));
        }

        #[test]
        fn json_keeps_its_value_and_cannot_end_the_script(raw in "\\PC*|.*</script>.*|.*<!--.*") {
            let safe = json(&serde_json::to_string(&raw).unwrap());
            prop_assert!(!safe.contains(['<', '>', '&']));
            prop_assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), raw);
        }
    }
}
