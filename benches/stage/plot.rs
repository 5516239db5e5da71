//! Bars in groups, as SVG; nothing but text is needed for that.

use std::fmt::Write;

use crate::report::shown;

pub struct Bars {
    pub title: String,
    /// One a group.
    pub labels: Vec<String>,
    /// A name, and a value a group.
    pub series: Vec<(String, Vec<f64>)>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 20.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 30.0;

/// Told apart by whoever cannot tell red from green.
const COLOURS: [&str; 5] = ["#999999", "#56b4e9", "#0072b2", "#e69f00", "#009e73"];

pub fn bars(plot: &Bars) -> String {
    let most = plot.series.iter().flat_map(|(_, values)| values).fold(0.0_f64, |a, b| a.max(*b));
    let scale = (HEIGHT - TOP - BOTTOM) / if most > 0.0 { most } else { 1.0 };
    let group = (WIDTH - 2.0 * LEFT) / plot.labels.len().max(1) as f64;
    let bar = group / (plot.series.len() as f64 + 1.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
        plot.title
    );
    let foot = HEIGHT - BOTTOM;
    for (place, (name, values)) in plot.series.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let x = LEFT + 120.0 * place as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"30\" width=\"10\" height=\"10\" fill=\"{colour}\"/>"
        );
        let _ = writeln!(svg, "<text x=\"{}\" y=\"39\">{name}</text>", x + 14.0);
        for (nth, value) in values.iter().enumerate() {
            let x = LEFT + group * nth as f64 + bar * (place as f64 + 0.5);
            let (height, middle) = (value * scale, x + bar / 2.0);
            let y = foot - height;
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>",
                bar * 0.9
            );
            let _ = writeln!(
                svg,
                "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                y - 3.0,
                shown(*value)
            );
        }
    }
    for (nth, label) in plot.labels.iter().enumerate() {
        let middle = LEFT + group * (nth as f64 + 0.5);
        let _ = writeln!(
            svg,
            "<text x=\"{middle:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            HEIGHT - 10.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}
