//! The published sets, from a mirror on this machine.

use lth_data::download::{Check, cifar_10, cifar_100, fashion_mnist, mnist, pets};
use lth_data::{Checked, DataSource, DatasetName, DatasetSpec, Error, Opening, Part};

use super::{ALL, sha256};
use crate::http::{Server, file, status};
use crate::mnist::{images, labels};
use crate::support::{folder, gzip, options};

#[test]
fn every_file_has_a_name_of_its_own_and_a_checksum_of_all_its_bytes() {
    let sets = [mnist(), fashion_mnist(), cifar_10(), cifar_100()].concat();
    let mut names: Vec<String> = [sets.concat(), pets().concat()].concat().into_iter().map(|file| file.name).collect();
    names.sort();
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    for resource in sets.concat() {
        assert!(resource.check.is_whole(), "{}", resource.name);
        let (Check::Sha256(digits) | Check::Md5(digits) | Check::Md5FirstMib(digits)) = &resource.check;
        assert!(digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{digits}");
        assert!(matches!((&resource.check, digits.len()), (Check::Sha256(_), 64) | (Check::Md5(_), 32)), "{digits}");
        assert!(resource.size.is_none_or(|size| size < resource.most));
        assert!(!resource.urls.is_empty() && resource.urls.iter().all(|url| url.starts_with("http")));
    }
}

#[test]
fn fashion_mnist_is_downloaded_opened_and_known_for_the_mirrors() {
    let whole = |name: &str| {
        let (n, first) = if name.contains("train") { (3, 10) } else { (2, 20) };
        gzip(&if name.contains("images") { images(n, first) } else { labels(&vec![1; n]) })
    };
    let names: Vec<String> = fashion_mnist().concat().into_iter().map(|file| file.name).collect();
    let sums: String = names.iter().map(|name| format!("{}  {name}\n", sha256(&whole(name)))).collect();
    let list = sums.clone();
    let server = Server::start(move |_, request, stream| match request.path.trim_start_matches('/') {
        "SHA256SUMS" => file(stream, request, list.as_bytes(), "\"s\"", ALL),
        name if names.iter().any(|known| known == name) => file(stream, request, &whole(name), "\"a\"", ALL),
        _ => status(stream, "404 Not Found", &[]),
    });
    let place = folder();
    let mut spec = DatasetSpec::new(DatasetName::FashionMnist);
    spec.split.valid = Part::Count(1);
    spec.source = DataSource::Download { mirror: Some(server.url("")) };
    let n_received = std::cell::Cell::new(0);
    let open = |spec: &DatasetSpec| {
        spec.open(1, &options(place.path()), &mut |opening| {
            n_received.set(n_received.get() + usize::from(matches!(opening, Opening::Downloading(_))));
        })
    };
    let dataset = open(&spec).unwrap();
    assert_eq!((dataset.split.train.len(), dataset.split.valid.len(), dataset.split.test.len()), (2, 1, 2));
    let provenance = dataset.provenance;
    assert_eq!(provenance.checked, Checked::Mirror);
    assert_eq!(provenance.mirror, Some((server.url(""), Some(sha256(sums.as_bytes())))));
    assert!(provenance.source.starts_with("downloaded from http://127.0.0.1"), "{}", provenance.source);
    assert_eq!(provenance.classes[1], ("Trouser".to_owned(), 5));
    // What was fetched is not asked for again, but for the mirror's list.
    let before = server.requests().len();
    assert_eq!(open(&spec).unwrap().provenance, provenance);
    assert_eq!(server.requests().len(), before + 1);
    assert!(n_received.get() > 0);
    // Another set is not there.
    spec.name = DatasetName::Cifar10;
    spec.normalisation = DatasetName::Cifar10.normalisation();
    let error = open(&spec).err().unwrap();
    assert!(matches!(error, Error::Download(_)), "{error}");
    assert!(error.to_string().contains("cifar-10-binary.tar.gz: status 404"), "{error}");
}
