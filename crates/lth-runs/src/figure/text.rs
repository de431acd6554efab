//! Text in SVG: escaped, measured without a font, cut and wrapped.

/// `text` with what XML and HTML would take for markup escaped, in content and in attributes; characters that XML
/// does not allow become spaces.
pub fn escape_xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// The width of `text` in pixels, at most a little overestimated: the widest of the usual sans-serif fonts is taken.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let em = |character: char| match character {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' => 0.33,
        '(' | ')' | '[' | ']' | 'f' | 't' | 'r' | '-' | '/' => 0.42,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '…' | '→' => 0.98,
        'A'..='Z' => 0.71,
        _ if u32::from(character) >= 0x1100 => 1.05,
        _ => 0.64,
    };
    size * text.chars().map(em).sum::<f64>()
}

/// `text`, cut with an ellipsis where it is wider than `most` pixels.
pub(super) fn shortened(text: &str, size: f64, most: f64) -> String {
    if width(text, size) <= most {
        return text.into();
    }
    let mut kept = String::new();
    for character in text.chars() {
        kept.push(character);
        if width(&kept, size) + width("…", size) > most {
            kept.pop();
            break;
        }
    }
    format!("{}…", kept.trim_end())
}

/// `text` in lines of at most `most` pixels, broken at spaces; a word that is wider by itself is cut.
pub(super) fn wrapped(text: &str, size: f64, most: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word = shortened(word, size, most);
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), size) <= most => *line += &format!(" {word}"),
            _ => lines.push(word),
        }
    }
    lines
}

/// A coordinate with at most two decimals.
pub(super) fn coordinate(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_stays_text() {
        assert_eq!(escape_xml("<a href=\"x\">&'\u{1}"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39; ");
    }

    #[test]
    fn cut_text_fits_and_says_that_it_is_cut() {
        let text = "magnitude at initialisation";
        let cut = shortened(text, 12.0, 90.0);
        assert!(cut.ends_with('…') && width(&cut, 12.0) <= 90.0, "{cut}");
        assert_eq!(shortened("short", 12.0, 90.0), "short");
    }

    #[test]
    fn lines_break_at_spaces() {
        let lines = wrapped("a few words that need more than one line", 12.0, 100.0);
        assert!(lines.len() > 1 && lines.iter().all(|line| width(line, 12.0) <= 100.0), "{lines:?}");
        assert_eq!(lines.join(" "), "a few words that need more than one line");
    }

    #[test]
    fn coordinates_have_no_needless_digits() {
        assert_eq!([1.0, 0.126, -0.001, 12.30].map(coordinate), ["1", "0.13", "0", "12.3"]);
    }
}
