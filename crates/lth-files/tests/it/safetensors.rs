use std::collections::BTreeMap;

use lth_files::{
    Dtype, RawTensor, open_safetensors, save_safetensors, save_safetensors_hashed, sha256_file, write_safetensors,
};

use crate::writers::check_writer;

fn raw(dtype: Dtype, shape: &[usize], data: &[u8]) -> RawTensor<'static> {
    RawTensor { dtype, shape: shape.to_vec(), data: data.to_vec().into() }
}

fn tensors() -> BTreeMap<String, RawTensor<'static>> {
    [
        ("b", raw(Dtype::U8, &[3], &[1, 2, 3])),
        ("a", raw(Dtype::F32, &[1, 2], &[0, 0, 128, 63, 0, 0, 0, 64])),
        ("none", raw(Dtype::F32, &[0, 7], &[])),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into()
}

fn fields() -> BTreeMap<String, String> {
    [("z", "1"), ("a", "\"quoted\"\n")].map(|(name, text)| (name.to_owned(), text.to_owned())).into()
}

#[test]
fn the_safetensors_crate_reads_what_is_written() -> Result<(), Box<dyn std::error::Error>> {
    let mut bytes = Vec::new();
    write_safetensors(&mut bytes, &tensors(), &fields())?;
    let read = safetensors::SafeTensors::deserialize(&bytes)?;
    assert_eq!(read.len(), 3);
    for (name, expected) in tensors() {
        let view = read.tensor(&name)?;
        assert_eq!(
            (view.dtype(), view.shape(), view.data()),
            (expected.dtype, &expected.shape[..], &expected.data[..])
        );
    }
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes)?;
    assert_eq!(header.metadata().clone().map(BTreeMap::from_iter), Some(fields()));
    assert_eq!(open_safetensors(&bytes)?.0, fields());
    Ok(())
}

#[test]
fn the_bytes_are_frozen() -> Result<(), Box<dyn std::error::Error>> {
    let mut bytes = Vec::new();
    write_safetensors(&mut bytes, &tensors(), &BTreeMap::from([("k".to_owned(), "v".to_owned())]))?;
    let header = concat!(
        r#"{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"#,
        r#""b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},"none":{"dtype":"F32","shape":[0,7],"data_offsets":[8,8]}}"#,
    );
    let padded = format!("{header:width$}", width = header.len().next_multiple_of(8));
    let expected =
        [&(padded.len() as u64).to_le_bytes()[..], padded.as_bytes(), &[0, 0, 128, 63, 0, 0, 0, 64, 1, 2, 3]].concat();
    assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&expected));
    Ok(())
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    check_writer("a.safetensors", |path| save_safetensors(path, &tensors(), &fields()).map_err(|e| e.to_string()));
    check_writer("a.safetensors", |path| {
        let written = save_safetensors_hashed(path, &tensors(), &fields()).map_err(|e| e.to_string())?;
        assert_eq!(written, sha256_file(path).map_err(|e| e.to_string())?);
        Ok(())
    });
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let refused = |name: &str, tensor: RawTensor<'static>, metadata: BTreeMap<String, String>| {
        let tensors = BTreeMap::from([(name.to_owned(), tensor)]);
        write_safetensors(&mut Vec::new(), &tensors, &metadata).expect_err("it was written").to_string()
    };
    let one = || raw(Dtype::U8, &[1], &[1]);
    assert!(refused("__metadata__", one(), BTreeMap::new()).contains("keeps it for itself"));
    assert_eq!(refused("a", raw(Dtype::F32, &[2], &[0; 4]), BTreeMap::new()), "`a` has 4 bytes, expected 8");
    assert!(refused("a", raw(Dtype::F32, &[usize::MAX, 2], &[]), BTreeMap::new()).contains("too many elements"));
    let long = BTreeMap::from([("k".to_owned(), "v".repeat(lth_files::MAX_HEADER_BYTES))]);
    assert!(refused("a", one(), long).contains("expected at most 100000000"));
}

#[test]
fn places_that_lie_are_errors_and_no_overflow() {
    let huge = (1u64 << 61) - 1;
    let headers = [
        format!(r#"{{"a":{{"dtype":"U8","shape":[{huge}],"data_offsets":[{huge},{}]}}}}"#, 2 * huge),
        format!(r#"{{"a":{{"dtype":"U8","shape":[1],"data_offsets":[{},0]}}}}"#, u64::MAX),
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}"#.to_owned(),
        "[".repeat(100_000),
    ];
    for header in &headers {
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
        assert!(open_safetensors(&bytes).is_err(), "{header:.60}");
    }
    for bytes in [&[][..], &[0; 7], &u64::MAX.to_le_bytes()] {
        assert!(open_safetensors(bytes).is_err());
    }
}
