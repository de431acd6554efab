//! A page that one can mail: HTML in one file, readable without scripts and network, in light, dark and print.
//!
//! ```
//! use lth_runs::page::{Block, Page, Section};
//!
//! let page = Page {
//!     title: "Tickets on digits".into(),
//!     lead: "Five seeds, three arms.".into(),
//!     sections: vec![Section { heading: "Caveats".into(), blocks: vec![Block::Paragraph("a < b".into())] }],
//! };
//! assert!(page.html().contains("<p>a &lt; b</p>"));
//! ```

mod markdown;

use crate::figure::{Figure, STYLE, escape_xml};
use crate::table::{Align, Table};

/// A document of sections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Heading of the page, and its name in the browser.
    pub title: String,
    /// What is seen first, below the title; may be empty.
    pub lead: String,
    /// In reading order; the table of contents lists them.
    pub sections: Vec<Section>,
}

/// A heading and what stands below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// As the table of contents shows it.
    pub heading: String,
    /// From top to bottom.
    pub blocks: Vec<Block>,
}

/// A piece of a section. All text is plain: markup in it is shown, not obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// A heading inside the section.
    Heading(String),
    /// Running text.
    Paragraph(String),
    /// Points in a row.
    List(Vec<String>),
    /// What a reader must know before believing the numbers, set apart.
    Caveats(Vec<String>),
    /// A table with its caption, which may be empty; wide ones scroll by themselves.
    Table {
        /// What it shows.
        caption: String,
        /// Its cells.
        table: Table,
    },
    /// Figures side by side where there is room, each with its caption, which may be empty.
    Figures(Vec<(Figure, String)>),
    /// Text in which spaces count: commands, configuration.
    Code(String),
    /// Blocks that are shown on demand: long tables. Printed, they are whole unless they would fill many pages.
    Details {
        /// The line that is always shown.
        summary: String,
        /// What it hides.
        blocks: Vec<Block>,
    },
}

/// Details of more rows than these, about two pages, are printed only where the reader opened them.
const MOST_PRINTED_ROWS: usize = 150;

/// A cell of so many characters is not broken into lines.
const SHORT: usize = 18;

const PAGE_STYLE: &str = "\
:root{color-scheme:light dark;--paper:#ffffff;--ink:#1b1f24;--muted:#57606a;--grid:#dde2e7;--soft:#f4f6f8;\
--link:#0b5cad;--warn:#a86400}
@media screen and (prefers-color-scheme:dark){:root{--paper:#14171c;--ink:#e6e9ed;--muted:#a0a8b2;--grid:#30363d;\
--soft:#1d2229;--link:#7fb8f0;--warn:#e9b949}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:72rem;background:var(--paper);color:var(--ink);\
font:1rem/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;overflow-wrap:break-word}
h1{font-size:1.7rem;line-height:1.25;margin:.5rem 0}
h2{font-size:1.25rem;margin:2.5rem 0 .75rem;padding-bottom:.25rem;border-bottom:1px solid var(--grid)}
h3{font-size:1.05rem;margin:1.5rem 0 .5rem}
p,ul{max-width:46rem}
a{color:var(--link)}
.lead{font-size:1.1rem}
nav ul{list-style:none;padding:0;margin:1rem 0;display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;max-width:none}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--muted);padding-bottom:.4rem;max-width:calc(100vw - 2rem)}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--grid);text-align:left;vertical-align:top;overflow-wrap:normal}
th{border-bottom-color:var(--muted);white-space:nowrap}
.number{text-align:right;white-space:nowrap}
.short{white-space:nowrap}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:1.5rem;margin:1rem 0}
figure{margin:0;min-width:0;overflow-x:auto}
figure svg{display:block;min-width:20rem}
figcaption{color:var(--muted);font-size:.9rem;margin-top:.4rem;padding-left:.5rem}
.caveats{border-left:4px solid var(--warn);background:var(--soft);padding:.25rem 1rem;margin:1rem 0;max-width:50rem}
.caveats ul{padding-left:1.1rem}
pre{background:var(--soft);padding:.75rem 1rem;overflow-x:auto;font-size:.85rem}
summary{cursor:pointer}
@media(max-width:30rem){th,td{padding:.3rem .4rem}table{font-size:.82rem}}
@media print{@page{margin:14mm}body{padding:0;max-width:none;font-size:10pt}nav{display:none}\
h2,h3,summary{break-after:avoid}tr,figure,.caveats{break-inside:avoid}thead{display:table-header-group}\
.scroll,figure,pre{overflow:visible}pre{white-space:pre-wrap}figure svg{min-width:0!important}\
.figures{grid-template-columns:1fr 1fr;gap:6mm}th{white-space:normal}td{overflow-wrap:anywhere}.number,.short{white-space:normal;overflow-wrap:normal}th,td{font-size:8pt;padding:.1rem .3rem}figcaption,caption{font-size:9pt}\
details:not(.long)::details-content{content-visibility:visible;display:block;height:auto}a{color:inherit;text-decoration:none}}
";

