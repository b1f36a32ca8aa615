//! Plots as SVG, drawn by hand: lines over an axis, and bars made of parts. Colours come from the page's style sheet.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
/// Room around the drawing: left for figures, right for the last of them, above for the legend, below for the axis.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;
/// Steps between lines of the grid, about.
const STEPS: f64 = 5.0;
/// Of a bar with its gap.
const BAR: f64 = 30.0;
/// Of a line of the legend.
const LEGEND: f64 = 17.0;
/// Of a character of the legend, about.
const CHARACTER: f64 = 6.6;
/// Colours that the style sheet has.
const COLOURS: usize = 8;

/// Lines over one axis.
pub struct Lines {
    /// Of the axis.
    pub x_label: String,
    /// Of what is plotted, with its unit.
    pub y_label: String,
    /// Whether the axis is logarithmic.
    pub is_logarithmic: bool,
    /// Whether what is plotted is on a logarithmic scale, too.
    pub is_logarithmic_y: bool,
    /// Name and points.
    pub series: Vec<(String, Vec<(f64, f64)>)>,
}

/// Bars, each of parts.
pub struct Bars {
    /// Unit of the parts.
    pub unit: String,
    /// Names of the parts.
    pub parts: Vec<String>,
    /// Name and parts of each bar.
    pub bars: Vec<(String, Vec<f64>)>,
}

/// A scale from values to places.
struct Scale {
    from: f64,
    to: f64,
    is_logarithmic: bool,
    start: f64,
    end: f64,
}

impl Scale {
    fn place(&self, value: f64) -> f64 {
        let of = |v: f64| if self.is_logarithmic { v.max(f64::MIN_POSITIVE).ln() } else { v };
        let (from, to) = (of(self.from), of(self.to));
        let span = to - from;
        if span <= 0.0 {
            return (self.start + self.end) / 2.0;
        }
        self.start + (of(value) - from) / span * (self.end - self.start)
    }

    /// Values with a line of the grid.
    fn marks(&self) -> Vec<f64> {
        if self.to <= self.from {
            return vec![self.from];
        }
        if self.is_logarithmic {
            let mut marks = Vec::new();
            let mut decade = 10f64.powf(self.from.log10().floor());
            let few = self.to / self.from < 50.0;
            while decade <= self.to * 1.001 {
                let steps: &[f64] = if few { &[1.0, 2.0, 5.0] } else { &[1.0] };
                marks.extend(steps.iter().map(|step| step * decade));
                decade *= 10.0;
            }
            marks.retain(|m| *m >= self.from * 0.999 && *m <= self.to * 1.001);
            return marks;
        }
        let step = nice((self.to - self.from).max(f64::MIN_POSITIVE) / STEPS);
        let first = (self.from / step).ceil() as i64;
        (first..).map(|i| i as f64 * step).take_while(|m| *m <= self.to * 1.000_001).collect()
    }
}

/// 1, 2 or 5 times a power of ten, at least so much.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|m| *m >= step * 0.999).unwrap_or(step)
}

/// A figure as short as it can be read.
pub fn figure(value: f64) -> String {
    let short = |value: f64, unit: &str| {
        let text = format!("{value:.2}");
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match value.abs() {
        v if v >= 1e9 => short(value / 1e9, " G"),
        v if v >= 1e6 => short(value / 1e6, " M"),
        v if v >= 1e4 => short(value / 1e3, " k"),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 0.01 || v == 0.0 => short(value, ""),
        _ => format!("{value:.1e}"),
    }
}

/// Text that can stand in XML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn open(height: f64, label: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">", escape(label))
}

/// Places of names in the legend, and its lines.
fn legend_places(names: &[&str]) -> (Vec<(f64, f64)>, usize) {
    let (mut x, mut line) = (LEFT, 0);
    let mut places = Vec::with_capacity(names.len());
    for name in names {
        let width = 30.0 + name.chars().count() as f64 * CHARACTER;
        if x > LEFT && x + width > WIDTH {
            (x, line) = (LEFT, line + 1);
        }
        places.push((x, line as f64 * LEGEND));
        x += width;
    }
    (places, line + 1)
}

