//! Accounts that nobody had before, on a server that scenarios share.

use crate::admins::Admins;
use crate::client::{Client, Line, Registration};
use crate::failure::{Failure, Result};
use crate::site::Site;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

/// An account that nobody had before.
#[derive(Clone, Debug)]
pub struct Account {
    /// The localpart.
    pub name: String,
    /// Its password.
    pub password: String,
}

/// Who makes accounts on a server.
pub enum Accounts {
    /// The administrator, because registration is closed. One at a time: the admin room answers in the order in which it
    /// is asked.
    Closed(Box<Mutex<Registrar>>),
    /// Whoever comes.
    Open,
}

/// The administrator, in the room where the server takes commands.
pub struct Registrar(Admins);

/// A word that nobody else in this process uses.
pub fn unique(word: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{word}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Accounts {
    /// On a Conduit that followed `bootstrap.md` by its administrator, on another server by open registration.
    ///
    /// # Errors
    /// When the administrator does not come in.
    pub async fn of(site: &Site) -> Result<Self> {
        if !site.server.is_conduit() {
            return Ok(Self::Open);
        }
        let password = site
            .host
            .shell("cat /opt/conduit/secrets/admin.password")
            .await?;
        let (http, base) = (site.http(), site.base_url());
        let admin = Client::login(http, &base, "admin", &password, "registrar").await?;
        let admins = Admins::enter(admin).await?;
        Ok(Self::Closed(Box::new(Mutex::new(Registrar(admins)))))
    }

    /// A new account, called like this, with a number. It has no device.
    ///
    /// # Errors
    /// When the server does not make it.
    pub async fn make(&self, site: &Site, name: &str) -> Result<Account> {
        let name = unique(name);
        let password = format!("{name}-keeps-a-secret");
        match self {
            Self::Closed(registrar) => registrar.lock().await.register(&name, &password).await?,
            Self::Open => {
                let (http, base) = (site.http(), site.base_url());
                let how = Registration::Open;
                Client::register(http, &base, &name, &password, "registration", how)
                    .await?
                    .logout()
                    .await?;
            }
        }
        Ok(Account { name, password })
    }
}

impl Account {
    /// Logs it in by this way, as a new device.
    ///
    /// # Errors
    /// When the login is refused.
    pub async fn login(&self, line: impl Into<Line>, base: &str) -> Result<Client> {
        Ok(Client::login(line, base, &self.name, &self.password, "scenario").await?)
    }
}

impl Registrar {
    async fn register(&mut self, name: &str, password: &str) -> Result<()> {
        let command = format!("create-user {name} {password}");
        let told = self.0.ask(&command, name).await?;
        if told.starts_with("Created user") {
            return Ok(());
        }
        Err(Failure::product(format!("make the account `{name}` by `create-user`")).last_seen(told))
    }
}
