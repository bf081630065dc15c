//! Lines of the audit log: who was refused, what crossed a border, and what the tuner did. Never a prompt, never a key.

use serde::{Deserialize, Serialize};

use super::tune::TuneRecord;

/// One line. Readers ignore fields that they do not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditLine {
    /// UTC, ISO 8601.
    pub at: String,
    /// What happened.
    #[serde(flatten)]
    pub event: AuditEvent,
}

/// What is worth a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AuditEvent {
    /// A request was sent to another region, or to one of which this cannot be told.
    Forward {
        /// The request, as in `x-gorgo-request-id`.
        request: String,
        /// Region of this router; `null` = it was not told.
        from: Option<String>,
        /// Region of the replica.
        to: String,
        /// The replica.
        replica: String,
        /// 1 for the first attempt.
        attempt: u32,
        /// Residency classes of the request.
        classes: Vec<String>,
        /// Name of the client's API key.
        key: Option<String>,
        /// Address that the request came from.
        client: String,
    },
    /// A request was refused for its key or for its residency.
    Refused {
        /// The request, as in `x-gorgo-request-id`; `null` on the admin API.
        request: Option<String>,
        /// Stable code of the error.
        code: String,
        /// HTTP status.
        status: u16,
        /// Residency classes of the request, as far as it got.
        classes: Vec<String>,
        /// Name of the client's API key.
        key: Option<String>,
        /// Address that the request came from.
        client: String,
    },
    /// The tuner did something.
    Tune(TuneRecord),
    /// Lines are missing here, because they came faster than they could be written.
    Dropped {
        /// How many.
        lines: u64,
    },
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{AuditEvent, AuditLine};
    use crate::wire::{Measured, TuneRecord};

    #[test]
    fn a_line_is_one_flat_object() {
        let at = "2026-11-20T12:00:00.000000Z".to_owned();
        let forward = AuditEvent::Forward {
            request: "1f".into(),
            from: Some("europe-west-1".into()),
            to: "us-east-1".into(),
            replica: "virginia".into(),
            attempt: 2,
            classes: vec!["any".into()],
            key: Some("ann".into()),
            client: "10.0.0.9".into(),
        };
        let refused = AuditEvent::Refused {
            request: None,
            code: "invalid_token".into(),
            status: 401,
            classes: Vec::new(),
            key: None,
            client: "::1".into(),
        };
        let tune = AuditEvent::Tune(TuneRecord {
            number: 3,
            what: "rejected".into(),
            why: Some("no gain beyond noise".into()),
            values: [("w_queue".to_owned(), 0.25)].into(),
            measured: Measured { periods: 10, ratio: Some(0.99), luck: Some(0.25), in_force: None, compared: None },
            sigma: 0.5,
        });
        let lines: Vec<String> = [forward, refused, tune, AuditEvent::Dropped { lines: 3 }]
            .into_iter()
            .map(|event| {
                let line = AuditLine { at: at.clone(), event };
                let text = serde_json::to_string(&line).unwrap();
                assert_eq!(serde_json::from_str::<AuditLine>(&text).unwrap(), line);
                text
            })
            .collect();
        assert_snapshot!(lines.join("\n"), @r#"
        {"at":"2026-11-20T12:00:00.000000Z","event":"forward","request":"1f","from":"europe-west-1","to":"us-east-1","replica":"virginia","attempt":2,"classes":["any"],"key":"ann","client":"10.0.0.9"}
        {"at":"2026-11-20T12:00:00.000000Z","event":"refused","request":null,"code":"invalid_token","status":401,"classes":[],"key":null,"client":"::1"}
        {"at":"2026-11-20T12:00:00.000000Z","event":"tune","number":3,"what":"rejected","why":"no gain beyond noise","values":{"w_queue":0.25},"measured":{"periods":10,"ratio":0.99,"luck":0.25,"in_force":null,"compared":null},"sigma":0.5}
        {"at":"2026-11-20T12:00:00.000000Z","event":"dropped","lines":3}
        "#);
    }
}
