//! Class folders in two parts: one source to train on, another that is kept for the test.

use crate::error::{Error, Result};
use crate::open::{CachedPictures, OpenOptions, Progress, Summary, open_folder};
use crate::pictures::{PictureInfo, Pictures};
use crate::source::Source;

/// The pictures of two sources as one data set: first those to train on, named `train/<class>/<file>`, then those for the
/// test, named `test/<class>/<file>`.
#[derive(Debug)]
pub struct PartedPictures {
    train: CachedPictures,
    test: CachedPictures,
    names: Vec<String>,
    /// Labels of the test part's classes among those of the training part.
    test_labels: Vec<u32>,
}

impl PartedPictures {
    /// Indices of the test part, ascending.
    #[must_use]
    pub fn published_test(&self) -> Vec<usize> {
        (self.train.len()..self.len()).collect()
    }

    /// The pictures that index `idx` stands for, and their own index.
    fn part(&self, idx: usize) -> (&CachedPictures, usize) {
        let n_train = self.train.len();
        if idx < n_train { (&self.train, idx) } else { (&self.test, idx - n_train) }
    }
}

/// Opens a data set of class folders that its makers have split: `train` and `test` are each a folder or archives, as
/// [`open_folder`] takes them. Classes are those of `train`.
///
/// # Errors
/// As [`open_folder`]; and if `test` has a class that `train` has not.
pub fn open_parted_folders(
    train: &Source,
    test: &Source,
    options: &OpenOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<(PartedPictures, [Summary; 2])> {
    let (train_pictures, train_summary) = open_folder(train, options, progress)?;
    let (test_pictures, test_summary) = open_folder(test, options, progress)?;
    let classes = train_pictures.classes();
    let label = |class: &String| {
        let found = classes.iter().position(|other| other == class);
        found.map(|label| label as u32).ok_or_else(|| Error::BadSetting {
            what: "class of the test part",
            got: format!("`{class}` in {}", test.in_words()),
            expected: format!("one of those in {}: {}", train.in_words(), classes.join(", ")),
        })
    };
    let test_labels = test_pictures.classes().iter().map(label).collect::<Result<_>>()?;
    let named = |part: &'static str, set: &CachedPictures| -> Vec<String> {
        (0..set.len()).map(|idx| format!("{part}/{}", set.info(idx).name)).collect()
    };
    let names = [named("train", &train_pictures), named("test", &test_pictures)].concat();
    let pictures = PartedPictures { train: train_pictures, test: test_pictures, names, test_labels };
    Ok((pictures, [train_summary, test_summary]))
}

impl Pictures for PartedPictures {
    fn len(&self) -> usize {
        self.names.len()
    }

    fn n_channels(&self) -> usize {
        self.train.n_channels()
    }

    fn classes(&self) -> &[String] {
        self.train.classes()
    }

    fn info(&self, idx: usize) -> PictureInfo<'_> {
        let (part, own_idx) = self.part(idx);
        let info = part.info(own_idx);
        let label = if idx < self.train.len() { info.label } else { self.test_labels[info.label as usize] };
        PictureInfo { name: &self.names[idx], label, ..info }
    }

    fn read(&self, idx: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let (part, idx) = self.part(idx);
        part.read(idx, bytes)
    }

    fn crc32(&self, idx: usize) -> Result<u32> {
        let (part, idx) = self.part(idx);
        part.crc32(idx)
    }
}
