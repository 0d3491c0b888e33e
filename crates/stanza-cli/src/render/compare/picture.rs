//! The comparison as bars: one file, without anything from elsewhere, dark where the viewer is.

use std::fmt::Write as _;

use super::{Comparison, Measure, Wall};
use crate::render::markup::escape;

/// Everything is in pixels.
const MARGIN: f64 = 24.0;
const NAMES: f64 = 96.0;
const BARS: f64 = 420.0;
const VALUES: f64 = 260.0;
const BAR: f64 = 18.0;
const STEP: f64 = 26.0;

pub(super) const STYLE: &str = "\
svg text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1f2937}svg .t{font-weight:600;font-size:15px}svg .m{font-weight:600}\
svg .s{fill:#6b7280;font-size:12px}svg .bg{fill:#f9fafb}svg .w{stroke:#1f2937;stroke-width:1.5}\
svg .host{fill:#8b929e}svg .container{fill:#2a78d6}svg .vm{fill:#c2571a}\
@media(prefers-color-scheme:dark){svg text{fill:#e5e7eb}svg .s{fill:#9ca3af}svg .bg{fill:#111827}svg .w{stroke:#e5e7eb}\
svg .container{fill:#5b9be6}svg .vm{fill:#e07b3f}}";

fn class(wall: Wall) -> &'static str {
    wall.name()
}

/// The bars without the file around them, and how high they are.
fn bars(comparison: &Comparison) -> (String, f64) {
    let (mut out, mut y) = (String::new(), 84.0);
    for measure in Measure::ALL {
        let spreads: Vec<_> =
            comparison.contenders.iter().map(|one| (one.wall, measure.spread(one))).collect();
        let longest =
            spreads.iter().filter_map(|(_, spread)| *spread).map(|one| one.most).fold(0.0, f64::max);
        if longest <= 0.0 {
            continue;
        }
        let _ = writeln!(out, "<text class=\"m\" x=\"{MARGIN}\" y=\"{y}\">{}</text>", measure.name());
        y += 10.0;
        for (wall, spread) in spreads {
            let (middle, base) = (y + BAR / 2.0, y + BAR - 4.5);
            let _ = writeln!(out, "<text class=\"s\" x=\"{MARGIN}\" y=\"{base}\">{}</text>", wall.name());
            let left = MARGIN + NAMES;
            if let Some(spread) = spread {
                let at = |value: f64| left + BARS * value / longest;
                let _ = writeln!(
                    out,
                    "<rect class=\"{}\" x=\"{left}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\
                     <line class=\"w\" x1=\"{:.1}\" y1=\"{middle}\" x2=\"{:.1}\" y2=\"{middle}\"/>\
                     <text x=\"{:.1}\" y=\"{base}\">{}</text>",
                    class(wall),
                    (at(spread.median) - left).max(1.0),
                    at(spread.least),
                    at(spread.most),
                    at(spread.most) + 10.0,
                    measure.format(spread.median)
                );
            } else {
                let _ = writeln!(out, "<text class=\"s\" x=\"{left}\" y=\"{base}\">none</text>");
            }
            y += STEP;
        }
        y += 24.0;
    }
    (out, y)
}

/// The picture.
pub(crate) fn svg(comparison: &Comparison) -> String {
    let (bars, height) = bars(comparison);
    let width = MARGIN * 2.0 + NAMES + BARS + VALUES - 120.0;
    let title = escape(&crate::render::container::ellipsis(&comparison.title(), 80));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n<rect class=\"bg\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"t\" x=\"{MARGIN}\" y=\"32\">{title}</text>\n\
         <text class=\"s\" x=\"{MARGIN}\" y=\"52\">bars: medians of {}; lines: least to most</text>\n{bars}</svg>\n",
        comparison.rounds
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::svg;

    #[test]
    fn the_longest_bar_is_the_whole_width_and_nothing_is_markup() {
        let picture = svg(&sample());
        assert!(picture.contains("<title>a&lt;b true</title>"), "{picture}");
        // 5, 10, 15 of 1500: the median of the container is 10.
        assert!(picture.contains("class=\"container\" x=\"120\" y=\"94\" width=\"2.8\""), "{picture}");
        assert!(picture.contains("class=\"vm\" x=\"120\" y=\"120\" width=\"280.0\""), "{picture}");
        assert!(!picture.contains("NaN") && !picture.contains("script"), "{picture}");
    }
}
