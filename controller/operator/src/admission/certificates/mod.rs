//! The webhook's certificate, and the authority that the API server knows it by.

mod authority_bundle;
mod files;
mod issue;
mod own;
mod plan;

use std::{convert::Infallible, sync::Arc, time::Duration};

use kube::Client;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::sync::watch;

use super::{Certificates, Config};

/// How long certificates of the webhook's own authority last. Each is renewed after two thirds of
/// its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of an authority. It stays in the bundle until its end, so that whatever it signed is valid
    /// until a replica has taken up what the next one signs.
    pub authority: Duration,
    /// Of the server's certificate, within that of its authority.
    pub leaf: Duration,
    /// For how long API servers must have known a new authority before it signs anything: each has
    /// to hear of the changed configuration.
    pub settle: Duration,
}

impl Default for Lifetimes {
    /// A year, ninety days, five minutes.
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            authority: DAY * 365,
            leaf: DAY * 90,
            settle: Duration::from_secs(5 * 60),
        }
    }
}

/// Why a certificate and its key cannot be used. Outcome: the former ones are served on.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    /// Not PEM.
    #[error("it is not in PEM form: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// No certificate, no key that this can sign with, or not those of each other.
    #[error("certificate and key do not serve: {0}")]
    Tls(#[from] rustls::Error),
}

/// What new connections are shown. Those that stand are not touched by a change.
pub(super) struct Served(watch::Sender<Option<Arc<CertifiedKey>>>);

impl Default for Served {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Served {
    /// Serves this certificate from now on, both PEM.
    pub(super) fn set(&self, certificate: &[u8], key: &[u8]) -> Result<(), KeyError> {
        let key = certified_key(certificate, key)?;
        let is_new = |served: &Arc<CertifiedKey>| served.cert != key.cert;
        if self.0.borrow().as_ref().is_none_or(is_new) {
            self.0.send_replace(Some(Arc::new(key)));
            tracing::info!("the admission webhook serves a new certificate");
        }
        Ok(())
    }

    /// Waits until there is one.
    pub(super) async fn ready(&self) {
        let mut served = self.0.subscribe();
        let is_there = served.wait_for(Option::is_some).await;
        is_there.expect("the sender is borrowed");
    }

    /// TLS with it.
    pub(super) fn tls(&self) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the suites of TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(self.0.subscribe())))
    }
}

/// A certificate with its key, both PEM, if they belong together.
fn certified_key(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, KeyError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let key = PrivateKeyDer::from_pem_slice(key)?;
    Ok(CertifiedKey::from_der(
        chain?,
        key,
        &ring::default_provider(),
    )?)
}

#[derive(Debug)]
struct Resolver(watch::Receiver<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().clone()
    }
}

/// Keeps `served` up to date for ever.
pub(super) async fn keep(
    client: Client,
    config: &Config,
    served: &Served,
    is_leader: watch::Receiver<bool>,
) -> Infallible {
    match &config.certificates {
        Certificates::Own(lifetimes) => {
            own::Keeper::new(client, config, *lifetimes, served)
                .run(is_leader)
                .await
        }
        Certificates::Files(folder) => files::follow(folder, served).await,
    }
}
