//! What every data set here looks like to the loader: labelled pictures of 8-bit channels.

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::source::{add_text, hex};

/// A labelled set of pictures, read one at a time.
///
/// The loader and the split need nothing else, so any source of pictures works with them: the cache file of a
/// downloaded data set ([`CachedPictures`](crate::CachedPictures)) or pictures in memory ([`MemoryPictures`]).
pub trait Pictures: Send + Sync {
    /// Number of pictures.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels of every picture: 3 for RGB, 1 for grey.
    fn n_channels(&self) -> usize;

    /// Names of the classes; a label is an index into them.
    fn classes(&self) -> &[String];

    /// Name, label and size of picture `idx`; panics if there is no such picture.
    fn info(&self, idx: usize) -> PictureInfo<'_>;

    /// Writes the bytes of picture `idx` to `bytes`, replacing its content: rows from the top, pixels from the left,
    /// channels innermost.
    ///
    /// # Errors
    /// If the picture can no longer be read.
    fn read(&self, idx: usize, bytes: &mut Vec<u8>) -> Result<()>;

    /// The bytes of picture `idx` as [`read`](Self::read) gives them, where the data set has them in memory.
    fn bytes(&self, _idx: usize) -> Option<&[u8]> {
        None
    }

    /// CRC-32 of the bytes of picture `idx`.
    ///
    /// # Errors
    /// If the picture can no longer be read.
    fn crc32(&self, idx: usize) -> Result<u32> {
        if let Some(bytes) = self.bytes(idx) {
            return Ok(crc32fast::hash(bytes));
        }
        let mut bytes = Vec::new();
        self.read(idx, &mut bytes)?;
        Ok(crc32fast::hash(&bytes))
    }

    /// What tells this content from another, as 64 hexadecimal digits: SHA-256 of the number of channels, the class
    /// names, and each picture's name, label, size and CRC-32. It does not depend on where the pictures come from and
    /// how they are packed. It finds mistakes; against forgery there are the checksums of the files.
    ///
    /// # Errors
    /// If a picture can no longer be read.
    fn content_sha256(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update((self.n_channels() as u64).to_le_bytes());
        hash.update((self.classes().len() as u64).to_le_bytes());
        self.classes().iter().for_each(|class| add_text(&mut hash, class));
        for idx in 0..self.len() {
            let PictureInfo { name, label, width, height } = self.info(idx);
            add_text(&mut hash, name);
            hash.update(label.to_le_bytes());
            hash.update((width as u64).to_le_bytes());
            hash.update((height as u64).to_le_bytes());
            hash.update(self.crc32(idx)?.to_le_bytes());
        }
        Ok(hex(hash))
    }

    /// Number of pictures of each class.
    fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes().len()];
        for idx in 0..self.len() {
            counts[self.info(idx).label as usize] += 1;
        }
        counts
    }
}

/// What is known of a picture without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureInfo<'a> {
    /// Its name, unique in its data set. Pictures from files of their own are in the order of their names; those that
    /// were published as one file keep its order.
    pub name: &'a str,
    /// Its class.
    pub label: u32,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// A labelled picture in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its name, unique in its data set.
    pub name: String,
    /// Its class, an index into the data set's class names.
    pub label: u32,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Rows from the top, pixels from the left, channels innermost.
    pub bytes: Vec<u8>,
}

/// A data set held in memory, sorted by name.
#[derive(Clone, Debug)]
pub struct MemoryPictures {
    n_channels: usize,
    classes: Vec<String>,
    pictures: Vec<Picture>,
}

impl MemoryPictures {
    /// The pictures sorted by name.
    ///
    /// # Errors
    /// If a picture has no pixels, a wrong number of bytes, a label without a class, or the name of another.
    pub fn new(n_channels: usize, classes: Vec<String>, mut pictures: Vec<Picture>) -> Result<MemoryPictures> {
        if n_channels == 0 {
            return Err(Error::BadSetting {
                what: "number of channels",
                got: "0".into(),
                expected: "at least 1".into(),
            });
        }
        for picture in &pictures {
            picture.check(n_channels, classes.len())?;
        }
        pictures.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = pictures.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Error::DuplicatePicture { name: pair[0].name.clone(), place: "the pictures in memory".into() });
        }
        Ok(MemoryPictures { n_channels, classes, pictures })
    }
}

impl Picture {
    fn check(&self, n_channels: usize, n_classes: usize) -> Result<()> {
        let bad = |what, got: usize, expected| {
            Err(Error::BadPicture { name: self.name.clone(), what, got: got.to_string(), expected })
        };
        if self.label as usize >= n_classes {
            return bad("label", self.label as usize, format!("below {n_classes}"));
        }
        if self.width == 0 || self.height == 0 {
            return bad("number of pixels", 0, "at least 1".into());
        }
        let expected = self.width.checked_mul(self.height).and_then(|pixels| pixels.checked_mul(n_channels));
        if expected != Some(self.bytes.len()) {
            let layout = format!("{} x {} x {n_channels}", self.width, self.height);
            return bad("number of bytes", self.bytes.len(), layout);
        }
        Ok(())
    }
}

impl Pictures for MemoryPictures {
    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn n_channels(&self) -> usize {
        self.n_channels
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn info(&self, idx: usize) -> PictureInfo<'_> {
        let Picture { name, label, width, height, .. } = &self.pictures[idx];
        PictureInfo { name, label: *label, width: *width, height: *height }
    }

    fn read(&self, idx: usize, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.clear();
        bytes.extend_from_slice(&self.pictures[idx].bytes);
        Ok(())
    }

    fn bytes(&self, idx: usize) -> Option<&[u8]> {
        Some(&self.pictures[idx].bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(name: &str, label: u32, bytes: usize) -> Picture {
        Picture { name: name.into(), label, width: 2, height: 1, bytes: vec![0; bytes] }
    }

    fn classes() -> Vec<String> {
        vec!["dog".into(), "cat".into()]
    }

    #[test]
    fn pictures_are_sorted_by_name_and_counted_by_class() {
        let set = MemoryPictures::new(3, classes(), vec![picture("b", 1, 6), picture("a", 0, 6), picture("c", 1, 6)])
            .unwrap();
        assert_eq!(set.info(0).name, "a");
        assert_eq!(set.info(1), PictureInfo { name: "b", label: 1, width: 2, height: 1 });
        assert_eq!(set.class_counts(), [1, 2]);
        let mut bytes = vec![7; 100];
        set.read(2, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 6]);
    }

    #[test]
    fn a_picture_that_does_not_fit_is_named() {
        let message = |pictures| MemoryPictures::new(3, classes(), pictures).unwrap_err().to_string();
        assert_eq!(message(vec![picture("a", 2, 6)]), "picture `a`: label is 2, expected below 2");
        assert_eq!(message(vec![picture("a", 0, 5)]), "picture `a`: number of bytes is 5, expected 2 x 1 x 3");
        assert!(message(vec![picture("a", 0, 6), picture("a", 1, 6)]).starts_with("picture `a` is there twice"));
        assert!(MemoryPictures::new(0, classes(), vec![]).is_err());
    }
}
