//! Text from files in messages of ours.

/// `text` so that it stays within its line: characters that begin a line, move a terminal's cursor, colour it or turn the
/// direction of reading are written as `\u{…}`. What a file calls its tensors cannot look like a line of ours.
///
/// ```
/// assert_eq!(lth_files::on_one_line("fc.weight\nverified: all\u{1b}[1A"), r"fc.weight\u{a}verified: all\u{1b}[1A");
/// ```
#[must_use]
pub fn on_one_line(text: &str) -> String {
    escaped(text, |_| false)
}

/// As [`on_one_line`], for text that has several lines on purpose.
#[must_use]
pub fn on_its_lines(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if moves(c) && !is_kept(c) {
            line.extend(c.escape_unicode());
        } else {
            line.push(c);
        }
        line
    })
}

fn moves(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_meant_stay_lines() {
        assert_eq!(on_its_lines("a\n\tb\r\u{7}é"), "a\n\tb\\u{d}\\u{7}é");
    }
}
