//! Learning curves, as SVG.

use crate::config::Config;
use crate::error::Error;
use crate::run::{Comparison, MeasuredRun, RunDirectory, Scores, files};
use crate::sac::Metric;
use crate::statistics::{self, Estimate, mean};
use anyhow::Context;
use plotters::coord::Shift;
use plotters::prelude::*;

type Point = (f64, f64);
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The most points of a curve; beyond them neighbours are averaged.
const POINTS: usize = 400;
/// Colours that stay apart for those who do not see all of them (Okabe and Ito).
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
const PROBLEM: &str = "the picture cannot be drawn";
/// The name of its own picture in a run directory.
pub const CURVE: &str = "curve.svg";

/// Leaves a picture of the run in its directory, if there is something to draw.
///
/// # Errors
/// If it cannot be written.
pub fn save_curve(directory: &RunDirectory, config: &Config) -> Result<(), Error> {
    let drawn = MeasuredRun::read(directory.clone(), config.clone())?;
    let path = directory.file(CURVE);
    if drawn.has_returns() {
        files::write(&path, run(&drawn)?.as_bytes())
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// The returns of one run, and below them its losses and whatever else it has measured. The same measurements give the
/// same bytes.
///
/// # Errors
/// If it cannot be drawn.
pub fn run(run: &MeasuredRun) -> Result<String, Error> {
    // Below the learning curve, if there is any of it.
    let details = Metric::ALL.map(|metric| (run.points(metric.name()), metric.label()));
    let there = |points: &[Point]| points.iter().any(|point| point.1 != 0.0);
    let details: Vec<_> = details.into_iter().filter(|(points, _)| there(points)).collect();
    let rows = details.len().div_ceil(3) as u32;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (900, 400 + 190 * rows)).into_drawing_area();
        area.fill(&WHITE).context(PROBLEM)?;
        let (top, bottom) = area.split_vertically(400);
        let (environment, seed) = (run.directory().environment(), run.config().seed);
        let line = |column, name: &str, color| Line::new(name, run.points(column), color);
        let episodes = line(MeasuredRun::EPISODE, "episodes of training", RGBColor(176, 190, 197));
        let evaluations = line(MeasuredRun::EVALUATION, "evaluations of the deterministic policy", COLORS[0]);
        let lines: Vec<_> = [episodes, evaluations].into_iter().filter(|line| !line.points.is_empty()).collect();
        panel(&top, &format!("{environment}, seed {seed}"), Some("return"), &lines, run.last_step())?;
        for ((points, title), place) in details.into_iter().zip(bottom.split_evenly((rows as usize, 3))) {
            panel(&place, title, None, &[Line::new("", points, COLORS[0])], run.last_step())?;
        }
        area.present().context(PROBLEM)?;
    }
    Ok(svg)
}

