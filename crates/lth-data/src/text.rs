//! Text from files and servers in messages of ours.

/// `text` so that it stays within its line: characters that begin a line, move a terminal's cursor, colour it or turn the
/// direction of reading are written as `\u{…}`. What a file is called cannot look like a line of ours.
pub(crate) fn on_one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if moves(c) {
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
    fn what_moves_the_cursor_is_spelled_out() {
        assert_eq!(on_one_line("Katze_é_1.jpg"), "Katze_é_1.jpg");
        assert_eq!(on_one_line("a\nerror: \x1b[31mb\u{202e}"), "a\\u{a}error: \\u{1b}[31mb\\u{202e}");
    }
}
