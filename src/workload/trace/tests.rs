use proptest::{collection, prop_assert, prop_assert_eq, prop_oneof, proptest, strategy::Strategy};

use super::{Form, Openings, ReadOptions, Trace, TraceError, decode_zst};
use crate::workload::reuse::{Lengths, infinite_cache};

fn read(text: &str) -> Result<Trace, TraceError> {
    Trace::read("t.jsonl", text.as_bytes(), &ReadOptions::default())
}

/// One line per request: session, arrival, pause, lengths, ids.
fn show(trace: &Trace) -> String {
    let mut out = format!("{:?}, blocks of {}\n", trace.form, trace.block_size);
    for episode in &trace.episodes {
        for row in &episode.rows {
            let turn = if row.new_turn { "turn" } else { "step" };
            let at = row.at_ms.map_or(String::new(), |ms| format!(" at {ms}"));
            let think = row.think_ms.map_or(String::new(), |ms| format!(" after {ms}"));
            let text = row.text.as_ref().map_or(String::new(), |text| format!(" {text:?}"));
            let (input, output) = (row.input_tokens, row.output_tokens);
            out += &format!("{} {turn}{at}{think} {input}→{output} {:?}{text}\n", episode.id, row.blocks);
        }
    }
    let shared: Vec<usize> = (0..trace.shared.len()).filter(|&id| trace.shared[id]).collect();
    out + &format!("shared {shared:?}")
}

