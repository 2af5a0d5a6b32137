//! An Ear hears everything that a history should hold of one reader: it syncs to the end and looks into every gap.

use crate::encoded;
use harness::Result;
use harness::client::Client;
use reqwest::Method;
use serde_json::json;
use std::collections::HashSet;

/// Who listens, how far, and what he knows. What is told is written down by the client's line.
pub struct Ear {
    client: Client,
    filter: String,
    since: Option<String>,
    known: HashSet<String>,
}

impl Ear {
    /// Hears nothing yet. `limit`: of how many events a timeline may be.
    pub fn of(client: &Client, limit: Option<u32>) -> Self {
        let filter = limit.map(|limit| json!({"room": {"timeline": {"limit": limit}}}));
        let filter = filter.map(|filter| format!("&filter={}", encoded(&filter.to_string())));
        Self {
            client: client.clone(),
            filter: filter.unwrap_or_default(),
            since: None,
            known: HashSet::new(),
        }
    }

    /// Syncs until nothing is told of the room any more, and looks into every gap; once where there is no room yet.
    ///
    /// # Errors
    /// Never by what a server answers or does not: that is for the checker to judge.
    pub async fn hear(&mut self, garden: Option<&ruma::RoomId>) -> Result<()> {
        for _ in 0..6 {
            // As it comes: what ruma would refuse to read is for the checker to judge.
            let since = self
                .since
                .as_ref()
                .map(|since| format!("&since={}", encoded(since)));
            let path = format!(
                "/_matrix/client/v3/sync?timeout=0{}{}",
                self.filter,
                since.unwrap_or_default()
            );
            let answer = self.client.try_raw(Method::GET, &path, None).await;
            // Nobody there, or it does not want to: the record says so.
            let Some(sync) = answer.ok().and_then(|answer| answer.outcome.ok()) else {
                return Ok(());
            };
            self.since = sync["next_batch"].as_str().map(str::to_owned);
            let Some(garden) = garden else { return Ok(()) };
            let sections =
                ["join", "leave"].map(|section| &sync["rooms"][section][garden.as_str()]);
            let Some(told) = sections.into_iter().find(|told| told.is_object()) else {
                return Ok(());
            };
            let timeline = &told["timeline"];
            if timeline["limited"] == true
                && let Some(from) = timeline["prev_batch"].as_str()
            {
                self.look_back(garden, from.to_owned()).await;
            }
            let events = timeline["events"].as_array().into_iter().flatten();
            let ids = events.filter_map(|event| event["event_id"].as_str().map(str::to_owned));
            self.known.extend(ids);
        }
        Ok(())
    }

    async fn look_back(&mut self, garden: &ruma::RoomId, mut from: String) {
        loop {
            let path = format!(
                "/_matrix/client/v3/rooms/{}/messages?dir=b&limit=20&from={}",
                encoded(garden.as_str()),
                encoded(&from)
            );
            let page = self.client.try_raw(Method::GET, &path, None).await;
            let Some(page) = page.ok().and_then(|page| page.outcome.ok()) else {
                return;
            };
            let events = page["chunk"].as_array().cloned().unwrap_or_default();
            let ids: Vec<_> = events
                .iter()
                .filter_map(|event| event["event_id"].as_str().map(str::to_owned))
                .collect();
            let known = ids.iter().any(|id| self.known.contains(id));
            self.known.extend(ids);
            match page["end"]
                .as_str()
                .filter(|end| !known && !events.is_empty() && *end != from)
            {
                Some(end) => from = end.to_owned(),
                None => return,
            }
        }
    }
}