impl Page {
    /// The page as one HTML file.
    pub fn html(&self) -> String {
        let title = escape_xml(&self.title);
        let mut html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <style>\n{PAGE_STYLE}{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n"
        );
        if !self.lead.is_empty() {
            html += &format!("<p class=\"lead\">{}</p>\n", prose(&self.lead));
        }
        html += "</header>\n";
        if self.sections.len() > 1 {
            html += "<nav aria-label=\"Contents\">\n<ul>\n";
            for (index, section) in self.sections.iter().enumerate() {
                html += &format!("<li><a href=\"#s{}\">{}</a></li>\n", index + 1, escape_xml(&section.heading));
            }
            html += "</ul>\n</nav>\n";
        }
        html += "<main>\n";
        let mut n_figures = 0;
        for (index, section) in self.sections.iter().enumerate() {
            html += &format!("<section id=\"s{}\">\n<h2>{}</h2>\n", index + 1, escape_xml(&section.heading));
            push_blocks(&mut html, &section.blocks, &mut n_figures);
            html += "</section>\n";
        }
        html + "</main>\n</body>\n</html>\n"
    }
}

fn push_blocks(html: &mut String, blocks: &[Block], n_figures: &mut usize) {
    for block in blocks {
        match block {
            Block::Heading(text) => *html += &format!("<h3>{}</h3>\n", escape_xml(text)),
            Block::Paragraph(text) => *html += &format!("<p>{}</p>\n", prose(text)),
            Block::List(items) => *html += &list(items),
            Block::Caveats(items) => {
                *html += &format!("<aside class=\"caveats\" aria-label=\"Caveats\">\n{}</aside>\n", list(items));
            }
            Block::Table { caption, table } => *html += &table_html(caption, table),
            Block::Figures(figures) => {
                *html += "<div class=\"figures\">\n";
                for (figure, caption) in figures {
                    *n_figures += 1;
                    *html += "<figure>\n";
                    *html += &figure.inline(&format!("f{n_figures}"));
                    if !caption.is_empty() {
                        *html += &format!("<figcaption>{}</figcaption>\n", prose(caption));
                    }
                    *html += "</figure>\n";
                }
                *html += "</div>\n";
            }
            // The browser drops a newline that follows the tag, and only that one.
            Block::Code(text) => *html += &format!("<pre>\n{}</pre>\n", escape_lines(text)),
            Block::Details { summary, blocks } => {
                let class = if n_rows(blocks) > MOST_PRINTED_ROWS { " class=\"long\"" } else { "" };
                *html += &format!("<details{class}>\n<summary>{}</summary>\n", escape_xml(summary));
                push_blocks(html, blocks, n_figures);
                *html += "</details>\n";
            }
        }
    }
}

/// Rows of all tables in `blocks`; a point of a list is a sentence and takes the room of four.
fn n_rows(blocks: &[Block]) -> usize {
    let rows = |block: &Block| match block {
        Block::Table { table, .. } => table.rows().len(),
        Block::List(items) => 4 * items.len(),
        Block::Details { blocks, .. } => n_rows(blocks),
        _ => 0,
    };
    blocks.iter().map(rows).sum()
}

/// Escaped text in which no line ends between a number and its percent sign, or inside `p = 0.021`.
fn prose(text: &str) -> String {
    escape_xml(text)
        .replace(" %", "\u{a0}%")
        .replace("p = ", "p\u{a0}=\u{a0}")
        .replace("p &lt;", "p\u{a0}&lt;")
        .replace("&lt; 0", "&lt;\u{a0}0")
}

/// Text whose longest words may be parted, so that no table grows as wide as a checksum. Copied, they are whole.
fn parted(text: &str) -> String {
    const LONGEST: usize = 40;
    const PART: usize = 16;
    if text.split(' ').all(|word| word.chars().count() <= LONGEST) {
        return prose(text);
    }
    let part = |word: &str| {
        let characters: Vec<char> = word.chars().collect();
        let parts = characters.chunks(PART).map(|part| escape_xml(&part.iter().collect::<String>()));
        parts.collect::<Vec<_>>().join("<wbr>")
    };
    let words = text.split(' ').map(|word| if word.chars().count() > LONGEST { part(word) } else { prose(word) });
    words.collect::<Vec<_>>().join(" ")
}

fn list(items: &[String]) -> String {
    let items: String = items.iter().map(|item| format!("<li>{}</li>\n", prose(item))).collect();
    format!("<ul>\n{items}</ul>\n")
}

fn escape_lines(text: &str) -> String {
    text.lines().map(|line| escape_xml(line) + "\n").collect()
}

/// A focusable frame lets a wide table be scrolled by keyboard too.
fn table_html(caption: &str, table: &Table) -> String {
    let cell = |tag: &str, text: &str, align: Align| {
        // Words of a short cell stay together; a long checksum may be parted.
        let class = match align {
            Align::Right => " class=\"number\"",
            Align::Left if tag == "td" && (2..=SHORT).contains(&text.chars().count()) => " class=\"short\"",
            Align::Left => "",
        };
        let scope = if tag == "th" { " scope=\"col\"" } else { "" };
        format!("<{tag}{scope}{class}>{}</{tag}>", parted(text))
    };
    let titles: String = table.columns().iter().map(|(title, align)| cell("th", title, *align)).collect();
    let mut html = "<div class=\"scroll\" tabindex=\"0\">\n<table>\n".to_string();
    if !caption.is_empty() {
        html += &format!("<caption>{}</caption>\n", prose(caption));
    }
    html += &format!("<thead>\n<tr>{titles}</tr>\n</thead>\n<tbody>\n");
    for row in table.rows() {
        let cells: String =
            row.iter().zip(table.columns()).map(|(text, (_, align))| cell("td", text, *align)).collect();
        html += &format!("<tr>{cells}</tr>\n");
    }
    html + "</tbody>\n</table>\n</div>\n"
}
