//! Who we are and whom we believe.

use crate::abi::{self, Struct};
use crate::result::{Error, Result, TRUNK_ERR_FILE, TRUNK_ERR_SECURITY, guard, trunk_result};
use engine::{ClientAuth, Identity, PeerId, Trust};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::ffi::c_char;

/// Bytes of a fingerprint.
pub const TRUNK_FINGERPRINT_BYTES: usize = 32;
/// Bytes of a fingerprint as text, final NUL included.
pub const TRUNK_FINGERPRINT_TEXT_BYTES: usize = 65;
const _: () = assert!(TRUNK_FINGERPRINT_TEXT_BYTES == 2 * TRUNK_FINGERPRINT_BYTES + 1);

/// A certificate chain with its private key, as PEM: in files, or in memory. The own certificate
/// comes first. Ed25519 and ECDSA P-256 keys are recommended.
///
/// Give file or pem, not both. Key and certificates may be in one text, or the key in a second one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_identity {
    /// Size of this struct; set by trunk_identity_init.
    pub struct_size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// PEM file with the certificates, and the key unless key_file is given. NULL.
    pub file: *const c_char,
    /// PEM file with the key. NULL.
    pub key_file: *const c_char,
    /// PEM text with the certificates, and the key unless key_pem is given. NULL.
    pub pem: *const c_char,
    /// Bytes of it; a final NUL does not count.
    pub pem_size: usize,
    /// PEM text with the key. NULL.
    pub key_pem: *const c_char,
    /// Bytes of it.
    pub key_pem_size: usize,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_identity {
    const NAME: &'static str = "trunk_identity";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            file: std::ptr::null(),
            key_file: std::ptr::null(),
            pem: std::ptr::null(),
            pem_size: 0,
            key_pem: std::ptr::null(),
            key_pem_size: 0,
        }
    }
}

fn read_file(path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::text(TRUNK_ERR_FILE, format!("cannot read {path}: {e}")))
}

impl trunk_identity {
    /// The identity at a pointer; `None` for NULL.
    ///
    /// # Safety
    /// As [`abi::read`], and the pointers inside are NULL or point to what their fields say.
    pub(crate) unsafe fn optional(from: *const Self) -> Result<Option<Identity>> {
        if from.is_null() {
            return Ok(None);
        }
        // SAFETY: handed on.
        unsafe { abi::read(from)?.load() }.map(Some)
    }

    /// The identity at a pointer.
    ///
    /// # Safety
    /// As [`optional`](Self::optional).
    pub(crate) unsafe fn required(from: *const Self) -> Result<Identity> {
        // SAFETY: handed on.
        unsafe { Self::optional(from) }?.ok_or(Error::null("identity"))
    }

    unsafe fn load(&self) -> Result<Identity> {
        // SAFETY: strings by contract.
        let (file, key_file) = unsafe {
            (
                abi::optional_text(self.file, "identity file")?,
                abi::optional_text(self.key_file, "identity key_file")?,
            )
        };
        match file {
            Some(_) if !self.pem.is_null() => {
                Err(Error::invalid("identity", "has a file and a pem text: give one of them"))
            }
            Some(path) => {
                let certificates = read_file(path)?;
                let key = key_file.map(read_file).transpose()?;
                let key = key.as_deref().unwrap_or(&certificates);
                Identity::from_pem(&certificates, key)
                    .map_err(|e| Error::text(TRUNK_ERR_SECURITY, format!("{path}: {e}")))
            }
            None => {
                if self.pem.is_null() {
                    return Err(Error::invalid("identity", "has neither a file nor a pem text"));
                }
                // SAFETY: texts of that size by contract.
                let (certificates, key) = unsafe {
                    (
                        abi::bytes(self.pem, self.pem_size, "identity pem")?,
                        abi::bytes(self.key_pem, self.key_pem_size, "identity key_pem")?,
                    )
                };
                let key = if key.is_empty() { certificates } else { key };
                Ok(Identity::from_pem(certificates, key)?)
            }
        }
    }
}