/// Several runs: for each group of those that differ in their seeds alone, the mean return and its 95 % bootstrap interval,
/// which for fewer than five runs is little more than their range. Of runs with the same seed the longest counts.
///
/// Returned with the picture are the runs of groups that have no steps in common, which are left out.
///
/// # Errors
/// If they cannot be drawn.
pub fn groups(runs: &[MeasuredRun]) -> Result<(String, Vec<&MeasuredRun>), Error> {
    let mut groups: Vec<(String, Vec<&MeasuredRun>)> = Vec::new();
    for run in runs {
        let key = run.group()?;
        let at = groups.iter().position(|(known, _)| *known == key).unwrap_or(groups.len());
        if at == groups.len() {
            groups.push((key, Vec::new()));
        }
        let group = &mut groups[at].1;
        match group.iter_mut().find(|known| known.config().seed == run.config().seed) {
            // The same seed is the same run, as far as it goes.
            Some(known) if known.last_step() < run.last_step() => *known = run,
            Some(_) => {}
            None => group.push(run),
        }
    }
    let all_have = |column| runs.iter().all(|run| !run.points(column).is_empty());
    let (column, title) = match (all_have(MeasuredRun::EVALUATION), all_have(MeasuredRun::EPISODE)) {
        (true, _) => (MeasuredRun::EVALUATION, "return of the deterministic policy"),
        (false, true) => (MeasuredRun::EPISODE, "return of training episodes"),
        (false, false) => {
            let problem = "some of these runs have evaluations only, others none; draw them apart";
            return Err(Error::Files(problem.into()));
        }
    };
    let has_mean = |group: &Vec<&MeasuredRun>| {
        let curves: Vec<_> = group.iter().map(|run| run.points(column)).collect();
        !mean_and_band(&curves).0.is_empty()
    };
    let (groups, left_out): (Vec<_>, Vec<_>) = groups.into_iter().partition(|(_, group)| has_mean(group));
    let left_out = left_out.into_iter().flat_map(|(_, group)| group).collect();
    if groups.is_empty() {
        let problem =
            "these runs differ in their seeds alone and were measured at no common step; draw them one by one";
        return Err(Error::Files(problem.into()));
    }
    let names: Vec<_> = groups.iter().map(|(_, group)| common_name(group)).collect();
    let lines = groups.iter().zip(&names).zip(COLORS.iter().cycle()).map(|(((_, group), name), &color)| {
        // As for the seeds of several directories.
        let taken = names.iter().filter(|other| *other == name).count() > 1;
        let name = if taken { format!("{}/{name}", group[0].parent_name()) } else { name.clone() };
        let curves: Vec<_> = group.iter().map(|run| run.points(column)).collect();
        let (points, band) = mean_and_band(&curves);
        let runs = if group.len() == 1 { String::new() } else { format!(" ({} runs)", group.len()) };
        Line { band, ..Line::new(&(name + &runs), points, color) }
    });
    let lines: Vec<_> = lines.collect();
    let last_step = lines.iter().flat_map(|line| &line.points).map(|point| point.0).fold(0.0, f64::max);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (900, 500)).into_drawing_area();
        area.fill(&WHITE).context(PROBLEM)?;
        let note =
            if groups.iter().any(|(_, group)| group.len() > 1) { ": mean and its 95 % bootstrap interval" } else { "" };
        panel(&area, &format!("{title}{note}"), Some("return"), &lines, last_step)?;
        area.present().context(PROBLEM)?;
    }
    Ok((svg, left_out))
}

/// Groups of runs against each other: a row for each environment, with the mean returns on the way, and at the step of the
/// comparison the mean and the interquartile mean; all with their 95 % bootstrap intervals.
///
/// # Errors
/// If they cannot be drawn.
pub fn comparison(comparison: &Comparison) -> Result<String, Error> {
    let mut svg = String::new();
    {
        let rows = comparison.environments.len();
        let area = SVGBackend::with_string(&mut svg, (1100, 420 * rows as u32)).into_drawing_area();
        area.fill(&WHITE).context(PROBLEM)?;
        for (scores, row) in comparison.environments.iter().zip(area.split_evenly((rows, 1))) {
            let (left, right) = row.split_horizontally(700);
            let groups = comparison.groups.iter().zip(&scores.groups).zip(COLORS.iter().cycle());
            let groups: Vec<_> =
                groups.filter_map(|((name, scores), &color)| Some((name.as_str(), scores.as_ref()?, color))).collect();
            let lines: Vec<_> = groups
                .iter()
                .map(|&(name, scores, color)| {
                    let curves: Vec<_> = scores.runs.iter().map(|run| run.points(MeasuredRun::EVALUATION)).collect();
                    let (points, band) = mean_and_band(&curves);
                    Line { band, ..Line::new(&format!("{name} ({})", count(scores.runs.len())), points, color) }
                })
                .collect();
            let last_step = lines.iter().flat_map(|line| &line.points).map(|point| point.0).fold(0.0, f64::max);
            panel(&left, &format!("{}: mean return", scores.environment), Some("return"), &lines, last_step)?;
            intervals(&right, scores.step as f64, &groups)?;
        }
        area.present().context(PROBLEM)?;
    }
    Ok(svg)
}

fn count(runs: usize) -> String {
    if runs == 1 { "1 run".into() } else { format!("{runs} runs") }
}

