//! Stores that are broken, or another's: the client says so, and nothing goes out in clear text.

use crate::{Between, demand, encryption_between};
use fleet_device::{Device, Gate, Mutant};
use harness::scenario::Outcome;
use harness::{Failure, OrBlame};
use reqwest::Method;
use std::path::Path;
use std::{fs, io};

const SECRET: &str = "the hedgehog is called Wilhelmina";

/// F16. alice's session is taken up on the store of bob's device. Her client says that it is another's, and asks her server for
/// nothing in her name that would change anything; with its own store the device works as before.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_another_account_is_refused() -> Outcome {
    encryption_between(
        &[Between::Neighbours],
        &[Mutant::DropsToDevice],
        async |_, cast| {
            let gate = cast.gate(&cast.home).await?;
            let (alice, bob) = cast.phones().await?;
            let room = cast.garden(&alice, &bob).await?;
            let (alice, bobs) = (alice.close(), bob.close());
            let mixed = alice
                .clone()
                .by(&gate.way()?)
                .on_the_store_at(&bobs.store());
            let wrong = Device::reopened(mixed).await.map(|_| ());
            let said = format!("{wrong:?}");
            demand(
                said.contains("doesn't match the account"),
                "refuse to take a session up on another account's store",
                said,
            )?;
            let mut writes = gate.passed();
            writes.retain(|passed| passed.question.method != Method::GET);
            demand(
                writes.is_empty(),
                "send nothing from another's store",
                format!("{writes:?}"),
            )?;
            let (alice, bob) = (
                Device::reopened(alice).await?,
                Device::reopened(bobs).await?,
            );
            let said = alice.say(&room, SECRET).await?;
            bob.reads(&room, &said, SECRET).await?;
            Ok(())
        },
    )
    .await
}

/// F16. The store of alice's keys is damaged while her client is not running: each time her client says so when it is started
/// or when it is to send, and what she would have said leaves it in no form. With the store as it was it goes on as before.
/// That what passes is looked at is seen from the same words sent in clear.
#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_store_is_reported_and_lets_nothing_out() -> Outcome {
    let noticed = [Mutant::DropsToDevice];
    encryption_between(&[Between::Neighbours], &noticed, async |_, cast| {
        let gate = cast.gate(&cast.home).await?;
        let alice = Device::login(&gate.way()?, &cast.alice, "phone").await?;
        let bob = cast.bobs("phone").await?;
        let room = cast.garden(&alice, &bob).await?;
        let alice = alice.shut().await?;
        for (damage, change) in DAMAGES {
            let what = || format!("damage a store: {damage}");
            let broken = tempfile::tempdir().or_environment(what)?;
            copy(&alice.store(), broken.path(), *change).or_environment(what)?;
            let broken_alice = alice.clone().on_the_store_at(broken.path());
            gate.forget();
            let outcome = async {
                let alice = Device::reopened(broken_alice).await?;
                alice.say(&room, SECRET).await
            };
            let said = match outcome.await {
                Ok(event) => format!("it said `{event}`"),
                Err(failure) => failure.to_string(),
            };
            demand(
                ["not a database", "malformed", "disk I/O error"]
                    .iter()
                    .any(|word| said.contains(word)),
                &format!("report a store of which {damage}"),
                said,
            )?;
            demand(
                gate.count("/send/") == 0 && !leaked(&gate),
                &format!("send nothing from a store of which {damage}"),
                format!("{:?}", gate.passed()),
            )?;
        }
        let alice = Device::reopened(alice).await?;
        gate.forget();
        let said = alice.say(&room, SECRET).await?;
        bob.reads(&room, &said, SECRET).await?;
        demand(
            !leaked(&gate),
            "send it encrypted",
            format!("{:?}", gate.passed()),
        )?;
        alice.bare().say(&room, SECRET).await?;
        match leaked(&gate) {
            true => Ok(()),
            false => Err(Failure::harness("see what passes in clear")),
        }
    })
    .await
}

/// Whether it passed in clear.
fn leaked(gate: &Gate) -> bool {
    let passed = gate.passed();
    let mut bodies = passed
        .iter()
        .map(|passed| String::from_utf8_lossy(&passed.question.body));
    bodies.any(|body| body.contains(SECRET))
}

type Damage = fn(&mut Vec<u8>);

const DAMAGES: &[(&str, Damage)] = &[
    ("the first bytes are flipped", |bytes| {
        bytes.iter_mut().take(16).for_each(|byte| *byte ^= 0xff);
    }),
    ("a byte in sixteen is flipped", |bytes| {
        bytes
            .iter_mut()
            .skip(100)
            .step_by(16)
            .for_each(|byte| *byte ^= 0xff);
    }),
    ("half is missing", |bytes| bytes.truncate(bytes.len() / 2)),
    ("all but the first page is zeros", |bytes| {
        bytes.iter_mut().skip(4096).for_each(|byte| *byte = 0);
    }),
];

/// Copies a store whose database of keys is then damaged.
fn copy(from: &Path, to: &Path, damage: Damage) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    let database = to.join("matrix-sdk-crypto.sqlite3");
    let mut bytes = fs::read(&database)?;
    damage(&mut bytes);
    fs::write(database, bytes)
}