#[test]
fn mooncake_rows_without_sessions_stand_alone() {
    let trace = read(concat!(
        r#"{"timestamp": 0, "input_length": 700, "output_length": 5, "hash_ids": [70, 71]}"#,
        "\r\n\n",
        r#"{"timestamp": 1.5, "input_length": 600, "output_length": 0, "hash_ids": [70, 9], "more": {"x": []}}"#,
    ));
    insta::assert_snapshot!(show(&trace.unwrap()), @r"
    Mooncake, blocks of 512
    s0 turn at 0 700→5 [0, 1]
    s1 turn at 1.5 600→1 [0, 2]
    shared [0]
    ");
}

#[test]
fn sessions_are_put_in_order_of_turn_and_step_and_rows_may_mix() {
    let row = |session: &str, turn: u32, step: u32, ids: &str| {
        format!(
            "{{\"session_id\":{session},\"turn\":{turn},\"step\":{step},\"think_ms\":5,\"input_length\":33,\
             \"output_length\":2,\"hash_ids\":{ids}}}\n"
        )
    };
    let rows = [
        row("\"b\"", 1, 0, "[1,2,5]"),
        row("7", 0, 0, "[1,2,6]"),
        row("\"b\"", 0, 1, "[1,2,4]"),
        row("\"b\"", 0, 0, "[1,3,9]"),
    ];
    insta::assert_snapshot!(show(&read(&rows.concat()).unwrap()), @r"
    Mooncake, blocks of 16
    b turn after 5 33→2 [0, 5, 6]
    b step after 5 33→2 [0, 1, 4]
    b turn after 5 33→2 [0, 1, 2]
    7 turn after 5 33→2 [0, 1, 3]
    shared [0, 1]
    ");
}

#[test]
fn the_block_size_follows_from_the_lengths() {
    let rows = |lengths: &[(u32, usize)]| {
        let row = |&(tokens, ids): &(u32, usize)| {
            format!("{{\"input_length\":{tokens},\"output_length\":1,\"hash_ids\":{:?}}}\n", vec![1; ids])
        };
        lengths.iter().map(row).collect::<String>()
    };
    let cases: [(&[(u32, usize)], u32); 6] = [
        (&[(4397, 275)], 16),
        (&[(10, 1)], 512),
        (&[(600, 2), (10, 1)], 512),
        (&[(600, 1)], 32_768),
        (&[(100, 4), (75, 3)], 32),
        (&[(99, 3), (66, 2)], 33),
    ];
    for (lengths, size) in cases {
        assert_eq!(read(&rows(lengths)).unwrap().block_size, size, "{lengths:?}");
    }
    let given = ReadOptions { block_size: Some(64), ..ReadOptions::default() };
    let trace = Trace::read("t", rows(&[(100, 2), (64, 1)]).as_bytes(), &given).unwrap();
    assert_eq!(trace.block_size, 64);
    let zero = ReadOptions { block_size: Some(0), ..ReadOptions::default() };
    let error = Trace::read("t", rows(&[(2, 2)]).as_bytes(), &zero).unwrap_err();
    assert_eq!(error.to_string(), "t: `--block-size` is 0; at least 1 token is wanted");
    let error = Trace::read("t", rows(&[(100, 2), (64, 2)]).as_bytes(), &given).unwrap_err();
    assert_eq!(
        error.to_string(),
        "t:2: 2 `hash_ids` for 64 tokens; blocks of 64 tokens want 1; try another `--block-size`"
    );
}

const CLAUDE: &str = r#"
{"session_id":"a","t_s":0,"think_s":0.0,"input_length":200,"output_length":154,"tool_tokens":100,"system_tokens":40,"hash_id_ranges":[[1,3]]}
{"session_id":"a","t_s":9.0,"think_s":3.0,"input_length":256,"output_length":99,"tool_tokens":100,"system_tokens":40,"hash_id_ranges":[[1,3],[9,1]]}
{"session_id":"a","t_s":8.0,"think_s":null,"input_length":150,"output_length":0,"tool_tokens":100,"system_tokens":40,"hash_id_ranges":[[50,2]]}
{"session_id":"b","t_s":0,"think_s":0.0,"input_length":128,"output_length":7,"tool_tokens":100,"system_tokens":40,"hash_id_ranges":[[4,2]]}
{"session_id":"c","t_s":0,"think_s":0.0,"input_length":128,"output_length":7,"tool_tokens":99,"system_tokens":41,"hash_id_ranges":[[4,2]]}
"#;

#[test]
fn claude_code_sessions_share_openings_of_equal_sizes() {
    let read = |openings| {
        let options = ReadOptions { openings, ..ReadOptions::default() };
        Trace::read("claude", CLAUDE.as_bytes(), &options).unwrap()
    };
    insta::assert_snapshot!(show(&read(Openings::Alike)), @r"
    ClaudeCode, blocks of 64
    a turn after 0 200→154 [0, 1, 2, 3]
    a step 150→1 [5, 6, 7]
    a step after 3000 256→99 [0, 1, 2, 4]
    b turn after 0 128→7 [0, 1]
    c turn after 0 128→7 [8, 9]
    shared [0, 1, 8, 9]
    ");
    insta::assert_snapshot!(show(&read(Openings::Separate)), @r"
    ClaudeCode, blocks of 64
    a turn after 0 200→154 [0, 1, 2, 3]
    a step 150→1 [5, 6, 7]
    a step after 3000 256→99 [0, 1, 2, 4]
    b turn after 0 128→7 [8, 9]
    c turn after 0 128→7 [10, 11]
    shared []
    ");
    insta::assert_snapshot!(show(&read(Openings::EqualSizes)), @r"
    ClaudeCode, blocks of 64
    a turn after 0 200→154 [0, 1, 2, 3]
    a step 150→1 [0, 1, 5]
    a step after 3000 256→99 [0, 1, 2, 4]
    b turn after 0 128→7 [0, 1]
    c turn after 0 128→7 [6, 7]
    shared [0, 1, 6, 7]
    ");
}

#[test]
fn prompts_come_as_lines_or_as_columns() {
    insta::assert_snapshot!(show(&Trace::read("p.txt", "Hello you\nHello\n".as_bytes(), &ReadOptions::default()).unwrap()), @r#"
    Prompts, blocks of 64
    s0 turn 3→128 [0] "Hello you"
    s1 turn 2→128 [1] "Hello"
    shared [0, 1]
    "#);
    let rows = concat!(
        r#"{"question": "What?", "system_prompt": "Be brief.", "output_tokens_count": 9, "text": "unused"}"#,
        "\n",
        r#"{"prompt": null, "text": "Grüße"}"#,
    );
    insta::assert_snapshot!(show(&read(rows).unwrap()), @r#"
    Prompts, blocks of 64
    s0 turn 4→9 [0] "Be brief.\nWhat?"
    s1 turn 2→128 [1] "Grüße"
    shared [0, 1]
    "#);
    let options = ReadOptions { prompt_column: Some("text".into()), output_tokens: 3, ..ReadOptions::default() };
    insta::assert_snapshot!(show(&Trace::read("p", rows.as_bytes(), &options).unwrap()), @r#"
    Prompts, blocks of 64
    s0 turn 4→9 [0] "Be brief.\nunused"
    s1 turn 2→3 [1] "Grüße"
    shared [0, 1]
    "#);
}

#[test]
fn equal_prompts_share_blocks_up_to_where_they_part() {
    let (a, b) = ("x".repeat(600), format!("{}{}", "x".repeat(300), "y".repeat(300)));
    let trace = Trace::read("p.txt", format!("{a}\n{b}\n{a}").as_bytes(), &ReadOptions::default()).unwrap();
    let blocks: Vec<_> = trace.rows().map(|row| row.blocks.to_vec()).collect();
    assert_eq!(blocks, [[0, 1, 2], [0, 3, 4], [0, 1, 2]]);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    const GOOD: &str = r#"{"timestamp": 0, "input_length": 700, "output_length": 5, "hash_ids": [0, 1]}"#;
    let after_good = |row: &str| format!("{GOOD}\n\n{row}");
    let cases: Vec<(&str, String)> = vec![
        ("t.jsonl", String::new()),
        ("t.jsonl", "\n  \n".into()),
        ("t.jsonl", "hello\n".into()),
        ("t.jsonl", "[1]\n".into()),
        ("t.jsonl", "{}\n".into()),
        ("t.jsonl", r#"{"a":1,"b":2}"#.into()),
        ("t.jsonl", after_good(r#"{"timestamp": 0, "input_length": 700, "outp"#)),
        ("t.jsonl", after_good(r#"{"timestamp": 0, "input_length": 700, "hash_ids": [0, 1]}"#)),
        ("t.jsonl", after_good(r#"{"timestamp": 0, "input_length": -7, "output_length": 5, "hash_ids": [0, 1]}"#)),
        ("t.jsonl", after_good(r#"{"timestamp": 0, "input_length": 0, "output_length": 5, "hash_ids": []}"#)),
        ("t.jsonl", after_good(r#"{"timestamp": 0, "input_length": 99999999, "output_length": 5, "hash_ids": [0]}"#)),
        ("t.jsonl", after_good(r#"{"timestamp": 0, "input_length": 7, "output_length": 5e9, "hash_ids": [0]}"#)),
        ("t.jsonl", after_good(r#"{"timestamp": -1, "input_length": 7, "output_length": 5, "hash_ids": [0]}"#)),
        ("t.jsonl", after_good(r#"{"input_length": 7, "output_length": 5, "hash_ids": [0]}"#)),
        ("t.jsonl", after_good(r#"{"timestamp": 0, "input_length": 7000, "output_length": 5, "hash_ids": [0, 1]}"#)),
        ("t.jsonl", after_good(r#"{"timestamp": 0, "input_length": 3, "output_length": 5, "hash_ids": [0, 1, 2, 4]}"#)),
        ("t.jsonl", after_good(r#"{"timestamp": 0, "input_length": 9, "output_length": 5, "hash_ids": ["x"]}"#)),
        ("t.jsonl", after_good("not a row")),
        ("t.jsonl", r#"{"session_id":"a","t_s":-4,"input_length":64,"output_length":1,"hash_id_ranges":[[1,1]]}"#.into()),
        ("t.jsonl", r#"{"session_id":"a","t_s":0,"input_length":64,"output_length":1,"hash_id_ranges":[[1,2]]}"#.into()),
        ("t.jsonl", r#"{"session_id":"a","t_s":0,"input_length":64,"output_length":1,"hash_id_ranges":[[18446744073709551615,1]]}"#.into()),
        ("t.jsonl", r#"{"session_id":"a","t_s":0,"input_length":64,"output_length":1,"hash_id_ranges":[[1,18446744073709551615],[1,2]]}"#.into()),
        ("t.jsonl", r#"{"prompt":"a"}"#.to_owned() + "\n" + r#"{"other":"a"}"#),
        ("t.jsonl", r#"{"prompt":["a"]}"#.into()),
        ("t.jsonl", r#"{"prompt":""}"#.into()),
        ("t.jsonl", r#"{"prompt":"a","output_tokens":"many"}"#.into()),
        ("p.txt", "fine\nzero \0 byte".into()),
        ("t.jsonl.zst", GOOD.into()),
    ];
    let told: Vec<String> = cases
        .iter()
        .map(|(name, text)| Trace::read(name, text.as_bytes(), &ReadOptions::default()).unwrap_err().to_string())
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    t.jsonl: no rows: the file is empty
    t.jsonl: no rows: the file is empty
    t.jsonl:1: found no JSON object; one `{…}` per line is wanted
    t.jsonl:1: found no JSON object; one `{…}` per line is wanted
    t.jsonl:1: found no fields; wanted `hash_ids` (Mooncake), `hash_id_ranges` (Claude Code) or a prompt (`--prompt-column NAME`)
    t.jsonl:1: found `a`, `b`; wanted `hash_ids` (Mooncake), `hash_id_ranges` (Claude Code) or a prompt (`--prompt-column NAME`)
    t.jsonl:3: the row breaks off after 43 bytes (truncated file?)
    t.jsonl:3: missing field `output_length` (column 57)
    t.jsonl:3: invalid value: integer `-7`, wanted a whole number (column 35)
    t.jsonl:3: `input_length` is 0; 1 to 16777216 tokens are wanted
    t.jsonl:3: `input_length` is 99999999; 1 to 16777216 tokens are wanted
    t.jsonl:3: invalid type: floating point `5000000000.0`, wanted a whole number (column 56)
    t.jsonl:3: `timestamp` is -1 ms; a time of at least 0 is wanted
    t.jsonl:3: no `timestamp`, but the rows before have one
    t.jsonl:3: 2 `hash_ids` for 7000 tokens, so blocks of 3500 to 6999 tokens; the rows before want 350 to 699 tokens
    t.jsonl:3: 4 `hash_ids` for 3 tokens; one id per started block is wanted
    t.jsonl:3: invalid type: string "x", wanted a whole number (column 72)
    t.jsonl:3: not JSON: wanted ident (column 2)
    t.jsonl:1: `t_s` is -4000 ms; a time of at least 0 is wanted
    t.jsonl:1: `hash_id_ranges` hold 2 ids for 64 tokens; wanted 1 (full blocks of 64)
    t.jsonl:1: `hash_id_ranges` hold [18446744073709551615, 1], beyond 64 bits
    t.jsonl:1: `hash_id_ranges` hold 18446744073709551615 ids for 64 tokens; wanted 1 (full blocks of 64)
    t.jsonl:2: no prompt: one of `prompt`, `instruction`, `question`, `input`, `context`, `content`, `text` is wanted (`--prompt-column NAME`)
    t.jsonl:1: `prompt` is a list; text is wanted
    t.jsonl:1: `prompt` is empty; a prompt is wanted
    t.jsonl:1: `output_tokens` is "many"; a whole number is wanted
    p.txt:2: the line holds a zero byte; a prompt is text
    t.jsonl.zst: not zstd data, though the name ends in `.zst`
    "#);
    let binary = Trace::read("p.txt", b"ok\n\xff\xfe", &ReadOptions::default()).unwrap_err();
    assert_eq!(binary.to_string(), "p.txt:2: byte 1 of the line is not UTF-8; a prompt is text");
    let column = ReadOptions { prompt_column: Some("ask".into()), ..ReadOptions::default() };
    let column = Trace::read("t", br#"{"prompt":"a"}"#, &column).unwrap_err();
    assert_eq!(column.to_string(), "t:1: found `prompt`; wanted `ask`");
}

#[test]
fn session_names_that_fit_no_header_are_replaced() {
    let row = |session: &str| {
        format!("{{\"session_id\":{session},\"input_length\":3,\"output_length\":2,\"hash_ids\":[1]}}\n")
    };
    for (names, wanted) in [
        (["\"a\"", "\"b\""], ["a", "b"]),
        (["\"a\"", "\"b c\""], ["s0", "s1"]),
        (["\"a\"", "\"a#1\""], ["s0", "s1"]),
        (["\"ä\"", "\"\""], ["s0", "s1"]),
        (["\"a\"", "null"], ["s0", "s1"]),
    ] {
        let trace = read(&names.map(row).concat()).unwrap();
        assert_eq!(trace.episodes.iter().map(|episode| &*episode.id).collect::<Vec<_>>(), wanted);
    }
}

#[test]
fn long_prompts_are_dropped_and_counted() {
    let mut trace = read(concat!(
        r#"{"session_id":"a","input_length":10,"output_length":1,"hash_ids":[1]}"#,
        "\n",
        r#"{"session_id":"a","input_length":30,"output_length":1,"hash_ids":[1]}"#,
        "\n",
        r#"{"session_id":"b","input_length":31,"output_length":1,"hash_ids":[1]}"#,
    ))
    .unwrap();
    trace.drop_longer_than(30);
    assert_eq!((trace.requests(), trace.episodes.len(), trace.dropped), (2, 1, 1));
    trace.drop_longer_than(10);
    assert_eq!((trace.requests(), trace.dropped), (1, 2));
    trace.drop_longer_than(9);
    assert_eq!((trace.requests(), trace.episodes.len(), trace.dropped), (0, 0, 3));
}

#[test]
fn the_bundled_trace_is_what_notice_says() {
    let trace = Trace::bundled().unwrap();
    assert_eq!((trace.form, trace.block_size), (Form::Mooncake, 16));
    assert_eq!(
        (trace.requests(), trace.episodes.len(), trace.is_timed(), trace.has_sessions()),
        (1142, 200, false, true)
    );
    assert_eq!(trace.sha256, "a715a84a62c403ed0cfcabd0e48a8c84c6269d7ec8eb2f9da94b7c8888596846");
    let reuse = infinite_cache(trace.rows().map(|row| (&*row.blocks, row.input_tokens)), trace.block_size);
    assert_eq!(format!("{:.3}", reuse.ratio()), "0.954");
    let lengths = Lengths::of(trace.rows().map(|row| row.input_tokens));
    assert_eq!((lengths.count, lengths.mean.round(), lengths.max), (1142, 4086.0, 6225));
    assert!(lengths.p50.abs_diff(4163) <= 1, "p50 {}", lengths.p50);
    assert!(lengths.p95.abs_diff(5408) <= 1, "p95 {}", lengths.p95);
    let turns = trace.rows().filter(|row| row.new_turn).count();
    assert_eq!(turns, 731, "turns that made a request");
}

/// zstd of `hello` in one raw block, without a checksum.
const HELLO: &[u8] = b"\x28\xb5\x2f\xfd\x20\x05\x29\x00\x00hello";

#[test]
fn zstd_frames_follow_each_other_and_have_to_be_whole() {
    assert_eq!(decode_zst(HELLO).unwrap(), b"hello");
    let skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc";
    assert_eq!(decode_zst(&[HELLO, skippable, HELLO].concat()).unwrap(), b"hellohello");
    assert_eq!(decode_zst(b"").unwrap(), b"");
    for bad in [&HELLO[..HELLO.len() - 1], &HELLO[..6], &[HELLO, b"more"].concat(), &skippable[..9]] {
        let error = decode_zst(bad).unwrap_err();
        assert!(
            error.starts_with("the zstd data ") && error.contains("compressed bytes read, no line is complete"),
            "{error}"
        );
    }
    let whole = super::BUNDLED;
    for length in [5, 100, whole.len() / 2, whole.len() - 1] {
        let error = Trace::read("t.jsonl.zst", &whole[..length], &ReadOptions::default()).unwrap_err();
        assert!(error.to_string().starts_with("t.jsonl.zst: the zstd data "), "{error}");
    }
}

/// Text that comes near to rows of all forms.
fn nearly_rows() -> impl Strategy<Value = String> {
    let number = prop_oneof!["[0-9]{1,3}", "-1", "1e400", "18446744073709551615", "null", "\"a\"", "1.5"];
    let list = prop_oneof!["\\[[0-9]{0,3}(,[0-9]{1,2}){0,3}\\]", "\\[\\[[0-9]{1,2},[0-9]{1,20}\\]\\]", "[0-9]"];
    let key = proptest::sample::select(vec![
        "timestamp",
        "input_length",
        "output_length",
        "session_id",
        "turn",
        "step",
        "think_ms",
        "t_s",
        "think_s",
        "tool_tokens",
        "system_tokens",
        "prompt",
        "text",
    ]);
    let field = (key, number).prop_map(|(key, value)| format!("\"{key}\":{value}"));
    let ids = (proptest::sample::select(vec!["hash_ids", "hash_id_ranges"]), list);
    let row = (collection::vec(field, 0..9), ids).prop_map(|(fields, (key, ids))| {
        format!(
            "{{\"input_length\":40,\"output_length\":1,{}\"{key}\":{ids}}}",
            fields.iter().map(|f| format!("{f},")).collect::<String>()
        )
    });
    collection::vec(row, 1..5).prop_map(|rows| rows.join("\n"))
}

/// What every trace that was read has to keep.
fn check(trace: &Trace) -> Result<(), proptest::test_runner::TestCaseError> {
    prop_assert!(trace.requests() > 0);
    for row in trace.rows() {
        prop_assert!(row.input_tokens > 0 && row.output_tokens > 0);
        prop_assert_eq!(row.blocks.len(), row.input_tokens.div_ceil(trace.block_size) as usize);
        prop_assert!(row.blocks.iter().all(|&id| (id as usize) < trace.shared.len()));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in collection::vec(proptest::num::u8::ANY, 0..200), zst: bool) {
        let name = if zst { "t.zst" } else { "t" };
        if let Ok(trace) = Trace::read(name, &bytes, &ReadOptions::default()) {
            check(&trace)?;
        }
    }

    #[test]
    fn rows_that_are_nearly_right_are_read_or_refused(text in nearly_rows(), size in proptest::option::of(0_u32..99)) {
        let options = ReadOptions { block_size: size, ..ReadOptions::default() };
        if let Ok(trace) = Trace::read("t.jsonl", text.as_bytes(), &options) {
            check(&trace)?;
        }
    }

    #[test]
    fn damaged_rows_are_read_or_refused(place in 0_usize..1000, byte: u8) {
        let mut bytes = CLAUDE.as_bytes().to_vec();
        let place = place % bytes.len();
        bytes[place] = byte;
        if let Ok(trace) = Trace::read("t.jsonl", &bytes, &ReadOptions::default()) {
            check(&trace)?;
        }
    }

    #[test]
    fn damaged_zstd_is_read_or_refused(damage in collection::vec((0_usize..30_000, proptest::num::u8::ANY), 1..4), cut in 0_usize..30_000) {
        let mut bytes = super::BUNDLED.to_vec();
        let length = bytes.len();
        for (place, byte) in damage {
            bytes[place % length] = byte;
        }
        let _ = decode_zst(&bytes[..length - cut % length]);
    }
}
