//! The environment variables that choose between ways of the library.

use anyhow::{Result, anyhow};
use soft_actor_critic::nn::gemm;

/// Refuses values that mean nothing.
pub fn check() -> Result<()> {
    if let Some(choice) = std::env::var_os("SAC_GEMM")
        && !gemm::choices().any(|known| choice == known)
    {
        let choices: Vec<_> = gemm::choices().collect();
        let say = choices.join(", ");
        return Err(anyhow!("SAC_GEMM is {choice:?}; unset it, or say what this processor has: {say}"));
    }
    if let Some(choice) = std::env::var_os("SAC_CHANNEL")
        && choice != "pipes"
    {
        return Err(anyhow!("SAC_CHANNEL is {choice:?}; unset it, or say pipes"));
    }
    Ok(())
}
