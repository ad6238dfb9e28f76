//! Stacked bars as SVG.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Bars that are compared with each other.
#[derive(Clone, Debug)]
pub struct BarPanel {
    /// What they are of.
    pub title: String,
    /// Every bar's name, its parts in the order of the kinds, and what stands behind it.
    pub bars: Vec<(String, Vec<f64>, String)>,
}

/// Height of a bar with what is between it and the next one, in pixels.
const ROW: i32 = 20;
const BAR: i32 = 260;
/// Height of a panel's heading, and width of what stands behind its bars.
const TITLE: i32 = 34;
const NOTE: i32 = 110;
const HEAD: i32 = 58;

type Plot<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws bars of parts, which the legend names by `kinds`, two panels side by side; each panel has a scale of its own, from 0
/// to its longest bar. Returns the SVG text.
///
/// # Errors
/// If they cannot be drawn.
pub fn stacked_bars(title: &str, kinds: &[&str], panels: &[BarPanel]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, title, kinds, panels).map_err(|error| anyhow!("cannot draw: {error}"))?;
    Ok(svg)
}

fn draw(svg: &mut String, title: &str, kinds: &[&str], panels: &[BarPanel]) -> Drawn {
    let most = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(0) as i32;
    let height = TITLE + ROW * most;
    let longest = panels.iter().flat_map(|panel| &panel.bars).map(|bar| bar.0.chars().count()).max().unwrap_or(0);
    let names = 20 + 7 * longest as i32;
    let width = names + BAR + NOTE;
    let rows = panels.len().div_ceil(2).max(1) as i32;
    let columns = panels.len().clamp(1, 2) as i32;
    let size = ((width * columns).max(560) as u32, (HEAD + height * rows + 10) as u32);
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    root.draw(&Text::new(title.to_owned(), (8, 16), text(15, HPos::Left)))?;
    let mut left = 10;
    for (index, kind) in kinds.iter().enumerate() {
        root.draw(&Rectangle::new([(left, 32), (left + 12, 44)], color(index).filled()))?;
        root.draw(&Text::new((*kind).to_owned(), (left + 17, 38), text(12, HPos::Left)))?;
        left += 40 + 7 * kind.chars().count() as i32;
    }
    for (index, panel) in panels.iter().enumerate() {
        let place = (width * (index as i32 % 2), HEAD + height * (index as i32 / 2));
        draw_panel(&root, panel, place, names)?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(root: &Plot<'_>, panel: &BarPanel, (left, top): (i32, i32), names: i32) -> Drawn {
    root.draw(&Text::new(panel.title.clone(), (left + 8, top + 12), text(13, HPos::Left)))?;
    let lengths = panel.bars.iter().map(|bar| bar.1.iter().sum::<f64>());
    let longest = lengths.fold(f64::MIN_POSITIVE, f64::max);
    for (row, (name, parts, note)) in panel.bars.iter().enumerate() {
        let middle = top + TITLE + ROW * row as i32;
        root.draw(&Text::new(name.clone(), (left + names - 8, middle), text(12, HPos::Right)))?;
        let mut sum = 0.0;
        let at = |sum: f64| left + names + (f64::from(BAR) * sum / longest).round() as i32;
        for (kind, part) in parts.iter().enumerate() {
            let corners = [(at(sum), middle - 7), (at(sum + part), middle + 7)];
            root.draw(&Rectangle::new(corners, color(kind).filled()))?;
            sum += part;
        }
        root.draw(&Text::new(note.clone(), (at(sum) + 5, middle), text(11, HPos::Left)))?;
    }
    Ok(())
}

fn color(kind: usize) -> RGBAColor {
    Palette99::pick(kind).to_rgba()
}

fn text(size: i32, side: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&BLACK).pos(Pos::new(side, VPos::Center))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_drawn_to_scale() {
        let bar = |name: &str, parts: &[f64]| (name.to_owned(), parts.to_vec(), "note".to_owned());
        let panel = BarPanel { title: "net".into(), bars: vec![bar("one", &[1.0, 3.0]), bar("two", &[2.0, 0.0])] };
        let svg = stacked_bars("title", &["kind a", "kind b"], &[panel]).expect("drawn");
        for word in ["title", "kind a", "kind b", "net", "one", "two", "note"] {
            assert!(svg.contains(word), "{word} in {svg}");
        }
        // The background, two legends, four parts.
        assert_eq!(svg.matches("<rect").count(), 7, "{svg}");
        let widths = [BAR / 4, 3 * BAR / 4, BAR / 2];
        for width in widths {
            assert!(svg.contains(&format!("width=\"{width}\"")), "{width} in {svg}");
        }
        assert!(stacked_bars("nothing", &[], &[]).expect("drawn").contains("nothing"));
    }
}
