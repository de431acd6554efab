//! The elements of a tensor's bytes under a mask, by the mask's words of 64 bits.

use candle_core::DType;
use lth_mask::Mask;

/// Bytes of an element.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Width {
    One,
    Two,
    Four,
    Eight,
}

impl Width {
    /// `None` of what no type has.
    pub(crate) fn of(n_bytes: usize) -> Option<Self> {
        match n_bytes {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            4 => Some(Self::Four),
            8 => Some(Self::Eight),
            _ => None,
        }
    }
}

/// A loop that knows the width when it is compiled: several times faster than one that does not.
macro_rules! by_width {
    ($width:expr, $name:ident($($argument:expr),*)) => {
        match $width {
            Width::One => $name::<1>($($argument),*),
            Width::Two => $name::<2>($($argument),*),
            Width::Four => $name::<4>($($argument),*),
            Width::Eight => $name::<8>($($argument),*),
        }
    };
}

/// Makes every pruned element 0.
pub(crate) fn clear_pruned(bytes: &mut [u8], width: Width, mask: &Mask) {
    fn clear<const N: usize>(bytes: &mut [u8], mask: &Mask) {
        let (elements, _) = bytes.as_chunks_mut::<N>();
        for (elements, word) in elements.chunks_mut(64).zip(mask.words()) {
            for (bit, element) in elements.iter_mut().enumerate() {
                let keep = 0u8.wrapping_sub((word >> bit & 1) as u8);
                element.iter_mut().for_each(|byte| *byte &= keep);
            }
        }
    }
    by_width!(width, clear(bytes, mask));
}

/// The kept elements, one behind the other.
pub(crate) fn kept(bytes: &[u8], width: Width, mask: &Mask) -> Vec<u8> {
    fn gather<const N: usize>(bytes: &[u8], mask: &Mask) -> Vec<u8> {
        let (elements, _) = bytes.as_chunks::<N>();
        let mut kept = Vec::with_capacity(mask.kept() * N);
        mask.kept_indices().for_each(|index| kept.extend_from_slice(&elements[index]));
        kept
    }
    by_width!(width, gather(bytes, mask))
}

/// All elements: the kept ones at their places, and 0.
pub(crate) fn placed(kept: &[u8], width: Width, mask: &Mask) -> Vec<u8> {
    fn scatter<const N: usize>(kept: &[u8], mask: &Mask) -> Vec<u8> {
        let mut bytes = vec![0; mask.len() * N];
        let (elements, _) = bytes.as_chunks_mut::<N>();
        let (kept, _) = kept.as_chunks::<N>();
        mask.kept_indices().zip(kept).for_each(|(index, element)| elements[index] = *element);
        bytes
    }
    by_width!(width, scatter(kept, mask))
}

/// Which elements are not 0, as a mask's words say it; −0 is 0.
pub(crate) fn nonzero(bytes: &[u8], width: Width, dtype: DType) -> Vec<u64> {
    fn words<const N: usize>(bytes: &[u8], is_float: bool) -> Vec<u64> {
        // The sign is the highest bit, and little-endian numbers end with it.
        let value = if is_float { u64::MAX >> (65 - 8 * N as u32) } else { u64::MAX };
        let is_nonzero = |element: &[u8; N]| {
            let mut wide = [0; 8];
            wide[..N].copy_from_slice(element);
            u64::from(u64::from_le_bytes(wide) & value != 0)
        };
        let (elements, _) = bytes.as_chunks::<N>();
        let word = |elements: &[[u8; N]]| {
            elements.iter().enumerate().fold(0, |word, (bit, element)| word | is_nonzero(element) << bit)
        };
        elements.chunks(64).map(word).collect()
    }
    by_width!(width, words(bytes, dtype.is_float()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every width, over the ends of words: against one element after the other.
    #[test]
    fn elements_go_where_the_mask_says() {
        for n_bytes in [1, 2, 4, 8] {
            let width = Width::of(n_bytes).unwrap();
            for len in [0, 1, 63, 64, 65, 200] {
                let mask = Mask::from_fn([len], |index| index * 7 % 5 < 2).unwrap();
                let bytes: Vec<u8> = (0..len * n_bytes).map(|i| (i % 251) as u8).collect();
                let element = |index: usize| &bytes[index * n_bytes..][..n_bytes];
                let kept_by_hand: Vec<u8> = mask.kept_indices().flat_map(|index| element(index).to_vec()).collect();
                let zeros = vec![0; n_bytes];
                let is_kept: Vec<bool> = mask.iter().collect();
                let cleared_by_hand: Vec<u8> =
                    (0..len).flat_map(|index| if is_kept[index] { element(index) } else { &zeros }.to_vec()).collect();

                let mut cleared = bytes.clone();
                clear_pruned(&mut cleared, width, &mask);
                assert_eq!(cleared, cleared_by_hand, "{n_bytes} {len}");
                assert_eq!(kept(&bytes, width, &mask), kept_by_hand, "{n_bytes} {len}");
                assert_eq!(placed(&kept_by_hand, width, &mask), cleared_by_hand, "{n_bytes} {len}");
            }
        }
    }

    #[test]
    fn minus_zero_is_zero_of_numbers_that_have_a_sign() {
        let bits = |bytes: &[u8], dtype: DType| nonzero(bytes, Width::of(dtype.size_in_bytes()).unwrap(), dtype);
        let floats: Vec<u8> = [0f32, -0.0, 1e-45, -1.0, f32::NAN].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(bits(&floats, DType::F32), [0b11100]);
        let doubles: Vec<u8> = [-0f64, 5e-324].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(bits(&doubles, DType::F64), [0b10]);
        let halves: Vec<u8> = [0x8000u16, 0x0001].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(bits(&halves, DType::BF16), [0b10]);
        assert_eq!(bits(&[0x80, 0, 1], DType::U8), [0b101]);
        let many: Vec<u8> = (0..130u32).map(|i| u8::from(i % 64 == 1)).collect();
        assert_eq!(bits(&many, DType::U8), [0b10, 0b10, 0b10]);
    }
}
