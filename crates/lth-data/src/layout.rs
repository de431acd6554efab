//! How a data set's files are arranged, and what that says about their labels.

use std::collections::BTreeSet;
use std::path::Path;

use crate::decode::Format;
use crate::error::{Error, Result};
use crate::pets::{self, PETS_CLASSES, pets_breed, pets_label};
use crate::source::{FolderFile, walk};

/// Folders in folders that are searched for pictures.
const MAX_DEPTH: usize = 32;

/// An arrangement of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Oxford-IIIT PETS by species: `images/<breed>_<n>.jpg`.
    Pets,
    /// The same by breed.
    PetsBreeds,
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
    /// The layout that a cache file is written in: other labels need no other file.
    pub(crate) fn stored(self) -> Self {
        if self == Self::PetsBreeds { Self::Pets } else { self }
    }

    /// A word for keys of the cache.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Layout::Pets | Layout::PetsBreeds => "pets",
            Layout::ClassFolders => "folder",
        }
    }

    /// What is looked for, for messages.
    pub(crate) fn expected(self) -> &'static str {
        match self {
            Layout::Pets | Layout::PetsBreeds => "`images/<breed>_<number>.jpg`",
            Layout::ClassFolders => "one folder of pictures per class",
        }
    }

    /// The files of an unpacked data set, sorted by path.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub(crate) fn files(self, folder: &Path) -> Result<Vec<FolderFile>> {
        match self {
            Layout::Pets | Layout::PetsBreeds => pets::files(folder),
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
            Layout::Pets | Layout::PetsBreeds => match folder.rsplit('/').next() {
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
    /// If there are none, two of one name, or one outside all folders that name classes.
    pub(crate) fn label(self, names: Vec<String>, place: &str) -> Result<Labelled> {
        let Some(first) = names.first() else {
            return Err(Error::NoPictures { place: place.into(), expected: self.expected() });
        };
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::DuplicatePicture { name: pair[0].clone(), place: place.into() });
        }
        match self {
            Layout::Pets => Ok(Labelled {
                labels: names.iter().map(|name| pets_label(name)).collect(),
                classes: PETS_CLASSES.map(String::from).to_vec(),
                names,
            }),
            Layout::PetsBreeds => Ok(by_breed(names)),
            Layout::ClassFolders => {
                let common = common_folder(first, &names[names.len() - 1]);
                by_class_folder(names.iter().map(|name| name[common..].to_string()).collect(), place)
            }
        }
    }
}

/// # Errors
/// If all labels are the same: there is nothing to learn.
pub(crate) fn check_classes(labels: impl ExactSizeIterator<Item = u32>, classes: &[String], place: &str) -> Result<()> {
    let n_pictures = labels.len();
    let mut labels = labels.peekable();
    let Some(&label) = labels.peek() else { return Ok(()) };
    if labels.all(|other| other == label) {
        let class = classes[label as usize].clone();
        return Err(Error::OneClass { place: place.into(), class, n_pictures });
    }
    Ok(())
}

/// Classes are the breeds that are there, sorted without regard to case: of the whole set the 37 in the order of the
/// class numbers in `annotations/list.txt`.
fn by_breed(names: Vec<String>) -> Labelled {
    let key = |name: &str| (pets_breed(name).to_lowercase(), pets_breed(name).to_owned());
    let classes: BTreeSet<(String, String)> = names.iter().map(|name| key(name)).collect();
    let classes: Vec<(String, String)> = classes.into_iter().collect();
    let label = |name: &String| classes.partition_point(|class| *class < key(name)) as u32;
    let labels = names.iter().map(label).collect();
    Labelled { labels, classes: classes.into_iter().map(|(_, breed)| breed).collect(), names }
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
    fn breeds_are_sorted_as_the_list_of_pets_numbers_them() {
        let names = ["Abyssinian_1.jpg", "Bengal_2.jpg", "Bombay_1.jpg", "beagle_9.jpg", "boxer_1.jpg", "boxer_2.jpg"];
        let got = labelled(Layout::PetsBreeds, &names).unwrap();
        // CLASS-ID of these in annotations/list.txt: 1, 6, 8, 5, 9, 9.
        assert_eq!(got.classes, ["Abyssinian", "beagle", "Bengal", "Bombay", "boxer"]);
        assert_eq!(got.labels, [0, 2, 3, 1, 4, 4]);
    }

    #[test]
    fn sets_that_teach_nothing_are_errors() {
        let message = |layout, names: &[&str]| {
            let checked = labelled(layout, names)
                .and_then(|Labelled { labels, classes, .. }| check_classes(labels.into_iter(), &classes, "`here`"));
            checked.unwrap_err().to_string()
        };
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
