//! Figures and pages from outside: well-formed, escaped, inside their frame, and free of overlaps.

use lth_runs::figure::{
    Axis, BarChart, BarRow, Figure, HeatMap, Histogram, LineChart, Outcome, Picture, PictureGrid, Point, Scatter,
    ScatterPoint, Series, Spread, TickFormat, count, even_edges,
};
use lth_runs::page::{Block, Page, Section};
use lth_runs::table::{Align, Table};
use proptest::prelude::*;

/// Arms as experiments name them.
const ARMS: [&str; 10] = [
    "ticket",
    "random reinitialisation",
    "random mask",
    "shuffled within layers",
    "dense, same budget",
    "dense, stopped early",
    "one-shot magnitude",
    "SNIP",
    "GraSP",
    "SynFlow, reinitialised",
];

/// Twelve levels of IMP: accuracy that holds and then falls, each arm at its own height.
fn tickets(n_arms: usize, spread: Spread) -> LineChart {
    let series = ARMS[..n_arms].iter().enumerate().map(|(arm, name)| {
        let points = (0..20).map(|level| {
            let x = 0.8_f64.powi(level);
            let y = 0.98 - 0.002 * arm as f64 - 0.00004 * (arm as f64 + 1.0) / x;
            Point { x, y, low: Some(y - 0.001), high: Some(y + 0.001) }
        });
        Series { name: (*name).into(), points: points.collect() }
    });
    LineChart {
        title: "Accuracy at the early-stop step".into(),
        description: String::new(),
        x: Axis::weights_remaining(),
        y: Axis::percent("test accuracy"),
        series: series.collect(),
        spread,
    }
}

fn curves() -> LineChart {
    let series = ["ticket", "dense", "random <mask> & more"].iter().enumerate().map(|(arm, name)| Series {
        name: (*name).into(),
        points: (1..=200)
            .map(|step| {
                let x = f64::from(step) * 250.0;
                let loss = (0.3 + 0.1 * arm as f64) * (-x / 8000.0).exp() + 0.05 + 1e-6 * x * arm as f64;
                let y = if (60..70).contains(&step) && arm == 1 { f64::NAN } else { loss };
                Point { x, y, low: Some(y * 0.9), high: Some(y * 1.1) }
            })
            .collect(),
    });
    LineChart {
        title: "Validation loss".into(),
        description: String::new(),
        x: Axis::linear("step"),
        y: Axis::log("loss"),
        series: series.collect(),
        spread: Spread::Band,
    }
}

fn scatter(is_crowded: bool) -> Scatter {
    let points = ARMS.iter().enumerate().map(|(arm, name)| {
        let at = if is_crowded { 0.02 * arm as f64 } else { arm as f64 };
        ScatterPoint {
            name: (*name).into(),
            x: 40.0 + 12.0 * at,
            y: 0.96 + 0.002 * (at * 7.0 % 10.0),
            x_interval: Some((39.0 + 12.0 * at, 41.0 + 12.0 * at)),
            y_interval: Some((0.959 + 0.002 * (at * 7.0 % 10.0), 0.961 + 0.002 * (at * 7.0 % 10.0))),
        }
    });
    Scatter {
        title: "Time against accuracy, search included".into(),
        description: String::new(),
        x: Axis::linear("seconds of training"),
        y: Axis::percent("test accuracy"),
        points: points.collect(),
    }
}

fn bars() -> BarChart {
    let row = |label: &str, a: f64, b: f64| BarRow { label: label.into(), values: vec![a, b] };
    BarChart {
        title: "Density by layer".into(),
        description: String::new(),
        axis: Axis::percent("weights remaining"),
        names: vec!["ticket".into(), "random mask".into()],
        rows: vec![
            row("conv1.weight", 0.82, 0.2),
            row("layer1.0.conv1.weight", 0.31, 0.2),
            row("layer1.0.downsample.some_very_long_name.weight", 0.12, 0.2),
            row("fc.weight", f64::NAN, 0.2),
        ],
    }
}

