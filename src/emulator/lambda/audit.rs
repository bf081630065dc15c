//! The log of who did what; the only list that comes in pages.

use std::collections::BTreeMap;

use serde_json::Map;

use super::refusal::Refusal;
use super::world::World;
use crate::cloud::lambda::wire::{AuditEvent, AuditPage};
use crate::model::Time;
use crate::model::date;

/// Events on a page.
const PAGE: usize = 50;

/// A thing that happened.
pub(super) struct Deed {
    id: String,
    at_us: u64,
    kind: &'static str,
    action: &'static str,
    object: String,
}

impl World {
    pub(super) fn record(&mut self, now: Time, kind: &'static str, action: &'static str, object: &str) {
        let deed = Deed { id: self.id(), at_us: self.date_us(now), kind, action, object: object.to_owned() };
        self.log.push(deed);
    }

    /// A page of what fits the query. A page token is the number of the first deed to look at, which no later deed can shift.
    pub(super) fn audit(&self, query: &BTreeMap<String, String>) -> Result<AuditPage, Refusal> {
        let date = |name: &str| match query.get(name) {
            None => Ok(None),
            Some(text) => date::parse(text).map(Some).ok_or_else(|| Refusal::invalid(format!("{name} is no date."))),
        };
        let (start, end) = (date("start")?, date("end")?);
        let wrong = || Refusal::invalid("page_token is not one of ours.");
        let first =
            query.get("page_token").map_or(Ok(0), |token| usize::from_str_radix(token, 16).map_err(|_| wrong()))?;
        if first > self.log.len() {
            return Err(wrong());
        }
        let kind = query.get("resource_type");
        let fits = |deed: &Deed| {
            start.is_none_or(|start| deed.at_us >= start)
                && end.is_none_or(|end| deed.at_us <= end)
                && kind.is_none_or(|kind| *kind == format!("cloud.{}", deed.kind))
        };
        let mut fitting = self.log.iter().enumerate().skip(first).filter(|(_, deed)| fits(deed));
        let events = fitting.by_ref().take(PAGE).map(|(_, deed)| self.event(deed)).collect();
        let page_token = fitting.next().map(|(index, _)| format!("{index:x}"));
        Ok(AuditPage { events, page_token })
    }

    fn event(&self, deed: &Deed) -> AuditEvent {
        let account = &self.account;
        AuditEvent {
            service_name: "cloud".to_owned(),
            resource_name: deed.kind.to_owned(),
            action: deed.action.to_owned(),
            catalog_version: "2025-09-06".to_owned(),
            event_id: deed.id.clone(),
            event_time: date::iso(deed.at_us),
            actor_lrn: Some(format!("lrn:cloud:identity:{account}")),
            resource_lrns: vec![format!("lrn:cloud:{}:{}", deed.kind, deed.object)],
            resource_owner_lrn: Some(format!("lrn:cloud:account:{account}")),
            request_api_key_lrn: None,
            additional_details: Map::new(),
        }
    }
}
