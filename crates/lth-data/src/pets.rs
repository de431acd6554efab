//! Oxford-IIIT PETS: cats and dogs of 37 breeds.
//!
//! `images/` holds 7,390 pictures named `<breed>_<number>.jpg` and three stray `.mat` files; the first letter of a
//! cat's breed is upper-case, that of a dog's lower-case. `annotations/list.txt` names 7,349 of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::Result;
use crate::source::{FolderFile, walk};

/// Class names; the index is the label.
pub const PETS_CLASSES: [&str; 2] = ["dog", "cat"];

/// The label of a picture by its file name: 1 (cat) if the first letter is upper-case, else 0 (dog).
/// Source: the notebook's `is_cat`, `x[0].isupper()`.
pub fn pets_label(name: &str) -> u32 {
    u32::from(name.chars().next().is_some_and(char::is_uppercase))
}

/// The breed in a picture's file name: what comes before the last `_`, or all but the extension.
pub fn pets_breed(name: &str) -> &str {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    stem.rsplit_once('_').map_or(stem, |(breed, _)| breed)
}

/// How the pictures compare with `annotations/list.txt`. Nothing here is an error: the real set has 41 pictures that the
/// list does not name.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ListCheck {
    /// Pictures the list names.
    pub n_listed: usize,
    /// Pictures that are there but not in the list, by file name.
    pub unlisted: Vec<String>,
    /// Pictures in the list that are not there, without extension.
    pub missing: Vec<String>,
    /// Pictures whose species in the list is not that of their file name, by file name.
    pub contradicted: Vec<String>,
    /// Lines that are no comment and no entry.
    pub n_unreadable: usize,
}

/// Compares the list's text with the file names of the pictures.
///
/// A line is `name CLASS-ID SPECIES BREED-ID`; species 1 is a cat, 2 a dog. Lines that start with `#` are comments: the
/// real one gives the two ranges of breed numbers the wrong way round.
pub(crate) fn check_list(text: &str, names: &[String]) -> ListCheck {
    let mut check = ListCheck::default();
    let mut species = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [name, class, species_id @ ("1" | "2"), breed]
                if class.parse::<u32>().is_ok() && breed.parse::<u32>().is_ok() =>
            {
                species.insert(name, u32::from(species_id == "1"));
            }
            _ => check.n_unreadable += 1,
        }
    }
    check.n_listed = species.len();
    let mut stems = BTreeSet::new();
    for name in names {
        let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
        stems.insert(stem);
        match species.get(stem) {
            None => check.unlisted.push(name.clone()),
            Some(&label) if label != pets_label(name) => check.contradicted.push(name.clone()),
            Some(_) => {}
        }
    }
    check.missing = species.keys().filter(|name| !stems.contains(*name)).map(ToString::to_string).collect();
    check
}

/// The files of an unpacked PETS as `images/<name>` and `annotations/list.txt`. `folder` holds `images/`, is it, or
/// holds the archive's top folder.
///
/// # Errors
/// If a folder cannot be read.
pub(crate) fn files(folder: &Path) -> Result<Vec<FolderFile>> {
    let holds_images = [folder.to_path_buf(), folder.join("oxford-iiit-pet")];
    let (images, annotations) = match holds_images.iter().find(|folder| folder.join("images").is_dir()) {
        Some(top) => (top.join("images"), top.join("annotations")),
        None => (folder.to_path_buf(), folder.join("../annotations")),
    };
    let mut files = walk(&images, "images/", 1)?;
    if annotations.join("list.txt").is_file() {
        let annotations = walk(&annotations, "annotations/", 1)?;
        files.extend(annotations.into_iter().filter(|file| file.path == "annotations/list.txt"));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upper_case_first_letter_is_a_cat() {
        for (name, label) in [
            ("Abyssinian_1.jpg", 1),
            ("beagle_116.jpg", 0),
            ("Égyptien_1.jpg", 1),
            ("_Cat.jpg", 0),
            ("1_Cat.jpg", 0),
            ("", 0),
        ] {
            assert_eq!(pets_label(name), label, "{name}");
        }
    }

    #[test]
    fn breed_is_all_before_the_number() {
        assert_eq!(pets_breed("american_pit_bull_terrier_12.jpg"), "american_pit_bull_terrier");
        assert_eq!(pets_breed("Bombay_1"), "Bombay");
        assert_eq!(pets_breed("rex.png"), "rex");
    }

    #[test]
    fn a_list_that_is_damaged_in_any_way_is_compared_as_far_as_it_goes() {
        let names = ["Abyssinian_1.jpg".to_owned(), "beagle_1.jpg".to_owned()];
        let valid = b"#Image CLASS-ID SPECIES BREED ID\nAbyssinian_1 1 1 1\r\nbeagle_1 5 2 4\n";
        let check = |bytes: &[u8]| {
            let found = check_list(&String::from_utf8_lossy(bytes), &names);
            assert!(found.n_listed + found.n_unreadable <= bytes.len() && found.unlisted.len() <= names.len());
        };
        for n in 0..=valid.len() {
            check(&valid[..n]);
        }
        for place in 0..valid.len() {
            for new in [0, b' ', b'\n', b'_', b'9', 0x80, 0xff] {
                let mut bytes = valid.to_vec();
                bytes[place] = new;
                check(&bytes);
            }
        }
    }

    #[test]
    fn list_is_compared_both_ways() {
        let text = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n#SPECIES: 1:Cat 2:Dog\n\
                    Abyssinian_1 1 1 1\r\nbeagle_2 5 2 4\nBengal_3 6 2 2\npug_9 26 2 18\n\npug_10 26 3 18\nnonsense\n";
        let names = ["Abyssinian_1.jpg", "Bengal_3.jpg", "Birman_4.jpg", "beagle_2.jpg"].map(String::from);
        let expected = ListCheck {
            n_listed: 4,
            unlisted: vec!["Birman_4.jpg".into()],
            missing: vec!["pug_9".into()],
            contradicted: vec!["Bengal_3.jpg".into()],
            n_unreadable: 2,
        };
        assert_eq!(check_list(text, &names), expected);
    }
}
