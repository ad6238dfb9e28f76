//! SVG plots.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

/// A named line.
#[derive(Clone, Debug)]
pub struct Curve {
    /// What the legend says.
    pub name: String,
    /// Points `(iteration, value)`, in order.
    pub points: Vec<(f64, f64)>,
}

/// A span in which a node was offline, in its own iterations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outage {
    /// Which node.
    pub node: u32,
    /// First iteration offline.
    pub from: f64,
    /// First iteration back.
    pub to: f64,
}

/// Accuracy over iterations, and below it one strip per node, if there are any, with its outages shaded.
///
/// Returns the SVG text.
///
/// # Errors
/// If the plot cannot be drawn.
pub fn accuracy_over_iterations(
    title: &str,
    curves: &[Curve],
    nodes: u32,
    outages: &[Outage],
    target: Option<f64>,
) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, title, curves, nodes, outages, target).map_err(|error| anyhow!("cannot draw: {error}"))?;
    Ok(svg)
}

type Plot<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(svg: &mut String, title: &str, curves: &[Curve], nodes: u32, outages: &[Outage], target: Option<f64>) -> Drawn {
    let strips = if nodes == 0 { 0 } else { 40 + 16 * nodes.min(64) };
    let root = SVGBackend::with_string(svg, (900, 420 + strips)).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(420);
    let last = curves.iter().flat_map(|curve| curve.points.last()).map(|point| point.0);
    let last = last.chain(outages.iter().map(|outage| outage.to)).fold(1.0, f64::max);
    draw_accuracy(&upper, title, curves, target, last)?;
    if nodes > 0 {
        draw_outages(&lower, nodes, outages, last)?;
    }
    root.present()?;
    Ok(())
}

fn draw_accuracy(area: &Plot<'_>, title: &str, curves: &[Curve], target: Option<f64>, last: f64) -> Drawn {
    let values = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
    // The first point, an untrained model, would flatten everything that matters.
    let lowest = curves.iter().filter_map(|curve| curve.points.get(1)).map(|point| point.1).fold(1.0, f64::min);
    let low = (lowest - 0.05).clamp(0.0, 0.95);
    let high = (values().fold(0.0, f64::max) + 0.01).clamp(low + 0.02, 1.0);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(8)
        .x_label_area_size(34)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..last, low..high)?;
    chart
        .configure_mesh()
        .x_label_formatter(&|value| format!("{value:.0}"))
        .x_desc("iteration")
        .y_desc("test accuracy")
        .y_label_formatter(&|value| format!("{value:.2}"))
        .light_line_style(WHITE)
        .draw()?;
    let visible = |curve: &Curve| curve.points.iter().copied().filter(|point| point.1 >= low).collect::<Vec<_>>();
    for (index, curve) in curves.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        chart
            .draw_series(LineSeries::new(visible(curve), color.stroke_width(2)))?
            .label(curve.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    if let Some(target) = target.filter(|target| (low..high).contains(target)) {
        let line = [(0.0, target), (last, target)];
        chart
            .draw_series(DashedLineSeries::new(line, 4, 4, BLACK.mix(0.5).into()))?
            .label(format!("target {target}"))
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK.mix(0.5)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    Ok(())
}

fn draw_outages(area: &Plot<'_>, nodes: u32, outages: &[Outage], last: f64) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(20)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..last, f64::from(nodes)..0.0)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_labels(0)
        .y_labels(nodes.min(16) as usize)
        .x_desc("shaded: offline")
        .y_desc("node")
        .y_label_formatter(&|value| if *value < f64::from(nodes) { format!("{value:.0}") } else { String::new() })
        .draw()?;
    chart.draw_series(outages.iter().map(|outage| {
        let row = f64::from(outage.node);
        Rectangle::new([(outage.from, row + 0.1), (outage.to, row + 0.9)], RED.mix(0.55).filled())
    }))?;
    Ok(())
}
