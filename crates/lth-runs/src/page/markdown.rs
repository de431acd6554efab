//! The same page as Markdown, for a terminal, a diff, or a place that shows no HTML.

use super::{Block, Page};
use crate::figure::escape_xml;
use crate::table::escape;

impl Page {
    /// The page as GitHub's Markdown. Figures are named, not drawn.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n", escape(&self.title));
        if !self.lead.is_empty() {
            paragraph(&mut text, &escape(&self.lead));
        }
        for section in &self.sections {
            paragraph(&mut text, &format!("## {}", escape(&section.heading)));
            push(&mut text, &section.blocks);
        }
        text
    }
}

fn push(text: &mut String, blocks: &[Block]) {
    for block in blocks {
        match block {
            Block::Heading(heading) => paragraph(text, &format!("### {}", escape(heading))),
            Block::Paragraph(running) => paragraph(text, &escape(running)),
            Block::List(items) => paragraph(text, &list(items, "- ")),
            Block::Caveats(items) => paragraph(text, &list(items, "> - ")),
            Block::Table { caption, table } => {
                if !caption.is_empty() {
                    paragraph(text, &escape(caption));
                }
                paragraph(text, &table.markdown());
            }
            Block::Figures(figures) => {
                let titles: Vec<String> = figures.iter().map(|(figure, _)| figure.title().to_owned()).collect();
                if !titles.is_empty() {
                    paragraph(text, &list(&titles, "- "));
                }
            }
            Block::Code(code) => {
                let fence = "`".repeat(longest_ticks(code).max(2) + 1);
                paragraph(text, &format!("{fence}\n{}\n{fence}", code.trim_end()));
            }
            Block::Details { summary, blocks } => {
                paragraph(text, &format!("<details>\n<summary>{}</summary>", escape_xml(summary)));
                push(text, blocks);
                paragraph(text, "</details>");
            }
        }
    }
}

/// An empty line, then the text.
fn paragraph(text: &mut String, block: &str) {
    text.push('\n');
    text.push_str(block.trim_end());
    text.push('\n');
}

fn list(items: &[String], bullet: &str) -> String {
    items.iter().map(|item| format!("{bullet}{}\n", escape(item))).collect()
}

/// How many backticks stand in a row at most: a fence must be longer.
fn longest_ticks(code: &str) -> usize {
    code.split(|character| character != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use crate::page::Section;
    use crate::table::{Align, Table};

    use super::*;

    #[test]
    fn every_block_has_its_markdown() {
        let mut table = Table::new([("arm", Align::Left)]);
        table.push(["a|b"]);
        let blocks = vec![
            Block::Paragraph("a < b".into()),
            Block::Caveats(vec!["one seed".into()]),
            Block::Details { summary: "<all>".into(), blocks: vec![Block::Table { caption: "Arms".into(), table }] },
            Block::Code("```\nx\n".into()),
        ];
        let page =
            Page { title: "T".into(), lead: "L".into(), sections: vec![Section { heading: "S".into(), blocks }] };
        let expected = "# T\n\nL\n\n## S\n\na &lt; b\n\n> - one seed\n\n<details>\n<summary>&lt;all&gt;</summary>\n\n\
                        Arms\n\n| arm  |\n|:-----|\n| a\\|b |\n\n</details>\n\n````\n```\nx\n````\n";
        assert_eq!(page.markdown(), expected);
    }
}
