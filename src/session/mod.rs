//! One run from its first step to its last, with everything that it leaves on disk: the trainer, the metrics files, the
//! checkpoints, the evaluations and the picture of the learning curve. The program `sac` trains through these types,
//! and so can any program with an environment of its own. Nothing here prints; an [`Observer`] is told instead.
//!
//! ```
//! use soft_actor_critic::session::{Changes, NewRun, SavedRun};
//! use soft_actor_critic::{config::Config, env::Pendulum, error::Error, run::Plan};
//!
//! # fn main() -> Result<(), Error> {
//! # let directory = std::env::temp_dir().join(format!("sac-session-{}", std::process::id()));
//! # let hidden = vec![8];
//! let config = Config { steps: 200, final_episodes: 2, ..Config::default() };
//! # let config = Config { policy_hidden: hidden.clone(), critic_hidden: hidden, batch_size: 16, ..config };
//! let pendulum = || Ok(Box::new(Pendulum::new()) as _);
//! let ended = NewRun::prepare(Plan::new("pendulum", config), pendulum, 0)?.train(Some(&directory), &mut ())?;
//! println!("mean return {:.1}", ended.evaluation()?.expect("it is evaluated at the end").mean());
//!
//! let longer = Changes { steps: Some(400), ..Changes::default() };
//! let ended = SavedRun::open(&directory, longer, pendulum, 0)?.train(&mut ())?;
//! assert_eq!(ended.trainer.steps(), 400);
//! # std::fs::remove_dir_all(&directory).expect("it can be removed");
//! # Ok(())
//! # }
//! ```
//!
//! [`NewRun`] and [`SavedRun`] go through the same stages, each a type of its own, for a program that must act between
//! them: [`NewRun`] → [`Made`] → [`RunDirectory`](crate::run::RunDirectory) → [`Session`], and [`SavedRun`] →
//! [`Restored`] → [`Session`].

mod begin;
mod preparation;
mod resume;
mod training;

pub use begin::{Made, NewRun};
pub use preparation::{MakeEnv, learner_config, sizes};
pub use resume::{Changes, Restored, SavedRun};
pub use training::{End, Ended, Observer, Session};
