//! Measurements as one SVG: latency against throughput, and the time line. Pure;
//! axes and lines are few enough to write them by hand.

use std::fmt::Write;

use crate::outcome::Outcome;

/// One measurement and what to call it.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a> {
    /// Such as "16 clients".
    pub label: &'a str,
    /// What came of it.
    pub outcome: &'a Outcome,
}

const WIDTH: f64 = 860.0;
const PANEL_HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 45.0;
const COLOURS: [&str; 6] = ["#1f6feb", "#d9480f", "#2b8a3e", "#9c36b5", "#c92a2a", "#0b7285"];

struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

struct Panel<'a> {
    title: &'a str,
    x_label: &'a str,
    y_label: &'a str,
    /// Latencies span decades; rates do not.
    logarithmic: bool,
    series: Vec<Series>,
}

/// The whole document. Measurements without answers have no points in it.
pub fn svg(title: &str, measurements: &[Labelled<'_>]) -> String {
    let panels =
        [latency_against_rate(measurements), rate_over_time(measurements), p99_over_time(measurements)];
    let height = TOP + panels.len() as f64 * PANEL_HEIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{}</text>\n",
        escaped(title)
    );
    for (index, panel) in panels.iter().enumerate() {
        draw(&mut svg, panel, TOP + index as f64 * PANEL_HEIGHT);
    }
    svg.push_str("</svg>\n");
    svg
}

fn latency_against_rate<'a>(measurements: &[Labelled<'_>]) -> Panel<'a> {
    let of = |name: &str, percentile: fn(&crate::outcome::Latency) -> f64| {
        let mut points: Vec<(f64, f64)> = measurements
            .iter()
            .filter_map(|measurement| {
                let latency = measurement.outcome.latency.as_ref()?;
                Some((measurement.outcome.requests_per_second, percentile(latency) / 1_000.0))
            })
            .collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        Series { name: name.to_owned(), points }
    };
    Panel {
        title: "Latency against throughput",
        x_label: "requests per second",
        y_label: "milliseconds",
        logarithmic: true,
        series: vec![
            of("p50", |latency| latency.p50_us),
            of("p90", |latency| latency.p90_us),
            of("p99", |latency| latency.p99_us),
            of("p99.9", |latency| latency.p999_us),
        ],
    }
}

fn rate_over_time<'a>(measurements: &[Labelled<'_>]) -> Panel<'a> {
    let series = measurements.iter().map(|measurement| {
        let timeline = &measurement.outcome.timeline;
        let length = timeline.get(1).map_or(measurement.outcome.seconds, |second| second.at_seconds);
        // A last slice that the end cut short would look like a collapse.
        let whole = timeline
            .iter()
            .filter(|slice| slice.at_seconds + length <= measurement.outcome.seconds + length * 0.01);
        Series {
            name: measurement.label.to_owned(),
            points: whole.map(|slice| (slice.at_seconds, slice.answered as f64 / length)).collect(),
        }
    });
    Panel {
        title: "Answers over time",
        x_label: "seconds",
        y_label: "requests per second",
        logarithmic: false,
        series: series.collect(),
    }
}

fn p99_over_time<'a>(measurements: &[Labelled<'_>]) -> Panel<'a> {
    let series = measurements.iter().map(|measurement| {
        let slices = measurement.outcome.timeline.iter();
        let points = slices.filter_map(|slice| Some((slice.at_seconds, slice.p99_us? / 1_000.0)));
        Series { name: measurement.label.to_owned(), points: points.collect() }
    });
    Panel {
        title: "99th percentile over time",
        x_label: "seconds",
        y_label: "milliseconds",
        logarithmic: true,
        series: series.collect(),
    }
}

