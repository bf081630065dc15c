//! Commands that a test waits for, with a bound: one that never ends fails its test instead of holding up every test after it.

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Pause between two looks at whether it has ended.
const PAUSE: Duration = Duration::from_millis(5);
/// Most looks: at least four minutes, far longer than any command of a test takes, also on a busy machine.
const LOOKS: u32 = 48_000;

/// [`Command::output`], but a command that does not end in time is killed.
///
/// # Panics
///
/// Where it cannot be started, or has not ended after [`LOOKS`]; the text then holds what it had said until then.
pub(crate) fn output(command: &mut Command) -> Output {
    let shown = format!("{command:?}");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let (out, err) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let ended = (0..LOOKS).find_map(|_| {
        let status = child.try_wait().expect("a child of ours");
        if status.is_none() {
            std::thread::sleep(PAUSE);
        }
        status
    });
    let Some(status) = ended else {
        child.kill().and_then(|()| child.wait()).expect("a child of ours");
        panic!("{shown} does not end\nstdout: {}\nstderr: {}", said(&out), said(&err));
    };
    Output { status, stdout: all(out), stderr: all(err) }
}

/// What was read until now, and whether that was all.
type Reader = (std::thread::JoinHandle<()>, std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

fn reader(pipe: Option<impl Read + Send + 'static>) -> Reader {
    let mut pipe = pipe.expect("it is piped");
    let kept = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let into = std::sync::Arc::clone(&kept);
    let thread = std::thread::spawn(move || {
        let mut part = [0; 16 * 1024];
        while let Ok(length @ 1..) = pipe.read(&mut part) {
            into.lock().expect("no reader panics").extend_from_slice(&part[..length]);
        }
    });
    (thread, kept)
}

fn said((_, kept): &Reader) -> String {
    String::from_utf8_lossy(&kept.lock().expect("no reader panics")).into_owned()
}

fn all((thread, kept): Reader) -> Vec<u8> {
    thread.join().expect("no reader panics");
    std::mem::take(&mut *kept.lock().expect("no reader panics"))
}
