//! Pictures of one size in one piece of memory, as published sets of small pictures have them.

use crate::error::{Error, Result};
use crate::pictures::{PictureInfo, Pictures};

/// A data set of equally large pictures held in memory, in the order of its files: the training part, then the test
/// part that its makers published. Names are `train/00000`, `train/00001`, …, `test/00000`, ….
#[derive(Clone, Debug)]
pub struct UniformPictures {
    width: usize,
    height: usize,
    n_channels: usize,
    classes: Vec<String>,
    labels: Vec<u8>,
    bytes: Vec<u8>,
    n_train: usize,
    /// All names one after the other.
    names: String,
    /// Where each of them ends.
    name_ends: Vec<u32>,
}

impl UniformPictures {
    /// Pictures of `width` by `height` pixels. `bytes`: one picture after the other, rows from the top, pixels from the
    /// left, channels innermost. The first `n_train` are the training part.
    ///
    /// # Errors
    /// If a picture has no pixels, there are no pictures, more training pictures than pictures or more than four million,
    /// the numbers of labels and of bytes do not go together, or a label has no class.
    pub fn new(
        (width, height, n_channels): (usize, usize, usize),
        classes: Vec<String>,
        labels: Vec<u8>,
        bytes: Vec<u8>,
        n_train: usize,
    ) -> Result<Self> {
        let bad = |what, got: usize, expected: String| Err(Error::BadSetting { what, got: got.to_string(), expected });
        let length = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(n_channels)).unwrap_or(0);
        if length == 0 {
            return bad("number of bytes of a picture", length, "at least 1".into());
        }
        if labels.is_empty() || labels.len() > MAX_PICTURES {
            return bad("number of pictures", labels.len(), format!("1 to {MAX_PICTURES}"));
        }
        if labels.len().checked_mul(length) != Some(bytes.len()) {
            let expected = format!("{} pictures of {width} x {height} x {n_channels}", labels.len());
            return bad("number of bytes of all pictures", bytes.len(), expected);
        }
        if n_train > labels.len() {
            return bad("number of training pictures", n_train, format!("at most {}", labels.len()));
        }
        if let Some(idx) = labels.iter().position(|&label| usize::from(label) >= classes.len()) {
            let name = name(idx, n_train);
            let (got, expected) = (labels[idx].to_string(), format!("below {}", classes.len()));
            return Err(Error::BadPicture { name, what: "label", got, expected });
        }
        let (mut names, mut name_ends) = (String::new(), Vec::with_capacity(labels.len()));
        for idx in 0..labels.len() {
            names += &name(idx, n_train);
            name_ends.push(names.len() as u32);
        }
        Ok(Self { width, height, n_channels, classes, labels, bytes, n_train, names, name_ends })
    }

    /// Indices of the pictures that the makers of the set keep for the test, ascending.
    #[must_use]
    pub fn published_test(&self) -> Vec<usize> {
        (self.n_train..self.labels.len()).collect()
    }
}

const MAX_PICTURES: usize = 4_000_000;

fn name(idx: usize, n_train: usize) -> String {
    if idx < n_train { format!("train/{idx:05}") } else { format!("test/{:05}", idx - n_train) }
}

impl Pictures for UniformPictures {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn n_channels(&self) -> usize {
        self.n_channels
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn info(&self, idx: usize) -> PictureInfo<'_> {
        let start = if idx == 0 { 0 } else { self.name_ends[idx - 1] as usize };
        let name = &self.names[start..self.name_ends[idx] as usize];
        PictureInfo { name, label: self.labels[idx].into(), width: self.width, height: self.height }
    }

    fn read(&self, idx: usize, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.clear();
        bytes.extend_from_slice(self.slice(idx));
        Ok(())
    }

    fn bytes(&self, idx: usize) -> Option<&[u8]> {
        Some(self.slice(idx))
    }
}

impl UniformPictures {
    fn slice(&self, idx: usize) -> &[u8] {
        let length = self.width * self.height * self.n_channels;
        &self.bytes[idx * length..][..length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(labels: Vec<u8>, n_bytes: usize, n_train: usize) -> Result<UniformPictures> {
        let classes = vec!["a".to_owned(), "b".to_owned()];
        UniformPictures::new((2, 1, 1), classes, labels, (0..n_bytes as u8).collect(), n_train)
    }

    #[test]
    fn pictures_have_names_by_part_and_keep_their_order() {
        let set = set(vec![1, 0, 1], 6, 2).unwrap();
        let names: Vec<&str> = (0..3).map(|idx| set.info(idx).name).collect();
        assert_eq!(names, ["train/00000", "train/00001", "test/00000"]);
        assert_eq!(set.published_test(), [2]);
        assert_eq!(set.info(2), PictureInfo { name: "test/00000", label: 1, width: 2, height: 1 });
        let mut bytes = vec![9; 9];
        set.read(1, &mut bytes).unwrap();
        assert_eq!((bytes.as_slice(), set.bytes(1).unwrap()), (&[2, 3][..], &[2, 3][..]));
        assert_eq!(set.class_counts(), [1, 2]);
    }

    #[test]
    fn what_does_not_go_together_is_an_error() {
        let message = |labels, n_bytes, n_train| set(labels, n_bytes, n_train).unwrap_err().to_string();
        assert_eq!(message(vec![0, 1, 2], 6, 2), "picture `test/00000`: label is 2, expected below 2");
        assert!(message(vec![0, 1], 5, 2).contains("expected 2 pictures of 2 x 1 x 1"));
        assert!(message(vec![], 0, 0).starts_with("number of pictures is 0"));
        assert!(message(vec![0], 2, 2).starts_with("number of training pictures is 2"));
        let wrap = UniformPictures::new((usize::MAX, 2, 1), vec!["a".into()], vec![0], vec![], 0).unwrap_err();
        assert!(wrap.to_string().starts_with("number of bytes of a picture is 0"), "{wrap}");
    }
}
