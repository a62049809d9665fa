//! Certificates, of an authority made for the run.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// A certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The certificate.
    pub certificate: String,
    /// Its private key, PKCS #8.
    pub key: String,
}

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// One with this common name, which none of its certificates may have.
    ///
    /// # Panics
    /// Where the machine gives no random numbers.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let key = new_key();
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("the key is new");
        Self {
            certificate: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A server's certificate for these DNS names and IP addresses.
    ///
    /// # Panics
    /// Where a name is no ASCII.
    #[must_use]
    pub fn server(&self, name: &str, reached_as: &[&str]) -> Credentials {
        let names: Vec<String> = reached_as.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names are ASCII");
        params.distinguished_name = subject(name, None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A client's certificate, which Kubernetes reads as a user and a group.
    ///
    /// # Panics
    /// Where the machine gives no random numbers.
    #[must_use]
    pub fn client(&self, user: &str, group: &str) -> Credentials {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(user, Some(group));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Credentials {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = new_key();
        let signed = params.signed_by(&key, &self.issuer);
        Credentials {
            certificate: signed.expect("both keys are new").pem(),
            key: key.serialize_pem(),
        }
    }
}

/// The two halves of a new ECDSA key, PEM: private (PKCS #8) and public.
///
/// # Panics
/// Where the machine gives no random numbers.
#[must_use]
pub fn key_pair() -> (String, String) {
    let key = new_key();
    (key.serialize_pem(), key.public_key_pem())
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("the machine gives random numbers")
}

fn subject(name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    if let Some(organization) = organization {
        subject.push(DnType::OrganizationName, organization);
    }
    subject
}
