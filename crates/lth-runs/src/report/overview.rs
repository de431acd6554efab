//! What a terminal shows when an experiment is done.

use lth_files::on_one_line;

use crate::experiment::{Analysis, Summary};

use super::{caveats, lead, race, result, tables, title};

/// More rows than these are cut to a few levels.
const MOST_ROWS: usize = 18;

/// More sentences than these are left to the report.
const MOST_SENTENCES: usize = 14;

/// The result in plain text: what was run, means with their intervals by arm and level, then the verdicts as sentences; of a
/// race, whole times beside dense's, and who won.
///
/// About forty lines at most: of many levels the first, the middle one and the last are shown, and it says so.
pub fn overview(summary: &Summary) -> String {
    let analysis = Analysis::of(summary);
    let mut text = format!("{}\n{}\n", on_one_line(&title(summary)), on_one_line(&lead(summary, &analysis)));
    if summary.fits.is_empty() {
        return text;
    }
    if let Some(result) = race::result(summary, &analysis) {
        text += &format!("\n{}\n{}\n", race::standings(&analysis).plain(), on_one_line(&result));
        text += &left_out(&analysis);
        return text;
    }
    let cut = tables::cut(&analysis, MOST_ROWS);
    let is_shown = |level: u32| cut.as_ref().is_none_or(|levels| levels.contains(&level));
    let table = tables::figures(summary, &analysis, is_shown);
    if let Some(frozen) = caveats::frozen(summary) {
        text += &format!("{}\n", on_one_line(&frozen));
    }
    if !table.is_empty() {
        text += &format!("\n{}", table.plain());
    }
    if let Some(levels) = cut {
        text += &format!("({} of {} levels; all are in the report)\n", levels.len(), summary.levels().len());
    }
    let said = result::said(summary, &analysis);
    let sentences: Vec<&String> = said.introduction.iter().chain(&said.sentences).collect();
    if !sentences.is_empty() {
        text.push('\n');
    }
    for sentence in sentences.iter().take(MOST_SENTENCES) {
        text += &format!("{}\n", on_one_line(sentence));
    }
    if sentences.len() > MOST_SENTENCES {
        text += &format!("({} more sentences are in the report)\n", sentences.len() - MOST_SENTENCES);
    }
    text += &left_out(&analysis);
    text
}

/// A few of those that could not be used.
fn left_out(analysis: &Analysis) -> String {
    let mut text = String::new();
    for left_out in analysis.left_out.iter().take(3) {
        text += &on_one_line(&format!("Left out: {}: {}", left_out.what, left_out.reason));
        text.push('\n');
    }
    if analysis.left_out.len() > 3 {
        text += &format!("({} more are left out; the report names them)\n", analysis.left_out.len() - 3);
    }
    text
}