fn heat_map(n: usize, percent: bool) -> HeatMap {
    let value = |a: usize, b: usize| if a == b { 1.0 } else { 0.2 + 0.6 / (1.0 + a.abs_diff(b) as f64) };
    HeatMap {
        title: "Overlap of masks (Jaccard)".into(),
        description: String::new(),
        columns: (0..n).map(|seed| format!("seed {seed}")).collect(),
        rows: (0..n).map(|seed| format!("seed {seed}")).collect(),
        values: (0..n).map(|a| (0..n).map(|b| value(a, b)).collect()).collect(),
        range: Some((0.0, 1.0)),
        format: if percent { TickFormat::Percent } else { TickFormat::Plain },
    }
}

fn histogram() -> Histogram {
    let edges = even_edges(-0.3, 0.3, 30);
    let draws =
        |scale: f64| (0..3000).map(move |i| scale * (f64::from(i) * 0.618_034 % 1.0 - 0.5) * (f64::from(i % 7) / 7.0));
    Histogram {
        title: "Weights at the start and at the end".into(),
        description: String::new(),
        x: Axis::linear("weight"),
        y: Axis::linear("weights in a bin"),
        series: vec![("start".into(), count(draws(0.3), &edges)), ("end".into(), count(draws(0.6), &edges))],
        edges,
    }
}

/// One grey pixel (PNG, 8 bit).
const PIXEL: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";

fn grid() -> Result<PictureGrid, lth_runs::Error> {
    let picture = |index: usize| {
        let outcome = if index.is_multiple_of(3) { Outcome::Wrong } else { Outcome::Right };
        Ok(Picture::data_uri(PIXEL, format!("British Shorthair (0.{index}7)"))?.with_outcome(outcome))
    };
    let pictures = (0..7).map(picture).collect::<Result<_, lth_runs::Error>>()?;
    Ok(PictureGrid { title: "Pictures".into(), description: String::new(), n_columns: 5, pictures })
}

fn all() -> Vec<Figure> {
    vec![
        tickets(10, Spread::Whiskers).figure(),
        tickets(3, Spread::Band).figure(),
        curves().figure(),
        scatter(false).figure(),
        scatter(true).figure(),
        bars().figure(),
        heat_map(5, false).figure(),
        heat_map(16, true).figure(),
        histogram().figure(),
        grid().unwrap().figure(),
    ]
}

fn page() -> Page {
    let mut table = Table::new([("arm", Align::Left), ("accuracy", Align::Right), ("seconds per epoch", Align::Right)]);
    table.push(["ticket <b>", "97.81 ± 0.04", "12.3"]);
    table.push(["random & mask", "96.02 ± 0.11", "12.4"]);
    let wide = || {
        let titles: Vec<(String, Align)> = ARMS.iter().map(|arm| ((*arm).to_string(), Align::Right)).collect();
        let mut table = Table::new(titles);
        table.push(ARMS.iter().map(|_| "97.81"));
        table
    };
    let section = |heading: &str, blocks: Vec<Block>| Section { heading: heading.into(), blocks };
    Page {
        title: "Winning tickets of LeNet-300-100 on MNIST".into(),
        lead: "The ticket at 13.5 % of weights is at least as good as dense.".into(),
        sections: vec![
            section(
                "Results",
                vec![
                    Block::Paragraph("Five seeds; intervals of 95 %.".into()),
                    Block::Caveats(vec!["Search epochs count in the ticket's cost.".into()]),
                    Block::Table { caption: "Arms at the end".into(), table },
                ],
            ),
            section(
                "Figures",
                vec![Block::Figures(all().into_iter().map(|figure| (figure, "What is seen.".into())).collect())],
            ),
            section(
                "Configuration",
                vec![
                    Block::Heading("Command".into()),
                    Block::Code("lth imp --preset lenet-digits \\\n    --seeds 5 > <file>".into()),
                    Block::List(vec!["one".into(), "two".into()]),
                    Block::Details {
                        summary: "All arms".into(),
                        blocks: vec![Block::Table { caption: String::new(), table: wide() }],
                    },
                ],
            ),
        ],
    }
}

