//! A drawing in the making, and the figure it becomes.

use std::fmt::Write as _;

use super::style::STYLE;
use super::text::{coordinate, escape_xml};

/// A finished figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    title: String,
    description: String,
    size: [String; 2],
    is_wide: bool,
    body: String,
}

impl Figure {
    /// Its title, as given.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// An SVG file: it carries its style sheet and needs nothing else.
    pub fn svg(&self) -> String {
        // The style sheet holds no `<` or `&`.
        self.element("figure", &format!("<style>{STYLE}</style>\n"))
    }

    /// An SVG element for a page that holds [`STYLE`] once. `id` is unique on that page: ASCII letters, digits, `-`.
    pub fn inline(&self, id: &str) -> String {
        self.element(&escape_xml(id), "")
    }

    fn element(&self, id: &str, style: &str) -> String {
        let [width, height] = &self.size;
        // A figure that is wider than others scrolls rather than shrinks until its numbers cannot be read.
        let least = if self.is_wide { format!(" style=\"min-width:{width}px\"") } else { String::new() };
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"lth-figure\" role=\"img\" \
             aria-labelledby=\"{id}-title {id}-desc\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\"{least}>\n<title id=\"{id}-title\">{}</title>\n<desc id=\"{id}-desc\">{}</desc>\n{style}\
             <rect width=\"{width}\" height=\"{height}\" fill=\"var(--paper)\"/>\n{}</svg>\n",
            escape_xml(&self.title),
            escape_xml(&self.description),
            self.body
        )
    }
}

/// Where a text is held.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// SVG elements, one a line.
#[derive(Default)]
pub(super) struct Canvas {
    body: String,
}

impl Canvas {
    pub(super) fn figure(self, title: &str, description: &str, width: f64, height: f64) -> Figure {
        Figure {
            title: title.into(),
            description: description.into(),
            size: [width, height].map(|length| coordinate(length.ceil())),
            is_wide: width > super::WIDTH,
            body: self.body,
        }
    }

    /// An element as it is; whoever writes it has escaped it.
    pub(super) fn push(&mut self, element: &str) {
        self.body += element;
        self.body.push('\n');
    }

    pub(super) fn open_group(&mut self, class: &str) {
        self.push(&format!("<g class=\"{class}\">"));
    }

    pub(super) fn close_group(&mut self) {
        self.push("</g>");
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(coordinate);
        self.push(&format!("<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>"));
    }

    /// `more` is attributes with a space before them.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)], more: &str) {
        self.push(&format!("<path class=\"{class}\" d=\"{}\"{more}/>", path(points)));
    }

    pub(super) fn closed_path(&mut self, class: &str, points: &[(f64, f64)]) {
        self.push(&format!("<path class=\"{class}\" d=\"{}Z\"/>", path(points)));
    }

    /// `hint` is the tooltip, unescaped; `more` is attributes with a space before them.
    pub(super) fn rectangle(&mut self, class: &str, corner: (f64, f64), size: (f64, f64), more: &str, hint: &str) {
        let [x, y, width, height] = [corner.0, corner.1, size.0, size.1].map(coordinate);
        let start = format!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"{more}");
        if hint.is_empty() {
            self.push(&format!("{start}/>"));
        } else {
            self.push(&format!("{start}><title>{}</title></rect>", escape_xml(hint)));
        }
    }

    pub(super) fn text(&mut self, class: &str, anchor: Anchor, at: (f64, f64), text: &str) {
        self.text_with(class, anchor, at, text, "");
    }

    pub(super) fn text_with(&mut self, class: &str, anchor: Anchor, at: (f64, f64), text: &str, more: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let [x, y] = [at.0, at.1].map(coordinate);
        self.push(&format!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\"{anchor}{more}>{}</text>", escape_xml(text)));
    }

    /// The title in lines from the top left; where it ends.
    pub(super) fn heading(&mut self, title: &str, width: f64) -> f64 {
        let mut y = 0.0;
        for line in super::text::wrapped(title, 14.5, width - 16.0) {
            y += 17.0;
            self.text("heading", Anchor::Start, (8.0, y), &line);
        }
        y + 6.0
    }
}

fn path(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (index, (x, y)) in points.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        // Writing to a string cannot fail.
        let _ = write!(path, "{command}{} {}", coordinate(*x), coordinate(*y));
    }
    path
}