/// What makes a peer's certificate acceptable.
pub type trunk_trust_kind = u32;

/// Nothing is said. Clients: an error. Hosts: clients are not asked who they are.
pub const TRUNK_TRUST_NONE: trunk_trust_kind = 0;
/// Its public key is one of the pins. Names, dates and issuers play no part, as with ssh.
pub const TRUNK_TRUST_PINS: trunk_trust_kind = 1;
/// It chains to one of the CA certificates; clients check the server name too.
pub const TRUNK_TRUST_CA: trunk_trust_kind = 2;
/// Any certificate at all: the connection is encrypted, but anybody on the path can be the other
/// end.
pub const TRUNK_TRUST_DANGEROUS_ANY: trunk_trust_kind = 3;

/// Whom we believe.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_trust {
    /// Size of this struct; set by trunk_trust_init.
    pub struct_size: u32,
    /// How a peer is judged. TRUNK_TRUST_NONE.
    pub kind: trunk_trust_kind,
    /// TRUNK_TRUST_PINS: fingerprints, TRUNK_FINGERPRINT_BYTES each, back to back.
    pub pins: *const u8,
    /// Number of fingerprints.
    pub pin_count: usize,
    /// TRUNK_TRUST_CA: PEM file with CA certificates. NULL.
    pub ca_file: *const c_char,
    /// TRUNK_TRUST_CA: PEM text with CA certificates. NULL.
    pub ca_pem: *const c_char,
    /// Bytes of it.
    pub ca_pem_size: usize,
    /// Hosts: a client may also show no certificate; if it shows one, it must be acceptable. 0.
    pub optional: u32,
    /// Must be 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_trust {
    const NAME: &'static str = "trunk_trust";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            kind: TRUNK_TRUST_NONE,
            pins: std::ptr::null(),
            pin_count: 0,
            ca_file: std::ptr::null(),
            ca_pem: std::ptr::null(),
            ca_pem_size: 0,
            optional: 0,
            reserved: 0,
        }
    }
}

fn roots(pem: &[u8], from: &str) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| Error::text(TRUNK_ERR_SECURITY, format!("{from}: {e}")))
}

impl trunk_trust {
    /// `None` for [`TRUNK_TRUST_NONE`].
    unsafe fn load(&self) -> Result<Option<Trust>> {
        match self.kind {
            TRUNK_TRUST_NONE => Ok(None),
            TRUNK_TRUST_PINS => {
                let size = self.pin_count.checked_mul(TRUNK_FINGERPRINT_BYTES);
                let size = size.ok_or(Error::invalid("pin_count", "is out of range"))?;
                // SAFETY: that many fingerprints by contract.
                let bytes = unsafe { abi::bytes(self.pins, size, "pins") }?;
                let (pins, _) = bytes.as_chunks();
                if pins.is_empty() {
                    return Err(Error::invalid("pin_count", "must be at least 1"));
                }
                Ok(Some(Trust::Pins(pins.iter().map(|pin| PeerId(*pin)).collect())))
            }
            TRUNK_TRUST_CA => {
                // SAFETY: a string and a text of that size by contract.
                let (file, pem) = unsafe {
                    (
                        abi::optional_text(self.ca_file, "ca_file")?,
                        abi::bytes(self.ca_pem, self.ca_pem_size, "ca_pem")?,
                    )
                };
                let mut list = roots(pem, "ca_pem")?;
                if let Some(path) = file {
                    list.extend(roots(&read_file(path)?, path)?);
                }
                if list.is_empty() {
                    return Err(Error::invalid("trust", "has no CA certificate"));
                }
                Ok(Some(Trust::Roots(list)))
            }
            TRUNK_TRUST_DANGEROUS_ANY => Ok(Some(Trust::DangerousAny)),
            _ => Err(Error::invalid("trust kind", "must lie in 0..=3")),
        }
    }

