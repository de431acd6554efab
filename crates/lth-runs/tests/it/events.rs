//! Event files against those of TensorBoard itself.

use lth_runs::Error;
use lth_runs::tensorboard::EventFile;

/// TensorBoard 2.21.0's own writer, with its own protocol buffers:
///
/// ```python
/// import io
/// from tensorboard.compat.proto.event_pb2 import Event
/// from tensorboard.compat.proto.summary_pb2 import Summary
/// from tensorboard.summary.writer.record_writer import RecordWriter
///
/// out = io.BytesIO()
/// writer = RecordWriter(out)
/// writer.write(Event(wall_time=1795359845.25, file_version="brain.Event:2").SerializeToString())
/// values = [("loss/train", 0.5), ("accuracy/validation", 0.9)]
/// summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values])
/// writer.write(Event(wall_time=1795359846.5, step=300, summary=summary).SerializeToString())
/// print(out.getvalue().hex())
/// ```
const OF_TENSORBOARD: &str = "1800000000000000a37f4b220900005019c1c0da411a0d627261696e2e4576656e743a321ca25e93\
    3d000000000000006049f1ec090000a019c1c0da4110ac022a2f0a110a0a6c6f73732f747261696e150000003f0a1a0a1361636375726163\
    792f76616c69646174696f6e156666663ff34a9a68";

#[test]
fn a_file_has_the_bytes_that_tensorboard_writes() -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut events = EventFile::create(folder.path(), 1_795_359_845.25)?;
    events.add(1_795_359_846.5, 300, &[("loss/train", 0.5), ("accuracy/validation", 0.9)])?;
    let bytes = std::fs::read(folder.path().join("events.out.tfevents.1795359845.lth")).expect("it was written");
    let hexadecimal: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hexadecimal, OF_TENSORBOARD);
    Ok(())
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = EventFile::create(&folder.path().join("absent"), 1.0).expect_err("there is no folder");
    assert!(error.to_string().contains("events.out.tfevents.0000000001.lth"), "{error}");
}
