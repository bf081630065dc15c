//! The arithmetic as a table, the file with many users at once.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use proptest::{prop_assert, prop_assert_eq, proptest};
use tempfile::tempdir;

use super::{Decision, Limiter, Pace, Stamps, Turn, decide, wall_ms};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn pace() -> Pace {
    Pace { call: MS(1000), launch: MS(12_000), longest_wait: MS(600_000) }
}

#[test]
fn turns_come_when_both_limits_allow() {
    let now = 100_000;
    let cases = [
        // last call, last launch, turn: wait
        (0, 0, Turn::Call, 0),
        (0, 0, Turn::Launch, 0),
        (99_500, 0, Turn::Call, 500),
        (99_000, 0, Turn::Call, 0),
        (99_001, 0, Turn::Call, 1),
        (99_000, 90_000, Turn::Call, 0),
        (99_000, 90_000, Turn::Launch, 2000),
        (99_500, 88_000, Turn::Launch, 500),
        (99_000, 88_000, Turn::Launch, 0),
        // the clock was set back: one interval, not a day
        (86_500_000, 0, Turn::Call, 1000),
        (0, 86_500_000, Turn::Launch, 12_000),
        (u64::MAX, u64::MAX, Turn::Launch, 12_000),
    ];
    for (call_ms, launch_ms, turn, wait) in cases {
        let found = decide(Stamps { call_ms, launch_ms }, now, turn, &pace());
        let seen = Stamps { call_ms: call_ms.min(now), launch_ms: launch_ms.min(now) };
        let expected = match (wait, turn) {
            (0, Turn::Call) => Decision::Go(Stamps { call_ms: now, ..seen }),
            (0, Turn::Launch) => Decision::Go(Stamps { call_ms: now, launch_ms: now }),
            (wait, _) => Decision::Wait(MS(wait), seen),
        };
        assert_eq!(found, expected, "{call_ms} {launch_ms} {turn:?}");
    }
}

proptest! {
    /// Whoever waits as told gets the turn then, whatever the stamps said, if nobody else came and the clock ran on.
    #[test]
    fn waiting_as_told_always_ends(call_ms: u64, launch_ms: u64, now in 0u64..1 << 60, launches: bool) {
        let turn = if launches { Turn::Launch } else { Turn::Call };
        if let Decision::Wait(wait, seen) = decide(Stamps { call_ms, launch_ms }, now, turn, &pace()) {
            prop_assert!(wait <= MS(12_000));
            let then = now + u64::try_from(wait.as_millis()).unwrap();
            prop_assert_eq!(matches!(decide(seen, then, turn, &pace()), Decision::Go(_)), true);
        }
    }
}

fn limiter(folder: &Path, call_ms: u64, launch_ms: u64, longest_ms: u64) -> Limiter {
    let pace = Pace { call: MS(call_ms), launch: MS(launch_ms), longest_wait: MS(longest_ms) };
    Limiter::new(folder.join("deep/pace.json"), pace)
}

/// Several limiters on one file are what several processes are: the lock belongs to the open file, and each opens its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_users_of_one_file_keep_the_distance() {
    let folder = tempdir().unwrap();
    let begin_ms = wall_ms();
    let mut users = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let limiter = Arc::new(limiter(folder.path(), 40, 40, 60_000));
        users.spawn(async move {
            for _ in 0..3 {
                limiter.turn(Turn::Call).await.unwrap();
            }
        });
    }
    users.join_all().await;
    // Twelve turns are eleven distances, less the millisecond that stamps are rounded by.
    let elapsed_ms = wall_ms() - begin_ms;
    assert!(elapsed_ms >= 11 * 40 - 1, "{elapsed_ms} ms");
}

#[tokio::test]
async fn calls_pass_while_a_launch_waits() {
    let folder = tempdir().unwrap();
    let limiter = Arc::new(limiter(folder.path(), 1, 60_000, 120_000));
    limiter.turn(Turn::Launch).await.unwrap();
    let waiting = tokio::spawn({
        let limiter = Arc::clone(&limiter);
        async move { limiter.turn(Turn::Launch).await }
    });
    for _ in 0..5 {
        tokio::time::timeout(MS(20_000), limiter.turn(Turn::Call)).await.unwrap().unwrap();
    }
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test]
async fn a_turn_that_does_not_come_in_time_is_an_error() {
    let folder = tempdir().unwrap();
    let limiter = limiter(folder.path(), 60_000, 60_000, 50);
    limiter.turn(Turn::Call).await.unwrap();
    let error = limiter.turn(Turn::Call).await.unwrap_err();
    assert!(error.message.contains("for a turn to call Lambda"), "{error}");
}

#[tokio::test]
async fn a_lock_that_is_held_for_ever_is_an_error_that_names_it() {
    let folder = tempdir().unwrap();
    let limiter = limiter(folder.path(), 1, 1, 100);
    limiter.turn(Turn::Call).await.unwrap();
    let held = fs::File::open(folder.path().join("deep/pace.json")).unwrap();
    held.lock().unwrap();
    let error = limiter.turn(Turn::Call).await.unwrap_err();
    assert!(error.message.contains("deep/pace.json"), "{error}");
    drop(held);
    limiter.turn(Turn::Call).await.unwrap();
}

#[tokio::test]
async fn torn_and_foolish_files_cost_one_interval() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("deep/pace.json");
    fs::create_dir(folder.path().join("deep")).unwrap();
    let future = format!(r#"{{"call_ms":{0},"launch_ms":{0}}}"#, wall_ms() + 86_400_000);
    for content in ["{\"call_ms\":17", "garbage", "[]", "{}", "\0\0\0\0", future.as_str()] {
        fs::write(&path, content).unwrap();
        let limiter = limiter(folder.path(), 30, 30, 60_000);
        let wait = limiter.try_take(Turn::Call).unwrap();
        assert!(wait.is_some_and(|wait| wait <= MS(30)), "{content}: {wait:?}");
        limiter.turn(Turn::Call).await.unwrap();
        let stamps: Stamps = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert!(stamps.call_ms <= wall_ms(), "{content}: {stamps:?}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_explained() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("deep"), "a file where the folder should be").unwrap();
    let error = limiter(folder.path(), 1, 1, 1000).turn(Turn::Call).await.unwrap_err();
    assert!(error.message.contains("deep/pace.json") && error.hint.unwrap().contains("GORGO_STATE_DIR"));
}

const CHILD_FILE: &str = "GORGO_TEST_PACE_FOLDER";

/// The body of a child process of the test below; does nothing when run as a test of its own.
#[tokio::test]
async fn child_process_takes_turns() {
    let Ok(folder) = std::env::var(CHILD_FILE) else { return };
    let limiter = limiter(Path::new(&folder), 50, 50, 60_000);
    for _ in 0..3 {
        limiter.turn(Turn::Launch).await.unwrap();
        let name = format!("{}-{}", std::process::id(), wall_ms());
        fs::write(Path::new(&folder).join(name), "").unwrap();
    }
}

#[test]
fn real_processes_share_the_limit_and_one_may_die() {
    let folder = tempdir().unwrap();
    let begin_ms = wall_ms();
    let spawn = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cloud::lambda::limiter::tests::child_process_takes_turns"])
            .env(CHILD_FILE, folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let (mut killed, mut first, mut second) = (spawn(), spawn(), spawn());
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    let elapsed_ms = wall_ms() - begin_ms;
    let turns = fs::read_dir(folder.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file()).count();
    assert!(turns >= 6 && elapsed_ms >= 5 * 50 - 1, "{turns} turns in {elapsed_ms} ms");
}
