//! The published traces as our readers see them: lengths, reuse and clocks have to come out as their description says.
//!
//! The files are not part of the project. They are read from `../shared` or the folder that `GORGO_TEST_DATA` names.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use gorgo::workload::arrivals::{Arrivals, Window};
use gorgo::workload::build::{PlanOptions, build};
use gorgo::workload::network::RttMatrix;
use gorgo::workload::reuse::{Lengths, infinite_cache};
use gorgo::workload::spread::bucket_ms;
use gorgo::workload::trace::{Form, Openings, ReadOptions, Trace};

/// The file below the folder of shared data, or `None` (with a line that says so) where it is absent.
fn shared(path: &str) -> Option<Vec<u8>> {
    let folder = std::env::var_os("GORGO_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let file = folder.join(path);
    if !file.is_file() {
        // Not `eprintln!`: what a passing test prints that way is never seen.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: no {} (GORGO_TEST_DATA names the folder that holds `traces`)",
            file.display()
        );
        return None;
    }
    Some(std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
}

fn read(path: &str, openings: Openings) -> Option<Trace> {
    let options = ReadOptions { openings, ..ReadOptions::default() };
    shared(path).map(|bytes| Trace::read(path, &bytes, &options).unwrap_or_else(|error| panic!("{error}")))
}

fn reuse_percent(trace: &Trace) -> String {
    let prompts = trace.rows().map(|row| (&*row.blocks, row.input_tokens));
    format!("{:.1}", 100.0 * infinite_cache(prompts, trace.block_size).ratio())
}

/// What the description of a trace says; percentiles by its own rule, which may differ by a neighbour.
struct Described {
    path: &'static str,
    form: Form,
    requests: usize,
    sessions: usize,
    block_size: u32,
    input: [u32; 4],
    output: [u32; 2],
    reuse: &'static str,
}

const TRACES: [Described; 4] = [
    Described {
        path: "traces/mooncake_conversation.jsonl.zst",
        form: Form::Mooncake,
        requests: 12_031,
        sessions: 12_031,
        block_size: 512,
        input: [12_035, 6_909, 39_549, 126_195],
        output: [343, 350],
        reuse: "37.4",
    },
    Described {
        path: "traces/mooncake_synthetic.jsonl.zst",
        form: Form::Mooncake,
        requests: 3_993,
        sessions: 3_993,
        block_size: 512,
        input: [15_325, 11_587, 48_835, 191_000],
        output: [149, 69],
        reuse: "65.1",
    },
    Described {
        path: "traces/claude_code_le32k.jsonl.zst",
        form: Form::ClaudeCode,
        requests: 2_908,
        sessions: 387,
        block_size: 64,
        input: [23_250, 23_867, 32_015, 32_746],
        output: [326, 196],
        reuse: "80.3",
    },
    Described {
        path: "traces/bfcl_multi_turn/mooncake_blk16.jsonl.zst",
        form: Form::Mooncake,
        requests: 1_142,
        sessions: 200,
        block_size: 16,
        input: [4_086, 4_163, 5_408, 6_225],
        output: [38, 32],
        reuse: "95.4",
    },
];

#[test]
fn traces_come_out_as_described() {
    for wanted in &TRACES {
        let Some(trace) = read(wanted.path, Openings::Separate) else { continue };
        assert_eq!((trace.form, trace.block_size), (wanted.form, wanted.block_size), "{}", wanted.path);
        assert_eq!((trace.requests(), trace.episodes.len()), (wanted.requests, wanted.sessions), "{}", wanted.path);
        let input = Lengths::of(trace.rows().map(|row| row.input_tokens));
        let output = Lengths::of(trace.rows().map(|row| row.output_tokens));
        let found =
            [input.mean.round() as u32, input.p50, input.p95, input.max, output.mean.round() as u32, output.p50];
        for (found, wanted_here) in found.into_iter().zip(wanted.input.into_iter().chain(wanted.output)) {
            let off = (f64::from(found) / f64::from(wanted_here) - 1.0).abs();
            assert!(off < 0.005, "{}: found {found}, described as {wanted_here}", wanted.path);
        }
        assert_eq!(reuse_percent(&trace), wanted.reuse, "{}", wanted.path);
    }
}

#[test]
fn claude_code_sessions_share_more_the_more_is_assumed() {
    for (openings, percent) in [(Openings::Separate, "80.3"), (Openings::Alike, "83.2"), (Openings::EqualSizes, "84.4")]
    {
        let Some(trace) = read("traces/claude_code_le32k.jsonl.zst", openings) else { return };
        assert_eq!(reuse_percent(&trace), percent, "{openings:?}");
        let one_by_one = PlanOptions::new(Arrivals::Synchronous, 1);
        let plan = build(&trace, &one_by_one).unwrap();
        assert_eq!((plan.requests(), plan.sessions.len()), (2_908, 387));
        let steps = plan.sessions.iter().flat_map(|session| &session.steps);
        let full = steps.filter(|step| step.blocks.len() as u32 == step.input_tokens.div_ceil(64)).count();
        assert_eq!(full, 2_908, "one id per started block");
    }
}

#[test]
fn the_conversation_is_spread_inside_its_buckets_and_the_synthetic_trace_stays_as_it_is() {
    for (path, bucket) in [("mooncake_conversation", Some(3000.0)), ("mooncake_synthetic", None)] {
        let Some(trace) = read(&format!("traces/{path}.jsonl.zst"), Openings::default()) else { return };
        let recorded: Vec<f64> = trace.rows().filter_map(|row| row.at_ms).collect();
        assert_eq!(bucket_ms(&recorded), bucket, "{path}");
        let plan = |window| build(&trace, &PlanOptions::new(Arrivals::Replay { time_scale: 1.0, window }, 4)).unwrap();
        let whole = plan(None);
        assert_eq!(whole.requests(), trace.requests());
        let starts: Vec<f64> = whole.sessions.iter().map(|session| session.start_ms).collect();
        for (start, recorded) in starts.iter().zip(&recorded) {
            assert!((*recorded..=recorded + 3000.0).contains(start), "{path}: {recorded} moved to {start}");
        }
        if bucket.is_some() {
            let at_once = starts.windows(2).filter(|pair| pair[1] - pair[0] < 1.0).count();
            assert!(at_once < starts.len() / 50, "{at_once} of {} requests follow within a millisecond", starts.len());
        } else {
            assert_eq!(starts, recorded);
        }
        let part = plan(Some(Window { from_ms: 600_000.0, to_ms: 900_000.0 }));
        let same: Vec<_> = whole.sessions.iter().filter(|s| (600_000.0..900_000.0).contains(&s.start_ms)).collect();
        assert_eq!(part.requests(), same.len());
        for (part, whole) in part.sessions.iter().zip(same) {
            assert_eq!((part.start_ms, &part.steps), (whole.start_ms - 600_000.0, &whole.steps));
        }
    }
}

#[test]
fn the_bundled_trace_is_the_shared_one() {
    let Some(shared) = read("traces/bfcl_multi_turn/mooncake_blk16.jsonl.zst", Openings::default()) else { return };
    let bundled = Trace::bundled().unwrap();
    assert_eq!((&bundled.sha256, &bundled.episodes), (&shared.sha256, &shared.episodes));
}

#[test]
fn a_trace_with_its_end_cut_off_names_the_line() {
    let Some(packed) = shared("traces/claude_code_le32k.jsonl.zst") else { return };
    let plain = gorgo::workload::trace::decode_zst(&packed).unwrap();
    let error = Trace::read("cut.jsonl", &plain[..plain.len() / 2], &ReadOptions::default()).unwrap_err();
    assert!(error.line.is_some_and(|line| line > 1000), "{error}");
    assert!(error.problem.contains("truncated"), "{error}");
}

#[test]
fn the_notice_names_every_file_of_data_and_its_licence() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let notice = text("NOTICE");
    for entry in std::fs::read_dir(root.join("data")).unwrap() {
        let name = format!("data/{}", entry.unwrap().file_name().display());
        assert!(notice.contains(&name), "NOTICE does not name {name}");
    }
    assert!(notice.contains("LICENSES/Apache-2.0.txt"));
    assert_eq!(text("LICENSES/Apache-2.0.txt"), text("LICENSE-APACHE"));
}

/// The table was made from a matrix that has two Japanese regions the wrong way round (Lambda's console: 1 is Osaka, 2 Tokyo).
#[test]
fn the_built_in_rtts_are_the_source_with_tokyo_and_osaka_swapped() {
    let Some(csv) = shared("facts/wan_rtt_p95.csv") else { return };
    let csv = String::from_utf8(csv).unwrap();
    let swapped = csv
        .replace("asia-northeast-1", "tokyo")
        .replace("asia-northeast-2", "asia-northeast-1")
        .replace("tokyo", "asia-northeast-2")
        .replace("kr-seoul*", "kr-seoul");
    assert_eq!(RttMatrix::from_csv("source", &swapped).unwrap(), RttMatrix::built_in());
}
