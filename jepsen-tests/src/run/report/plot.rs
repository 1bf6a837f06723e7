//! Latency and throughput over time, with the faults shaded.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::timeline::{Second, Window, percentile};

const SIZE: (u32, u32) = (1_200, 640);
const FAULT: RGBColor = RGBColor(214, 120, 60);
const OK: RGBColor = RGBColor(34, 110, 60);
const UNKNOWN: RGBColor = RGBColor(190, 30, 45);
const P50: RGBColor = RGBColor(40, 80, 160);
const P99: RGBColor = RGBColor(120, 60, 150);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The plot, as SVG.
pub(super) fn draw(seconds: &[Second], windows: &[Window]) -> Result<String, String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let drawn = root.fill(&WHITE).map_err(|error| error.to_string());
        let (above, below) = root.split_vertically(SIZE.1 / 2);
        drawn
            .and_then(|()| latency(&above, seconds, windows))
            .and_then(|()| throughput(&below, seconds, windows))
            .and_then(|()| root.present().map_err(|error| error.to_string()))?;
    }
    Ok(svg)
}

#[expect(clippy::cast_precision_loss, reason = "seconds and counts of one run")]
fn float(number: usize) -> f64 {
    number as f64
}

fn shades(windows: &[Window], height: Range<f64>) -> Vec<Rectangle<(f64, f64)>> {
    let style = FAULT.mix(0.25).filled();
    windows
        .iter()
        // One that was over at once can be seen as well.
        .map(|window| (window.start_s, window.stop_s.max(window.start_s + 0.1)))
        .map(|(start, stop)| Rectangle::new([(start, height.start), (stop, height.end)], style))
        .collect()
}

fn latency(area: &Area<'_>, seconds: &[Second], windows: &[Window]) -> Result<(), String> {
    let slowest = seconds
        .iter()
        .filter_map(|second| second.latencies_ms.last());
    let top = slowest.copied().fold(10.0, f64::max) * 1.2;
    let bottom = 0.1;
    let mut chart = ChartBuilder::on(area)
        .caption("latency of acknowledged writes, ms", ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..float(seconds.len()), (bottom..top).log_scale())
        .map_err(|error| error.to_string())?;
    chart
        .configure_mesh()
        .x_labels(20)
        .max_light_lines(1)
        .x_label_formatter(&|second: &f64| format!("{second:.0}"))
        .draw()
        .map_err(|error| error.to_string())?;
    chart
        .draw_series(shades(windows, bottom..top))
        .map_err(|error| error.to_string())?;
    for (name, colour, percent) in [("p50", P50, 50), ("p99", P99, 99)] {
        let points = seconds
            .iter()
            .enumerate()
            .filter(|(_, second)| !second.latencies_ms.is_empty())
            .map(|(at, second)| {
                let value = percentile(&second.latencies_ms, percent);
                (float(at) + 0.5, value.max(bottom))
            });
        chart
            .draw_series(LineSeries::new(points, &colour))
            .map_err(|error| error.to_string())?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .map_err(|error| error.to_string())
}

fn throughput(area: &Area<'_>, seconds: &[Second], windows: &[Window]) -> Result<(), String> {
    let count = |number: u64| float(usize::try_from(number).unwrap_or(usize::MAX));
    let most = seconds
        .iter()
        .map(|second| second.ok.max(second.unknown))
        .max();
    let top = count(most.unwrap_or_default().max(10)) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption("operations a second", ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..float(seconds.len()), 0.0..top)
        .map_err(|error| error.to_string())?;
    chart
        .configure_mesh()
        .x_labels(20)
        .x_desc("seconds since the start")
        .max_light_lines(1)
        .x_label_formatter(&|second: &f64| format!("{second:.0}"))
        .draw()
        .map_err(|error| error.to_string())?;
    chart
        .draw_series(shades(windows, 0.0..top))
        .map_err(|error| error.to_string())?;
    type Counted = fn(&Second) -> u64;
    let lines: [(&str, RGBColor, Counted); 2] = [
        ("writes acknowledged", OK, |second| second.ok),
        ("operations of unknown fate", UNKNOWN, |second| {
            second.unknown
        }),
    ];
    for (name, colour, counted) in lines {
        let points = seconds
            .iter()
            .enumerate()
            .map(|(at, second)| (float(at) + 0.5, count(counted(second))));
        chart
            .draw_series(LineSeries::new(points, &colour))
            .map_err(|error| error.to_string())?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_shades_every_fault() {
        let second = Second {
            ok: 100,
            unknown: 2,
            latencies_ms: vec![1.0, 2.0, 900.0],
        };
        let window = |start_s| Window {
            fault: "kill".to_owned(),
            nodes: vec![1],
            start_s,
            stop_s: start_s + 2.0,
            silence_ms: 700,
            recovery_ms: Some(650),
            healing_ms: Some(40),
        };
        let svg = draw(&vec![second; 20], &[window(3.0), window(9.0)]).expect("drawn");
        assert!(svg.starts_with("<svg"));
        // In both charts.
        assert_eq!(svg.matches("fill=\"#D6783C\"").count(), 4, "{svg}");
        assert!(draw(&[], &[]).is_ok(), "a run without a second");
    }
}
