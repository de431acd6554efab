//! Whether a JPEG is all there.
//!
//! The decoder fills what is missing of a JPEG that was cut short with grey and says nothing; Pillow refuses it. A
//! whole JPEG has an end-of-image marker at the level of its segments. Two bytes that look like one are no proof: an
//! EXIF thumbnail inside a segment has its own.

const START: u8 = 0xD8;
const END: u8 = 0xD9;

/// # Errors
/// A reason, if the segments do not lead to an end-of-image marker. What follows that marker does not matter.
pub(crate) fn check_end(bytes: &[u8]) -> Result<(), String> {
    let cut = || "cut short: no end-of-image marker".to_string();
    let mut at = 0;
    loop {
        // Between segments there may be junk, and after a start-of-scan segment there is the scan itself, in which a
        // 0xFF is followed by 0 (an escaped byte), by a restart marker, or by the next segment's marker.
        at += bytes[at..].iter().position(|&byte| byte == 0xFF).ok_or_else(cut)?;
        at += bytes[at..].iter().position(|&byte| byte != 0xFF).ok_or_else(cut)?;
        let marker = bytes[at];
        at += 1;
        match marker {
            END => return Ok(()),
            0x00 | 0x01 | 0xD0..=0xD7 | START => {}
            _ => {
                let [high, low] = *bytes[at..].first_chunk::<2>().ok_or_else(cut)?;
                let length = usize::from(u16::from_be_bytes([high, low]));
                if length < 2 {
                    return Err(format!("damaged: segment of length {length}"));
                }
                at += length;
                if at > bytes.len() {
                    return Err(cut());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A start marker, an APP1 segment that holds an end marker, a scan with an escaped byte and a restart marker.
    const BODY: [u8; 23] =
        [0xFF, 0xD8, 0xFF, 0xE1, 0, 6, 1, 0xFF, 0xD9, 2, 0xFF, 0xDA, 0, 3, 9, 7, 0xFF, 0, 8, 0xFF, 0xD3, 5, 6];

    fn body_and(rest: &[u8]) -> Vec<u8> {
        [&BODY, rest].concat()
    }

    #[test]
    fn the_end_marker_after_the_scan_counts() {
        assert_eq!(check_end(&body_and(&[0xFF, 0xD9])), Ok(()));
        assert_eq!(check_end(&body_and(&[0xFF, 0xFF, 0xFF, 0xD9])), Ok(()), "fill bytes");
    }

    #[test]
    fn an_end_marker_inside_a_segment_does_not_count() {
        assert_eq!(check_end(&BODY), Err("cut short: no end-of-image marker".into()));
    }

    #[test]
    fn junk_around_the_end_marker_is_accepted() {
        assert_eq!(check_end(&body_and(&[1, 2, 3, 0xFF, 0xD9])), Ok(()), "before, as in beagle_116 of PETS");
        assert_eq!(check_end(&body_and(&[0xFF, 0xD9, 0xFF, 0xE1, 0])), Ok(()), "after");
    }

    #[test]
    fn every_cut_is_seen() {
        let whole = body_and(&[0xFF, 0xD9]);
        for length in 0..whole.len() {
            assert!(check_end(&whole[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn a_length_that_includes_less_than_itself_is_an_error() {
        assert!(check_end(&[0xFF, 0xD8, 0xFF, 0xE0, 0, 1, 0xFF, 0xD9]).unwrap_err().starts_with("damaged"));
    }
}
