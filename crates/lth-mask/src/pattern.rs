//! Names by pattern.

use crate::error::{Error, Result};

/// Whether `name` is what `pattern` describes: `*` stands for any number of any characters, the rest for itself.
///
/// Where several patterns of a map fit a name, the most specific one counts: the name itself before a pattern with `*`,
/// of those the one with more characters that stand for themselves, of equals the first in order of their text.
///
/// ```
/// use lth_mask::matches;
/// assert!(matches("*.downsample.*", "layer2.0.downsample.0.weight"));
/// assert!(matches("fc.weight", "fc.weight") && !matches("fc", "fc.weight"));
/// ```
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default(); // `split` gives at least one
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether any of the patterns fits.
pub(crate) fn matches_any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

/// The pattern that counts for this name; see [`matches`].
pub(crate) fn most_specific<'p>(patterns: impl IntoIterator<Item = &'p str>, name: &str) -> Option<&'p str> {
    let fitting = patterns.into_iter().filter(|pattern| matches(pattern, name));
    fitting.min_by_key(|&pattern| (pattern != name, std::cmp::Reverse(literals(pattern).count()), pattern))
}

fn literals(pattern: &str) -> impl Iterator<Item = char> {
    pattern.chars().filter(|&c| c != '*')
}

/// # Errors
/// If one of the patterns of `setting` fits none of the names.
pub(crate) fn check<'p, 'n>(
    setting: &'static str,
    patterns: impl IntoIterator<Item = &'p String>,
    names: impl Iterator<Item = &'n str> + Clone,
) -> Result<()> {
    let mut patterns = patterns.into_iter();
    let Some(pattern) = patterns.find(|pattern| !names.clone().any(|name| matches(pattern, name))) else {
        return Ok(());
    };
    let close = close(pattern, names.clone());
    Err(Error::Pattern { setting, pattern: pattern.clone(), close, names: names.map(str::to_owned).collect() })
}

/// Up to three names that may be meant, nearest first: those that hold the pattern's text, or differ in few characters.
fn close<'n>(pattern: &str, names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let text: String = literals(pattern).collect();
    let near = |name: &'n str| {
        let holds = !text.is_empty() && name.contains(&text);
        let distance = if holds { 0 } else { distance(&text, name) };
        (distance <= text.chars().count() / 3).then_some((distance, name))
    };
    let mut found: Vec<(usize, &str)> = names.filter_map(near).collect();
    found.sort_unstable();
    found.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// Characters to insert, delete or exchange until `a` is `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        let yes =
            [("*", ""), ("*", "a.b"), ("a*", "a"), ("*a", "bba"), ("a*c*e", "abcde"), ("a**b", "ab"), ("é*", "éa")];
        let no = [("", "a"), ("a", "ab"), ("a*b", "a"), ("ab*ba", "aba"), ("*x*", "abc"), ("a*c*e", "aec")];
        assert!(yes.iter().all(|(p, n)| matches(p, n)));
        assert!(no.iter().all(|(p, n)| !matches(p, n)));
    }

    #[test]
    fn the_most_specific_of_several_patterns_counts() {
        let of = |patterns: &[&'static str], name| most_specific(patterns.iter().copied(), name);
        assert_eq!(of(&["*", "conv*"], "conv1.weight"), Some("conv*"));
        assert_eq!(of(&["*conv1.weight*", "conv1.weight"], "conv1.weight"), Some("conv1.weight"));
        assert_eq!(of(&["*.weight", "conv*"], "conv1.weight"), Some("*.weight"));
        assert_eq!(of(&["b*", "*a"], "ba"), Some("*a"));
        assert_eq!(of(&["fc*"], "conv1.weight"), None);
    }

    #[test]
    fn a_pattern_that_fits_nothing_says_what_may_be_meant() {
        let names = ["conv1.weight", "conv2.weight", "fc.weight"];
        let error = |pattern: &str| match check("keep_dense", [&pattern.to_owned()], names.into_iter()) {
            Err(Error::Pattern { close, .. }) => close,
            other => panic!("expected an error about `{pattern}`, got {other:?}"),
        };
        assert_eq!(error("fc"), ["fc.weight"]);
        assert_eq!(error("conv*.weigth"), ["conv1.weight", "conv2.weight"]);
        assert_eq!(error("classifier"), [""; 0]);
        assert!(check("keep_dense", [&"*".to_owned(), &"fc*".to_owned()], names.into_iter()).is_ok());
    }
}