/// Names with their colours.
fn legend(out: &mut String, names: &[&str]) {
    for (i, (name, (x, y))) in names.iter().zip(legend_places(names).0).enumerate() {
        let y = TOP - 18.0 + y;
        let _ =
            write!(out, "<rect class=\"c{}\" x=\"{x}\" y=\"{}\" width=\"10\" height=\"10\"/>", i % COLOURS, y - 9.0);
        let _ = write!(out, "<text x=\"{}\" y=\"{y}\">{}</text>", x + 14.0, escape(name));
    }
}

impl Lines {
    /// The drawing; nothing if there is nothing to draw.
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|(_, points)| points);
        if points().next().is_none() {
            return String::new();
        }
        let least = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::INFINITY, f64::min);
        let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::NEG_INFINITY, f64::max);
        let x = Scale {
            from: least(|p| p.0),
            to: most(|p| p.0),
            is_logarithmic: self.is_logarithmic,
            start: LEFT,
            end: WIDTH - RIGHT,
        };
        // Zero is on the scale, so that what looks twice as high is.
        let (low, high) = match self.is_logarithmic_y {
            true => (least(|p| p.1).max(1e-9) * 0.8, most(|p| p.1) * 1.25),
            false => (least(|p| p.1).min(0.0), most(|p| p.1).max(1e-9) * 1.1),
        };
        let y = Scale { from: low, to: high, is_logarithmic: self.is_logarithmic_y, start: HEIGHT - BOTTOM, end: TOP };
        let mut out = open(HEIGHT, &format!("{} by {}", self.y_label, self.x_label));
        self.grid(&mut out, &x, &y);
        for (i, (_, points)) in self.series.iter().enumerate() {
            let colour = i % COLOURS;
            let path: Vec<String> =
                points.iter().map(|(px, py)| format!("{:.1},{:.1}", x.place(*px), y.place(*py))).collect();
            let _ = write!(out, "<polyline class=\"s{colour}\" points=\"{}\"/>", path.join(" "));
            for (px, py) in points {
                let (cx, cy) = (x.place(*px), y.place(*py));
                let _ = write!(out, "<circle class=\"c{colour}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3.2\"/>");
            }
        }
        let names: Vec<&str> = self.series.iter().map(|(name, _)| name.as_str()).collect();
        legend(&mut out, &names);
        out + "</svg>"
    }

    fn grid(&self, out: &mut String, x: &Scale, y: &Scale) {
        for mark in y.marks() {
            let at = y.place(mark);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
                WIDTH - RIGHT
            );
            let text = figure(mark);
            let _ = write!(out, "<text class=\"y\" x=\"{}\" y=\"{:.1}\">{text}</text>", LEFT - 8.0, at + 4.0);
        }
        let bottom = HEIGHT - BOTTOM;
        for mark in x.marks() {
            let at = x.place(mark);
            let _ = write!(out, "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>");
            let _ = write!(out, "<text class=\"x\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>", bottom + 17.0, figure(mark));
        }
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        let _ = write!(out, "<text class=\"x\" x=\"{middle}\" y=\"{}\">{}</text>", HEIGHT - 8.0, escape(&self.x_label));
        let middle = (TOP + bottom) / 2.0;
        let turned = format!("transform=\"rotate(-90 14 {middle})\"");
        let _ = write!(out, "<text class=\"x\" {turned} x=\"14\" y=\"{middle}\">{}</text>", escape(&self.y_label));
    }
}

