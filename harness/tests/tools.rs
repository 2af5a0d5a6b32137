//! What is taken out of the lab's image runs on this machine.

use harness::tools;
use std::os::unix::fs::MetadataExt;

/// The linter asks this Caddy what a Caddyfile means; it must be there after `cargo fleet setup`, and be taken once.
#[tokio::test]
async fn the_linters_caddy_is_taken_out_of_the_image_once() {
    let path = tools::caddy()
        .await
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(path, tools::caddy_path());
    let output = tokio::process::Command::new(&path)
        .arg("version")
        .env("HOME", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .await
        .expect("it starts");
    let version = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success()
            && version.starts_with(|first: char| first == 'v' || first.is_ascii_digit()),
        "{output:?}"
    );

    let taken = std::fs::metadata(&path).expect("it is there");
    tools::caddy()
        .await
        .unwrap_or_else(|failure| panic!("{failure}"));
    let again = std::fs::metadata(&path).expect("it is there");
    assert_eq!((taken.ino(), taken.mtime()), (again.ino(), again.mtime()));
    let left: Vec<_> = std::fs::read_dir(path.parent().expect("a directory"))
        .expect("it is there")
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            !["caddy", "rocksdict"]
                .iter()
                .any(|tool| name.starts_with(tool))
        })
        .collect();
    assert!(left.is_empty(), "left over: {left:?}");
}
