//! The table of contents of a checkpoint, and how a foreign one is told.
//!
//! `manifest.json` names every file with its length and SHA-256; `manifest.json.sha256`, a line as `sha256sum` writes
//! it, vouches for the manifest. So `sha256sum -c manifest.json.sha256` checks the one and the manifest the rest.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The format written here; a checkpoint of another is refused.
pub const VERSION: u32 = 11;

/// What `format` says in every manifest.
const FORMAT: &str = "kronfleet-checkpoint";

/// SHA-256 (FIPS 180-4) of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sum(pub [u8; 32]);

impl Sum {
    /// That of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_all([bytes])
    }

    /// That of `parts`, one after the other.
    pub fn of_all<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut digest = Sha256::new();
        parts.into_iter().for_each(|part| digest.update(part));
        Self(digest.finalize().into())
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Sum {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no SHA-256: expected 64 digits of 0-9 and a-f");
        let digit = |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut sum = [0; 32];
        if pairs.len() != sum.len() || !rest.is_empty() {
            return Err(wrong());
        }
        for (byte, &[high, low]) in sum.iter_mut().zip(pairs) {
            *byte = (16 * digit(high).ok_or_else(wrong)? + digit(low).ok_or_else(wrong)?) as u8;
        }
        Ok(Self(sum))
    }
}

impl From<Sum> for String {
    fn from(sum: Sum) -> Self {
        sum.to_string()
    }
}

impl TryFrom<String> for Sum {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// One file of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its length.
    pub bytes: u64,
    /// The digest of its content.
    pub sha256: Sum,
}

/// Which run a checkpoint is of: what must be the same for it to be taken up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunIdentity {
    /// Every setting that decides what the run does, as TOML.
    pub settings: String,
    /// The digest of `settings`.
    pub settings_sha256: Sum,
    /// What the model is called.
    pub model: String,
    /// The digest of the model's description: its input and all its layers.
    pub model_sha256: Sum,
    /// What the data are called.
    pub data: String,
    /// The digest of the training samples and their labels.
    pub data_sha256: Sum,
    /// How many nodes train.
    pub nodes: u32,
    /// The type of a number, [`Scalar::NAME`](kronfleet_core::scalar::Scalar::NAME).
    pub scalar: String,
}

impl RunIdentity {
    /// Why a run of this identity cannot go on from a checkpoint of `other`, one reason each.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.scalar != other.scalar {
            reasons
                .push(format!("it holds numbers of type {} where this run computes in {}", other.scalar, self.scalar));
        }
        if self.model_sha256 != other.model_sha256 {
            reasons.push(format!("its model, {}, is described otherwise than {}", other.model, self.model));
        }
        if self.data_sha256 != other.data_sha256 {
            reasons.push(format!("its training data, {}, are not those of this run, {}", other.data, self.data));
        }
        let (own, theirs) = (knobs(&self.settings), knobs(&other.settings));
        let keys = own.keys().chain(theirs.keys().filter(|key| !own.contains_key(*key)));
        // Another number of nodes is provided for, and weights to begin with have done their work.
        let matters = |key: &&&str| !matches!(**key, "nodes" | "load") && own.get(*key) != theirs.get(*key);
        for key in keys.filter(matters) {
            let value = |side: &BTreeMap<&str, &str>| side.get(key).map_or("not set".to_owned(), |text| (*text).into());
            reasons.push(format!("--{key} is {} there and {} here", value(&theirs), value(&own)));
        }
        reasons
    }
}

/// Settings by name, as `describe` writes them: one a line.
fn knobs(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(" = ")).collect()
}

/// The newest committed average of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Committed {
    /// Its certificate's name.
    pub certificate: String,
    /// Its round.
    pub round: u64,
    /// Who contributed.
    pub members: Vec<u32>,
}

