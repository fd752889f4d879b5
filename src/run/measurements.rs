//! `metrics.csv` as it is read back.

use super::{MetricsFiles, RunDirectory, files};
use crate::error::Error;
use anyhow::Context;
use std::io::{BufRead, BufReader, ErrorKind, Read};

/// The most bytes of the file that are read, and of a line of it.
const MOST_BYTES: u64 = 1 << 32;
const MOST_OF_LINE: u64 = 1 << 16;

/// The measurements of a run, column by column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurements {
    names: Vec<String>,
    /// Every row, with nothing where a cell is empty. The first cell is the step.
    rows: Vec<Vec<Option<f64>>>,
}

/// The largest number that is drawn and compared; a return is below it, whose rewards are finite in f32.
const MOST: f64 = 1e100;

impl Measurements {
    /// What a run has measured so far; it may be training at this moment.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(run: &RunDirectory) -> Result<Self, Error> {
        let path = run.file(MetricsFiles::METRICS);
        let read = || {
            let file = files::reader(&path)?;
            let length = file.metadata()?.len();
            if length > MOST_BYTES {
                let problem = format!("it has {length} bytes, more than the {MOST_BYTES} that are read");
                return Err(std::io::Error::new(ErrorKind::FileTooLarge, problem));
            }
            Self::parse(BufReader::new(file))
        };
        Ok(read().with_context(|| format!("{} cannot be read", path.display()))?)
    }

    /// Rows that no run writes are left out: of another length than the heading, as one that is just being written, or of
    /// an earlier step than the one before; and so are numbers that no picture can show.
    fn parse(mut file: impl BufRead) -> std::io::Result<Self> {
        let mut line = Vec::new();
        let mut next = || -> std::io::Result<Option<String>> {
            line.clear();
            // One that is longer is no row, and neither is its rest.
            let length = file.by_ref().take(MOST_OF_LINE).read_until(b'\n', &mut line)?;
            Ok((length > 0).then(|| String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_string()))
        };
        let names: Vec<_> = next()?.unwrap_or_default().split(',').map(str::to_string).collect();
        let number = |cell: &str| cell.parse().ok().filter(|value: &f64| value.abs() <= MOST);
        let mut rows: Vec<Vec<Option<f64>>> = Vec::new();
        while let Some(line) = next()? {
            let row: Vec<_> = line.split(',').map(number).collect();
            let last_step = rows.last().map_or(Some(0.0), |row| row[0]);
            if row.len() == names.len() && row[0].is_some() && row[0] >= last_step {
                rows.push(row);
            }
        }
        Ok(Self { names, rows })
    }

    /// The step of the last row; 0 without rows.
    pub fn last_step(&self) -> f64 {
        self.rows.last().and_then(|row| row[0]).unwrap_or(0.0)
    }

    /// The mean return of the evaluation at a step, if there was one.
    pub fn evaluation_at(&self, step: u64) -> Option<f64> {
        self.points("evaluation_return").into_iter().rev().find(|point| point.0 == step as f64).map(|(_, value)| value)
    }

    /// The steps at which there is something in the column called `name`, and what it is.
    pub fn points(&self, name: &str) -> Vec<(f64, f64)> {
        let Some(column) = self.names.iter().position(|known| known == name) else { return Vec::new() };
        self.rows.iter().filter_map(|row| Some((row[0]?, row[column]?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_cells_and_broken_rows_are_left_out() {
        let parse = |text: &str| Measurements::parse(text.as_bytes()).expect("it is in memory");
        let table = parse("step,a,b\n-1,1,1\n1,,2\n2,3,\n3,NaN,4\n,5,5\n4,5\n1,1,1\n5,6,7\n6,8\n1e300,1,1");
        assert_eq!(table.points("a"), [(2.0, 3.0), (5.0, 6.0)]);
        assert_eq!(table.points("b"), [(1.0, 2.0), (3.0, 4.0), (5.0, 7.0)]);
        assert_eq!(table.points("c"), []);
        assert_eq!(table.last_step(), 5.0);
        assert_eq!(parse("").last_step(), 0.0);
    }
}
