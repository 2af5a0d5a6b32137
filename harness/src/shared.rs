//! What the scenarios of one process share because they do not break it: a world that is settled when the first of them
//! asks, and goes when the process ends.

use crate::failure::Result;
use crate::world::{Options, World};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};
use tokio::sync::Mutex;

/// Connections that are shared outlive each single test, so their runtime must, too.
pub(crate) static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    #[expect(
        clippy::expect_used,
        reason = "without a runtime there is no test at all"
    )]
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
});

/// Does this work on the runtime that outlives the test: whatever it spawns, opens or waits for belongs there.
pub async fn inside<T>(work: impl Future<Output = T>) -> T {
    let mut work = Box::pin(work);
    std::future::poll_fn(|context| {
        let _inside = RUNTIME.enter();
        work.as_mut().poll(context)
    })
    .await
}

/// See the module. Made for a `static`; asked for [`inside`] the runtime that lasts.
pub struct Shared<T>(Mutex<Option<Result<Arc<Settled<T>>>>>);

/// A world, and what was settled in it.
pub struct Settled<T> {
    /// The world. A scenario is a [guest](World::guest) in it.
    pub world: World,
    it: T,
}

impl<T> Deref for Settled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.it
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Shared<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(Mutex::const_new(None))
    }

    /// What is shared, settled when first asked for.
    ///
    /// # Errors
    /// What went wrong then is wrong for all.
    pub async fn get(
        &self,
        settle: impl AsyncFnOnce(&World) -> Result<T>,
    ) -> Result<Arc<Settled<T>>> {
        let mut shared = self.0.lock().await;
        if let Some(settled) = &*shared {
            return settled.clone();
        }
        // Boxed: futures within futures are larger than a test's stack likes.
        let settled = Box::pin(begin(settle)).await.map(Arc::new);
        *shared = Some(settled.clone());
        settled
    }

    /// This one is broken: whoever asks from now on gets another.
    pub async fn abandon(&self, broken: &Arc<Settled<T>>) {
        let mut shared = self.0.lock().await;
        if matches!(&*shared, Some(Ok(current)) if Arc::ptr_eq(current, broken)) {
            *shared = None;
        }
    }
}

async fn begin<T>(settle: impl AsyncFnOnce(&World) -> Result<T>) -> Result<Settled<T>> {
    let world = World::open(Options::default()).await?;
    world.lasts();
    match Box::pin(settle(&world)).await {
        Ok(it) => Ok(Settled { world, it }),
        Err(failure) => {
            let evidence = world.run().join("evidence").join("shared");
            Err(match world.collect_evidence(&evidence).await {
                Ok(()) => failure.because(format!("evidence: {}", evidence.display())),
                Err(_) => failure,
            })
        }
    }
}
