//! The cache: listed, limited, cleaned; and names from files that would look like lines of ours.

use std::collections::BTreeMap;
use std::process::Output;

use lth_data::{DamagedPolicy, OpenOptions, Progress, Source, open_pets};
use lth_nn::Weights;

use crate::{Result, check, checkpoint, files, lth, pets, run};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_cache_is_listed_and_cleaned() -> Result {
    let folder = tempfile::tempdir()?;
    let cache = folder.path().join("cache");
    let list = run(folder.path(), "cache list")?;
    assert!(list.status.success() && stdout(&list).ends_with("0 entries, 0 B\n"), "{list:?}");
    pets(folder.path())?;
    let fetched = run(folder.path(), "fetch pets --data-dir pets")?;
    assert!(String::from_utf8_lossy(&fetched.stderr).contains("decoding 24 pictures: "), "{fetched:?}");
    check(&fetched, 0, "24 pictures");
    let list = stdout(&run(folder.path(), "cache list")?);
    assert!(list.contains("decoded pictures") && list.contains("today") && list.contains("1 entry, "), "{list}");
    let before = files(&cache)?;
    // Nothing of that data set is known to be there: these pictures are from a folder of one's own.
    assert!(stdout(&run(folder.path(), "cache clean mnist pets")?).ends_with("freed: 0 entries, 0 B\n"));
    let dry = stdout(&run(folder.path(), "cache clean --all --dry-run")?);
    assert!(dry.contains("would remove pictures/pets-") && dry.contains("would free: 1 entry"), "{dry}");
    assert_eq!(files(&cache)?, before);
    for (arguments, expected) in [
        ("cache clean", "--help"),
        ("cache clean --all mnist", "--help"),
        ("cache clean nonsense", "neither a data set"),
    ] {
        check(&run(folder.path(), arguments)?, 2, expected);
    }
    let name =
        list.lines().find_map(|line| line.split(' ').find(|word| word.ends_with(".pictures"))).ok_or("no name")?;
    let path = cache.join(name);
    // As a run does that reads from it.
    let held = std::fs::File::open(&path)?;
    held.lock_shared()?;
    check(&run(folder.path(), "cache clean --all")?, 3, "1 of 1 are not removed: `pictures/pets-");
    assert!(path.exists());
    drop(held);
    let cleaned = stdout(&run(folder.path(), &format!("cache clean {name}"))?);
    assert!(cleaned.contains(&format!("removed {name} (")) && cleaned.contains("freed: 1 entry, "), "{cleaned}");
    assert!(!path.exists() && folder.path().join("pets/images").exists());
    Ok(())
}

#[test]
fn decoded_pictures_stay_below_the_limit() -> Result {
    let folder = tempfile::tempdir()?;
    pets(folder.path())?;
    let fetch = |limit: &str| -> Result<Output> {
        Ok(lth(folder.path(), "fetch pets --data-dir pets").env("LTH_CACHE_LIMIT", limit).output()?)
    };
    let refused = fetch("100 KiB")?;
    check(&refused, 3, "but LTH_CACHE_LIMIT is 100.0 KiB: raise it, or remove what is there: `lth cache list`");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("decoded pictures need ") && said.contains("where 0 B are taken"), "{said}");
    // Refused before anything was written.
    let of_pictures = || -> Result<u64> {
        let paths = files(&folder.path().join("cache"))?;
        Ok(paths.iter().filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum())
    };
    assert_eq!(of_pictures()?, 0);
    // Nor does what a killed run left of them stay where there is no room.
    let locks = files(&folder.path().join("cache/pictures"))?;
    let lock = locks.iter().find(|path| path.extension().is_some_and(|end| end == "lock")).ok_or("no lock")?;
    std::fs::write(lock.with_extension("partial"), [0; 5000])?;
    check(&fetch("100 KiB")?, 3, "but LTH_CACHE_LIMIT is 100.0 KiB");
    assert_eq!(of_pictures()?, 0);
    check(&fetch("many")?, 2, "LTH_CACHE_LIMIT is `many`, expected a number with a unit");
    check(&fetch("100 MB")?, 0, "24 pictures");
    // What is said to be needed is what is written, or a little more.
    let needed = said.split("need ").nth(1).and_then(|rest| rest.split(" in ").next()).ok_or("no size")?;
    let needed = needed.parse::<lth_data::ByteSize>()?.0;
    let written = of_pictures()?;
    assert!(written <= needed + needed / 50 && written >= needed / 2, "{written} of {needed}");
    // What is there already needs no room.
    check(&fetch("100 KiB")?, 0, "24 pictures (decoded before)");
    Ok(())
}