/// Checks that tags nest, attributes are quoted and every `&` begins an entity. `void`: tags without an end.
fn check_markup(text: &str, void: &[&str]) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        check_text(&rest[..start]);
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if tag.starts_with('!') {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "before {}", &rest[..rest.len().min(60)]);
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap();
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "<{tag}>");
        let attributes = tag[name.len()..].trim_end_matches('/').trim();
        assert_eq!(attributes.matches('"').count() % 2, 0, "<{tag}>");
        for (index, part) in attributes.split('"').enumerate() {
            let is_name = index % 2 == 0;
            assert!(!is_name || part.is_empty() || part.trim_start().ends_with('='), "<{tag}>");
            check_text(part);
        }
        if !tag.ends_with('/') && !void.contains(&name) {
            open.push(name);
        }
    }
    assert_eq!(rest.trim(), "");
    assert!(open.is_empty(), "{open:?}");
}

fn check_text(text: &str) {
    for (at, _) in text.match_indices('&') {
        let is_entity =
            ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"].iter().any(|entity| text[at..].starts_with(entity));
        assert!(is_entity, "{text}");
    }
}

/// The numbers of an attribute, wherever it stands.
fn numbers(svg: &str, attribute: &str) -> Vec<f64> {
    let start = format!(" {attribute}=\"");
    svg.match_indices(&start)
        .flat_map(|(at, _)| {
            let text = &svg[at + start.len()..];
            let text = &text[..text.find('"').unwrap()];
            text.split(|c: char| !(c.is_ascii_digit() || "-.".contains(c)))
                .filter(|number| !number.is_empty())
                .map(|number| number.parse().unwrap_or_else(|_| panic!("{attribute}: {number}")))
                .collect::<Vec<f64>>()
        })
        .collect()
}

/// Whether all that is drawn lies on the paper.
fn check_inside(svg: &str) {
    let [width, height] = ["width", "height"].map(|length| numbers(svg, length)[0]);
    for (attribute, most) in [
        ("x", width),
        ("x1", width),
        ("x2", width),
        ("cx", width),
        ("y", height),
        ("y1", height),
        ("y2", height),
        ("cy", height),
    ] {
        for number in numbers(svg, attribute) {
            assert!((0.0..=most).contains(&number), "{attribute} = {number} of {most}");
        }
    }
    for pair in numbers(svg, "d").chunks(2) {
        assert!((0.0..=width).contains(&pair[0]) && (0.0..=height).contains(&pair[1]), "{pair:?}");
    }
    for word in ["NaN", "inf"] {
        let drawn = svg.split("<style>").next().unwrap().to_string() + svg.split("</style>").nth(1).unwrap_or("");
        assert!(!drawn.contains(word), "{word}");
    }
}

#[test]
fn figures_are_well_formed_and_lie_on_their_paper() {
    for figure in all() {
        check_markup(&figure.svg(), &[]);
        check_inside(&figure.svg());
        assert_eq!(figure.svg(), figure.clone().svg());
        assert!(
            !figure.inline("f1").contains("<style>")
                && figure.inline("f1").contains("aria-labelledby=\"f1-title f1-desc\"")
        );
    }
}

#[test]
fn a_page_is_one_well_formed_file_without_scripts_and_network() {
    let html = page().html();
    check_markup(&html, &["meta"]);
    for forbidden in ["<script", "<link", "<iframe", "src=", "@import", "url("] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    let addresses = html.matches("http").count() - html.matches("http://www.w3.org/2000/svg").count();
    assert_eq!(addresses, 0);
    assert!(html.contains("ticket &lt;b&gt;") && html.contains("random &amp; mask"));
    // Every entry of the contents leads somewhere, and no name is given twice.
    let ids: Vec<&str> =
        html.match_indices(" id=\"").map(|(at, _)| html[at + 5..].split('"').next().unwrap()).collect();
    let distinct: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), distinct.len());
    for (at, _) in html.match_indices("<a href=\"#") {
        assert!(distinct.contains(html[at + 10..].split('"').next().unwrap()));
    }
}

