//! How a data set's files are arranged, and what that says about their labels.

use std::collections::BTreeSet;
use std::path::Path;

use crate::decode::Format;
use crate::error::{Error, Result};
use crate::pets::{self, PETS_CLASSES, pets_label};
use crate::source::{FolderFile, walk};

/// Folders in folders that are searched for pictures.
const MAX_DEPTH: usize = 32;

/// An arrangement of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Oxford-IIIT PETS: `images/<breed>_<n>.jpg`.
    Pets,
    /// One folder per class.
    ClassFolders,
}

/// What a file is in its data set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A picture of this name.
    Picture(String),
    /// `annotations/list.txt` of PETS.
    List,
    /// No picture, but lying among them.
    LeftOut(String),
    /// Of no concern.
    Other,
}

/// Names, labels and classes of the pictures of a data set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Labelled {
    pub(crate) names: Vec<String>,
    pub(crate) labels: Vec<u32>,
    pub(crate) classes: Vec<String>,
}

impl Layout {
    /// A word for keys of the cache.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Layout::Pets => "pets",
            Layout::ClassFolders => "folder",
        }
    }

    /// What is looked for, for messages.
    pub(crate) fn expected(self) -> &'static str {
        match self {
            Layout::Pets => "`images/<breed>_<number>.jpg`",
            Layout::ClassFolders => "one folder of pictures per class",
        }
    }

    /// The files of an unpacked data set, sorted by path.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub(crate) fn files(self, folder: &Path) -> Result<Vec<FolderFile>> {
        match self {
            Layout::Pets => pets::files(folder),
            Layout::ClassFolders => walk(folder, "", MAX_DEPTH),
        }
    }

    /// What the file at `path` (parts joined by `/`) is.
    pub(crate) fn role(self, path: &str) -> Role {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if path.split('/').any(|part| part.starts_with('.')) {
            return Role::Other; // what systems leave behind, such as macOS' `._Abyssinian_1.jpg`
        }
        match self {
            Layout::Pets => match folder.rsplit('/').next() {
                Some("images") if Format::from_name(name).is_some() => Role::Picture(name.into()),
                Some("images") => Role::LeftOut(name.into()),
                Some("annotations") if name == "list.txt" => Role::List,
                _ => Role::Other,
            },
            Layout::ClassFolders if Format::from_name(name).is_some() => Role::Picture(path.into()),
            Layout::ClassFolders => Role::LeftOut(path.into()),
        }
    }

    /// Labels for the pictures' names, which must be sorted. `place`: the source in words.
    ///
    /// # Errors
    /// If there are none, two of one name, or fewer than two classes.
    pub(crate) fn label(self, names: Vec<String>, place: &str) -> Result<Labelled> {
        let Some(first) = names.first() else {
            return Err(Error::NoPictures { place: place.into(), expected: self.expected() });
        };
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::DuplicatePicture { name: pair[0].clone(), place: place.into() });
        }
        let labelled = match self {
            Layout::Pets => Labelled {
                labels: names.iter().map(|name| pets_label(name)).collect(),
                classes: PETS_CLASSES.map(String::from).to_vec(),
                names,
            },
            Layout::ClassFolders => {
                let common = common_folder(first, &names[names.len() - 1]);
                by_class_folder(names.iter().map(|name| name[common..].to_string()).collect(), place)?
            }
        };
        let label = labelled.labels[0];
        if labelled.labels.iter().all(|&other| other == label) {
            return Err(Error::OneClass {
                place: place.into(),
                class: labelled.classes[label as usize].clone(),
                n_pictures: labelled.labels.len(),
            });
        }
        Ok(labelled)
    }
}

/// Length of the folders that sorted paths share, by the first and the last of them.
fn common_folder(first: &str, last: &str) -> usize {
    let shared = first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
    first.as_bytes()[..shared].iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1)
}