#[test]
fn what_another_process_decodes_counts_before_it_is_written() -> Result {
    let folder = tempfile::tempdir()?;
    pets(folder.path())?;
    std::fs::rename(folder.path().join("pets"), folder.path().join("others"))?;
    pets(folder.path())?;
    let fetch = |limit: u64| {
        let limit = format!("{limit} B");
        lth(folder.path(), "fetch pets --data-dir others").env("LTH_CACHE_LIMIT", limit).output()
    };
    let (mut measured, mut refused, mut abandoned) = (0, None, None);
    let path = folder.path().join("cache/pictures");
    let options = OpenOptions { cache_dir: folder.path().join("cache"), damaged: DamagedPolicy::Fail };
    open_pets(&Source::Folder(folder.path().join("pets")), &options, &mut |progress| {
        if let Progress::Measured { n_bytes, .. } = progress {
            measured = n_bytes;
            // What a process left that was killed while it decoded counts no more.
            abandoned = Some(path.join("pets-0123456789abcdef.partial"));
            let lock = path.join("pets-0123456789abcdef.lock");
            for file in abandoned.iter().chain([&lock]) {
                std::fs::write(file, [0; 5000]).expect("a file in the cache");
            }
            // Not a picture is written yet.
            refused = Some((fetch(2 * n_bytes - 1), fetch(2 * n_bytes)));
        }
    })?;
    let (refused, fits) = refused.ok_or("nothing was decoded")?;
    let said = format!("where {} are taken", lth_data::ByteSize(measured));
    check(&refused?, 3, &said);
    check(&fits?, 0, "24 pictures");
    assert!(abandoned.is_some_and(|file| !file.exists()));
    // Complete, they are as long as what is in them.
    let lengths = files(&path)?.into_iter().filter(|file| file.extension().is_some_and(|end| end == "pictures"));
    let lengths = lengths.map(|file| Ok(file.metadata()?.len())).collect::<std::io::Result<Vec<_>>>()?;
    assert!(lengths.len() == 2 && lengths.iter().all(|length| *length < measured), "{lengths:?} of {measured}");
    Ok(())
}

#[test]
fn names_in_files_are_no_lines_of_ours() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.safetensors");
    checkpoint(&path)?;
    let weights = Weights::read(&path)?;
    let hostile = "a\nverified: nothing\r\u{1b}[2K\u{202e}b";
    let tensors: BTreeMap<_, _> =
        weights.tensors.into_iter().map(|(name, tensor)| (format!("{hostile}{name}"), tensor)).collect();
    let metadata = [(hostile.to_owned(), hostile.to_owned())].into();
    Weights { tensors, metadata, ..Weights::default() }.write(&path)?;
    for arguments in ["inspect a.safetensors", "prune a.safetensors b.safetensors --sparsity 50%"] {
        let output = run(folder.path(), arguments)?;
        assert!(output.status.success(), "{output:?}");
        for said in [stdout(&output), String::from_utf8_lossy(&output.stderr).into_owned()] {
            assert!(!said.lines().any(|line| line.starts_with("verified")), "{said}");
            assert!(!said.contains(['\u{1b}', '\r', '\u{202e}']), "{said:?}");
        }
        assert!(stdout(&output).contains(r"a\u{a}verified: nothing\u{d}\u{1b}[2K\u{202e}b"), "{}", stdout(&output));
    }
    Ok(())
}
