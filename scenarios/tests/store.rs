//! Backups in an object store.

use fleet_store::{Fault, ObjectStore, Trouble};
use harness::rehearse::Fleet;
use harness::scenario::{Outcome, scenario};
use scenarios::fleet_site;

#[tokio::test(flavor = "multi_thread")]
async fn explore() -> Outcome {
    scenario(async |stage| {
        let store = ObjectStore::open(&stage.world).await?;
        let site = fleet_site(stage).await?;
        let fleet = Fleet::settle(&site).await?;
        site.host.write("/opt/conduit/backup.env", "600", format!("RESTIC_REPOSITORY={}\nAWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\nSTORE_PATIENCE=3\n", store.repository("fleet"), ObjectStore::KEY_ID, ObjectStore::SECRET).as_bytes()).await?;
        std::fs::create_dir_all("/tmp/sx").unwrap();
        std::fs::write("/tmp/sx/container", format!("{}\n{}", site.host.container(), store.bucket("fleet").display())).unwrap();
        loop {
            let Ok(cmd) = std::fs::read_to_string("/tmp/sx/cmd") else {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            std::fs::remove_file("/tmp/sx/cmd").unwrap();
            let words: Vec<&str> = cmd.split_whitespace().collect();
            let key: &'static str = Box::leak(words.get(1).copied().unwrap_or("").to_owned().into_boxed_str());
            let trouble = match words[0] {
                "quit" => return Ok(()),
                "heal" => { std::fs::write("/tmp/sx/out", format!("{}\n", store.heals())).unwrap(); continue; }
                "away" => { store.goes_away().await?; continue; }
                "back" => { store.comes_back().await?; continue; }
                "say" => {
                    let room = ruma::RoomAliasId::parse(format!("#fleet-intel:{}", site.name)).unwrap();
                    let room = fleet.clients[0].resolve(&room).await?;
                    fleet.clients[0].say(&room, key).await?;
                    continue;
                }
                "503" => Trouble::UNAVAILABLE,
                "403" => Trouble::FORBIDDEN,
                "cut" => Trouble::CutsShort,
                "half" => Trouble::KeepsHalf,
                "never" => Trouble::NeverAnswers,
                _ => Trouble::Trickles,
            };
            let fault = if key == "all" { Fault::of(trouble) } else { Fault::of_puts(trouble, key) };
            store.breaks(fault);
        }
    })
    .await
}
