//! A ticket's compact form: of a masked tensor a bit per weight and the kept values.
//!
//! | tensor | what it holds |
//! |---|---|
//! | `bits/NAME` | U8 of one dimension: the mask's bits, lowest first ([`Mask::to_bytes`]) |
//! | `kept/NAME` | the kept values in row-major order, of the tensor's own type |
//! | `NAME` | a tensor without a mask, as it is |
//!
//! The header's entry `shapes` has the masked tensors' shapes. `scripts/read_ticket.py` reads it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use candle_core::safetensors::Load;
use candle_core::{Device, Tensor};
use lth_files::{Dtype, RawTensor, SafeTensors, TensorBytes};
use lth_mask::{Mask, MaskSet};
use lth_train::tensor_bytes;

use crate::Error;
use crate::content::{Masked, masked, width};
use crate::elements::{self, Width};

const BITS: &str = "bits/";
const KEPT: &str = "kept/";

/// Whether the form keeps that name for itself.
pub(crate) fn is_own(name: &str) -> bool {
    [BITS, KEPT].into_iter().any(|prefix| name.starts_with(prefix))
}

/// The values that a mask keeps.
pub(crate) struct Kept<'a> {
    all: Masked<'a>,
    mask: &'a Mask,
    shape: [usize; 1],
}

/// One tensor of the file.
pub(crate) enum Piece<'a> {
    Whole(Masked<'a>),
    Kept(Kept<'a>),
    Bits(RawTensor<'static>),
}

impl TensorBytes for Piece<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Whole(tensor) => tensor.dtype(),
            Self::Kept(kept) => kept.all.dtype(),
            Self::Bits(bits) => bits.dtype,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Whole(tensor) => tensor.shape(),
            Self::Kept(kept) => &kept.shape,
            Self::Bits(bits) => &bits.shape,
        }
    }

    fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Self::Whole(tensor) => tensor.bytes(),
            Self::Bits(bits) => bits.bytes(),
            Self::Kept(kept) => {
                let all = tensor_bytes(kept.all.tensor)?;
                Ok(Cow::Owned(elements::kept(&all, width(kept.all.tensor)?, kept.mask)))
            }
        }
    }
}

/// The file's tensors, and the text of the entry `shapes`.
pub(crate) fn pieces<'a>(
    tensors: &'a BTreeMap<String, Tensor>,
    masks: &'a MaskSet,
) -> Result<(BTreeMap<String, Piece<'a>>, String), String> {
    let mut pieces = BTreeMap::new();
    let mut shapes = BTreeMap::new();
    for (name, whole) in masked(tensors, masks) {
        if let Some(prefix) = [BITS, KEPT].into_iter().find(|prefix| name.starts_with(prefix)) {
            return Err(format!(
                "`{name}` cannot be in a compact ticket: names that begin with `{prefix}` are its own"
            ));
        }
        let Some(mask) = whole.mask else {
            pieces.insert(name.clone(), Piece::Whole(whole));
            continue;
        };
        let bits = mask.to_bytes();
        let bits = RawTensor { dtype: Dtype::U8, shape: vec![bits.len()], data: bits.into() };
        pieces.insert(format!("{BITS}{name}"), Piece::Bits(bits));
        pieces.insert(format!("{KEPT}{name}"), Piece::Kept(Kept { all: whole, mask, shape: [mask.kept()] }));
        shapes.insert(name, mask.shape());
    }
    Ok((pieces, serde_json::to_string(&shapes).map_err(|error| error.to_string())?))
}

/// Tensors and masks of a compact file. What it allocates is in proportion to the file's length.
pub(crate) fn expand(file: &SafeTensors<'_>, shapes: &str) -> Result<(BTreeMap<String, Tensor>, MaskSet), String> {
    let shapes: BTreeMap<String, Vec<usize>> =
        serde_json::from_str(shapes).map_err(|error| format!("its shapes: {error}"))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let masked = name.strip_prefix(BITS).or_else(|| name.strip_prefix(KEPT));
        match masked {
            Some(masked) if shapes.contains_key(masked) => {}
            Some(_) => return Err(format!("`{name}` has no shape")),
            None => {
                let tensor = view.load(&Device::Cpu).map_err(|error| format!("`{name}`: {}", Error::from(error)))?;
                tensors.insert(name.to_owned(), tensor);
            }
        }
    }
    let mut masks = MaskSet::new();
    for (name, shape) in shapes {
        let (tensor, mask) = one(file, &name, shape).map_err(|reason| format!("`{name}`: {reason}"))?;
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(format!("`{name}` is there twice"));
        }
        masks.insert(name, mask);
    }
    Ok((tensors, masks))
}

fn one(file: &SafeTensors<'_>, name: &str, shape: Vec<usize>) -> Result<(Tensor, Mask), String> {
    let part =
        |prefix: &str| file.tensor(&format!("{prefix}{name}")).map_err(|_| format!("there is no `{prefix}{name}`"));
    let (bits, kept) = (part(BITS)?, part(KEPT)?);
    if bits.dtype() != Dtype::U8 {
        return Err(format!("its bits are {:?}, expected U8", bits.dtype()));
    }
    let mask = Mask::from_bytes(shape, bits.data()).map_err(|error| error.to_string())?;
    if kept.shape() != [mask.kept()] {
        return Err(format!("its kept values have shape {:?}, expected [{}]", kept.shape(), mask.kept()));
    }
    let bit_size = kept.dtype().bitsize();
    let width = Width::of(bit_size / 8).filter(|_| bit_size.is_multiple_of(8));
    let width = width.ok_or_else(|| format!("its values are {:?}, which has no whole bytes", kept.dtype()))?;
    let bytes = elements::placed(kept.data(), width, &mask);
    let view = safetensors::tensor::TensorView::new(kept.dtype(), mask.shape().to_vec(), &bytes);
    let view = view.map_err(|error| error.to_string())?;
    let tensor = view.load(&Device::Cpu).map_err(|error| Error::from(error).to_string())?;
    Ok((tensor, mask))
}
