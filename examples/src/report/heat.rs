//! Heat maps as SVG.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Tables of one shape, coloured, side by side.
#[derive(Clone, Debug)]
pub struct HeatMap {
    /// What stands above all of them.
    pub title: String,
    /// What distinguishes the columns.
    pub columns_are: String,
    /// The rows' names.
    pub rows: Vec<String>,
    /// The columns' names.
    pub columns: Vec<String>,
    /// The tables.
    pub panels: Vec<Panel>,
}

/// One table.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// Digits behind the point.
    pub digits: usize,
    /// Whether small values are good: they are then drawn light.
    pub low_is_good: bool,
    /// Row by row; `None` is drawn as a dash.
    pub values: Vec<Vec<Option<HeatCell>>>,
}

/// One cell: mean, and spread if there is one.
pub type HeatCell = (f64, Option<f64>);

const CELL: (i32, i32) = (74, 34);
const HEAD: i32 = 62;

/// Draws heat maps; light is good. Returns the SVG text.
///
/// # Errors
/// If they cannot be drawn.
pub fn heat_maps(map: &HeatMap) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, map).map_err(|error| anyhow!("cannot draw: {error}"))?;
    Ok(svg)
}

type Plot<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(svg: &mut String, map: &HeatMap) -> Drawn {
    let longest = map.rows.iter().map(|row| row.chars().count()).max().unwrap_or(0) as i32;
    let names = 16 + 7 * longest;
    let panel = CELL.0 * map.columns.len().max(1) as i32 + 24;
    let width = names + panel * map.panels.len() as i32;
    let height = HEAD + CELL.1 * map.rows.len().max(1) as i32 + 30;
    let size = (width.max(360) as u32, height as u32);
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    let left = text(13, HPos::Left);
    root.draw(&Text::new(map.title.clone(), (8, 14), text(15, HPos::Left)))?;
    for (index, row) in map.rows.iter().enumerate() {
        root.draw(&Text::new(row.clone(), (8, HEAD + CELL.1 * index as i32 + CELL.1 / 2), left.clone()))?;
    }
    for (index, panel_of) in map.panels.iter().enumerate() {
        draw_panel(&root, map, panel_of, names + panel * index as i32)?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(root: &Plot<'_>, map: &HeatMap, panel: &Panel, left: i32) -> Drawn {
    let middle = text(12, HPos::Center);
    root.draw(&Text::new(panel.title.clone(), (left, 36), text(13, HPos::Left)))?;
    let means = || panel.values.iter().flatten().flatten().map(|value| value.0);
    let (low, high) = (means().fold(f64::INFINITY, f64::min), means().fold(f64::NEG_INFINITY, f64::max));
    for (column, name) in map.columns.iter().enumerate() {
        let x = left + CELL.0 * column as i32 + CELL.0 / 2;
        root.draw(&Text::new(name.clone(), (x, HEAD - 9), middle.clone()))?;
    }
    for (row, values) in panel.values.iter().enumerate() {
        for (column, value) in values.iter().enumerate() {
            let (x, y) = (left + CELL.0 * column as i32, HEAD + CELL.1 * row as i32);
            let corners = [(x + 1, y + 1), (x + CELL.0 - 1, y + CELL.1 - 1)];
            let goodness = value.map(|(mean, _)| {
                let share = if high > low { (mean - low) / (high - low) } else { 1.0 };
                if panel.low_is_good { 1.0 - share } else { share }
            });
            let color = goodness.map_or(RGBColor(235, 235, 235), shade);
            root.draw(&Rectangle::new(corners, color.filled()))?;
            let ink = if goodness.is_some_and(|goodness| goodness < 0.45) { WHITE } else { BLACK };
            let digits = panel.digits;
            let mean = value.map_or("–".to_owned(), |(mean, _)| format!("{mean:.digits$}"));
            let style = middle.clone().color(&ink);
            match value.and_then(|value| value.1) {
                Some(deviation) => {
                    root.draw(&Text::new(mean, (x + CELL.0 / 2, y + 12), style.clone()))?;
                    let small = text(10, HPos::Center).color(&ink);
                    root.draw(&Text::new(format!("± {deviation:.digits$}"), (x + CELL.0 / 2, y + 25), small))?;
                }
                None => root.draw(&Text::new(mean, (x + CELL.0 / 2, y + CELL.1 / 2), style))?,
            }
        }
    }
    let below = HEAD + CELL.1 * map.rows.len() as i32 + 12;
    let right = left + CELL.0 * map.columns.len() as i32 / 2;
    root.draw(&Text::new(map.columns_are.clone(), (right, below), text(11, HPos::Center)))?;
    Ok(())
}

fn text(size: i32, horizontal: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_text_style(&(1, 1)).pos(Pos::new(horizontal, VPos::Center))
}

/// From dark blue (0) over teal to light yellow (1), readable without colour vision.
fn shade(goodness: f64) -> RGBColor {
    const STOPS: [[f64; 3]; 4] =
        [[42.0, 30.0, 92.0], [44.0, 113.0, 142.0], [122.0, 200.0, 140.0], [250.0, 240.0, 170.0]];
    let place = goodness.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let index = (place as usize).min(STOPS.len() - 2);
    let share = place - index as f64;
    let mix =
        |channel: usize| (STOPS[index][channel] * (1.0 - share) + STOPS[index + 1][channel] * share).round() as u8;
    RGBColor(mix(0), mix(1), mix(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_and_name_is_drawn() -> Result<()> {
        let panel = |low_is_good| Panel {
            title: "accuracy".into(),
            digits: 2,
            low_is_good,
            values: vec![vec![Some((0.25, Some(0.01))), None], vec![Some((0.5, None)), Some((0.75, None))]],
        };
        let svg = heat_maps(&HeatMap {
            title: "What".into(),
            columns_are: "fraction".into(),
            rows: vec!["first".into(), "second".into()],
            columns: vec!["0".into(), "0.4".into()],
            panels: vec![panel(false), panel(true)],
        })?;
        for part in ["What", "first", "second", "0.4", "0.25", "± 0.01", "0.50", "0.75", "–", "fraction"] {
            assert!(svg.contains(part), "{part}");
        }
        assert_eq!(svg.matches("<rect").count(), 1 + 2 * 4, "the background and every cell");
        Ok(())
    }

    #[test]
    fn shades_lighten() {
        let light = |goodness| {
            let RGBColor(red, green, blue) = shade(goodness);
            u32::from(red) + u32::from(green) + u32::from(blue)
        };
        for step in 0..10 {
            assert!(light(f64::from(step) / 10.0) < light(f64::from(step + 1) / 10.0));
        }
    }
}
