//! The tables of a run in a Markdown file.

use std::path::Path;

use lth_cli::failure::{Blame, Failure, Result};

use super::report::Report;

/// Replaces what a file has between the marks of a report's instruction set.
pub(crate) fn write(report: &Report, path: &Path) -> Result {
    let text = std::fs::read_to_string(path).data()?;
    let set = report.instruction_set();
    let Some(replaced) = replaced(&text, set, &report.markdown()) else {
        let [begin, end] = marks(set);
        let path = path.display();
        return Err(Failure::usage(format!(
            "{path} has no place for these tables: lines `{begin}` and `{end}` behind it"
        )));
    };
    lth_files::write_atomic(path, |out| out.write_all(replaced.as_bytes())).data()
}

fn marks(set: &str) -> [String; 2] {
    [format!("<!-- bench {set} -->"), format!("<!-- end of bench {set} -->")]
}

fn replaced(text: &str, set: &str, tables: &str) -> Option<String> {
    let [begin, end] = marks(set);
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n{end}{after}", tables.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_the_marks_of_a_set_is_replaced_and_nothing_else() {
        let text = "a\n<!-- bench AVX2 -->\nold\n<!-- end of bench AVX2 -->\nb\n<!-- bench AVX512 -->\n<!-- end of bench AVX512 -->\n";
        let expected = text.replace("old", "new\ntable");
        assert_eq!(replaced(text, "AVX2", "new\ntable\n").as_deref(), Some(&*expected));
        assert_eq!(replaced(&expected, "AVX2", "new\ntable\n").as_deref(), Some(&*expected), "again");
        assert_eq!(replaced(text, "NEON", "new"), None);
        assert_eq!(replaced("<!-- end of bench AVX2 --> <!-- bench AVX2 -->", "AVX2", "new"), None);
    }
}
