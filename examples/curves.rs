//! Learning curves of several groups of runs in one picture: for each group the mean over its runs, and their spread.
//!
//! `cargo run --release --example curves -- OUT.svg PREFIX…`: a group is every run directory PREFIX-NUMBER, named after the
//! last part of its prefix; the curve is the `evaluation_return` in `metrics.csv`.

use plotters::prelude::*;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

/// Mean, least and largest return of the runs of a group, at a step.
type Point = (f64, f64, f64, f64);

fn group(prefix: &Path) -> Result<Vec<Point>, Box<dyn Error>> {
    let parent = prefix.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let name = format!("{}-", prefix.file_name().ok_or("a prefix ends with a name")?.display());
    let mut returns: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    let mut runs = 0;
    for entry in fs::read_dir(parent).map_err(|error| format!("{}: {error}", parent.display()))? {
        let entry = entry?;
        // PREFIX-1 is of the group, PREFIX-other-1 is of another.
        let rest = entry.file_name().to_string_lossy().strip_prefix(&name).map(str::to_string);
        if !rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())) {
            continue;
        }
        let path = entry.path().join("metrics.csv");
        let table = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut lines = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let heading = lines.next().ok_or("metrics.csv has a heading")?;
        let column = heading.iter().position(|&h| h == "evaluation_return").ok_or("metrics.csv has evaluations")?;
        for cells in lines {
            let cell = cells.get(column).ok_or_else(|| format!("{}: a row is short", path.display()))?;
            if !cell.is_empty() {
                returns.entry(cells[0].parse()?).or_default().push(cell.parse()?);
            }
        }
        runs += 1;
    }
    if runs == 0 {
        return Err(format!("there is no run {}NUMBER", parent.join(name).display()).into());
    }
    // A step that not all runs have reached would move the mean.
    let complete = returns.into_iter().filter(|(_, returns)| returns.len() == runs);
    Ok(complete
        .map(|(step, returns)| {
            let mean = returns.iter().sum::<f64>() / runs as f64;
            let fold = |f: fn(f64, f64) -> f64| returns.iter().copied().reduce(f).unwrap_or(mean);
            (step as f64, mean, fold(f64::min), fold(f64::max))
        })
        .collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let out = arguments.next().ok_or("usage: curves OUT.svg PREFIX…")?;
    let groups = arguments.map(|prefix| Ok((prefix.clone(), group(Path::new(&prefix))?)));
    let groups = groups.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    if groups.iter().all(|(_, points)| points.is_empty()) {
        return Err("there is nothing to draw: give prefixes of runs with evaluations at the same steps".into());
    }
    let points = || groups.iter().flat_map(|(_, points)| points);
    let last_step = points().fold(0.0, |last: f64, point| last.max(point.0));
    let (low, high) = points().fold((f64::MAX, f64::MIN), |(low, high), p| (low.min(p.2), high.max(p.3)));
    let margin = 0.05 * (high - low).max(1.0);

    let area = SVGBackend::new(&out, (900, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .margin_right(32)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..last_step, low - margin..high + margin)?;
    chart
        .configure_mesh()
        .x_desc("environment steps")
        .y_desc("return of the deterministic policy")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (index, (prefix, points)) in groups.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let name = Path::new(prefix).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let there = points.iter().map(|p| (p.0, p.2));
        let back = points.iter().rev().map(|p| (p.0, p.3));
        let band = Polygon::new(there.chain(back).collect::<Vec<_>>(), color.mix(0.2));
        chart.draw_series(std::iter::once(band))?;
        let mean = LineSeries::new(points.iter().map(|p| (p.0, p.1)), color.stroke_width(2));
        let key = move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2));
        chart.draw_series(mean)?.label(name).legend(key);
    }
    let place = SeriesLabelPosition::LowerRight;
    chart.configure_series_labels().position(place).background_style(WHITE.mix(0.8)).draw()?;
    area.present()?;
    Ok(())
}
