"""Records Gymnasium's own Pendulum-v1: five episodes of 200 steps into pendulum.safetensors, beside this script.

Made with Python 3.11.7, gymnasium 1.4.0, numpy 2.4.6, safetensors 0.8.0:

    pip install gymnasium==1.4.0 numpy==2.4.6 safetensors==0.8.0
    python tests/golden/pendulum.py

Episode k starts from env.reset(seed=k). Torques: episodes 0-2 uniform in [-2, 2]; episode 3 bang-bang, every third
one out of range (Gymnasium clips it): with the rotation, against it for 40 steps to turn it round, with it again,
so that both speed limits are met, then of random sign; episode 4 +2 for 100 steps, then -2.

All tensors are float64. Row t of `state` and `observation` is before step t; row 200 is after the last step.
    state        [5, 201, 2]   theta (not normalised), theta_dot
    action       [5, 200]      as given to env.step, before the clip; exactly representable in float32
    reward       [5, 200]
    observation  [5, 201, 3]   float32 values, as Gymnasium returns them
    truncated, terminated  [5, 200]   0 or 1

Precision: Gymnasium keeps the state in float64 but the torque u in float32, so under numpy 2 the two products
3 / (m l^2) * u and 0.001 * u^2 are rounded to float32 before they join the float64 sums.
"""
from pathlib import Path

import gymnasium
import numpy as np
from safetensors.numpy import save

EPISODES, STEPS = 5, 200


def torque(episode, t, theta_dot, rng):
    if episode < 3:
        return rng.uniform(-2, 2)
    if episode == 3:
        along = 1 if theta_dot >= 0 else -1
        sign = along if t < 65 or 105 <= t < 165 else -along if t < 105 else rng.choice([-1, 1])
        return sign * (2, 2, 5)[t % 3]
    return 2 if t < 100 else -2


data = {
    "state": np.zeros((EPISODES, STEPS + 1, 2)),
    "action": np.zeros((EPISODES, STEPS)),
    "reward": np.zeros((EPISODES, STEPS)),
    "observation": np.zeros((EPISODES, STEPS + 1, 3)),
    "truncated": np.zeros((EPISODES, STEPS)),
    "terminated": np.zeros((EPISODES, STEPS)),
}
env = gymnasium.make("Pendulum-v1")
for k in range(EPISODES):
    rng = np.random.default_rng(k)
    data["observation"][k, 0], _ = env.reset(seed=k)
    data["state"][k, 0] = env.unwrapped.state
    for t in range(STEPS):
        action = np.array([torque(k, t, env.unwrapped.state[1], rng)], dtype=np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        assert env.unwrapped.state.dtype == np.float64 and observation.dtype == np.float32
        data["action"][k, t] = action[0]
        data["reward"][k, t] = reward
        data["terminated"][k, t] = terminated
        data["truncated"][k, t] = truncated
        data["state"][k, t + 1] = env.unwrapped.state
        data["observation"][k, t + 1] = observation

theta, theta_dot = data["state"][..., 0], data["state"][..., 1]
assert (np.abs(theta) > np.pi).any() and theta_dot.max() == 8 and theta_dot.min() == -8  # wraps, and both speed limits
assert data["truncated"].sum(0)[-1] == EPISODES == data["truncated"].sum() and data["terminated"].sum() == 0
Path(__file__).with_name("pendulum.safetensors").write_bytes(save(data))