/// The mean and the interquartile mean of each group as a line across its interval, the first group on top.
fn intervals(area: &Area, step: f64, groups: &[(&str, &Scores, RGBColor)]) -> anyhow::Result<()> {
    let panels = area.margin(0, 0, 0, 8).split_evenly((1, 2));
    for (place, (title, statistic)) in panels.iter().zip([
        ("mean", (|scores| scores.mean) as fn(&Scores) -> Estimate),
        ("interquartile mean", |scores| scores.interquartile_mean),
    ]) {
        let ends = groups.iter().flat_map(|(_, scores, _)| [statistic(scores).low, statistic(scores).high]);
        let (low, high) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        let margin = margin_of(low, high);
        let mut chart = ChartBuilder::on(place)
            .caption(format!("{title} at {}", short(step)), ("sans-serif", 14))
            .margin(8)
            .x_label_area_size(40)
            .build_cartesian_2d(low - margin..high + margin, 0.0..groups.len() as f64)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .x_labels(3)
            .label_style(("sans-serif", 11))
            .x_label_formatter(&|value| short(*value))
            .bold_line_style(BLACK.mix(0.1))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (i, (_, scores, color)) in groups.iter().enumerate() {
            let Estimate { value, low, high } = statistic(scores);
            let middle = groups.len() as f64 - i as f64 - 0.5;
            let (bottom, top) = (middle - 0.25, middle + 0.25);
            chart.draw_series([Rectangle::new([(low, bottom), (high, top)], color.mix(0.4).filled())])?;
            chart.draw_series([PathElement::new(vec![(value, bottom), (value, top)], color.stroke_width(3))])?;
        }
    }
    Ok(())
}

/// What the names of these runs begin with, without the number at its end.
fn common_name(runs: &[&MeasuredRun]) -> String {
    let names: Vec<_> = runs.iter().map(|run| run.name()).collect();
    let [first, rest @ ..] = names.as_slice() else { return String::new() };
    if rest.is_empty() {
        return first.clone();
    }
    let shared = |end: usize| first.is_char_boundary(end) && rest.iter().all(|name| name.starts_with(&first[..end]));
    let end = (0..=first.len()).rev().find(|&end| shared(end)).unwrap_or(0);
    let name = first[..end].trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['-', '_', '.', ' ']);
    if name.is_empty() { shown(runs[0].directory().environment()) } else { name.to_string() }
}

/// The mean of several curves at the steps of any of them that all of them reach, and a band around it.
fn mean_and_band(curves: &[Vec<Point>]) -> (Vec<Point>, Vec<(f64, f64, f64)>) {
    let curves: Vec<_> = curves.iter().map(|points| thinned(points)).collect();
    if let [only] = curves.as_slice() {
        return (only.clone(), Vec::new());
    }
    let first = curves.iter().map(|curve| curve[0].0).fold(f64::MIN, f64::max);
    let last = curves.iter().map(|curve| curve[curve.len() - 1].0).fold(f64::MAX, f64::min);
    let mut steps: Vec<f64> = curves.iter().flatten().map(|point| point.0).collect();
    steps.retain(|step| (first..=last).contains(step));
    steps.sort_by(f64::total_cmp);
    steps.dedup();
    let at = |step: f64| curves.iter().map(|curve| value_at(curve, step)).collect::<Vec<_>>();
    let points = steps.iter().map(|&step| (step, mean(&at(step)))).collect();
    let band = steps.iter().map(|&step| {
        let Estimate { low, high, .. } = statistics::estimate(&[&at(step)], |strata| mean(&strata[0]));
        (step, low, high)
    });
    (points, band.collect())
}

/// A curve at a step between its first and its last, on the line between its neighbours.
fn value_at(curve: &[Point], step: f64) -> f64 {
    let next = curve.partition_point(|point| point.0 < step);
    match (next.checked_sub(1).map(|before| curve[before]), curve[next]) {
        (Some((x0, y0)), (x1, y1)) => y0 + (y1 - y0) * (step - x0) / (x1 - x0),
        (None, (_, y)) => y,
    }
}

