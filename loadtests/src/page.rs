//! The page of a report: its Markdown and its plots in one HTML file that needs nothing else, for a phone as well.

use anyhow::{Result, anyhow};
use plotters::chart::SeriesLabelPosition;
use plotters::prelude::{
    ChartBuilder, Circle, Color as _, IntoDrawingArea as _, LineSeries, RGBColor, Rectangle,
    SVGBackend, WHITE,
};
use serde::Serialize;
use std::fmt::Write as _;

/// How an axis grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// By sums, from 0.
    Linear,
    /// By products.
    Log,
    /// By products, of one in how many is beyond: 100 is the 99th percentile.
    Nines,
}

/// One line of a plot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// As the legend has it.
    pub name: String,
    /// Where it goes along.
    pub points: Vec<(f64, f64)>,
}

/// What is shown in one frame.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Below it.
    pub x: (String, Scale),
    /// Beside it.
    pub y: (String, Scale),
    /// What is in it.
    pub series: Vec<Series>,
}

/// Colours that are told apart by most eyes (those of Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

impl Scale {
    fn to(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log | Self::Nines => value.max(1e-6).log10(),
        }
    }

    fn label(self, place: f64) -> String {
        match self {
            Self::Linear => shown(place),
            Self::Log => shown(10f64.powf(place)),
            Self::Nines => format!("{} %", shown(100.0 - 100.0 * 10f64.powf(-place))),
        }
    }

    /// From the least to the greatest, with something between.
    fn range(self, values: impl Iterator<Item = f64> + Clone) -> std::ops::Range<f64> {
        let placed = values.map(|value| self.to(value));
        let least = placed.clone().fold(f64::INFINITY, f64::min);
        let most = placed.fold(f64::NEG_INFINITY, f64::max);
        let (least, most) = match self {
            Self::Linear => (least.min(0.0), most * 1.05),
            Self::Log => (least - 0.1, most + 0.1),
            Self::Nines => (0.0, most),
        };
        least..most.max(least + 0.1)
    }
}

/// With as many digits as help.
fn shown(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        _ => format!("{value:.3}")
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned(),
    }
}