/// What `manifest.json` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always `kronfleet-checkpoint`.
    pub format: String,
    /// The format's number.
    pub version: u32,
    /// Which program wrote it.
    pub writer: String,
    /// Which checkpoint of its folder this is.
    pub number: u64,
    /// The iteration of the node that was furthest.
    pub iteration: u64,
    /// The run's own time, in nanoseconds.
    pub time: u64,
    /// Frames that were under way.
    pub frames: u64,
    /// The trace's hash up to here.
    pub trace: String,
    /// Whose parameters `model.safetensors` holds, in words.
    pub holds: String,
    /// The iterations behind those parameters.
    pub common: u64,
    /// The newest committed average, if there is one.
    pub committed: Option<Committed>,
    /// Which run it is of.
    pub run: RunIdentity,
    /// Every other file, by its path in the checkpoint.
    pub files: BTreeMap<String, Entry>,
}

/// Why bytes are no manifest to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The manifest is not the one that its digest is of.
    #[error("manifest.json is damaged: its SHA-256 is {found}, manifest.json.sha256 says {expected:?}")]
    Damaged {
        /// What its bytes have.
        found: Sum,
        /// What the file beside it says.
        expected: String,
    },
    /// It is not JSON of the right form.
    #[error("manifest.json cannot be understood: {0}")]
    Malformed(String),
    /// It is of another program or another version of the format.
    #[error("it has format {format:?} version {version}, this program reads \"{FORMAT}\" version {VERSION}")]
    Foreign {
        /// The format it names.
        format: String,
        /// And its version.
        version: u64,
    },
    /// Its parts contradict each other.
    #[error("manifest.json contradicts itself: {0}")]
    Inconsistent(String),
}

impl Manifest {
    /// A manifest of no files yet.
    pub fn new(run: RunIdentity, iteration: u64, time: u64, trace: String) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            writer: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).into(),
            number: 0,
            iteration,
            time,
            frames: 0,
            trace,
            holds: String::new(),
            common: iteration,
            committed: None,
            run,
            files: BTreeMap::new(),
        }
    }

    /// The bytes of `manifest.json` and of `manifest.json.sha256`.
    pub fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let mut bytes = serde_json::to_vec_pretty(self).expect("strings and numbers are JSON");
        bytes.push(b'\n');
        let voucher = Self::voucher(&bytes);
        (bytes, voucher)
    }

    /// What `manifest.json.sha256` says where these are the bytes of `manifest.json`.
    pub fn voucher(bytes: &[u8]) -> Vec<u8> {
        vouched(Sum::of(bytes)).into_bytes()
    }

    /// Reads the bytes of both files; allocates no more than a small multiple of their length.
    ///
    /// # Errors
    /// If the manifest is damaged, foreign or contradicts itself.
    pub fn decode(bytes: &[u8], voucher: &[u8]) -> Result<Self, ManifestError> {
        if Self::voucher(bytes) != voucher {
            let found = Sum::of(bytes);
            let expected = String::from_utf8_lossy(&voucher[..voucher.len().min(64)]).into_owned();
            return Err(ManifestError::Damaged { found, expected });
        }
        let malformed = |error: serde_json::Error| ManifestError::Malformed(error.to_string());
        // Another version may have other fields: it is told before the rest is looked at.
        let head: Head = serde_json::from_slice(bytes).map_err(malformed)?;
        if head.format != FORMAT || head.version != u64::from(VERSION) {
            return Err(ManifestError::Foreign { format: head.format, version: head.version });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        manifest.check().map_err(ManifestError::Inconsistent)?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if Sum::of(self.run.settings.as_bytes()) != self.run.settings_sha256 {
            return Err("settings_sha256 is not the digest of settings".into());
        }
        for name in self.files.keys() {
            let plain = |part: &str| !matches!(part, "" | "." | "..");
            if !name.split('/').all(plain) || name.contains(['\\', ':', '\0']) {
                return Err(format!("{name:?} is no path inside the checkpoint"));
            }
        }
        Ok(())
    }
}

fn vouched(sum: Sum) -> String {
    format!("{sum}  {}\n", super::store::MANIFEST)
}

/// What every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}