    /// What a client asks of the host.
    ///
    /// # Safety
    /// `from` as [`abi::read`], and the pointers inside are NULL or point to what their fields say.
    pub(crate) unsafe fn of_client(from: *const Self) -> Result<Trust> {
        // SAFETY: handed on.
        let trust = unsafe { abi::read(from)?.load() }?;
        trust.ok_or(Error::invalid(
            "trust",
            "is not stated: pins, a CA, or TRUNK_TRUST_DANGEROUS_ANY",
        ))
    }

    /// What a host asks of its clients.
    ///
    /// # Safety
    /// As [`of_client`](Self::of_client).
    pub(crate) unsafe fn of_host(from: *const Self) -> Result<ClientAuth> {
        // SAFETY: handed on.
        let trust = unsafe { abi::read(from) }?;
        // SAFETY: handed on.
        Ok(match unsafe { trust.load() }? {
            None => ClientAuth::None,
            Some(believed) if trust.optional != 0 => ClientAuth::Optional(believed),
            Some(believed) => ClientAuth::Required(believed),
        })
    }
}

/// Fills struct_size bytes at identity with the defaults. Call it as
/// trunk_identity_init(&identity).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_identity_init_sized(
    identity: *mut trunk_identity,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(identity, struct_size) })
}

/// Fills struct_size bytes at trust with the defaults. Call it as trunk_trust_init(&trust).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_trust_init_sized(
    trust: *mut trunk_trust,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(trust, struct_size) })
}

/// Makes an Ed25519 key and a self-signed certificate for name (NULL = "trunkline"), and stores
/// both as one PEM text with a final NUL in the capacity bytes at pem. Keep it to yourself: it
/// holds the private key. size, which may be NULL, gets the bytes needed, final NUL included; 2048
/// bytes are always enough for a name of up to 255 bytes. Each call makes another key.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_BUFFER_TOO_SMALL,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SECURITY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_identity_generate(
    name: *const c_char,
    pem: *mut c_char,
    capacity: usize,
    size: *mut usize,
) -> trunk_result {
    guard(|| {
        // SAFETY: a string by contract.
        let name = unsafe { abi::optional_text(name, "name") }?.unwrap_or("trunkline");
        let text = generate(name)?;
        // SAFETY: the caller's buffer.
        unsafe { abi::put_text(&text, pem, capacity, size) }
    })
}

fn generate(name: &str) -> Result<String> {
    let bad = |e: rcgen::Error| Error::text(TRUNK_ERR_SECURITY, format!("certificate: {e}"));
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(bad)?;
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).map_err(bad)?;
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(rcgen::DnType::CommonName, name);
    params.distinguished_name = subject;
    let certificate = params.self_signed(&key).map_err(bad)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

/// Loads an identity and stores its fingerprint, TRUNK_FINGERPRINT_BYTES bytes: the SHA-256 of its
/// public key, which peers pin. Reads the files that the identity names.
///
/// Any thread; reads files, does not block otherwise. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_FILE, TRUNK_ERR_SECURITY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_identity_fingerprint(
    identity: *const trunk_identity,
    fingerprint: *mut u8,
) -> trunk_result {
    guard(|| {
        abi::expect(fingerprint, "fingerprint")?;
        // SAFETY: an identity by contract.
        let id = unsafe { trunk_identity::required(identity) }?.peer_id();
        // SAFETY: that many writable bytes by contract.
        unsafe { fingerprint.copy_from_nonoverlapping(id.0.as_ptr(), id.0.len()) };
        Ok(())
    })
}

/// Reads a fingerprint of 64 hexadecimal digits, colons between bytes allowed, and stores its
/// TRUNK_FINGERPRINT_BYTES bytes.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_fingerprint_parse(
    text: *const c_char,
    fingerprint: *mut u8,
) -> trunk_result {
    guard(|| {
        abi::expect(fingerprint, "fingerprint")?;
        // SAFETY: a string by contract.
        let id: PeerId = unsafe { abi::text(text, "text") }?.parse()?;
        // SAFETY: that many writable bytes by contract.
        unsafe { fingerprint.copy_from_nonoverlapping(id.0.as_ptr(), id.0.len()) };
        Ok(())
    })
}

