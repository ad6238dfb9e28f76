//! Two costs against each other, as SVG.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Points under one name.
#[derive(Clone, Debug)]
pub struct Mark {
    /// What the legend says.
    pub name: String,
    /// Where, both above 0.
    pub points: Vec<(f64, f64)>,
}

/// Two costs against each other, both on logarithmic scales.
#[derive(Clone, Debug)]
pub struct Scatter<'a> {
    /// Its heading.
    pub title: &'a str,
    /// What is to the right.
    pub x: &'a str,
    /// What is upwards.
    pub y: &'a str,
    /// What is drawn, each in a colour of its own.
    pub marks: Vec<Mark>,
}

impl Scatter<'_> {
    /// The SVG text.
    ///
    /// # Errors
    /// If it cannot be drawn.
    pub fn draw(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw_into(&mut svg).map_err(|error| anyhow!("cannot draw: {error}"))?;
        Ok(svg)
    }

    fn draw_into(&self, svg: &mut String) -> Drawn {
        let root = SVGBackend::with_string(svg, (900, 480)).into_drawing_area();
        root.fill(&WHITE)?;
        let points = || self.marks.iter().flat_map(|mark| &mark.points);
        let (mut width, height) = (range(points().map(|point| point.0)), range(points().map(|point| point.1)));
        // Names stand to the right of all points.
        width.end *= (width.end / width.start).powf(0.25);
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, ("sans-serif", 18))
            .margin(8)
            .x_label_area_size(34)
            .y_label_area_size(60)
            .build_cartesian_2d(width.log_scale(), height.log_scale())?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&|value| format!("{value:.0}"))
            .y_label_formatter(&|value| format!("{value:.0}"))
            .light_line_style(WHITE)
            .draw()?;
        for (index, mark) in self.marks.iter().filter(|mark| !mark.points.is_empty()).enumerate() {
            let color = Palette99::pick(index).to_rgba();
            chart
                .draw_series(mark.points.iter().map(|&point| Circle::new(point, 5, color.filled())))?
                .label(mark.name.clone())
                .legend(move |(x, y)| Circle::new((x + 9, y), 4, color.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::MiddleRight)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.2))
            .draw()?;
        root.present()?;
        Ok(())
    }
}

/// A little more than what there is; something where there is nothing.
fn range(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    if low.is_finite() && low > 0.0 { low / 1.3..high * 1.3 } else { 1.0..10.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_drawn_and_none_is_no_error() {
        let mark = |name: &str, points: &[(f64, f64)]| Mark { name: name.into(), points: points.to_vec() };
        let marks = vec![mark("linear", &[(60.0, 2700.0), (80.0, 3700.0)]), mark("synchronous", &[(4000.0, 1800.0)])];
        let scatter = Scatter { title: "costs", x: "bytes", y: "steps", marks };
        let svg = scatter.draw().expect("drawn");
        // Three points and two legends.
        assert_eq!(svg.matches("<circle").count(), 5, "{svg}");
        assert!(svg.contains("linear") && svg.contains("synchronous"), "{svg}");
        assert!(Scatter { marks: Vec::new(), ..scatter }.draw().expect("drawn").contains("costs"));
    }
}
