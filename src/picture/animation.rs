//! An episode as an animated GIF.

use super::rasterize;
use crate::actor::{Actor, run_episode};
use crate::env::{ACTION_COLOR, Bounds, CheckedEnv, Env, Scene};
use crate::error::Error;
use anyhow::Context;
use gif::{Encoder, Frame, Repeat};
use resvg::tiny_skia::{FilterQuality, Pixmap, PixmapPaint, PixmapRef, Transform};
use std::ops::ControlFlow;

/// How an episode is filmed.
#[derive(Clone, Copy, Debug)]
pub struct Film {
    /// Seed of the start state, and of the noise.
    pub seed: u64,
    /// Whether actions are sampled instead of deterministic.
    pub stochastic: bool,
    /// Frames, one a step of the environment, in each second; from 1 to 50, the most that viewers show.
    pub fps: u16,
    /// Width in pixels; the height is larger, as needed for the bars of the actions.
    pub width: u16,
}

/// Runs the first of the episodes of [`crate::actor::evaluate`] with the same seed, and returns a GIF: a frame after each
/// step, with the action just taken and the return so far.
///
/// It calls `watch` with the number of frames before the first of them and after each, and stops when that breaks.
///
/// # Errors
/// If the environment cannot be drawn, or the episode fails as an evaluation would; [`Error::Interrupted`] if `watch` breaks.
///
/// # Panics
/// If `fps` is not from 1 to 50, or `width` is 0.
pub fn record(
    actor: &mut Actor,
    env: &mut dyn Env,
    film: Film,
    mut watch: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<Vec<u8>, Error> {
    let mut go_on = |frames| if watch(frames).is_continue() { Ok(()) } else { Err(Error::Interrupted) };
    assert!((1..=50).contains(&film.fps) && film.width > 0, "a film has frames and they have pixels");
    actor.fits(env)?;
    let bounds = env.action_bounds();
    let height = (f32::from(film.width) * height(&bounds) / SCENE).round() as u16;
    const PROBLEM: &str = "the GIF cannot be made";
    let mut gif = Encoder::new(Vec::new(), film.width, height, &[]).context(PROBLEM)?;
    gif.set_repeat(Repeat::Infinite).context(PROBLEM)?;
    let (mut frames, mut total, mut shown) = (0, 0.0, Vec::new());
    go_on(0)?;
    run_episode(actor, &mut CheckedEnv::new(env), film.seed, 0, film.stochastic, |env, action, step| {
        let scene = env.render(action)?.context(
            "this environment cannot be drawn; implement Env::render for it, or render_mode=\"rgb_array\" in Python",
        )?;
        // Times are in hundredths of a second; what is cut off here is made up for in a later frame.
        let until = |frames: u64| frames * 100 / u64::from(film.fps);
        let mut delay = (until(frames + 1) - until(frames)) as u16;
        frames += 1;
        total += step.reward;
        if step.terminated || step.truncated {
            delay = LAST_DELAY;
        }
        let elements = if let Scene::Svg(elements) = &scene { elements } else { "" };
        let svg = compose(elements, frames, total, action, &bounds);
        let mut frame = rasterize(&svg, Some((film.width.into(), height.into())))?;
        if let Scene::Pixels { width, height, rgb } = &scene {
            paint(&mut frame, [*width, *height], rgb)?;
        }
        let mut pixels = frame.take();
        pixels.iter_mut().for_each(|value| *value = posterize(*value));
        let mut changed = pixels.clone();
        for (new, old) in changed.chunks_exact_mut(4).zip(shown.chunks_exact(4)) {
            if new == old {
                // Nothing is painted where nothing has changed.
                new.fill(0);
            }
        }
        shown = pixels;
        let frame = Frame { delay, ..Frame::from_rgba_speed(film.width, height, &mut changed, 10) };
        gif.write_frame(&frame).context(PROBLEM)?;
        go_on(frames)
    })?;
    Ok(gif.into_inner().context(PROBLEM)?)
}

/// The side of what an environment draws, and the width of a picture.
const SCENE: f32 = 400.0;
/// How long the end of an episode is shown, in hundredths of a second.
const LAST_DELAY: u16 = 150;
/// Heights of the line of numbers and of the bar of an action.
const LINE: f32 = 40.0;
const BAR: f32 = 26.0;

fn height(bounds: &Bounds) -> f32 {
    SCENE + LINE + BAR * bounds.dimensions() as f32 + 8.0
}

/// One of 32 levels, which include black and white: that keeps the smooth edges of a frame within the 256 colours of a GIF,
/// so that they need no other colours in the next one.
fn posterize(value: u8) -> u8 {
    let level = (u16::from(value) * 31 + 127) / 255;
    (level * 255 / 31) as u8
}

/// Paints a picture where a frame has its scene: as large as it fits, and in the middle.
fn paint(frame: &mut Pixmap, [width, height]: [u32; 2], rgb: &[u8]) -> Result<(), Error> {
    let (pixels, rest) = rgb.as_chunks::<3>();
    let rgba: Vec<_> = pixels.iter().flat_map(|&[red, green, blue]| [red, green, blue, 255]).collect();
    let picture = PixmapRef::from_bytes(&rgba, width, height).filter(|_| rest.is_empty()).with_context(|| {
        let bytes = rgb.len();
        format!("a picture of {width} × {height} pixels has {bytes} bytes; give it three for each pixel")
    })?;
    let side = frame.width() as f32;
    let scale = side / width.max(height) as f32;
    let [left, top] = [width, height].map(|length| 0.5 * (side - scale * length as f32));
    let smooth = PixmapPaint { quality: FilterQuality::Bilinear, ..PixmapPaint::default() };
    frame.draw_pixmap(0, 0, picture, &smooth, Transform::from_row(scale, 0.0, 0.0, scale, left, top), None);
    Ok(())
}

/// A whole frame as SVG.
fn compose(scene: &str, step: u64, total: f64, action: &[f32], bounds: &Bounds) -> String {
    let bars: String = (0..action.len())
        .map(|i| {
            let (low, high) = (bounds.low()[i], bounds.high()[i]);
            // From the value that does nothing, as far as that is within the bounds.
            let x = |value: f32| 130.0 + 170.0 * (value.clamp(low, high) - low) / (high - low);
            let (from, to) = (x(0.0).min(x(action[i])), x(0.0).max(x(action[i])));
            let name = if action.len() == 1 { "action".into() } else { format!("action {}", i + 1) };
            format!(
                r##"<g transform="translate(0 {y})"><text x="20">{name}</text>
<text x="122" text-anchor="end" font-size="11" fill="#90A4AE">{low}</text><text x="308" font-size="11" fill="#90A4AE">{high}</text>
<rect x="130" y="-10" width="170" height="10" fill="#ECEFF1"/><rect x="{from}" y="-10" width="{width}" height="10" fill="{ACTION_COLOR}"/>
<path d="M{zero} -13V3" stroke="#90A4AE"/><text x="380" text-anchor="end">{value}</text></g>"##,
                y = SCENE + LINE + BAR * i as f32 + 14.0,
                low = bound(low),
                high = bound(high),
                width = to - from,
                zero = x(0.0),
                value = number(action[i].into(), 2),
            )
        })
        .collect();
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{SCENE}" height="{height}"><rect width="100%" height="100%" fill="white"/>
<svg width="{SCENE}" height="{SCENE}">{scene}</svg>
<g font-family="sans-serif" font-size="14" fill="#37474F"><path d="M0 {SCENE}H{SCENE}" stroke="#CFD8DC"/>
<text x="20" y="{baseline}">step {step}</text><text x="380" y="{baseline}" text-anchor="end">return {total}</text>{bars}</g></svg>"##,
        height = height(bounds),
        baseline = SCENE + 27.0,
        total = number(total, 1),
    )
}

