//! Dense ids for blocks, and the grouping of rows into sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Episode, Row};

/// Gives each distinct key the next number and remembers which keys several sessions use.
///
/// Dense ids leave the upper bits free: a session that is played again adds its repetition there and can collide with nothing.
pub(super) struct Interner<K> {
    ids: BTreeMap<K, u64>,
    /// By id: the session that brought it, and whether another one used it too.
    users: Vec<(usize, bool)>,
}

impl<K: Ord> Interner<K> {
    pub(super) fn new() -> Self {
        Self { ids: BTreeMap::new(), users: Vec::new() }
    }

    /// The id of `key`, used by session number `session`.
    pub(super) fn id(&mut self, key: K, session: usize) -> u64 {
        let next = self.users.len() as u64;
        let id = *self.ids.entry(key).or_insert(next);
        match self.users.get_mut(id as usize) {
            Some((first, several)) => *several |= *first != session,
            None => self.users.push((session, false)),
        }
        id
    }

    /// A mark per id, made from its key and whether several sessions use it.
    pub(super) fn flags(&self, mark: impl Fn(&K, bool) -> bool) -> Vec<bool> {
        let mut flags = vec![false; self.users.len()];
        for (key, &id) in &self.ids {
            flags[id as usize] = mark(key, self.users[id as usize].1);
        }
        flags
    }
}

/// Collects rows into sessions in order of first appearance.
pub(super) struct Sessions {
    ordinals: BTreeMap<String, usize>,
    names: Vec<String>,
    /// Per session: sort key (turn, step or time) and row.
    rows: Vec<Vec<((f64, u64), Row)>>,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self { ordinals: BTreeMap::new(), names: Vec::new(), rows: Vec::new() }
    }

    /// The number of the session called `name`; a row without a name is a session of its own.
    pub(super) fn ordinal(&mut self, name: Option<String>) -> usize {
        let next = self.rows.len();
        let ordinal = match &name {
            Some(name) => *self.ordinals.entry(name.clone()).or_insert(next),
            None => next,
        };
        if ordinal == next {
            self.names.push(name.unwrap_or_default());
            self.rows.push(Vec::new());
        }
        ordinal
    }

    /// Adds a row to a session that [`Self::ordinal`] named; `order` sorts it there, equal ones stay in file order.
    pub(super) fn push(&mut self, ordinal: usize, order: (f64, u64), row: Row) {
        self.rows[ordinal].push((order, row));
    }

    /// The sessions, their rows sorted, the first row of each marked as the begin of a turn.
    ///
    /// Names that could not stand in a header, and all names of a file where one is missing, give way to `s0`, `s1`, ….
    pub(super) fn finish(self) -> Vec<Episode> {
        let named = self.names.iter().all(|name| fits_a_header(name));
        let sessions = self.rows.into_iter().zip(self.names).enumerate();
        sessions
            .map(|(ordinal, (mut rows, name))| {
                rows.sort_by(|(a, _), (b, _)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                let mut rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
                rows[0].new_turn = true;
                let id: Arc<str> = if named { name.into() } else { format!("s{ordinal}").into() };
                Episode { id, rows }
            })
            .collect()
    }
}

/// Visible ASCII, not too long, and without the `#` that separates the repetition.
fn fits_a_header(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}
