//! A grid of pictures with captions: what the network saw and what it said.

use super::canvas::{Anchor, Canvas, Figure};
use super::frame::SIZE;
use super::{WIDTH, text};
use crate::Error;

/// Whether a network was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Framed by a full line.
    Right,
    /// Framed by a broken line.
    Wrong,
}

/// A picture inside the figure's own text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    source: String,
    /// Up to three lines below it, broken where it says and where they are too long: "cat (0.98)".
    pub caption: String,
    /// Its frame; none where nothing was asked.
    pub outcome: Option<Outcome>,
}

impl Picture {
    /// The picture of a PNG file's bytes.
    ///
    /// # Errors
    /// If the bytes do not begin as a PNG file does.
    pub fn png(bytes: &[u8], caption: impl Into<String>) -> Result<Self, Error> {
        Self::data_uri(png_uri(bytes)?, caption)
    }

    /// The picture of a ready data URI.
    ///
    /// # Errors
    /// If it does not begin with "data:image/": a figure never reaches for the network.
    pub fn data_uri(uri: impl Into<String>, caption: impl Into<String>) -> Result<Self, Error> {
        let source = uri.into();
        if !source.starts_with("data:image/") {
            return Err(refused("is not given by a URI that begins with `data:image/`"));
        }
        Ok(Self { source, caption: caption.into(), outcome: None })
    }

    /// The same picture, framed.
    #[must_use]
    pub fn with_outcome(self, outcome: Outcome) -> Self {
        Self { outcome: Some(outcome), ..self }
    }
}

/// The bytes of a PNG file as a data URI.
///
/// # Errors
/// If the bytes do not begin as a PNG file does.
pub fn png_uri(bytes: &[u8]) -> Result<String, Error> {
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err(refused("does not begin as a PNG file does"));
    }
    Ok(format!("data:image/png;base64,{}", base64(bytes)))
}

fn refused(reason: &str) -> Error {
    Error::Invalid { record: "picture of a figure".into(), reason: reason.into() }
}

/// Pictures in rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureGrid {
    /// The heading.
    pub title: String,
    /// For those who cannot see it; made of the captions where it is empty.
    pub description: String,
    /// Pictures in a row, at least 1.
    pub n_columns: usize,
    /// From left to right, row by row.
    pub pictures: Vec<Picture>,
}

impl PictureGrid {
    /// The drawing.
    pub fn figure(&self) -> Figure {
        const LINE: f64 = 14.0;
        let mut canvas = Canvas::default();
        let top = canvas.heading(&self.title, WIDTH) + 4.0;
        let n_columns = self.n_columns.max(1);
        let column = (WIDTH - 16.0) / n_columns as f64;
        let side = (column - 8.0).max(4.0);
        let captions: Vec<Vec<String>> = self.pictures.iter().map(|picture| lines(&picture.caption, side)).collect();
        let n_lines = captions.iter().map(Vec::len).max().unwrap_or(0);
        let row = side + n_lines as f64 * LINE + 12.0;
        for (index, (picture, caption)) in self.pictures.iter().zip(&captions).enumerate() {
            let x = 8.0 + column * (index % n_columns) as f64 + 4.0;
            let y = top + row * (index / n_columns) as f64;
            let [left, upper, length] = [x, y, side].map(text::coordinate);
            // Few pixels are shown as they are, not blurred.
            canvas.push(&format!(
                "<image x=\"{left}\" y=\"{upper}\" width=\"{length}\" height=\"{length}\" \
                 preserveAspectRatio=\"xMidYMid meet\" style=\"image-rendering:pixelated\" href=\"{}\"><title>{}</title>\
                 </image>",
                text::escape_xml(&picture.source),
                text::escape_xml(&picture.caption)
            ));
            if let Some(outcome) = picture.outcome {
                let class = if outcome == Outcome::Right { "good" } else { "bad" };
                canvas.rectangle(class, (x - 1.0, y - 1.0), (side + 2.0, side + 2.0), "", "");
            }
            for (line, words) in caption.iter().enumerate() {
                let at = (x + side / 2.0, y + side + LINE * (line as f64 + 1.0));
                canvas.text("name", Anchor::Middle, at, words);
            }
        }
        if self.pictures.is_empty() {
            canvas.text("label", Anchor::Middle, (WIDTH / 2.0, top + 14.0), "no pictures");
        }
        let n_rows = self.pictures.len().div_ceil(n_columns);
        let described = if self.description.is_empty() {
            let captions: Vec<&str> = self.pictures.iter().map(|picture| picture.caption.as_str()).collect();
            captions.join("; ")
        } else {
            self.description.clone()
        };
        canvas.figure(&self.title, &described, WIDTH, top + (row * n_rows as f64).max(24.0))
    }
}

/// A caption in at most three lines.
fn lines(caption: &str, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = caption.lines().flat_map(|line| text::wrapped(line, SIZE, width)).collect();
    if lines.len() > 3 {
        let rest = lines.split_off(2).join(" ");
        lines.push(text::shortened(&rest, SIZE, width));
    }
    lines
}

/// RFC 4648, §4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let is_padding = digit > three.len();
            let value = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if is_padding { '=' } else { char::from(DIGITS[value]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, §10.
    #[test]
    fn base64_is_the_standards_own() {
        let expected = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (n, expected) in expected.into_iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..n]), expected);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn only_pictures_inside_the_file_are_taken() {
        assert!(Picture::png(b"GIF89a", "").is_err());
        for uri in ["https://example.org/cat.png", "javascript:alert(1)", "data:text/html,x"] {
            assert!(Picture::data_uri(uri, "").is_err());
        }
    }
}
