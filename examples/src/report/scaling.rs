//! How something grows, as SVG: several panels of curves over logarithmic scales.

use super::Curve;
use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Curves that are compared with each other.
#[derive(Clone, Debug)]
pub struct CurvePanel {
    /// What they are of.
    pub title: String,
    /// Points above 0; those that are not are left out.
    pub curves: Vec<Curve>,
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws panels, three in a row, both scales logarithmic; the panels' curves of one name have one colour, which the legend
/// below names. Returns the SVG text.
///
/// # Errors
/// If they cannot be drawn.
pub fn scaling(title: &str, axes: [&str; 2], panels: &[CurvePanel]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, title, axes, panels).map_err(|error| anyhow!("cannot draw: {error}"))?;
    Ok(svg)
}

fn draw(svg: &mut String, title: &str, axes: [&str; 2], panels: &[CurvePanel]) -> Drawn {
    const COLUMNS: usize = 3;
    let rows = panels.len().div_ceil(COLUMNS).max(1);
    let root = SVGBackend::with_string(svg, (1020, 60 + 270 * rows as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, rest) = root.split_vertically(30);
    head.draw(&Text::new(title.to_owned(), (10, 10), ("sans-serif", 16)))?;
    let (body, legend) = rest.split_vertically(270 * rows as u32);
    let mut names: Vec<&str> = Vec::new();
    for curve in panels.iter().flat_map(|panel| &panel.curves) {
        if !names.contains(&curve.name.as_str()) {
            names.push(&curve.name);
        }
    }
    for (area, panel) in body.split_evenly((rows, COLUMNS)).iter().zip(panels) {
        let points =
            || panel.curves.iter().flat_map(|curve| &curve.points).filter(|point| point.0 > 0.0 && point.1 > 0.0);
        let range = |of: fn(&(f64, f64)) -> f64| {
            let low = points().map(of).fold(f64::INFINITY, f64::min).clamp(1e-9, 1e12);
            low..points().map(of).fold(low, f64::max)
        };
        let (x, y) = (range(|point| point.0), range(|point| point.1));
        let (x, y) = (x.start / 1.1..x.end * 1.1, y.start / 1.3..y.end * 1.3);
        let mut chart = ChartBuilder::on(area)
            .caption(panel.title.clone(), ("sans-serif", 14))
            .margin(6)
            .x_label_area_size(32)
            .y_label_area_size(52)
            .build_cartesian_2d(x.log_scale(), y.log_scale())?;
        chart
            .configure_mesh()
            .x_desc(axes[0])
            .y_desc(axes[1])
            .x_label_formatter(&|value| format!("{value:.0}"))
            .y_label_formatter(&|value| if *value < 1.0 { format!("{value:.2}") } else { format!("{value:.0}") })
            .light_line_style(WHITE)
            .draw()?;
        for curve in &panel.curves {
            let color = Palette99::pick(names.iter().position(|name| *name == curve.name).unwrap_or(0)).to_rgba();
            let points = curve.points.iter().copied().filter(|point| point.0 > 0.0 && point.1 > 0.0);
            chart.draw_series(LineSeries::new(points, color.stroke_width(2)).point_size(3))?;
        }
    }
    let mut left = 12;
    for (index, name) in names.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        legend.draw(&PathElement::new([(left, 14), (left + 18, 14)], color.stroke_width(2)))?;
        legend.draw(&Text::new((*name).to_owned(), (left + 23, 8), ("sans-serif", 12)))?;
        left += 44 + 7 * name.chars().count() as i32;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_of_one_name_have_one_colour_in_all_panels() {
        let curve = |name: &str, points: &[(f64, f64)]| Curve { name: name.into(), points: points.to_vec() };
        let panel = |title: &str, curves: Vec<Curve>| CurvePanel { title: title.into(), curves };
        let panels = [
            panel("one", vec![curve("a", &[(8.0, 1.0), (64.0, 3.0)]), curve("b", &[(8.0, 2.0), (64.0, 0.0)])]),
            panel("two", vec![curve("b", &[(8.0, 1.0)])]),
        ];
        let svg = scaling("title", ["members", "seconds"], &panels).expect("drawn");
        for word in ["title", "one", "two", "members", "seconds"] {
            assert!(svg.contains(word), "{word} in {svg}");
        }
        // Three points of a and b in the first panel, of which the one at 0 is left out, and one in the second.
        assert_eq!(svg.matches("<circle").count(), 4, "{svg}");
        let colors: Vec<&str> =
            svg.split("<circle").skip(1).filter_map(|circle| circle.split("stroke=").nth(1)).collect();
        let colors: Vec<&str> = colors.iter().map(|color| &color[..9]).collect();
        assert_eq!((colors[0] == colors[1], colors[2] == colors[3], colors[0] == colors[2]), (true, true, false));
        assert!(scaling("nothing", ["", ""], &[]).expect("drawn").contains("nothing"));
    }
}
