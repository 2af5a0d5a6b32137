//! The manifest of a run in shards is what Kubernetes takes, and what it starts is what `fleet-load` takes.

use k8s_openapi::api::batch::v1::Job;
use serde_json::Value;
use std::process::Command;

const MANIFEST: &str = include_str!("../../deploy/load/job.yaml");

/// A manifest as Kubernetes' own types read it. They pass over what they do not know, as the server does without strict
/// validation; so what they have read must be all that was written.
fn job(text: &str) -> Result<Job, String> {
    let written: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let job: Job = serde_json::from_value(written.clone()).map_err(|error| error.to_string())?;
    let read = serde_json::to_value(&job).map_err(|error| error.to_string())?;
    lost(&written, &read, "").map_or(Ok(job), Err)
}

/// The first thing that is in one and not the same in the other.
fn lost(written: &Value, read: &Value, place: &str) -> Option<String> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => written.iter().find_map(|(key, value)| {
            let place = format!("{place}/{key}");
            match read.get(key) {
                Some(read) => lost(value, read, &place),
                None => Some(format!("Kubernetes knows no field `{place}`")),
            }
        }),
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => (0..)
            .zip(written.iter().zip(read))
            .find_map(|(at, (written, read))| lost(written, read, &format!("{place}/{at}"))),
        _ => (written != read).then(|| format!("`{place}` is read as {read}")),
    }
}

#[test]
fn kubernetes_takes_the_manifest_and_no_misspelt_one() {
    job(MANIFEST).expect("a job");
    let misspelt = |from: &str, to: &str| {
        let text = MANIFEST.replacen(from, to, 1);
        assert_ne!(text, MANIFEST, "`{from}` is in the manifest");
        job(&text).expect_err("refused")
    };
    assert_eq!(
        misspelt("completionMode", "completionmode"),
        "Kubernetes knows no field `/spec/completionmode`"
    );
    assert_eq!(
        misspelt("drop:", "dropped:"),
        "Kubernetes knows no field `/spec/template/spec/containers/0/securityContext/capabilities/dropped`"
    );
    let kind = misspelt("backoffLimit: 0", "backoffLimit: none");
    assert!(kind.contains("invalid type"), "{kind}");
    let kind = misspelt("kind: Job", "kind: Jobs");
    assert!(kind.contains("expected"), "{kind}");
}

/// With what Kubernetes puts in, the arguments are those of one shard each of one run: `fleet-load` gets as far as asking
/// the target, which is nobody here.
#[test]
fn each_pod_is_one_shard_of_one_run() {
    let spec = job(MANIFEST).expect("a job").spec.expect("a spec");
    let completions = spec.completions.expect("so many");
    assert_eq!(spec.completion_mode.as_deref(), Some("Indexed"));
    assert_eq!(
        (spec.parallelism, spec.backoff_limit),
        (Some(completions), Some(0))
    );
    let pod = spec.template.spec.expect("a pod");
    let container = &pod.containers[0];
    let arguments = container.args.as_ref().expect("arguments");
    assert!(arguments.contains(&format!("--shard=$(JOB_COMPLETION_INDEX)/{completions}")));
    let directory = tempfile::tempdir().expect("a directory");
    for index in 0..completions {
        let filled = arguments.iter().map(|argument| {
            let index = index.to_string();
            let mut filled = argument.replace("$(JOB_COMPLETION_INDEX)", &index);
            for variable in container.env.iter().flatten() {
                let value = match variable.name.as_str() {
                    // A port that nobody listens on.
                    "TARGET" => "http://127.0.0.1:9",
                    _ => variable.value.as_deref().expect("a value"),
                };
                filled = filled.replace(&format!("$({})", variable.name), value);
            }
            filled.replace("/reports", directory.path().to_str().expect("a path"))
        });
        let output = Command::new(env!("CARGO_BIN_EXE_fleet-load"))
            .args(filled)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("Connection refused"), "{said}");
    }
}
