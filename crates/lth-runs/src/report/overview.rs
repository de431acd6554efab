//! What a terminal shows when an experiment is done.

use lth_files::on_one_line;

use crate::experiment::{Analysis, Summary};

use super::{caveats, lead, race, result, tables, title};

/// More rows than these are cut to a few levels.
const MOST_ROWS: usize = 18;

/// The same of a race, in which every arm is asked the same.
const MOST_RACERS: usize = 32;

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
    let winner = race::result(summary, &analysis);
    let most = if winner.is_some() { MOST_RACERS } else { MOST_ROWS };
    let cut = tables::cut(&analysis, most);
    let is_shown = |level: u32| cut.as_ref().is_none_or(|levels| levels.contains(&level));
    if let Some(winner) = winner {
        text += &format!("\n{}", race::standings(&analysis, is_shown).plain());
        text += &shown(cut.as_deref(), summary);
        text += &format!("\n{}\n{}", on_one_line(&winner), left_out(&analysis));
        return text;
    }
    let table = tables::figures(summary, &analysis, is_shown);
    if let Some(frozen) = caveats::frozen(summary) {
        text += &format!("{}\n", on_one_line(&frozen));
    }
    if !table.is_empty() {
        text += &format!("\n{}", table.plain());
    }
    text += &shown(cut.as_deref(), summary);
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

/// That not all levels are shown, where that is so.
fn shown(cut: Option<&[u32]>, summary: &Summary) -> String {
    cut.map_or_else(String::new, |levels| {
        format!("({} of {} levels; all are in the report)\n", levels.len(), summary.levels().len())
    })
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
