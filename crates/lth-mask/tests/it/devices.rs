//! Masks where candle was compiled for other devices than the CPU and the machine has one; without, on the CPU alone:
//! `cargo test -p lth-mask --features candle-core/cuda --test mask devices`, or `candle-core/metal`.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};
use lth_mask::{Mask, Selection, select};

#[test]
fn masks_are_read_from_and_applied_to_tensors_of_every_device() -> Result<()> {
    let wrap = candle_core::Error::wrap;
    let scores = Tensor::new(&[[3f32, 0., 1.], [2., 5., 4.]], &Device::Cpu)?;
    let zeros_and_ones = Tensor::new(&[[1f32, 0., 0.], [0., 1., 1.]], &Device::Cpu)?;
    let expected = Mask::from_fn([2, 3], |index| [0, 4, 5].contains(&index)).map_err(wrap)?;
    for device in [Ok(Device::Cpu), Device::new_cuda(0), Device::new_metal(0)].into_iter().flatten() {
        let there = scores.to_device(&device)?;
        for dtype in [DType::F32, DType::F16, DType::U8, DType::U32] {
            let mask = Mask::from_tensor(&zeros_and_ones.to_dtype(dtype)?.to_device(&device)?).map_err(wrap)?;
            assert_eq!(mask, expected, "{dtype:?}, {device:?}");
        }
        let selected = select(&BTreeMap::from([("w".to_owned(), there.clone())]), 0.5, &Selection::default());
        assert_eq!(selected.map_err(wrap)?.get("w"), Some(&expected), "{device:?}");

        let applied = expected.apply(&there).map_err(wrap)?;
        assert!(applied.device().same_device(&device));
        assert_eq!(applied.to_vec2::<f32>()?, [[3., 0., 0.], [0., 5., 4.]], "{device:?}");
        assert_eq!(Mask::from_nonzero(&applied).map_err(wrap)?, expected, "{device:?}");
        let in_place = there.copy()?;
        expected.apply_in_place(&in_place).map_err(wrap)?;
        assert_eq!(in_place.to_vec2::<f32>()?, applied.to_vec2::<f32>()?, "{device:?}");
    }
    Ok(())
}