/// Classes are the folders at the top, sorted.
fn by_class_folder(names: Vec<String>, place: &str) -> Result<Labelled> {
    let mut classes = BTreeSet::new();
    for name in &names {
        // Pictures of a single class have all their folders in common.
        let class = name.split_once('/').map(|(class, _)| class);
        classes.insert(class.ok_or_else(|| Error::NoPictures { place: place.into(), expected: NOT_AT_THE_TOP })?);
    }
    if classes.iter().all(|class| PARTS.contains(class)) {
        return Err(Error::NoPictures { place: place.into(), expected: NO_PARTS });
    }
    let classes: Vec<String> = classes.into_iter().map(String::from).collect();
    let label = |name: &String| {
        let class = name.split_once('/').map_or("", |(class, _)| class);
        classes.partition_point(|other| other.as_str() < class) as u32
    };
    Ok(Labelled { labels: names.iter().map(label).collect(), classes, names })
}

/// Folders of a data set that is split already: their names are no classes.
const PARTS: [&str; 6] = ["train", "valid", "val", "validation", "test", "testing"];
const NO_PARTS: &str = "folders named after classes, not after parts of a split: give one of them";
const NOT_AT_THE_TOP: &str = "at least two folders, one per class, with every picture in one of them";

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(layout: Layout, names: &[&str]) -> Result<Labelled> {
        layout.label(names.iter().map(ToString::to_string).collect(), "`here`")
    }

    #[test]
    fn pets_are_found_in_every_archive_layout() {
        let picture = |name: &str| Role::Picture(name.into());
        for (path, role) in [
            ("oxford-iiit-pet/images/pug_1.jpg", picture("pug_1.jpg")),
            ("images/Bombay_2.JPG", picture("Bombay_2.JPG")),
            ("images/Abyssinian_100.mat", Role::LeftOut("Abyssinian_100.mat".into())),
            ("images/._pug_1.jpg", Role::Other),
            ("oxford-iiit-pet/annotations/list.txt", Role::List),
            ("annotations/trimaps/pug_1.png", Role::Other),
            ("pug_1.jpg", Role::Other),
        ] {
            assert_eq!(Layout::Pets.role(path), role, "{path}");
        }
    }

    #[test]
    fn classes_are_the_first_folders_that_differ() {
        let got = labelled(Layout::ClassFolders, &["set/a/x.jpg", "set/b/deep/y.jpg", "set/b/z.jpg"]).unwrap();
        assert_eq!(got.names, ["a/x.jpg", "b/deep/y.jpg", "b/z.jpg"]);
        assert_eq!(got.classes, ["a", "b"]);
        assert_eq!(got.labels, [0, 1, 1]);
    }

    #[test]
    fn class_names_with_a_common_beginning_are_kept_apart() {
        let got = labelled(Layout::ClassFolders, &["cat/x.jpg", "catfish/x.jpg"]).unwrap();
        assert_eq!(got.classes, ["cat", "catfish"]);
    }

    #[test]
    fn sets_that_teach_nothing_are_errors() {
        let message = |layout, names: &[&str]| labelled(layout, names).unwrap_err().to_string();
        assert_eq!(
            message(Layout::Pets, &["pug_1.jpg", "pug_2.jpg"]),
            "all 2 pictures in `here` are of class `dog`, expected at least two classes"
        );
        assert_eq!(message(Layout::Pets, &[]), "no pictures in `here`: expected `images/<breed>_<number>.jpg`");
        assert!(message(Layout::Pets, &["Rex_1.jpg", "Rex_1.jpg"]).starts_with("picture `Rex_1.jpg` is there twice"));
        assert!(message(Layout::ClassFolders, &["a/x.jpg", "a/y.jpg"]).contains("at least two folders"));
        assert!(message(Layout::ClassFolders, &["a/x.jpg", "y.jpg"]).contains("at least two folders"));
        assert!(message(Layout::ClassFolders, &["train/a/x.jpg", "valid/a/x.jpg"]).contains("parts of a split"));
    }
}
