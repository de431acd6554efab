//! Where MNIST, Fashion-MNIST and CIFAR lie, with their published checksums.

use super::resource::{Check, Resource};

const MIB: u64 = 1 << 20;

/// MNIST: four gzipped IDX files, from either of two mirrors of the original ones.
///
/// As [`pets`](super::pets) it gives complete sets, the first to be preferred: here one.
pub fn mnist() -> Vec<Vec<Resource>> {
    let file = |name: &str, size, sha256: &str| Resource {
        name: name.to_owned(),
        urls: vec![
            format!("https://ossci-datasets.s3.amazonaws.com/mnist/{name}"),
            format!("https://storage.googleapis.com/cvdf-datasets/mnist/{name}"),
        ],
        size: Some(size),
        most: 64 * MIB,
        check: Check::Sha256(sha256.to_owned()),
    };
    vec![vec![
        file("train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        file("t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        file(
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        file(
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
    ]]
}

/// Fashion-MNIST: four gzipped IDX files from its makers. Here, and on a mirror, their names begin with
/// `fashion-mnist-`, since MNIST's have the same names otherwise.
pub fn fashion_mnist() -> Vec<Vec<Resource>> {
    let file = |name: &str, md5: &str| Resource {
        name: format!("fashion-mnist-{name}"),
        urls: vec![
            format!("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{name}"),
            format!("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/{name}"),
        ],
        size: None,
        most: 64 * MIB,
        check: Check::Md5(md5.to_owned()),
    };
    let [train_images, train_labels, test_images, test_labels] = crate::mnist::FASHION_GZIP_MD5;
    vec![vec![
        file("train-labels-idx1-ubyte.gz", train_labels),
        file("t10k-labels-idx1-ubyte.gz", test_labels),
        file("t10k-images-idx3-ubyte.gz", test_images),
        file("train-images-idx3-ubyte.gz", train_images),
    ]]
}

/// CIFAR-10's binary version, one archive.
pub fn cifar_10() -> Vec<Vec<Resource>> {
    cifar("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")
}

/// CIFAR-100's binary version, one archive.
pub fn cifar_100() -> Vec<Vec<Resource>> {
    cifar("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8")
}

fn cifar(name: &str, md5: &str) -> Vec<Vec<Resource>> {
    vec![vec![Resource {
        name: name.to_owned(),
        urls: vec![format!("https://www.cs.toronto.edu/~kriz/{name}")],
        size: None,
        most: 512 * MIB,
        check: Check::Md5(md5.to_owned()),
    }]]
}
