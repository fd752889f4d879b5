//! What environments draw, and the films that `sac render` makes of it.
#![cfg(feature = "program")]

use gif::{ColorOutput, DecodeOptions, Frame};
use resvg::tiny_skia::Pixmap;
use soft_actor_critic::actor::Actor;
use soft_actor_critic::config::Config;
use soft_actor_critic::env::{Bounds, Env, EnvError, MountainCar, Pendulum, Scene, Step};
use soft_actor_critic::picture::{Film, record, to_png};
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::sac::Policy;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{f64::consts::PI, fs};

const BLUE: [u8; 3] = [0x00, 0x72, 0xB2];
const RED: [u8; 3] = [0xD5, 0x5E, 0x00];

/// The middle of all pixels of a colour in the scene of `env`, and their number.
fn middle(env: &mut dyn Env, action: f32, color: [u8; 3]) -> ([f64; 2], usize) {
    let Ok(Some(Scene::Svg(scene))) = env.render(&[action]) else { panic!("it is drawn as SVG") };
    let svg = format!(r#"<svg xmlns="http://www.w3.org/2000/svg" width="400" height="400">{scene}</svg>"#);
    let pixels = Pixmap::decode_png(&to_png(&svg).expect("it is an SVG")).expect("it is a PNG");
    let has_color =
        |i: &usize| [pixels.pixels()[*i].red(), pixels.pixels()[*i].green(), pixels.pixels()[*i].blue()] == color;
    let places: Vec<_> = (0..400 * 400).filter(has_color).collect();
    let mean = |sum: usize| sum as f64 / places.len() as f64 + 0.5;
    ([mean(places.iter().map(|i| i % 400).sum()), mean(places.iter().map(|i| i / 400).sum())], places.len())
}

#[test]
fn the_pendulum_is_drawn_where_it_is_and_its_torque_where_it_turns_to() {
    for (angle, x, y) in
        [(0.0, 200.0, 50.0), (PI / 2.0, 50.0, 200.0), (-PI / 2.0, 350.0, 200.0), (3.0 * PI, 200.0, 350.0)]
    {
        let (bob, _) = middle(&mut Pendulum::at(angle, 0.0), 0.0, BLUE);
        assert!((bob[0] - x).abs() < 2.0 && (bob[1] - y).abs() < 2.0, "{bob:?} at {angle}");
    }
    let mut upright = Pendulum::new();
    let [left, right, slight, none] = [2.0, -2.0, -0.5, 0.0].map(|torque| middle(&mut upright, torque, RED));
    assert!(left.0[0] < 170.0 && right.0[0] > 230.0, "{left:?} {right:?}");
    assert!(0 < slight.1 && slight.1 < right.1 && none.1 == 0);
}

#[test]
fn the_car_is_drawn_on_its_hill_with_the_force_it_drives_with() {
    for (position, x) in [(-1.2, 20.0), (-0.5, 160.0), (0.45, 350.0)] {
        let hill = 250.0 - 90.0 * f64::sin(3.0 * position);
        let ([found, height], _) = middle(&mut MountainCar::at(position, 0.0), 0.0, BLUE);
        // The car stands across the slope, and its middle is above its wheels.
        assert!((found - x).abs() < 20.0 && (5.0..25.0).contains(&(hill - height)), "{found}, {height} at {position}");
    }
    let mut valley = MountainCar::at(-PI / 6.0, 0.0);
    let ([car, _], _) = middle(&mut valley, 0.0, BLUE);
    let [left, right, slight, none] = [-1.0, 1.0, 0.2, 0.0].map(|force| middle(&mut valley, force, RED));
    assert!(left.0[0] < car - 20.0 && right.0[0] > car + 20.0, "{left:?} {right:?}");
    assert!(0 < slight.1 && slight.1 < right.1 && none.1 == 0);
}

/// A directory of one test; it goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("render-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the target directory can be written");
        Self(path)
    }

    fn sac(&self, arguments: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sac"));
        command.current_dir(&self.0).args(arguments.split_whitespace()).output().expect("the program starts")
    }

    /// The file that a film has been written to, as `sac` tells, and its bytes.
    fn film(&self, arguments: &str) -> (String, Vec<u8>) {
        let output = self.sac(&format!("render {arguments}"));
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        let path = String::from_utf8_lossy(&output.stdout).trim_end().to_string();
        let bytes = fs::read(self.0.join(&path)).expect("it has been written");
        (path, bytes)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The frames of a GIF, in RGBA, and its width and height.
fn decode(gif: &[u8]) -> (Vec<Frame<'static>>, (u16, u16)) {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::RGBA);
    let mut decoder = options.read_info(gif).expect("it is a GIF");
    let size = (decoder.width(), decoder.height());
    let mut frames = Vec::new();
    while let Some(frame) = decoder.read_next_frame().expect("it is whole") {
        frames.push(frame.clone());
    }
    (frames, size)
}

#[test]
fn a_film_has_a_frame_for_each_step_and_depends_on_the_seed_alone() {
    let scratch = Scratch::new("film");
    let run = "pendulum --hidden 8 --batch 8 --random-steps 8 --steps 20 --eval-every 0 --quiet --out run";
    assert!(scratch.sac(run).status.success());

    let (path, film) = scratch.film("run --size 64");
    assert_eq!(path, "pendulum.gif");
    let (frames, size) = decode(&film);
    assert_eq!((frames.len(), size), (200, (64, 76)));
    let delays: Vec<_> = frames.iter().map(|frame| frame.delay).collect();
    assert_eq!((delays[..6].to_vec(), delays[199]), (vec![3, 3, 4, 3, 3, 4], 150));
    assert!(frames[0].buffer.chunks_exact(4).all(|pixel| pixel[3] == 255));
    // What a frame leaves transparent is as it was before.
    let painted = |frame: &Frame| frame.buffer.chunks_exact(4).filter(|pixel| pixel[3] != 0).count();
    assert!(frames[1..].iter().all(|frame| (1..64 * 76).contains(&painted(frame))));

    let other = |number: u32, options| scratch.film(&format!("run/policy.safetensors -o {number}.gif {options}")).1;
    assert!(other(1, "--size 64 --seed 9223372036854775808") == film, "the same film has other bytes");
    assert!(other(2, "--size 64 --seed 0") != film);
    assert!(other(3, "--size 64 --stochastic") != film);
    let (large, size) = decode(&other(4, "--size 150 --fps 50"));
    assert_eq!((large.len(), size, large[0].delay), (200, (150, 178), 2));
}

#[test]
fn bad_input_is_told_in_one_line_and_nothing_is_written() {
    let scratch = Scratch::new("bad-input");
    let run = "pendulum --hidden 8 --batch 8 --random-steps 8 --steps 20 --eval-every 0 --quiet --out run";
    assert!(scratch.sac(run).status.success());
    fs::write(scratch.0.join("pendulum.gif"), "a file of the user").expect("it can be written");
    for (arguments, expected) in [
        ("", "<DIR>"),
        ("moon", "moon cannot be read"),
        ("run/config.toml", "is no policy"),
        ("run --fps 0", "--fps"),
        ("run --fps 51", "51 is not in 1..=50"),
        ("run --size 63", "63 is not in 64..=2048"),
        ("run --size 2049", "--size"),
        ("run --seed -1", "-1"),
        ("run --size 64", "pendulum.gif is there already; choose another file with --out"),
        ("run --size 64 -o nowhere/film.gif", "nowhere/film.gif cannot be written"),
    ] {
        let output = scratch.sac(&format!("render {arguments}"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{arguments}: {error}");
        assert!(error.contains(expected) && output.stdout.is_empty(), "{arguments}: {expected:?}? {error}");
    }
    assert_eq!(fs::read_dir(&scratch.0).expect("it can be listed").count(), 2);
    assert_eq!(fs::read(scratch.0.join("pendulum.gif")).expect("it is there"), b"a file of the user");
}

/// An environment that says nothing of its looks.
struct Invisible;

impl Env for Invisible {
    fn observation_size(&self) -> usize {
        1
    }

    fn action_bounds(&self) -> Bounds {
        Bounds::new(vec![-1.0], vec![1.0]).expect("it is a range")
    }

    fn reset(&mut self, _: u64) -> Result<Vec<f32>, EnvError> {
        Ok(vec![0.0])
    }

    fn step(&mut self, _: &[f32]) -> Result<Step, EnvError> {
        Ok(Step { observation: vec![0.0], reward: 0.0, terminated: true, truncated: false })
    }
}

#[test]
fn an_environment_without_looks_is_refused() {
    let policy = Policy::new(&Config { policy_hidden: vec![4], ..Config::default() }, 1, 1);
    let theta = policy.initial(&Config::default(), &mut Philox::new(0, Stream::Init, 0));
    let mut actor = Actor::new(policy, theta, Invisible.action_bounds());
    let film = Film { seed: 0, stochastic: false, fps: 30, width: 64 };
    let go_on = |_| ControlFlow::Continue(());
    let error = record(&mut actor, &mut Invisible, film, go_on).expect_err("there is nothing to draw");
    assert!(error.to_string().starts_with("this environment cannot be drawn; implement Env::render for it"));
    assert!(
        record(&mut actor, &mut Pendulum::new(), film, go_on)
            .is_err_and(|error| error.to_string().contains("does not fit"))
    );
}