/// At most [`POINTS`] points, each the mean of neighbours.
fn thinned(points: &[Point]) -> Vec<Point> {
    let size = points.len().div_ceil(POINTS);
    let mean_of = |chunk: &[Point]| {
        let n = chunk.len() as f64;
        (chunk.iter().map(|point| point.0).sum::<f64>() / n, chunk.iter().map(|point| point.1).sum::<f64>() / n)
    };
    points.chunks(size.max(1)).map(mean_of).collect()
}

/// A line of a panel.
struct Line {
    name: String,
    points: Vec<Point>,
    /// Around it: steps, lower and upper ends.
    band: Vec<(f64, f64, f64)>,
    color: RGBColor,
}

impl Line {
    fn new(name: &str, points: Vec<Point>, color: RGBColor) -> Self {
        Self { name: name.to_string(), points: thinned(&points), band: Vec::new(), color }
    }
}

/// A name without the characters that no SVG may hold.
fn shown(name: &str) -> String {
    name.replace(char::is_control, "?")
}

/// Axes, and lines in them.
fn panel(area: &Area, title: &str, y_title: Option<&str>, lines: &[Line], last_step: f64) -> anyhow::Result<()> {
    let large = y_title.is_some();
    let values = || lines.iter().flat_map(|line| &line.points).map(|point| point.1);
    let ends = || lines.iter().flat_map(|line| &line.band).flat_map(|&(_, low, high)| [low, high]);
    let low = values().chain(ends()).fold(f64::INFINITY, f64::min);
    let high = values().chain(ends()).fold(f64::NEG_INFINITY, f64::max);
    let margin = margin_of(low, high);
    let below_title = area.margin(4, 0, 0, 0).titled(&shown(title), ("sans-serif", if large { 18 } else { 14 }))?;
    let below_names = if large { legend(&below_title, lines)? } else { below_title };
    let mut chart = ChartBuilder::on(&below_names)
        .margin(8)
        .margin_right(24)
        .x_label_area_size(if large { 40 } else { 22 })
        .y_label_area_size(if large { 64 } else { 52 })
        .build_cartesian_2d(0.0..last_step.max(1.0), low - margin..high + margin)?;
    let mut mesh = chart.configure_mesh();
    mesh.label_style(("sans-serif", if large { 13 } else { 11 }))
        .x_labels(if large { 10 } else { 4 })
        .y_labels(if large { 8 } else { 4 })
        .x_label_formatter(&|step| short(*step))
        .y_label_formatter(&|value| short(*value))
        .bold_line_style(BLACK.mix(0.1))
        .light_line_style(TRANSPARENT);
    if let Some(y_title) = y_title {
        mesh.x_desc("environment steps").y_desc(y_title);
    }
    mesh.draw()?;
    for Line { points, band, color, .. } in lines {
        let there = band.iter().map(|&(step, low, _)| (step, low));
        let back = band.iter().rev().map(|&(step, _, high)| (step, high));
        chart.draw_series([Polygon::new(there.chain(back).collect::<Vec<_>>(), color.mix(0.2))])?;
        let style = color.stroke_width(if large { 2 } else { 1 });
        // A single point is no line.
        let dot = points.first().filter(|_| points.len() == 1).map(|&point| Circle::new(point, 3, color.filled()));
        chart.draw_series(dot)?;
        chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
    }
    Ok(())
}

/// The names of lines, in rows, and the place below them: where they stand they cover no line.
fn legend<'a>(area: &Area<'a>, lines: &[Line]) -> anyhow::Result<Area<'a>> {
    const ROW: i32 = 20;
    let style = TextStyle::from(("sans-serif", 13).into_font());
    let (width, height) = area.dim_in_pixel();
    let (left, right) = (72, width as i32 - 24);
    let (mut x, mut top) = (left, 0);
    for Line { name, color, .. } in lines {
        let length = 24 + area.estimate_text_size(name, &style)?.0 as i32;
        if x > left && x + length > right {
            (x, top) = (left, top + ROW);
        }
        let middle = top + ROW / 2;
        area.draw(&PathElement::new(vec![(x, middle), (x + 18, middle)], color.stroke_width(2)))?;
        area.draw(&Text::new(name.clone(), (x + 24, middle - 6), style.clone()))?;
        x += length + 24;
    }
    // Of very many, some stand in the way.
    Ok(area.split_vertically((top + ROW).min(height as i32 / 2)).1)
}

