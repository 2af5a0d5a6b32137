//! A closed loop, to show beside the open one what it hides: a user who waits for each answer before asking again.

use crate::guard::Target;
use anyhow::Result;
use std::time::Duration;

/// p99 and p99.9 in milliseconds of a closed loop over this time, and whose it was.
#[cfg(not(feature = "goose"))]
pub async fn figures(target: &Target, length: Duration) -> Result<([f64; 2], &'static str)> {
    use std::time::Instant;
    let client = target.client()?;
    let mut latencies = crate::latency::Latencies::default();
    let begin = Instant::now();
    while begin.elapsed() < length {
        let asked = Instant::now();
        let _ = client.get(target.url.clone()).send().await?.bytes().await?;
        latencies.record(crate::open::since(asked));
        // As long as it thinks, so that it does not take the processor that the open loop needs.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let at = |share| latencies.quantile_ms(share).unwrap_or_default();
    Ok(([at(0.99), at(0.999)], "closed loop, our own"))
}

/// p99 and p99.9 in milliseconds of goose's closed loop over this time.
#[cfg(feature = "goose")]
pub async fn figures(target: &Target, length: Duration) -> Result<([f64; 2], &'static str)> {
    use anyhow::Context;
    use goose::config::GooseConfiguration;
    use goose::prelude::{
        GooseAttack, GooseUser, Scenario, Transaction, TransactionResult, scenario, transaction,
    };

    async fn ask(user: &mut GooseUser) -> TransactionResult {
        let _ = user.get("/").await?;
        Ok(())
    }

    let mut configuration = GooseConfiguration::default();
    configuration.host = Some(target.url.to_string());
    configuration.users = Some(1);
    configuration.run_time = Some(length.as_secs().max(1).to_string());
    configuration.quiet = 2;
    configuration.no_telnet = true;
    configuration.no_websocket = true;
    // As long as it thinks, so that it does not take the processor that the open loop needs.
    let thinks = Duration::from_millis(1);
    let asks = scenario!("asks")
        .set_wait_time(thinks, thinks)?
        .register_transaction(transaction!(ask));
    let attack = GooseAttack::initialize_with_config(configuration)?.register_scenario(asks);
    let metrics = attack
        .execute()
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let asked = metrics
        .requests
        .values()
        .next()
        .context("goose counted no request")?;
    #[expect(clippy::cast_precision_loss, reason = "a latency")]
    let at = |percent| asked.raw_data.percentile_us(percent) as f64 / 1e3;
    Ok(([at(0.99), at(0.999)], "closed loop, goose 0.19"))
}