/// From values to pixels, and where its ticks are.
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// Starts at zero.
    fn linear(values: impl Iterator<Item = f64>) -> Self {
        let highest = values.fold(0.0, f64::max);
        let high = if highest > 0.0 { highest } else { 1.0 };
        let step = round_step(high / 5.0);
        let steps = (high / step).ceil();
        let ticks = (0..=steps as u32).map(|tick| f64::from(tick) * step).collect();
        Self { low: 0.0, high: steps * step, logarithmic: false, ticks }
    }

    /// Whole decades around all values above zero.
    fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let (mut lowest, mut highest) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| *value > 0.0) {
            lowest = lowest.min(value);
            highest = highest.max(value);
        }
        if lowest > highest {
            (lowest, highest) = (1.0, 10.0);
        }
        let from = lowest.log10().floor() as i32;
        let to = (highest.log10().ceil() as i32).max(from + 1);
        let ticks = (from..=to).map(|decade| 10_f64.powi(decade)).collect();
        Self { low: 10_f64.powi(from), high: 10_f64.powi(to), logarithmic: true, ticks }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        if self.logarithmic {
            let value = value.max(self.low);
            return (value / self.low).ln() / (self.high / self.low).ln();
        }
        (value - self.low) / (self.high - self.low)
    }
}

/// 1, 2 or 5 times a power of ten, not below `rough`.
fn round_step(rough: f64) -> f64 {
    let magnitude = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * magnitude >= rough).unwrap_or(10.0);
    factor * magnitude
}

fn draw(svg: &mut String, panel: &Panel<'_>, top: f64) {
    let all = || panel.series.iter().flat_map(|series| series.points.iter().copied());
    let x_axis = Axis::linear(all().map(|point| point.0));
    let y_axis = match panel.logarithmic {
        true => Axis::logarithmic(all().map(|point| point.1)),
        false => Axis::linear(all().map(|point| point.1)),
    };
    let (right, bottom) = (WIDTH - RIGHT, top + PANEL_HEIGHT - BOTTOM);
    let upper = top + 24.0;
    let x_of = |value: f64| LEFT + x_axis.place(value) * (right - LEFT);
    let y_of = |value: f64| bottom - y_axis.place(value) * (bottom - upper);
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{}</text>",
        top + 12.0,
        panel.title
    );
    for tick in &y_axis.ticks {
        let y = y_of(*tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            short(*tick)
        );
    }
    for tick in &x_axis.ticks {
        let x = x_of(*tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{upper:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"#eee\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            short(*tick)
        );
    }
    let middle = LEFT.midpoint(right);
    let _ = writeln!(
        svg,
        "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text x=\"16\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {:.1})\">{}</text>",
        bottom + 34.0,
        panel.x_label,
        upper.midpoint(bottom),
        upper.midpoint(bottom),
        panel.y_label
    );
    for (index, series) in panel.series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<String> =
            series.points.iter().map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y))).collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            points.join(" ")
        );
        for point in &points {
            if let Some((x, y)) = point.split_once(',') {
                let _ = writeln!(svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/>");
            }
        }
        let y = upper + 14.0 * (index as f64 + 1.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            right + 14.0,
            y - 9.0,
            right + 30.0,
            escaped(&series.name)
        );
    }
}

fn short(value: f64) -> String {
    if value >= 1_000.0 { format!("{}k", value / 1_000.0) } else { format!("{value}") }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::recorder::Recorder;

    #[test]
    fn steps_are_round_and_axes_hold_all_values() {
        assert_eq!([0.7, 1.0, 3.0, 45.0, 5_100.0].map(round_step), [1.0, 1.0, 5.0, 50.0, 10_000.0]);
        let linear = Axis::linear([12.0, 47.0].into_iter());
        assert_eq!(linear.ticks, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!(linear.place(25.0), 0.5);
        let decades = Axis::logarithmic([0.2, 30.0].into_iter());
        assert_eq!((decades.low, decades.high), (0.1, 100.0));
        assert!((decades.place(1.0) - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_drawing_has_three_panels_and_its_labels_are_escaped() {
        let second = Duration::from_secs(1);
        let outcome = Outcome::new(Recorder::new(second), second, second);
        let svg = svg("m <at> here", &[Labelled { label: "1 & 2", outcome: &outcome }]);
        assert_eq!(svg.matches("font-weight=\"bold\"").count(), 3);
        assert!(svg.contains("m &lt;at&gt; here") && svg.contains("1 &amp; 2"));
        assert!(svg.ends_with("</svg>\n"));
    }
}