/// What is left free beyond both ends; a flat line is drawn in the middle.
fn margin_of(low: f64, high: f64) -> f64 {
    if high > low { 0.05 * (high - low) } else { 0.5 * high.abs().max(1e-3) }
}

/// A number in a few characters.
fn short(value: f64) -> String {
    let scaled = |by: f64, unit: &str| format!("{}{unit}", (value / by * 100.0).round() / 100.0);
    match value.abs() {
        // What is left of zero after the ticks are added up.
        size if size < 1e-12 => "0".into(),
        size if size >= 999_950.0 => scaled(1e6, "M"),
        size if size >= 10_000.0 => scaled(1e3, "k"),
        size if size >= 0.01 => scaled(1.0, ""),
        _ => format!("{value:.0e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_averaged_where_all_of_them_are() {
        let one = vec![(0.0, 1.0), (10.0, 3.0), (30.0, 3.0)];
        let other = vec![(5.0, 4.0), (15.0, 6.0), (20.0, 7.0)];
        let (mean, band) = mean_and_band(&[one.clone(), other]);
        assert_eq!(mean, [(5.0, 3.0), (10.0, 4.0), (15.0, 4.5), (20.0, 5.0)]);
        assert_eq!(band, [(5.0, 2.0, 4.0), (10.0, 3.0, 5.0), (15.0, 3.0, 6.0), (20.0, 3.0, 7.0)]);
        assert_eq!(mean_and_band(std::slice::from_ref(&one)), (one.clone(), vec![]));
        assert_eq!(mean_and_band(&[one, vec![(40.0, 1.0)]]).0, []);
    }

    /// Wherever the curve ends.
    #[test]
    fn names_stand_above_the_curves() {
        let mut svg = String::new();
        let names =
            ["first", "a second name that is so long that it takes a row", "another, of the third row of three"];
        {
            let area = SVGBackend::with_string(&mut svg, (500, 400)).into_drawing_area();
            let lines =
                names.map(|name| Line::new(name, vec![(0.0, 0.0), (5.0, 9.0), (9.0, 9.0), (10.0, 0.0)], COLORS[0]));
            panel(&area, "title", Some("return"), &lines, 10.0).expect("it can be drawn");
        }
        let number = |text: &str, name: &str| -> f64 {
            let (_, rest) = text.split_once(&format!(" {name}=\"")).expect("it has one");
            rest.split('"').next().and_then(|number| number.parse().ok()).expect("it is a number")
        };
        let texts = svg.split("<text").filter(|text| names.iter().any(|name| text.contains(name)));
        let lowest = texts.map(|text| number(text, "y")).fold(0.0, f64::max);
        let curves = svg.split("<polyline").filter_map(|line| line.split(" points=\"").nth(1)?.split('"').next());
        let points = curves.map(|points| points.split_whitespace().filter_map(|point| point.split_once(',')));
        let points = points.map(|points| points.filter_map(|(_, y)| y.parse::<f64>().ok()).collect::<Vec<_>>());
        let highest = points.filter(|points| points.len() == 4).flatten().fold(f64::INFINITY, f64::min);
        assert!(lowest > 0.0 && highest.is_finite() && lowest + 13.0 < highest, "{lowest}, {highest}");
    }

    #[test]
    fn long_curves_are_thinned_and_short_ones_are_not() {
        let line = |n: usize| (0..n).map(|i| (i as f64, 2.0 * i as f64)).collect::<Vec<_>>();
        assert_eq!(thinned(&line(POINTS)), line(POINTS));
        let thin = thinned(&line(POINTS + 1));
        assert_eq!((thin.len(), thin[0], thin[200]), (201, (0.5, 1.0), (400.0, 800.0)));
        assert_eq!(thinned(&[]), []);
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 1e-17, 0.004, 0.5, -1234.0, 10_000.0, 250_000.0, 1e6, -2.5e6].map(short);
        assert_eq!(shown, ["0", "0", "4e-3", "0.5", "-1234", "10k", "250k", "1M", "-2.5M"]);
    }
}
