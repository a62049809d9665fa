//! Certificates that somebody else keeps.

use std::{convert::Infallible, path::Path, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::Served;

/// A mounted Secret changes a minute after the Secret does; a little more is no matter.
const LOOK: Duration = Duration::from_secs(5);

/// Serves what is in the folder, as it changes, for ever.
pub(super) async fn follow(folder: &Path, served: &Served) -> Infallible {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        ticks.tick().await;
        let trouble = load(folder, served).err();
        if let Some(trouble) = trouble.as_ref().filter(|_| trouble != told) {
            tracing::warn!("the admission webhook's certificate is not taken up: {trouble}");
        }
        told = trouble;
    }
}

/// The files are small, and of a folder in memory.
fn load(folder: &Path, served: &Served) -> Result<(), String> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|error| {
            let path = path.display();
            format!("{path}: {error}; mount the certificate's Secret there")
        })
    };
    let (certificate, key) = (read("tls.crt")?, read("tls.key")?);
    served.set(&certificate, &key).map_err(|error| {
        let folder = folder.display();
        format!("{folder}: {error}; give tls.crt and the tls.key that belongs to it")
    })
}
