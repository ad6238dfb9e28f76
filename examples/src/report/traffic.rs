//! Accuracy against bytes, as SVG.

use super::Curve;
use anyhow::{Result, anyhow};
use plotters::prelude::*;

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Points `(megabytes, accuracy)` of every curve, joined in their order, over a logarithmic scale; `whose` accuracy says the
/// axis.
///
/// Returns the SVG text; without a point, axes alone.
///
/// # Errors
/// If the plot cannot be drawn.
pub fn accuracy_over_bytes(title: &str, [sent, whose]: [&str; 2], curves: &[Curve]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, title, [sent, whose], curves).map_err(|error| anyhow!("cannot draw: {error}"))?;
    Ok(svg)
}

fn draw(svg: &mut String, title: &str, [sent, whose]: [&str; 2], curves: &[Curve]) -> Drawn {
    // The legend has a line for each curve.
    let height = (60 + 22 * curves.len() as u32).max(480);
    let root = SVGBackend::with_string(svg, (900, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let least = points().map(|point| point.0).fold(f64::INFINITY, f64::min).clamp(1e-3, 1e9);
    let most = points().map(|point| point.0).fold(least, f64::max);
    let low = points().map(|point| point.1).fold(1.0, f64::min);
    let high = points().map(|point| point.1).fold(low, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(8)
        .x_label_area_size(34)
        .y_label_area_size(60)
        .build_cartesian_2d((least / 1.2..most * 1.2).log_scale(), low - 0.01..high + 0.01)?;
    chart
        .configure_mesh()
        .x_desc(sent)
        .y_desc(whose)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value:.2}"))
        .light_line_style(WHITE)
        .draw()?;
    for (index, curve) in curves.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), color.stroke_width(1)).point_size(4))?
            .label(curve.name.clone())
            .legend(move |(x, y)| Circle::new((x + 9, y), 4, color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_drawn_and_none_is_no_error() {
        let curve = |name: &str, points: &[(f64, f64)]| Curve { name: name.into(), points: points.to_vec() };
        let curves = [curve("average", &[(468.0, 0.87), (342.0, 0.86)]), curve("alone", &[(161.0, 0.73)])];
        let svg = accuracy_over_bytes("policies", ["MB sent", "own models"], &curves).expect("drawn");
        for name in ["policies", "average", "alone"] {
            assert!(svg.contains(name), "{name} in {svg}");
        }
        // Three points and two legends.
        assert_eq!(svg.matches("<circle").count(), 5, "{svg}");
        assert!(accuracy_over_bytes("nothing", ["MB sent", "own models"], &[]).expect("drawn").contains("nothing"));
    }
}
