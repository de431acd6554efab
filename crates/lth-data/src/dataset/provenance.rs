//! What was opened, as plain data for records.

use serde::{Deserialize, Serialize};

use super::DatasetName;
use crate::checked::{Checked, OpenedFile};
use crate::error::Damaged;
use crate::open::Misnamed;
use crate::pets::ListCheck;

/// What a data set turned out to be, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Which data set.
    pub name: DatasetName,
    /// Where it came from, in words.
    pub source: String,
    /// The files that were read, sorted by name; none of a folder of pictures and of what was made here.
    pub files: Vec<OpenedFile>,
    /// How far all of them together were checked.
    pub checked: Checked,
    /// A mirror's address, without user name and password, and the SHA-256 of its list of checksums, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<(String, Option<String>)>,
    /// What tells this content from another: [`Pictures::content_sha256`](crate::Pictures::content_sha256).
    pub content_sha256: String,
    /// Pictures.
    pub n_pictures: usize,
    /// Channels of every picture.
    pub n_channels: usize,
    /// Classes in the order of the labels, with their numbers of pictures.
    pub classes: Vec<(String, usize)>,
    /// The split's [`sha256`](crate::Split::sha256).
    pub split_sha256: String,
    /// Pictures that train.
    pub n_train: usize,
    /// Pictures that validate.
    pub n_valid: usize,
    /// Pictures for the test.
    pub n_test: usize,
    /// Pictures that could not be decoded and are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<Damaged>,
    /// Pictures in another format than their name says; they are used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub misnamed: Vec<Misnamed>,
    /// Files among the pictures that are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// PETS: comparison with `annotations/list.txt`, if that was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<ListCheck>,
    /// Whether the pictures were decoded before.
    pub from_cache: bool,
}
