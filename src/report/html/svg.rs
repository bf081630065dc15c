//! A few SVG elements, written by hand: enough for three charts, readable in any browser, no script.
//!
//! Looks (colours, widths, dashes, fonts) live in `style.css` under the class names given here.

use std::fmt::Write as _;

use super::escape;
use super::scale::{Scale, label};

/// Width of every chart, SVG units; the page scales it.
pub(super) const WIDTH: f64 = 960.0;

/// A drawing under construction.
pub(super) struct Svg {
    body: String,
    height: f64,
    title: String,
    description: String,
}

/// Where text stands relative to its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    /// To its right.
    Start,
    /// Centred.
    Middle,
    /// To its left.
    End,
}

/// The plotting area of a chart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    /// Left edge.
    pub(super) left: f64,
    /// Right edge.
    pub(super) right: f64,
    /// Upper edge.
    pub(super) top: f64,
    /// Lower edge.
    pub(super) bottom: f64,
}

impl Svg {
    /// An empty drawing with its text for those who do not see it.
    #[must_use]
    pub(super) fn new(height: f64, title: &str, description: &str) -> Self {
        Self { body: String::new(), height, title: title.to_owned(), description: description.to_owned() }
    }

    /// A straight line.
    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = writeln!(self.body, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
    }

    /// A rectangle, with a text that browsers show on hover.
    pub(super) fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), hint: &str) {
        let hint = if hint.is_empty() { String::new() } else { format!("<title>{}</title>", escape::text(hint)) };
        let _ = writeln!(
            self.body,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}">{hint}</rect>"#
        );
    }

    /// Text at a point.
    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape::text(text);
        let _ =
            writeln!(self.body, r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#);
    }

    /// The title of a vertical axis, reading upwards.
    pub(super) fn vertical_text(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let text = escape::text(text);
        let _ = writeln!(
            self.body,
            r#"<text class="{class}" transform="translate({x:.1} {y:.1}) rotate(-90)" text-anchor="middle">{text}</text>"#
        );
    }

    /// Lines through points; a `None` interrupts the line. A point alone between two gaps becomes a dot.
    pub(super) fn path(&mut self, class: &str, points: impl IntoIterator<Item = Option<(f64, f64)>>, hint: &str) {
        let mut data = String::new();
        let mut drawing = false;
        for point in points {
            if let Some((x, y)) = point {
                // The zero-length stroke after a move makes a single point visible with round caps.
                let _ = if drawing { write!(data, "L{x:.1} {y:.1}") } else { write!(data, "M{x:.1} {y:.1}l0 0") };
            }
            drawing = point.is_some();
        }
        if !data.is_empty() {
            let hint = escape::text(hint);
            let _ = writeln!(self.body, r#"<path class="{class}" d="{data}"><title>{hint}</title></path>"#);
        }
    }

    /// Grid, tick labels and axis titles around `area`.
    pub(super) fn axes(&mut self, area: Area, (x, x_title): (&Scale, &str), (y, y_title): (&Scale, &str)) {
        for tick in x.ticks() {
            let at = x.at(tick);
            self.line("grid", (at, area.top), (at, area.bottom));
            self.text("tick", (at, area.bottom + 16.0), Anchor::Middle, &label(tick));
        }
        for tick in y.ticks() {
            let at = y.at(tick);
            self.line("grid", (area.left, at), (area.right, at));
            self.text("tick", (area.left - 8.0, at + 4.0), Anchor::End, &label(tick));
        }
        self.line("axis", (area.left, area.bottom), (area.right, area.bottom));
        self.line("axis", (area.left, area.top), (area.left, area.bottom));
        if !x_title.is_empty() {
            self.text("title", ((area.left + area.right) / 2.0, area.bottom + 36.0), Anchor::Middle, x_title);
        }
        self.vertical_text("title", (area.left - 46.0, (area.top + area.bottom) / 2.0), y_title);
    }

    /// Line samples with names, in rows from `top`; returns the first free y below.
    pub(super) fn legend(&mut self, top: f64, left: f64, entries: &[(String, String)]) -> f64 {
        let (mut x, mut y) = (left, top);
        for (class, name) in entries {
            // 6.6 units per character: the width of the page's sans serif at 12 units, generously.
            let width = 34.0 + 6.6 * name.chars().count() as f64 + 22.0;
            if x + width > WIDTH && x > left {
                x = left;
                y += 20.0;
            }
            self.line(class, (x, y), (x + 28.0, y));
            self.text("label", (x + 34.0, y + 4.0), Anchor::Start, name);
            x += width;
        }
        y + 20.0
    }

    /// The finished element.
    #[must_use]
    pub(super) fn finish(self) -> String {
        let (title, description) = (escape::text(&self.title), escape::text(&self.description));
        let height = self.height;
        format!(
            "<svg viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\" aria-label=\"{title}. {description}\">\n{}</svg>\n",
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Anchor, Svg};

    #[test]
    fn elements_are_written_escaped() {
        let mut svg = Svg::new(10.0, "a<b", "n = 1");
        svg.text("label", (1.0, 2.0), Anchor::End, "x & y");
        svg.rect("bar", (0.0, 0.0), (3.0, 4.0), "\"half\"");
        svg.path("run", [Some((0.0, 0.0)), Some((1.0, 1.0)), None, Some((2.0, 2.0))], "r");
        svg.path("run", [None], "nothing to draw");
        assert_snapshot!(svg.finish(), @r#"
        <svg viewBox="0 0 960 10" role="img" aria-label="a&lt;b. n = 1">
        <text class="label" x="1.0" y="2.0" text-anchor="end">x &amp; y</text>
        <rect class="bar" x="0.0" y="0.0" width="3.0" height="4.0"><title>&quot;half&quot;</title></rect>
        <path class="run" d="M0.0 0.0l0 0L1.0 1.0M2.0 2.0l0 0"><title>r</title></path>
        </svg>
        "#);
    }

    #[test]
    fn a_long_legend_wraps() {
        let mut svg = Svg::new(10.0, "", "");
        let entries: Vec<_> = (0..12).map(|i| ("run".to_owned(), format!("strategy-number-{i}"))).collect();
        assert!(svg.legend(10.0, 60.0, &entries) >= 50.0);
    }
}
