//! The Operator: follows runbooks at a Host's shell, and knows no API.

use crate::docker::Docker;
use crate::failure::{Failure, OrBlame, Result};
use crate::host::Host;
use crate::record::Open;
use crate::runbook::{
    BASH, BashProcess, BashSession, Command, Limits, Observer, Outcome, Plan, Runbook, Seen,
    Session, SessionError, Shell, Signal, Step, Terminator, Transcript, follow,
};
use crate::verdict::Blame;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// What a runbook handed out when it was followed to its end.
#[derive(Clone, Debug)]
pub struct Followed {
    name: String,
    results: BTreeMap<String, String>,
    /// What was run, with what came of it.
    pub transcript: Transcript,
}

impl Followed {
    /// A variable of the runbook's `Results`.
    pub fn result(&self, name: &str) -> Result<String> {
        self.results.get(name).cloned().ok_or_else(|| {
            Failure::deployment(format!(
                "take `{name}` from `{}`: it hands out no such result",
                self.name
            ))
        })
    }
}

/// Reads a runbook under `deploy/runbooks/`, or any other by its path.
///
/// # Errors
/// The deployment's: every mistake of the document, with file, line and what to do.
pub fn read_runbook(path: &Path) -> Result<Runbook> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::deployment(format!("read the runbook `{shown}`")).because(error)
    })?;
    let name = path
        .strip_prefix(crate::paths::repository())
        .map_or_else(|_| shown.clone(), |relative| relative.display().to_string());
    Runbook::parse(name, &text)
        .map_err(|error| Failure::deployment(format!("read the runbook `{shown}`")).because(error))
}

/// Plans a runbook for these variables.
pub fn plan_runbook(runbook: &Runbook, given: &BTreeMap<String, String>) -> Result<Plan> {
    runbook.plan(given).map_err(|error| {
        Failure::deployment(format!("plan the runbook `{}`", runbook.name())).because(error)
    })
}

impl Host {
    /// Follows one of our runbooks (`install.md`) on this host, to its end.
    ///
    /// # Errors
    /// The deployment's, as a letter: which command of which step, what was promised and what was seen. The
    /// environment's, if the shell was lost.
    pub async fn follow(&self, runbook: &str, given: &[(&str, &str)]) -> Result<Followed> {
        let step = self
            .world
            .recorder
            .begin(format!("follow {runbook} on {}", self.server_name));
        let followed = self
            .follow_file(&crate::paths::runbooks().join(runbook), given, &step)
            .await?;
        step.done();
        Ok(followed)
    }

    /// Follows any runbook of this machine.
    pub async fn follow_file(
        &self,
        path: &Path,
        given: &[(&str, &str)],
        step: &Open,
    ) -> Result<Followed> {
        let transcript = self.try_follow(path, given, step).await?;
        let name = transcript.plan().runbook().name().to_owned();
        self.keep(&name, &transcript)?;
        if let Some(letter) = transcript.failure() {
            let blame = match letter.outcome() {
                Outcome::SessionLost { .. } => Blame::Environment,
                _ => Blame::Deployment,
            };
            return Err(Failure::new(blame, letter.to_string().trim_end()));
        }
        Ok(Followed {
            name,
            results: transcript.results().clone(),
            transcript,
        })
    }

    /// Follows a runbook and hands back what happened, whatever it was.
    pub async fn try_follow(
        &self,
        path: &Path,
        given: &[(&str, &str)],
        step: &Open,
    ) -> Result<Transcript> {
        let runbook = read_runbook(path)?;
        let given = given
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let plan = plan_runbook(&runbook, &given)?;
        let mut session = DockerShell {
            docker: self.world.docker.clone(),
            container: self.container().to_owned(),
        }
        .start()
        .await
        .or_environment(|| format!("open a shell on `{}`", self.server_name))?;
        let mut progress = Progress { step };
        let transcript = follow(&plan, session.as_mut(), &mut progress, Limits::default()).await;
        session.close(Duration::from_secs(5)).await;
        Ok(transcript)
    }

    /// Keeps the transcript with the run.
    fn keep(&self, runbook: &str, transcript: &Transcript) -> Result<()> {
        let directory = self
            .world
            .run
            .join("transcripts")
            .join(&self.world.name)
            .join(&self.server_name);
        let what = || format!("keep the transcript of `{runbook}`");
        std::fs::create_dir_all(&directory).or_environment(what)?;
        let count = std::fs::read_dir(&directory).or_environment(what)?.count();
        let name = Path::new(runbook)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        std::fs::write(
            directory.join(format!("{:02}-{name}", count + 1)),
            transcript.to_markdown(),
        )
        .or_environment(what)
    }
}

/// Shows which command runs.
struct Progress<'a> {
    step: &'a Open,
}

impl Observer for Progress<'_> {
    fn command_begins(&mut self, step: &Step, command: &Command) {
        self.step
            .note(&format!("{} > {}", step.title, command.text));
    }

    fn not_yet(&mut self, command: &Command, number: u32, seen: &Seen) {
        self.step.note(&format!(
            "{} (attempt {number}: not yet, {seen:?})",
            command.text
        ));
    }
}

/// Starts a bash in a container.
struct DockerShell {
    docker: Docker,
    container: String,
}

#[async_trait]
impl Shell for DockerShell {
    async fn start(&self) -> std::result::Result<Box<dyn Session>, SessionError> {
        let attached = self
            .docker
            .attach(&self.container, BASH)
            .await
            .map_err(|failure| SessionError::Lost {
                why: failure.to_string(),
                output: String::new(),
            })?;
        let terminator = ExecTerminator {
            docker: self.docker.clone(),
            container: self.container.clone(),
        };
        let session =
            BashSession::open(attached.output, attached.input, Box::new(terminator)).await?;
        Ok(Box::new(session))
    }
}

/// Signals a process of a container from a second one.
struct ExecTerminator {
    docker: Docker,
    container: String,
}

#[async_trait]
impl Terminator for ExecTerminator {
    async fn send(&mut self, process: BashProcess, signal: Signal) {
        // There is nothing that the session could do about a failure: it is over in any case.
        let _ = self
            .docker
            .exec(
                &self.container,
                &["bash", "-c", &process.kill_command(signal)],
                None,
            )
            .await;
    }
}