/// Writes a fingerprint as 64 hexadecimal digits and a NUL, TRUNK_FINGERPRINT_TEXT_BYTES bytes.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_fingerprint_format(
    fingerprint: *const u8,
    text: *mut c_char,
) -> trunk_result {
    guard(|| {
        // SAFETY: that many bytes by contract.
        let bytes = unsafe { abi::bytes(fingerprint, TRUNK_FINGERPRINT_BYTES, "fingerprint") }?;
        let (ids, _) = bytes.as_chunks();
        let words = ids.first().map(|id| PeerId(*id).to_string()).unwrap_or_default();
        // SAFETY: that many writable bytes by contract.
        unsafe { abi::put_text(&words, text, TRUNK_FINGERPRINT_TEXT_BYTES, std::ptr::null_mut()) }
    })
}

/// # Safety
/// NULL or a fingerprint.
pub(crate) unsafe fn optional_peer(peer: *const u8) -> Result<Option<PeerId>> {
    if peer.is_null() {
        return Ok(None);
    }
    // SAFETY: by contract.
    let bytes = unsafe { abi::bytes(peer, TRUNK_FINGERPRINT_BYTES, "peer") }?;
    Ok(bytes.first_chunk().map(|id| PeerId(*id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_memory(pem: &str) -> trunk_identity {
        trunk_identity {
            struct_size: size_of::<trunk_identity>() as u32,
            pem: pem.as_ptr().cast(),
            pem_size: pem.len(),
            ..trunk_identity::defaults()
        }
    }

    #[test]
    fn a_generated_identity_loads_and_is_new_each_time() {
        let (one, two) = (generate("a.example").unwrap(), generate("a.example").unwrap());
        // SAFETY: texts with their sizes.
        let id = |pem: &str| unsafe { in_memory(pem).load() }.unwrap().peer_id();
        assert_eq!(id(&one), id(&one));
        assert_ne!(id(&one), id(&two));
        assert!(generate(&"x".repeat(255)).unwrap().len() < 2048);
    }

    #[test]
    fn identities_that_are_unusable_say_why() {
        // SAFETY: static texts and NULL.
        unsafe {
            let none = trunk_identity::defaults().load().unwrap_err();
            assert!(none.to_string().contains("neither"));
            let missing =
                trunk_identity { file: c"/no/such/file".as_ptr(), ..trunk_identity::defaults() };
            let error = missing.load().unwrap_err();
            assert_eq!(error.code, TRUNK_ERR_FILE);
            assert!(error.to_string().contains("/no/such/file"));
            assert_eq!(in_memory("nonsense").load().unwrap_err().code, TRUNK_ERR_SECURITY);
        }
    }

    #[test]
    fn trust_must_be_stated() {
        // SAFETY: NULL, or pins that are there.
        unsafe {
            assert!(trunk_trust::of_client(std::ptr::null()).is_err());
            assert!(matches!(trunk_trust::of_host(std::ptr::null()), Ok(ClientAuth::None)));
            let pin = [7u8; 32];
            let mut trust = trunk_trust {
                struct_size: size_of::<trunk_trust>() as u32,
                kind: TRUNK_TRUST_PINS,
                pins: pin.as_ptr(),
                pin_count: 1,
                ..trunk_trust::defaults()
            };
            let read = trunk_trust::of_client(&raw const trust).unwrap();
            assert!(matches!(read, Trust::Pins(pins) if pins == [PeerId(pin)]));
            trust.optional = 1;
            let read = trunk_trust::of_host(&raw const trust).unwrap();
            assert!(matches!(read, ClientAuth::Optional(Trust::Pins(_))));
            trust.pin_count = 0;
            assert!(trunk_trust::of_client(&raw const trust).is_err());
            trust.kind = 9;
            assert!(trunk_trust::of_client(&raw const trust).is_err());
        }
    }
}