#[test]
fn a_small_chart() {
    let chart = LineChart {
        series: vec![
            Series {
                name: "ticket".into(),
                points: [1.0, 0.5, 0.25].map(|x| Point { x, y: 0.9 + 0.1 * x, low: Some(0.88), high: None }).to_vec(),
            },
            Series { name: "a < b".into(), points: vec![Point { x: 0.5, y: 0.95, low: Some(0.94), high: Some(0.96) }] },
        ],
        ..tickets(0, Spread::Whiskers)
    };
    insta::assert_snapshot!(chart.figure().inline("f1"));
}

#[test]
fn small_bars_and_a_small_heat_map() {
    insta::assert_snapshot!(bars().figure().inline("f1"));
    insta::assert_snapshot!(heat_map(2, false).figure().inline("f2"));
}

#[test]
fn a_small_page() {
    let mut page = page();
    page.sections.remove(1);
    let html = page.html();
    insta::assert_snapshot!(html.split("</head>").nth(1).unwrap());
}

#[test]
fn a_gap_parts_a_line_and_a_lone_point_is_marked() {
    let chart = |ys: [f64; 5]| {
        let points = ys.iter().enumerate().map(|(x, y)| Point::new(x as f64, *y)).collect();
        LineChart {
            x: Axis::linear("x"),
            series: vec![Series { name: "a".into(), points }],
            ..tickets(0, Spread::Band)
        }
        .figure()
        .inline("f")
    };
    let drawn = |svg: &str| (svg.matches("<path class=\"line\"").count() - 1, svg.matches("<circle").count() - 1);
    assert_eq!(drawn(&chart([1.0, 2.0, 3.0, 4.0, 5.0])), (1, 5));
    assert_eq!(drawn(&chart([1.0, 2.0, f64::NAN, 4.0, 5.0])), (2, 4));
    assert_eq!(drawn(&chart([1.0, 2.0, f64::INFINITY, 4.0, f64::NAN])), (1, 3));
    assert!(chart([f64::NAN; 5]).contains(">no data<"));
}

#[test]
fn empty_figures_say_so() {
    let figures = [
        tickets(0, Spread::Band).figure(),
        Scatter { points: vec![], ..scatter(false) }.figure(),
        BarChart { rows: vec![], ..bars() }.figure(),
        heat_map(0, false).figure(),
        Histogram { series: vec![], edges: vec![], ..histogram() }.figure(),
        PictureGrid { title: String::new(), description: String::new(), n_columns: 0, pictures: vec![] }.figure(),
    ];
    for figure in figures {
        check_markup(&figure.svg(), &[]);
        check_inside(&figure.svg());
        assert!(figure.svg().contains(">no data<") || figure.svg().contains(">no pictures<"));
    }
}

#[test]
fn names_lie_beside_their_points_only_where_all_find_room() {
    assert!(!scatter(false).figure().svg().contains("class=\"legend\""));
    let crowded = scatter(true).figure().svg();
    assert!(crowded.contains("class=\"legend\""));
    for name in ARMS {
        assert!(crowded.contains(&format!(">{name}</text>")), "{name}");
    }
}

proptest! {
    #[test]
    fn any_numbers_stay_inside(
        values in prop::collection::vec((prop::num::f64::ANY, prop::num::f64::ANY, -1.0_f64..1.0), 0..12),
        is_log: bool,
        name in "\\PC{0,12}",
    ) {
        let points = values.iter().map(|(x, y, d)| Point { x: *x, y: *y, low: Some(y - d.abs()), high: Some(y + d.abs()) });
        let axis = |label: &str| if is_log { Axis::log(label) } else { Axis::percent(label) };
        let chart = LineChart {
            title: name.clone(), description: String::new(), x: axis(&name), y: axis(&name),
            series: vec![Series { name, points: points.collect() }], spread: Spread::Whiskers,
        };
        let svg = chart.figure().svg();
        check_markup(&svg, &[]);
        let [width, height] = ["width", "height"].map(|length| numbers(&svg, length)[0]);
        for pair in numbers(&svg, "d").chunks(2) {
            prop_assert!((0.0..=width).contains(&pair[0]) && (0.0..=height).contains(&pair[1]), "{:?}", pair);
        }
    }
}