impl Plot {
    /// Whether there is anything to see.
    fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.is_empty())
    }

    fn svg(&self) -> Result<String> {
        let mut text = String::new();
        self.draw(&mut text)
            .map_err(|error| anyhow!("draw the plot `{}`: {error}", self.title))?;
        // Within HTML it needs no namespace, and a page without any address is easily seen to load nothing.
        Ok(text.replace(r#" xmlns="http://www.w3.org/2000/svg""#, ""))
    }

    fn draw(&self, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let (x, y) = (self.x.1, self.y.1);
        let root = SVGBackend::with_string(text, (720, 420)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(
                x.range(points().map(|point| point.0)),
                y.range(points().map(|point| point.1)),
            )?;
        chart
            .configure_mesh()
            .label_style(("sans-serif", 16))
            .axis_desc_style(("sans-serif", 17))
            .x_desc(&self.x.0)
            .y_desc(&self.y.0)
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|place| x.label(*place))
            .y_label_formatter(&|place| y.label(*place))
            .light_line_style(WHITE)
            .draw()?;
        for (series, colour) in self.series.iter().zip(COLOURS.into_iter().cycle()) {
            let placed = || {
                series
                    .points
                    .iter()
                    .map(|point| (x.to(point.0), y.to(point.1)))
            };
            chart.draw_series(LineSeries::new(placed(), colour.stroke_width(2)))?;
            chart
                .draw_series(placed().map(|place| Circle::new(place, 3, colour.filled())))?
                .label(&series.name)
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled())
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(("sans-serif", 16))
            .background_style(WHITE.mix(0.8))
            .draw()?;
        root.present()?;
        Ok(())
    }
}

const STYLE: &str = "body{font:16px/1.45 sans-serif;margin:0 auto;padding:12px;max-width:960px;color:#111;background:#fff}\
svg{width:100%;height:auto;border:1px solid #ddd}div{overflow-x:auto}table{border-collapse:collapse;font-size:14px}\
td,th{border:1px solid #ccc;padding:3px 8px;text-align:left}code,pre{font-size:13px;white-space:pre-wrap}";

/// The whole page.
///
/// # Errors
/// Of the plotting library.
pub fn html(title: &str, markdown: &str, plots: &[Plot]) -> Result<String> {
    use pulldown_cmark::{Event, Options, Parser};
    // What a server has said may be in it: it is text, whatever it looks like.
    let events = Parser::new_ext(markdown, Options::ENABLE_TABLES).map(|event| match event {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        other => other,
    });
    let mut told = String::new();
    pulldown_cmark::html::push_html(&mut told, events);
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title><style>{STYLE}</style>\
         </head><body><h1>{title}</h1>\n<div>{told}</div>\n"
    );
    for plot in plots.iter().filter(|plot| !plot.is_empty()) {
        let _ = writeln!(page, "<h2>{}</h2>\n{}", plot.title, plot.svg()?);
    }
    page.push_str("</body></html>\n");
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use scraper::{Html, Selector};

    fn selected<'a>(page: &'a Html, what: &str) -> Vec<scraper::ElementRef<'a>> {
        page.select(&Selector::parse(what).expect("a selector"))
            .collect()
    }

    fn plot(title: &str, lengths: &[u32], scale: Scale) -> Plot {
        let series = |(number, length): (usize, &u32)| Series {
            name: format!("series {number}"),
            points: (1..=*length)
                .map(|at| (f64::from(at), f64::from(at % 7) + 0.5))
                .collect(),
        };
        Plot {
            title: title.to_owned(),
            x: ("seconds".to_owned(), scale),
            y: ("ms".to_owned(), scale),
            series: lengths.iter().enumerate().map(series).collect(),
        }
    }

    /// What is wrong with a page: it is no HTML, it loads something, or it does not show each point of each series.
    fn complaints(page: &str, plots: &[Plot]) -> Vec<String> {
        let mut complaints = Vec::new();
        for outside in [
            "http:", "https:", "//", "@import", "<script", "src=", "href=",
        ] {
            if page.contains(outside) {
                complaints.push(format!("`{outside}` is in it"));
            }
        }
        let parsed = Html::parse_document(page);
        complaints.extend(parsed.errors.iter().map(ToString::to_string));
        if selected(&parsed, "meta[name=viewport]").len() != 1 {
            complaints.push("a phone is not thought of".to_owned());
        }
        let shown = selected(&parsed, "svg");
        if shown.len() != plots.len() {
            complaints.push(format!("{} plots of {}", shown.len(), plots.len()));
        }
        for (svg, plot) in shown.iter().zip(plots) {
            for (series, RGBColor(red, green, blue)) in plot.series.iter().zip(COLOURS) {
                let colour = format!("#{red:02X}{green:02X}{blue:02X}");
                let circles =
                    Selector::parse(&format!("circle[fill='{colour}']")).expect("a selector");
                let circles = svg.select(&circles).count();
                if circles != series.points.len() {
                    complaints.push(format!(
                        "{} has {circles} points of {}",
                        series.name,
                        series.points.len()
                    ));
                }
                if !svg.text().any(|text| text.trim() == series.name) {
                    complaints.push(format!("{} is not named", series.name));
                }
            }
        }
        complaints
    }

    #[test]
    fn the_page_is_whole_in_itself_and_shows_each_point_of_each_series() {
        let plots = [
            plot("over time", &[120, 120, 40], Scale::Linear),
            plot("curve", &[17, 1], Scale::Log),
            plot("share", &[9], Scale::Nines),
        ];
        let markdown = "| a | b |\n|---|---|\n| 1 | <b onload=x>2 |\n\n<script>no</script>\n";
        let page = html("conduit & <others>", markdown, &plots).expect("a page");
        assert_eq!(complaints(&page, &plots), Vec::<String>::new());
        let parsed = Html::parse_document(&page);
        assert_eq!(selected(&parsed, "td").len(), 2);
        assert_eq!(
            selected(&parsed, "h1")[0].text().collect::<String>(),
            "conduit & <others>"
        );

        // And it is seen if not.
        let one_less = page.replacen("<circle", "<ellipse", 1);
        assert!(
            complaints(&one_less, &plots)[0].contains("119 points of 120"),
            "{:?}",
            complaints(&one_less, &plots)
        );
        let loads = page.replacen(
            "<style>",
            "<link rel=stylesheet href=https://example.org/a.css><style>",
            1,
        );
        assert!(!complaints(&loads, &plots).is_empty());
        let broken = page.replacen("</h1>", "</h3>", 1);
        assert!(!complaints(&broken, &plots).is_empty());
    }

    #[test]
    fn a_plot_of_nothing_or_of_one_value_is_no_failure() {
        let flat = Plot {
            series: vec![Series {
                name: "flat".to_owned(),
                points: vec![(0.0, 0.0), (1.0, 0.0)],
            }],
            ..plot("flat", &[], Scale::Log)
        };
        let empty = plot("empty", &[0], Scale::Linear);
        let page = html("a run", "", &[flat, empty]).expect("a page");
        assert_eq!(selected(&Html::parse_document(&page), "svg").len(), 1);
    }
}
