//! Names by pattern.

/// Whether `name` is what `pattern` describes: `*` stands for any number of any characters, the rest for itself.
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
}
