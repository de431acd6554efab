//! Colours, markers and dashes of up to ten arms, in light, dark and print.

use super::text::coordinate;

/// How many arms differ in colour and marker; an eleventh has the first's colour and marker with another dash.
pub(super) const N_STYLES: usize = 10;

/// The style sheet of all figures. A figure that stands alone carries it; a page of figures holds it once.
///
/// The colours are Okabe & Ito's and Tol's (made for eyes that see colours otherwise), darkened or lightened to a
/// contrast of 3 to 1 with the ground. Printed is the light theme: dark is for screens.
pub const STYLE: &str = "\
.lth-figure{--paper:#ffffff;--ink:#1b1f24;--muted:#57606a;--grid:#dde2e7;--good:#00795a;--bad:#b3401a;\
--c0:#0072b2;--c1:#d55e00;--c2:#008f68;--c3:#aa4499;--c4:#a87000;--c5:#2b93cc;--c6:#882255;--c7:#74741a;--c8:#332288;\
--c9:#6b6b6b;font:13px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;\
color-scheme:light dark;max-width:100%;height:auto;background:var(--paper)}
@media screen and (prefers-color-scheme:dark){.lth-figure{--paper:#14171c;--ink:#e6e9ed;--muted:#a0a8b2;--grid:#30363d;\
--good:#4fd0a2;--bad:#ff8f66;--c0:#56a8e0;--c1:#ff8a4c;--c2:#3fcfa0;--c3:#e08ad0;--c4:#e9b949;--c5:#9bdcff;\
--c6:#e0709a;--c7:#c9c96b;--c8:#a394f0;--c9:#b5b5b5}}
.lth-figure text{fill:var(--ink)}
.lth-figure .heading{font-weight:600;font-size:14px}
.lth-figure .tick,.lth-figure .label{fill:var(--muted)}
.lth-figure .cell{font-size:12px}
.lth-figure .grid{stroke:var(--grid);stroke-width:1}
.lth-figure .axis{stroke:var(--muted);stroke-width:1;fill:none}
.lth-figure .line{fill:none;stroke:var(--s);stroke-width:1.8;stroke-linejoin:round}
.lth-figure .whisker{fill:none;stroke:var(--s);stroke-width:1.2;stroke-opacity:.75}
.lth-figure .band{fill:var(--s);fill-opacity:.16;stroke:none}
.lth-figure .bar{fill:var(--s);stroke:none}
.lth-figure .mark{fill:var(--s);stroke:var(--s);stroke-width:1.5}
.lth-figure .open{fill:var(--paper);stroke:var(--s);stroke-width:1.5}
.lth-figure .good{stroke:var(--good);fill:none;stroke-width:2}
.lth-figure .bad{stroke:var(--bad);fill:none;stroke-width:2;stroke-dasharray:5 3}
.lth-figure .s0{--s:var(--c0)}.lth-figure .s1{--s:var(--c1)}.lth-figure .s2{--s:var(--c2)}\
.lth-figure .s3{--s:var(--c3)}.lth-figure .s4{--s:var(--c4)}.lth-figure .s5{--s:var(--c5)}\
.lth-figure .s6{--s:var(--c6)}.lth-figure .s7{--s:var(--c7)}.lth-figure .s8{--s:var(--c8)}\
.lth-figure .s9{--s:var(--c9)}
";

/// The class that gives a group the colour of arm `index`.
pub(super) fn class(index: usize) -> String {
    format!("s{}", index % N_STYLES)
}

/// The dash pattern of arm `index`, as an attribute with a space before it; nothing for a full line.
pub(super) fn dash(index: usize) -> String {
    const DASHES: [&str; 7] = ["", "7 3", "2 2.5", "9 3 2 3", "4 2", "12 4", "9 2 2 2 2 2"];
    match DASHES[(index + index / N_STYLES) % DASHES.len()] {
        "" => String::new(),
        dash => format!(" stroke-dasharray=\"{dash}\""),
    }
}

/// The marker of arm `index` around (x, y), about 8 pixels wide. `hint` is its tooltip, escaped.
pub(super) fn marker(index: usize, x: f64, y: f64, hint: &str) -> String {
    let shape = index % N_STYLES;
    let kind = if shape < 4 || shape == 5 { "mark" } else { "open" };
    let r = 3.6;
    let polygon = |corners: &[(f64, f64)]| {
        let corners: Vec<String> =
            corners.iter().map(|(dx, dy)| format!("{} {}", coordinate(x + r * dx), coordinate(y + r * dy))).collect();
        format!("M{}Z", corners.join("L"))
    };
    let path = match shape {
        0 | 6 => {
            let (x, y) = (coordinate(x), coordinate(y));
            return format!("<circle class=\"{kind}\" cx=\"{x}\" cy=\"{y}\" r=\"3.4\">{}</circle>", title(hint));
        }
        1 | 7 => polygon(&[(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]),
        2 | 8 => polygon(&[(0.0, -1.1), (1.0, 0.8), (-1.0, 0.8)]),
        3 | 9 => polygon(&[(0.0, -1.2), (1.2, 0.0), (0.0, 1.2), (-1.2, 0.0)]),
        4 => polygon(&[(0.0, 1.1), (1.0, -0.8), (-1.0, -0.8)]),
        _ => {
            let plus = [(-0.3, -1.1), (0.3, -1.1), (0.3, -0.3), (1.1, -0.3), (1.1, 0.3), (0.3, 0.3)];
            let turned = plus.map(|(dx, dy)| (-dx, -dy));
            polygon(&[plus, turned].concat())
        }
    };
    format!("<path class=\"{kind}\" d=\"{path}\">{}</path>", title(hint))
}

fn title(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("<title>{hint}</title>") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The colour that `theme` (0 light, 1 dark) gives a variable.
    fn colour(name: &str, theme: usize) -> [f64; 3] {
        let start = STYLE.match_indices(&format!("{name}:#")).nth(theme).unwrap().0 + name.len() + 2;
        [0, 2, 4].map(|at| f64::from(u8::from_str_radix(&STYLE[start + at..start + at + 2], 16).unwrap()) / 255.0)
    }

    /// Relative luminance, WCAG 2.2.
    fn luminance(colour: [f64; 3]) -> f64 {
        let linear = colour.map(|v| if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    }

    fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_colour_stands_out_from_its_ground() {
        for theme in [0, 1] {
            let paper = colour("--paper", theme);
            for index in 0..N_STYLES {
                let found = contrast(colour(&format!("--c{index}"), theme), paper);
                assert!(found >= 3.0, "--c{index} of theme {theme}: {found}");
            }
            for text in ["--ink", "--muted"] {
                let found = contrast(colour(text, theme), paper);
                assert!(found >= 4.5, "{text} of theme {theme}: {found}");
            }
            // A full cell of a heat map: 45 % of the first colour over the ground.
            let (full, ink) = (colour("--c0", theme), colour("--ink", theme));
            let cell = std::array::from_fn(|i| 0.45 * full[i] + 0.55 * paper[i]);
            assert!(contrast(cell, ink) >= 4.5, "theme {theme}: {}", contrast(cell, ink));
        }
    }

    #[test]
    fn arms_differ_without_colour() {
        let looks: std::collections::BTreeSet<String> =
            (0..N_STYLES).map(|index| marker(index, 0.0, 0.0, "") + &dash(index)).collect();
        assert_eq!(looks.len(), N_STYLES);
        assert_ne!(dash(0), dash(N_STYLES));
    }
}