/// A bound with its own digits, as far as there is room.
fn bound(value: f32) -> String {
    let own = value.to_string();
    let text = if own.len() <= 7 { own } else { format!("{value:.2e}") };
    text.replace('-', "−")
}

/// A number with a minus sign instead of a hyphen, and with none before a zero.
fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}").replace('-', "−");
    if text.contains(|digit| matches!(digit, '1'..='9')) { text } else { text.replace('−', "") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_shows_the_numbers_and_a_bar_for_each_action_from_zero_or_the_nearest_bound() {
        let bounds = Bounds::new(vec![-2.0, 1.0], vec![2.0, 3.0]).expect("they are ranges");
        let svg = compose("<circle r=\"1\"/>", 7, -0.04, &[-1.0, 2.0], &bounds);
        for part in [
            "step 7<",
            ">return 0.0<",
            "<circle",
            "action 1<",
            r#"x="172.5" y="-10" width="42.5""#,
            ">−1.00<",
            "action 2<",
            r#"x="130" y="-10" width="85""#,
            ">2.00<",
        ] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        let bounds = [-0.5, 1.5, -2.0, 100.0, 0.1, 1.0 / 3.0, -1e9].map(bound);
        assert_eq!(bounds, ["−0.5", "1.5", "−2", "100", "0.1", "3.33e−1", "−1.00e9"]);
        assert_eq!([number(-1.25, 1), number(-0.004, 2), number(100.0, 0)], ["−1.2", "0.00", "100"]);
    }

    #[test]
    fn a_picture_fills_the_scene_as_far_as_its_shape_allows() {
        let white = || {
            let mut frame = Pixmap::new(80, 100).expect("it has pixels");
            frame.fill(resvg::tiny_skia::Color::WHITE);
            frame
        };
        // Two columns, red and blue, of a pixel each: 80 × 40 in the middle of 80 × 80.
        let mut frame = white();
        paint(&mut frame, [2, 1], &[255, 0, 0, 0, 0, 255]).expect("it is a picture");
        let color = |x, y| frame.pixel(x, y).map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]);
        assert_eq!([color(10, 40), color(70, 40)], [Some([255, 0, 0]), Some([0, 0, 255])]);
        assert_eq!([color(10, 18), color(10, 62), color(10, 90)], [Some([255; 3]); 3]);
        assert_ne!(color(10, 22), Some([255; 3]));
        for (size, bytes) in [([2, 1], 5), ([2, 1], 7), ([0, 1], 0), ([1 << 31, 1 << 31], 12)] {
            assert!(paint(&mut white(), size, &vec![0; bytes]).is_err());
        }
    }

    #[test]
    fn white_and_black_stay_and_the_rest_has_32_levels() {
        let levels: std::collections::BTreeSet<_> = (0..=255).map(posterize).collect();
        assert_eq!((posterize(0), posterize(255), levels.len()), (0, 255, 32));
        assert!((0..=255).all(|value| posterize(value).abs_diff(value) <= 5));
    }
}