impl Bars {
    /// The drawing; nothing if there is nothing to draw.
    pub fn svg(&self) -> String {
        if self.bars.is_empty() {
            return String::new();
        }
        let widest = self.bars.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let left = 16.0 + widest as f64 * CHARACTER;
        let sums: Vec<f64> = self.bars.iter().map(|(_, parts)| parts.iter().map(|p| p.max(0.0)).sum()).collect();
        let most = sums.iter().copied().fold(1e-9, f64::max);
        let scale = Scale { from: 0.0, to: most, is_logarithmic: false, start: left, end: WIDTH - 96.0 };
        let names: Vec<&str> = self.parts.iter().map(String::as_str).collect();
        let top = TOP + (legend_places(&names).1 - 1) as f64 * LEGEND;
        let height = top + self.bars.len() as f64 * BAR + 8.0;
        let mut out = open(height, &self.unit);
        for (row, ((name, parts), sum)) in self.bars.iter().zip(&sums).enumerate() {
            let y = top + row as f64 * BAR;
            let text = y + 15.0;
            let _ = write!(out, "<text class=\"y\" x=\"{}\" y=\"{text}\">{}</text>", left - 8.0, escape(name));
            let mut from = 0.0;
            for (i, part) in parts.iter().enumerate() {
                let (start, end) = (scale.place(from), scale.place(from + part.max(0.0)));
                let colour = i % COLOURS;
                let width = end - start;
                let _ = write!(
                    out,
                    "<rect class=\"c{colour}\" x=\"{start:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"20\"/>"
                );
                from += part.max(0.0);
            }
            let end = scale.place(*sum) + 6.0;
            let _ = write!(out, "<text x=\"{end:.1}\" y=\"{text}\">{} {}</text>", figure(*sum), escape(&self.unit));
        }
        if names.len() > 1 {
            legend(&mut out, &names);
        }
        out + "</svg>"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(is_logarithmic: bool) -> Lines {
        let points = vec![(1e4, 10.0), (1e5, 12.0), (1e7, 20.0)];
        Lines {
            x_label: "accounts".into(),
            y_label: "us".into(),
            is_logarithmic,
            is_logarithmic_y: false,
            series: vec![("CPU <all>".into(), points)],
        }
    }

    #[test]
    fn a_decade_is_as_wide_as_another_on_a_logarithmic_axis() {
        let scale = Scale { from: 1.0, to: 10_000.0, is_logarithmic: true, start: 0.0, end: 400.0 };
        assert_eq!([1.0, 10.0, 100.0, 10_000.0].map(|v| scale.place(v).round()), [0.0, 100.0, 200.0, 400.0]);
        assert_eq!(scale.marks().len(), 5);
    }

    #[test]
    fn a_grid_has_round_figures() {
        let scale = Scale { from: 0.0, to: 23.0, is_logarithmic: false, start: 0.0, end: 1.0 };
        assert_eq!(scale.marks(), [0.0, 5.0, 10.0, 15.0, 20.0]);
        assert_eq!([0.0, 0.25, 12.0, 4_096.0, 1e4, 2.5e6].map(figure), ["0", "0.25", "12", "4096", "10 k", "2.5 M"]);
    }

    #[test]
    fn a_plot_has_a_mark_for_each_point_and_no_raw_text() {
        let svg = lines(true).svg();
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("CPU &lt;all&gt;") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(Lines { series: Vec::new(), ..lines(false) }.svg(), "");
    }

    #[test]
    fn one_point_and_nothing_at_all_are_drawn() {
        let one = Lines { series: vec![("one".into(), vec![(4.0, 0.0)])], ..lines(false) }.svg();
        assert!(!one.contains("NaN") && !one.contains("inf"), "{one}");
        let bars = Bars { unit: "us".into(), parts: vec!["a".into()], bars: vec![("n = 4".into(), vec![0.0])] };
        assert!(!bars.svg().contains("NaN"));
        let long = ["a name as long as this one is"; 5];
        assert_eq!(legend_places(&long).1, 3, "two names a line");
    }
}
