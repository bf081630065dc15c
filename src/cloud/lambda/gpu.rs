//! What a description such as `8x A100 (80 GB SXM4)` says about the GPUs.

/// The parts of a description. What cannot be told is absent; nothing is guessed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuDescription {
    /// How many, if it begins with `8x`.
    pub count: Option<u32>,
    /// The model, e.g. `A100` or `RTX 6000`; empty if the text names none.
    pub model: String,
    /// Memory of each, GiB. The descriptions say GB and mean GiB, as GPU makers do.
    pub vram_gib: Option<u32>,
    /// How it is built in, e.g. `SXM4`, if told.
    pub form: Option<String>,
}

/// Takes a description apart.
#[must_use]
pub fn parse(description: &str) -> GpuDescription {
    let (count, rest) = split_count(description.trim());
    let (model, inside) = match rest.split_once('(') {
        Some((model, inside)) => (model, inside.split(')').next().unwrap_or_default()),
        None => (rest, ""),
    };
    let (vram_gib, form) = split_memory(inside);
    GpuDescription { count, model: model.trim().to_owned(), vram_gib, form }
}

fn split_count(text: &str) -> (Option<u32>, &str) {
    let counted = text.split_once(|c: char| c.is_whitespace()).and_then(|(first, rest)| {
        let count = first.strip_suffix(['x', 'X'])?.parse().ok()?;
        Some((Some(count), rest.trim_start()))
    });
    counted.unwrap_or((None, text))
}

/// `80 GB SXM4`, `80GB`, `SXM4 80 GiB`: a number with its unit, and whatever else stands there.
fn split_memory(inside: &str) -> (Option<u32>, Option<String>) {
    let mut vram = None;
    let mut form = Vec::new();
    let mut words = inside.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
        let (number, unit) = word.split_at(digits);
        let detached = unit.is_empty() && words.peek().is_some_and(|next| is_memory_unit(next));
        if vram.is_none() && !number.is_empty() && (is_memory_unit(unit) || detached) {
            vram = number.parse().ok();
            if detached {
                words.next();
            }
        } else {
            form.push(word);
        }
    }
    (vram, (!form.is_empty()).then(|| form.join(" ")))
}

fn is_memory_unit(word: &str) -> bool {
    ["gb", "gib"].contains(&word.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, proptest};

    use super::parse;

    #[test]
    fn descriptions_are_taken_apart() {
        let cases = [
            ("1x A100 (40 GB PCIe)", Some(1), "A100", Some(40), Some("PCIe")),
            ("8x A100 (80 GB SXM4)", Some(8), "A100", Some(80), Some("SXM4")),
            ("1x GH200 (96 GB)", Some(1), "GH200", Some(96), None),
            ("1x RTX 6000 (24 GB)", Some(1), "RTX 6000", Some(24), None),
            ("8x Tesla V100 (16 GB)", Some(8), "Tesla V100", Some(16), None),
            ("A10 (24 GB PCIe)", None, "A10", Some(24), Some("PCIe")),
            ("B200 (180GB SXM6)", None, "B200", Some(180), Some("SXM6")),
            ("H200 (SXM5 141 GiB)", None, "H200", Some(141), Some("SXM5")),
            ("1x H100", Some(1), "H100", None, None),
            ("H100 (PCIe)", None, "H100", None, Some("PCIe")),
            ("x1 A10 (24 GB", None, "x1 A10", Some(24), None),
            ("2x", None, "2x", None, None),
            ("A10 (99999999999 GB)", None, "A10", None, None),
            ("A10 (24 lanes)", None, "A10", None, Some("24 lanes")),
            ("N/A", None, "N/A", None, None),
            ("", None, "", None, None),
        ];
        for (text, count, model, vram, form) in cases {
            let found = parse(text);
            let seen = (found.count, found.model.as_str(), found.vram_gib, found.form.as_deref());
            assert_eq!(seen, (count, model, vram, form), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_service_writes_is_survived(text in "\\PC{0,40}") {
            let found = parse(&text);
            prop_assert!(found.model.len() <= text.len());
        }

        #[test]
        fn the_usual_form_comes_back_as_it_was_written(count in 1u32..64, gib in 1u32..1000) {
            let found = parse(&format!("{count}x B300 ({gib} GB SXM6)"));
            prop_assert!(found.count == Some(count) && found.vram_gib == Some(gib) && found.model == "B300");
        }
    }
}
