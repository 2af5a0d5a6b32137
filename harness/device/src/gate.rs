//! The way from devices to their server, with somebody standing in it.

use crate::Mutant;
use crate::device::Way;
use harness::intercept::{Answer, Intercept, Interceptor, Question, Reply};
use harness::site::Site;
use harness::{Failure, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What becomes of a request on its way.
pub enum Meddling {
    /// It is not passed on, and answered with this.
    Answer(Answer),
    /// It is not passed on, and the connection is closed: the client cannot know whether it arrived.
    LoseRequest,
    /// It is passed on, and the connection is closed instead of an answer: the server has done what the client does not
    /// know of.
    LoseReply,
    /// This is asked instead.
    Ask(Question),
    /// The answer is changed.
    Tell(Box<dyn FnOnce(&mut Answer) + Send>),
    /// It is passed on, somebody is told once the server has answered, and the answer never comes.
    KeepReply(Arc<Notify>),
}

/// Something that passed.
#[derive(Clone, Debug)]
pub struct Passed {
    /// What was asked, as it came from the device.
    pub question: Question,
    /// What the device was answered; nothing where the connection was closed.
    pub answer: Option<Answer>,
}

type Rule = Arc<dyn Fn(&Question) -> Option<Meddling> + Send + Sync>;

#[derive(Default)]
struct Rules {
    next: AtomicU64,
    /// By number, with how often it has meddled.
    rules: Mutex<Vec<(u64, Rule, u64)>>,
    passed: Mutex<Vec<Passed>>,
}

/// See the module. Ends when it is dropped.
pub struct Gate {
    interceptor: Interceptor,
    rules: Arc<Rules>,
}

struct Doorkeeper(Arc<Rules>);

impl Gate {
    /// Opens one in front of a site's proxy.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn before(site: &Site) -> Result<Self> {
        let rules = Arc::new(Rules::default());
        let interceptor = Interceptor::start(
            &site.base_url(),
            site.http().clone(),
            Doorkeeper(rules.clone()),
        )
        .await?;
        Ok(Self { interceptor, rules })
    }

    /// The same, wrong in this way for as long as it stands.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn wrong(site: &Site, mutant: Mutant) -> Result<Self> {
        let gate = Self::before(site).await?;
        let state = mutant.state();
        gate.rules.add(Arc::new(move |question| state(question)));
        Ok(gate)
    }

    /// What devices are given to come through here.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn way(&self) -> Result<Way> {
        Way::in_clear_text(&self.interceptor.base)
    }

    /// Meddles for as long as the body runs. The rule is asked for every request; the newest rule with an opinion has its
    /// way.
    ///
    /// # Errors
    /// The body's. Ours, when the rule never had an opinion: a fault that breaks nothing proves nothing.
    pub async fn during<T>(
        &self,
        what: &str,
        rule: impl Fn(&Question) -> Option<Meddling> + Send + Sync + 'static,
        body: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<T> {
        let scope = Scope {
            rules: &self.rules,
            number: self.rules.add(Arc::new(rule)),
        };
        let outcome = body().await;
        let meddled = scope.end();
        match outcome {
            Ok(_) if meddled == 0 => Err(Failure::harness(format!(
                "{what}: nothing passed that it applies to"
            ))),
            outcome => outcome,
        }
    }

    /// Everything that passed so far, in the order of its answers.
    pub fn passed(&self) -> Vec<Passed> {
        lock(&self.rules.passed).clone()
    }

    /// How many requests passed whose path contains this.
    pub fn count(&self, path: &str) -> usize {
        let passed = lock(&self.rules.passed);
        let there = |passed: &&Passed| passed.question.path.contains(path);
        passed.iter().filter(there).count()
    }

    /// The devices to which a to-device message of this type was sent, as user and device.
    pub fn addressed(&self, kind: &str) -> BTreeSet<(String, String)> {
        let path = format!("/sendToDevice/{kind}/");
        let mut addressed = BTreeSet::new();
        for Passed { question, .. } in self.passed() {
            let body: Value = serde_json::from_slice(&question.body).unwrap_or_default();
            let messages = body["messages"]
                .as_object()
                .filter(|_| question.path.contains(&path));
            for (user, devices) in messages.into_iter().flatten() {
                let devices = devices.as_object().into_iter().flatten();
                addressed.extend(devices.map(|(device, _)| (user.clone(), device.clone())));
            }
        }
        addressed
    }

    /// Forgets what passed.
    pub fn forget(&self) {
        lock(&self.rules.passed).clear();
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("base", &self.interceptor.base)
            .finish_non_exhaustive()
    }
}

struct Scope<'a> {
    rules: &'a Rules,
    number: u64,
}

impl Scope<'_> {
    fn end(&self) -> u64 {
        let mut rules = lock(&self.rules.rules);
        let at = rules.iter().position(|(number, ..)| *number == self.number);
        at.map_or(0, |at| rules.remove(at).2)
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl Rules {
    fn add(&self, rule: Rule) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Before what was there: the innermost scope decides, and a planted fault last.
        lock(&self.rules).insert(0, (number, rule, 0));
        number
    }

    fn opinion(&self, question: &Question) -> Option<Meddling> {
        let mut rules = lock(&self.rules);
        rules.iter_mut().find_map(|(_, rule, meddled)| {
            let meddling = rule(question)?;
            *meddled += 1;
            Some(meddling)
        })
    }
}

impl Intercept for Doorkeeper {
    async fn answer(
        &self,
        question: Question,
        way: &harness::intercept::Way,
    ) -> reqwest::Result<Reply> {
        let reply = match self.0.opinion(&question) {
            None => Reply::Answer(way.forward(&question).await?),
            Some(Meddling::Answer(answer)) => Reply::Answer(answer),
            Some(Meddling::LoseRequest) => Reply::Nothing,
            Some(Meddling::LoseReply) => {
                way.forward(&question).await?;
                Reply::Nothing
            }
            Some(Meddling::KeepReply(answered)) => {
                way.forward(&question).await?;
                answered.notify_one();
                std::future::pending().await
            }
            Some(Meddling::Ask(other)) => Reply::Answer(way.forward(&other).await?),
            Some(Meddling::Tell(change)) => {
                let mut answer = way.forward(&question).await?;
                change(&mut answer);
                Reply::Answer(answer)
            }
        };
        lock(&self.0.passed).push(Passed {
            question,
            answer: match &reply {
                Reply::Answer(answer) => Some(answer.clone()),
                Reply::Nothing => None,
            },
        });
        Ok(reply)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
