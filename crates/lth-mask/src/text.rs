//! Text from files in messages of ours.

/// `name` with `\u{…}` for what would leave its line: control characters, and those that turn the direction of reading.
pub(crate) fn on_one_line(name: &str) -> String {
    let moves = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let escaped = |c: char| if moves(c) { c.escape_unicode().to_string() } else { c.to_string() };
    name.chars().map(escaped).collect()
}
