"""Records Gymnasium's own MountainCarContinuous-v0: five episodes into mountain_car.safetensors, beside this script.

Made with Python 3.11.7, gymnasium 1.4.0, numpy 2.4.6, safetensors 0.8.0:

    pip install gymnasium==1.4.0 numpy==2.4.6 safetensors==0.8.0
    python tests/golden/mountain_car.py

Episode k starts from env.reset(seed=k). Its actions:
    0  uniform in [-1, 1]; the step limit ends it
    1  -1 or 1, whichever is along the velocity, up to the goal
    2  uniform from 0 to 1 along the velocity, up to the goal
    3  5 along the velocity, every other one 0.5, up to the goal: out of range, where Gymnasium clips the force but not
       the action in the reward
    4  along the velocity, but to the left from position -0.3 on, so that the car never gets to the goal and hits both
       the left wall and the speed limit; the step limit ends it

Tensors hold STEPS = 999 steps; those that an episode does not reach are 0. Row t of `observation` is before step t; the
row after the last step holds its outcome.
    start        [5, 2]         float64   the state after reset: position, velocity
    action       [5, 999]       float32   as given to env.step
    reward       [5, 999]       float64
    observation  [5, 1000, 2]   float32; after the first step Gymnasium keeps no more of the state than this
    terminated, truncated  [5, 999]   uint8, 0 or 1; the first 1 ends the episode

Precision: reset leaves the state in float64, the first step turns it into float32. The action is float32 too, so under
numpy 2 all but the cosine and the reward is rounded to float32 after each operation, from the second step on. A clipped
force is a Python float, whose product with the power is not rounded.
"""
from pathlib import Path

import gymnasium
import numpy as np
from safetensors.numpy import save

EPISODES, STEPS = 5, 999


def action_of(episode, t, position, velocity, rng):
    along = 1 if velocity >= 0 else -1
    if episode == 0:
        return rng.uniform(-1, 1)
    if episode == 1:
        return along
    if episode == 2:
        return along * rng.uniform(0, 1)
    if episode == 3:
        return along * (5, 0.5)[t % 2]
    return -1 if position >= -0.3 else along


data = {
    "start": np.zeros((EPISODES, 2)),
    "action": np.zeros((EPISODES, STEPS), np.float32),
    "reward": np.zeros((EPISODES, STEPS)),
    "observation": np.zeros((EPISODES, STEPS + 1, 2), np.float32),
    "terminated": np.zeros((EPISODES, STEPS), np.uint8),
    "truncated": np.zeros((EPISODES, STEPS), np.uint8),
}
env = gymnasium.make("MountainCarContinuous-v0")
for k in range(EPISODES):
    rng = np.random.default_rng(k)
    data["observation"][k, 0], _ = env.reset(seed=k)
    data["start"][k] = env.unwrapped.state
    assert env.unwrapped.state.dtype == np.float64
    for t in range(STEPS):
        action = np.array([action_of(k, t, *env.unwrapped.state, rng)], dtype=np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        assert env.unwrapped.state.dtype == np.float32 and (observation == env.unwrapped.state).all()
        data["action"][k, t] = action[0]
        data["reward"][k, t] = reward
        data["terminated"][k, t] = terminated
        data["truncated"][k, t] = truncated
        data["observation"][k, t + 1] = observation
        if terminated or truncated:
            break

assert data["terminated"].sum(1).tolist() == [0, 1, 1, 1, 0] and data["truncated"][:, -1].tolist() == [1, 0, 0, 0, 1]
walls = (data["observation"] == np.float32([-1.2, 0])).all(2).sum(1)
assert walls[1] > 0 and walls[4] > 1  # the wall takes the velocity
assert data["observation"][4, :, 1].min() == np.float32(-0.07)
Path(__file__).with_name("mountain_car.safetensors").write_bytes(save(data))
