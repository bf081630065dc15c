//! The shell programs that run on a node, and the lines that start them. Pure: text in, text out.
//!
//! POSIX `sh` with GNU coreutils (`timeout`, `mktemp`, `sync FILE`, `mv -T`), which every distribution with systemd has.
//! Secret bytes come over standard input, never in a line.

use super::super::quote::quoted_line;

/// Exit status: the node does not run systemd (sysexits' EX_UNAVAILABLE).
pub(super) const NO_SYSTEMD: i32 = 69;
/// Exit status: no such unit (EX_NOINPUT).
pub(super) const NOT_INSTALLED: i32 = 66;
/// Exit status: the bytes that arrived are not those that were sent (EX_DATAERR).
pub(super) const WRONG_SUM: i32 = 65;
/// After SIGTERM at the time limit, this long until SIGKILL, seconds.
pub(super) const KILL_AFTER_S: u32 = 5;

/// Becomes root unless it is root already, so that nodes with a root login need no sudo. Messages are English whatever the node's language.
const AS_ROOT: &str = r#"export LC_ALL=C.UTF-8; if [ "$(id -u)" = 0 ]; then exec "$@"; fi; exec sudo -n "$@""#;

/// Writes standard input to a file. Arguments: path, mode, sha256, `keep` or `replace`, owner or nothing.
///
/// The content is complete and verified before it gets the name; the trap removes the temporary file whatever goes wrong (PIPE:
/// with the connection lost, a complaint has nowhere to go, which would end the shell before its EXIT trap), and
/// leftovers of a node that lost power meanwhile go an hour later. A target that has this content already keeps its `.old`.
pub(super) const PUT: &str = r#"set -eu
target=$1 mode=$2 sum=$3 keep=$4 owner=$5
dir=${target%/*}; dir=${dir:-/}
sum_of() { s=$(sha256sum < "$1"); printf %s "${s%% *}"; }
(umask 022; mkdir -p -- "$dir")
umask 077
if [ -d "$target" ]; then echo "$target is a folder" >&2; exit 1; fi
find "$dir" -maxdepth 1 -name '.gorgo-put.*' -type f -mmin +60 -exec rm -f {} + 2>/dev/null || :
tmp=$(mktemp "$dir/.gorgo-put.XXXXXXXX")
trap 'rm -f -- "$tmp" "$tmp.old"' EXIT
trap 'exit 1' HUP INT PIPE TERM
cat > "$tmp"
if [ "$(sum_of "$tmp")" != "$sum" ]; then echo 'the content that arrived has another checksum' >&2; exit 65; fi
chmod -- "$mode" "$tmp"
if [ -n "$owner" ]; then chown -- "$owner" "$tmp"; fi
sync "$tmp"
if [ "$keep" = keep ] && [ -f "$target" ] && [ "$(sum_of "$target")" != "$sum" ]; then
  ln -- "$target" "$tmp.old"
  mv -fT -- "$tmp.old" "$target.old"
fi
mv -fT -- "$tmp" "$target"
sync "$dir"
"#;

/// Prints a file. Argument: path. What the login user may not read is read as root, where that is possible.
pub(super) const GET: &str = r#"export LC_ALL=C.UTF-8
if [ -r "$1" ] || [ "$(id -u)" = 0 ] || ! sudo -n true 2>/dev/null; then exec cat -- "$1"; fi
exec sudo -n cat -- "$1"
"#;

/// Does something with a unit, then prints how it is. Arguments: action, unit.
pub(super) const SERVICE: &str = r#"set -eu
action=$1 unit=$2
file=/etc/systemd/system/$unit
if [ ! -d /run/systemd/system ]; then echo 'systemd does not run here' >&2; exit 69; fi
needed() { if [ ! -f "$file" ]; then echo "$unit is not installed" >&2; exit 66; fi; }
case $action in
  install) systemctl daemon-reload; systemctl --quiet enable -- "$unit" ;;
  start) needed; systemctl reset-failed -- "$unit" 2>/dev/null || :; systemctl start -- "$unit" ;;
  restart) needed; systemctl reset-failed -- "$unit" 2>/dev/null || :; systemctl restart -- "$unit" ;;
  stop) needed; systemctl stop -- "$unit" ;;
  remove)
    if [ -f "$file" ]; then
      systemctl --quiet disable --now -- "$unit"
      rm -f -- "$file" "$file.old"
      systemctl daemon-reload
      systemctl reset-failed -- "$unit" 2>/dev/null || :
    fi ;;
esac
systemctl show --property=ActiveState,MainPID,NRestarts -- "$unit"
if [ -f "$file" ]; then sha256sum < "$file"; fi
"#;

/// Prints `ready`, then a unit's journal. Arguments: unit, lines, `follow` or `end`. Following ends when standard input does, so a lost or dropped
/// connection leaves nothing behind.
pub(super) const LOGS: &str = r#"set -u
if [ ! -d /run/systemd/system ]; then echo 'systemd does not run here' >&2; exit 69; fi
echo ready
if [ "$3" = end ]; then exec journalctl --no-pager --quiet --output=short-iso -u "$1" -n "$2"; fi
exec 3<&0
journalctl --no-pager --quiet --output=short-iso -u "$1" -n "$2" -f 3<&- &
reader=$!
{ cat <&3 >/dev/null; kill "$reader"; } 2>/dev/null &
wait "$reader"
kill $! 2>/dev/null || :
"#;

/// The line that the node's login shell gets for this program: quoted once, with a time limit that holds on the node.
pub(super) fn line<S: AsRef<str>>(argv: &[S], sudo: bool, timeout_s: u32) -> String {
    let limit = timeout_s.max(1).to_string();
    let after = KILL_AFTER_S.to_string();
    let mut words: Vec<&str> = vec!["exec"];
    if sudo {
        words.extend(["sh", "-c", AS_ROOT, "sh"]);
    }
    words.extend(["env", "LC_ALL=C.UTF-8", "timeout", "-k", &after, &limit]);
    words.extend(argv.iter().map(AsRef::as_ref));
    quoted_line(&words)
}

/// The line for one of the programs above.
pub(super) fn script_line(script: &str, args: &[&str], sudo: bool, timeout_s: u32) -> String {
    let argv: Vec<&str> = ["sh", "-c", script, "sh"].iter().chain(args).copied().collect();
    line(&argv, sudo, timeout_s)
}

/// The line for a program that goes on until its input ends, so without a time limit.
pub(super) fn endless_line(script: &str, args: &[&str], sudo: bool) -> String {
    let mut words = vec!["exec", "sh", "-c"];
    if sudo {
        words.extend([AS_ROOT, "sh", "sh", "-c"]);
    }
    words.extend([script, "sh"]);
    words.extend(args);
    quoted_line(&words)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use insta::assert_snapshot;

    use super::{GET, LOGS, PUT, SERVICE, endless_line, line, script_line};

    #[test]
    fn lines_are_quoted_once_and_limited() {
        assert_snapshot!(line(&["systemctl", "is-active", "a b; reboot"], false, 30), @"exec env 'LC_ALL=C.UTF-8' timeout -k 5 30 systemctl is-active 'a b; reboot'");
        assert_snapshot!(line(&["id"], true, 0), @r#"exec sh -c 'export LC_ALL=C.UTF-8; if [ "$(id -u)" = 0 ]; then exec "$@"; fi; exec sudo -n "$@"' sh env 'LC_ALL=C.UTF-8' timeout -k 5 1 id"#);
        assert_snapshot!(endless_line("cat", &["x y"], false), @"exec sh -c cat sh 'x y'");
    }

    #[test]
    fn scripts_are_valid_shell() {
        for (name, script) in [("put", PUT), ("get", GET), ("service", SERVICE), ("logs", LOGS)] {
            let checked = Command::new("sh").args(["-n", "-c", script]).output().expect("sh runs");
            assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }

    #[test]
    fn a_line_runs_through_a_shell() {
        let line = script_line("printf '%s|' \"$@\"", &["it's", "$(id)", ""], true, 5);
        // Where the tests do not run as root there may be no sudo; the quoting is the same without it.
        let line = line.replace("exec sudo -n", "exec");
        let output = Command::new("sh").arg("-c").arg(line).output().expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "it's|$(id)||");
    }
}
