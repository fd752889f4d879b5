"""Golden values for five whole updates of each preset, from PyTorch's autograd and Adam in float64.

Writes preset-NAME-obs3-act1.safetensors and preset-NAME-obs5-act2.safetensors beside this script, byte for byte the
same each time (on one kind of CPU; another may differ in the last bits). Made with Python 3.11.7, torch 2.15.0,
numpy 2.4.6, safetensors 0.8.0:

    pip install torch==2.15.0 numpy==2.4.6 safetensors==0.8.0
    python tests/golden/presets.py

Each preset is the function of its name: its document's update, statement by statement. Rates, forms and the order are
those of the documents, not read from src/presets; widths, batch and initial parameters are small ones of our own, and
so are the bounds of a clamped log sigma, so that both are met.

Tensors, all float64 (O observations, A actions, K = 0..4 the update, 24 rows a batch); weights are [out, in], l is a
layer. Parameters P:
    policy.{trunk.l,mean,log_std}.{weight,bias}, or with two networks
    policy.{mean_trunk.l,mean,log_std_trunk.l,log_std}.{weight,bias}
    {q1,q2}.l.{weight,bias}            with {target_q1,target_q2} where a target Q is bootstrapped from,
    {value,target_value}.l...          where a target V is
    log_alpha [1]                      where it is tuned
and of each
    init.P                             before the first update
    batch.K.{observation,next_observation} [24, O]    batch.K.action [24, A]    batch.K.{reward,discount} [24]
    noise.K.{next,current} [24, A]     standard normal draws, for the actions at s' and at s
    target.K [24]                      the critics' regression target y
    log_prob.K [24]                    log pi of the action at s
    loss.K.{critic,value,policy,temperature} [1]    of those that the update has; critic is the sum of both
    grad.K.P                           the gradient that Adam got, clamped if the preset clamps; none where no step is due
    after.1.P, after.5.P               after the first and after the fifth update
The metadata hold the preset's name and the choices of our own: sizes, widths, half ranges of the actions, bounds.
"""
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch
import update  # also sets float64, one thread and deterministic algorithms
from torch import nn
from torch.distributions import Normal
from torch.nn.functional import mse_loss, relu, softplus
from update import away, write

BATCH, UPDATES, GAMMA = 24, 5, 0.99
HALF_RANGE = {(3, 1): (2.0,), (5, 2): (0.5, 3.0)}  # of the environment's actions


def twin_q_auto(x):
    """000: every loss first, so that the policy's is at the old Q; then the policy, the critics, alpha, the targets."""
    alpha = x.log_alpha.exp().detach()
    action, log_prob = x.act(x.s, x.noise_current)
    y = x.target_from_q(alpha)
    policy_loss = (alpha * log_prob - x.least("q1", "q2", x.s, action)).mean()
    q1_loss, q2_loss = x.q_loss("q1", y), x.q_loss("q2", y)
    x.descend("policy", policy_loss)
    x.descend("q1", q1_loss)
    x.descend("q2", q2_loss)
    temperature_loss = -(x.log_alpha * (log_prob + x.target_entropy).detach()).mean()
    x.descend("log_alpha", temperature_loss)
    x.follow("q1", "q2")
    return y, log_prob, {"critic": q1_loss + q2_loss, "policy": policy_loss, "temperature": temperature_loss}


def v_net_auto(x):
    """001: alpha first; all losses with the new alpha; at every 2nd update the policy, and the target, which follows V
    before V's own step; then the critics and V."""
    action, log_prob = x.act(x.s, x.noise_current)
    temperature_loss = (-x.log_alpha.exp() * (log_prob + x.target_entropy).detach()).mean()
    x.descend("log_alpha", temperature_loss)
    alpha = x.log_alpha.exp().detach()
    y = x.target_from_value()
    q1_loss, q2_loss = x.q_loss("q1", y), x.q_loss("q2", y)
    q = x.least("q1", "q2", x.s, action)
    value_loss = mse_loss(x.value(x.s), (q - alpha * log_prob).detach())
    losses = {"critic": q1_loss + q2_loss, "value": value_loss, "temperature": temperature_loss}
    if x.count % 2 == 0:
        losses["policy"] = (alpha * log_prob - q).mean()
        x.descend("policy", losses["policy"])
        x.follow("value")
    x.descend("q1", q1_loss)
    x.descend("q2", q2_loss)
    x.descend("value", value_loss)
    return y, log_prob, losses


def twin_q_fixed(x):
    """002: critics, policy, targets, one after the other; alpha stays 0.1."""
    alpha = 0.1
    y = x.target_from_q(alpha)
    q1_loss, q2_loss = x.q_loss("q1", y), x.q_loss("q2", y)
    x.descend("q1", q1_loss)
    x.descend("q2", q2_loss)
    action, log_prob = x.act(x.s, x.noise_current)
    policy_loss = -(x.least("q1", "q2", x.s, action) - alpha * log_prob).mean()
    x.descend("policy", policy_loss)
    x.follow("q1", "q2")
    return y, log_prob, {"critic": q1_loss + q2_loss, "policy": policy_loss}


def v_net_fixed(x):
    """003: critics, V, policy, target, one after the other; there is no alpha, which is to say 1."""
    action, log_prob = x.act(x.s, x.noise_current)
    v = x.value(x.s)
    y = x.target_from_value()
    q1_loss, q2_loss = x.q_loss("q1", y), x.q_loss("q2", y)
    x.descend("q1", q1_loss)
    x.descend("q2", q2_loss)
    q = x.least("q1", "q2", x.s, action)
    value_loss = mse_loss(v, (q - log_prob).detach())
    x.descend("value", value_loss)
    policy_loss = (log_prob - q).mean()
    x.descend("policy", policy_loss)
    x.follow("value")
    return y, log_prob, {"critic": q1_loss + q2_loss, "value": value_loss, "policy": policy_loss}


def split_policy(x):
    """004: critics, policy, alpha, targets, one after the other; alpha is 0.5 until its first step has been made."""
    alpha = 0.5 if x.count == 1 else x.log_alpha.exp().detach()
    y = x.target_from_q(alpha)
    q1_loss, q2_loss = x.q_loss("q1", y), x.q_loss("q2", y)
    x.descend("q1", q1_loss)
    x.descend("q2", q2_loss)
    action, log_prob = x.act(x.s, x.noise_current)
    policy_loss = (alpha * log_prob - x.least("q1", "q2", x.s, action)).mean()
    x.descend("policy", policy_loss)
    # The document's log pi is of the scaled action, a constant smaller; -dim A is compared with that one.
    scaled_log_prob = log_prob - sum(math.log(half) for half in x.half_range)
    temperature_loss = -(x.log_alpha * (scaled_log_prob + x.target_entropy).detach()).mean()
    x.descend("log_alpha", temperature_loss)
    x.follow("q1", "q2")
    return y, log_prob, {"critic": q1_loss + q2_loss, "policy": policy_loss, "temperature": temperature_loss}


@dataclass
class Preset:
    update: Callable
    lr: dict  # of the networks by name, q for both critics; log_alpha's if it is tuned
    tau: float
    # Our own, as the seeds are: chosen so that every assertion below holds.
    policy_hidden: tuple
    critic_hidden: tuple
    seeds: tuple  # by shape
    log_std_bounds: tuple = ()  # none if log sigma is squashed: that has no sides to take
    separate_heads: bool = False
    tanh_mean: bool = False
    clamp: float = math.inf  # of gradient elements
    gain: float = 1.5  # on PyTorch's initial parameters
    reward_scale: float = 1.0

    def bootstraps_from_value(self):
        return "value" in self.lr


PRESETS = {
    "twin-q-auto": Preset(
        twin_q_auto, {"policy": 1e-4, "q": 3e-3, "log_alpha": 1e-4}, tau=0.005,
        policy_hidden=(12, 10), critic_hidden=(11, 9), seeds=(17, 7),
    ),
    "v-net-auto": Preset(
        v_net_auto, {"policy": 3e-4, "q": 3e-4, "value": 3e-4, "log_alpha": 3e-4}, tau=0.005, tanh_mean=True,
        policy_hidden=(12, 10), critic_hidden=(11, 9), seeds=(4, 7),
    ),
    "twin-q-fixed": Preset(
        twin_q_fixed, {"policy": 1e-3, "q": 1e-3}, tau=0.005, clamp=1.0,
        policy_hidden=(10, 9, 8, 9, 10, 9, 8), critic_hidden=(9, 10, 9, 8, 10, 9), seeds=(261, 175),
        log_std_bounds=(-0.35, 0.25), gain=3.0, reward_scale=4.0,
    ),
    "v-net-fixed": Preset(
        v_net_fixed, {"policy": 3e-4, "q": 3e-4, "value": 3e-4}, tau=0.01,
        policy_hidden=(12, 10), critic_hidden=(11, 9), seeds=(25, 9), log_std_bounds=(-0.35, 0.25),
    ),
    "split-policy": Preset(
        split_policy, {"policy": 3e-4, "q": 3e-4, "log_alpha": 3e-4}, tau=0.005, separate_heads=True,
        policy_hidden=(10, 9, 8), critic_hidden=(9, 10, 8), seeds=(8, 28), log_std_bounds=(-0.35, 0.25), gain=2.0,
    ),
}


def layers(*sizes):
    return nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in zip(sizes, sizes[1:]))


def hidden(layers, x):
    for layer in layers:
        x = relu(away(layer(x)))
    return x


class Run(nn.Module):
    """The networks of one preset, their optimisers, and the update in progress."""

    def __init__(self, preset, O, A):
        super().__init__()
        self.preset, self.half_range = preset, HALF_RANGE[O, A]
        self.target_entropy = -float(A)
        trunks = ("mean_trunk", "log_std_trunk") if preset.separate_heads else ("trunk",)
        self.nets = nn.ModuleDict({"policy": nn.ModuleDict(
            {name: layers(O, *preset.policy_hidden) for name in trunks}
            | {head: nn.Linear(preset.policy_hidden[-1], A) for head in ("mean", "log_std")}
        )})
        for name in "q1", "q2":
            self.nets[name] = layers(O + A, *preset.critic_hidden, 1)
        if preset.bootstraps_from_value():
            self.nets["value"] = layers(O, *preset.critic_hidden, 1)
        self.followed = ["value"] if preset.bootstraps_from_value() else ["q1", "q2"]
        trained = list(self.nets)
        for name in self.followed:
            self.nets[f"target_{name}"] = layers(*(l.in_features for l in self.nets[name]), 1)
        with torch.no_grad():
            for p in self.nets.parameters():
                p *= preset.gain
            # Raw log sigma about the middle of its bounds, or from sigma = e^-9 to where it is neither tiny nor huge.
            middle = sum(preset.log_std_bounds) / 2 if preset.log_std_bounds else 0.75
            self.nets["policy"]["log_std"].bias += middle - self.heads(torch.randn(64, O))[1].median(0).values
            for name in self.followed:
                for target, p in zip(self.nets[f"target_{name}"].parameters(), self.nets[name].parameters()):
                    target.copy_(p + 0.1 * torch.randn_like(p))
        if "log_alpha" in preset.lr:
            self.log_alpha = nn.Parameter(torch.zeros(1))
        adam = lambda parameters, lr: torch.optim.Adam(parameters, lr, foreach=False, fused=False)
        rate = lambda name: preset.lr["q" if name in ("q1", "q2") else name]
        self.optimisers = {name: adam(self.nets[name].parameters(), rate(name)) for name in trained}
        if "log_alpha" in preset.lr:
            self.optimisers["log_alpha"] = adam([self.log_alpha], rate("log_alpha"))
        self.count, self.out, self.bitten = 0, {}, set()

    def parameters_by_name(self):
        return {name.removeprefix("nets."): p for name, p in self.named_parameters()}

    def store(self, prefix, tensors):
        self.out.update({f"{prefix}.{name}": t.detach().clone() for name, t in tensors.items()})

    def heads(self, s):
        """Raw mean and raw log sigma."""
        policy = self.nets["policy"]
        if self.preset.separate_heads:
            return tuple(policy[head](hidden(policy[f"{head}_trunk"], s)) for head in ("mean", "log_std"))
        x = hidden(policy["trunk"], s)
        return policy["mean"](x), policy["log_std"](x)

    def act(self, s, noise):
        """The squashed action and its log-probability."""
        raw_mean, raw = self.heads(s)
        mean = raw_mean.tanh() if self.preset.tanh_mean else raw_mean
        if self.preset.log_std_bounds:
            low, high = self.preset.log_std_bounds
            below, above = (away(raw - low) < 0).double().mean(), (away(raw - high) > 0).double().mean()
            assert below > 0 and above > 0 and 0.1 < below + above < 0.9, "log sigma's clamp has a side not taken"
            log_std = raw.clamp(low, high)
        else:
            log_std = -20 + 11 * (raw.tanh() + 1)
            assert log_std.max() - log_std.min() > 1 and log_std.max() < 1.5, "sigma is nearly the same everywhere"
        u = mean + log_std.exp() * noise
        log_prob = Normal(mean, log_std.exp()).log_prob(u) - 2 * (math.log(2) - u - softplus(-2 * u))
        return u.tanh(), log_prob.sum(-1)

    def apply_net(self, name, *inputs):
        *trunk, last = self.nets[name]
        return last(hidden(trunk, torch.cat(inputs, -1))).squeeze(-1)

    def value(self, s):
        return self.apply_net("value", s)

    def least(self, q1, q2, s, a):
        v1, v2 = self.apply_net(q1, s, a), self.apply_net(q2, s, a)
        assert 3 <= (away(v1 - v2) < 0).sum() <= BATCH - 3, "one critic is the least on nearly every row"
        return torch.min(v1, v2)

    @torch.no_grad()
    def target_from_q(self, alpha):
        action, log_prob = self.act(self.s_next, self.noise_next)
        q = self.least("target_q1", "target_q2", self.s_next, action)
        return self.r + GAMMA * (1 - self.terminated) * (q - alpha * log_prob)

    @torch.no_grad()
    def target_from_value(self):
        return self.r + GAMMA * (1 - self.terminated) * self.apply_net("target_value", self.s_next)

    def q_loss(self, name, y):
        return mse_loss(self.apply_net(name, self.s, self.a), y)

    def descend(self, name, loss):
        """One step of Adam for the network called `name`, or for log alpha."""
        self.zero_grad()
        # Critics' losses are reported once more as a sum, and one q may serve two losses.
        loss.backward(retain_graph=True)
        trained = {n: p for n, p in self.parameters_by_name().items() if n.split(".")[0] == name}
        if name in self.nets and self.preset.clamp < math.inf:
            bound = self.preset.clamp
            elements = torch.cat([p.grad.flatten() for p in trained.values()])
            above, below = (away(elements - bound) > 0), (away(elements + bound) < 0)
            assert 0 < (above | below).double().mean() < 0.5, f"the clamp bites on no element of {name}, or on most"
            self.bitten |= {name + "+"} if above.any() else set()
            self.bitten |= {name + "-"} if below.any() else set()
            for p in trained.values():
                p.grad.clamp_(-bound, bound)
        self.store(f"grad.{self.count - 1}", {n: p.grad for n, p in trained.items()})
        self.optimisers[name].step()

    @torch.no_grad()
    def follow(self, *names):
        tau = self.preset.tau
        for name in names:
            for target, p in zip(self.nets[f"target_{name}"].parameters(), self.nets[name].parameters()):
                target.copy_(tau * p + (1 - tau) * target)

    def draw(self, O, A):
        self.s, self.a = torch.randn(BATCH, O), torch.tanh(torch.randn(BATCH, A))
        self.r = self.preset.reward_scale * torch.randn(BATCH)
        self.s_next = self.s + 0.5 * torch.randn(BATCH, O)
        self.terminated = (torch.rand(BATCH) < 0.2).double()
        assert 0 < self.terminated.sum() < BATCH / 2, "(nearly) none or all terminate"
        self.noise_next, self.noise_current = torch.randn(BATCH, A), torch.randn(BATCH, A)


def golden(name, O, A, seed):
    torch.manual_seed(seed)
    preset = PRESETS[name]
    run = Run(preset, O, A)
    run.store("init", run.parameters_by_name())
    for k in range(UPDATES):
        run.draw(O, A)
        run.count += 1
        y, log_prob, losses = preset.update(run)
        run.store(f"batch.{k}", {
            "observation": run.s, "action": run.a, "reward": run.r, "discount": GAMMA * (1 - run.terminated),
            "next_observation": run.s_next,
        })
        run.store(f"noise.{k}", {"next": run.noise_next, "current": run.noise_current})
        run.store("target", {f"{k}": y})
        run.store("log_prob", {f"{k}": log_prob})
        run.store(f"loss.{k}", {loss: value.view(1) for loss, value in losses.items()})
        if k + 1 in (1, UPDATES):
            run.store(f"after.{k + 1}", run.parameters_by_name())

    join = lambda numbers: ",".join(map(str, numbers))
    metadata = {
        "preset": name, "observation_dim": str(O), "action_dim": str(A), "half_range": join(run.half_range),
        "policy_hidden": join(preset.policy_hidden), "critic_hidden": join(preset.critic_hidden),
        "batch_size": str(BATCH), "updates": str(UPDATES),
    }
    if preset.log_std_bounds:
        metadata |= dict(zip(("log_std_min", "log_std_max"), map(str, preset.log_std_bounds)))
    assert all(t.dtype == torch.float64 and t.isfinite().all() for t in run.out.values())
    # An error is measured over its tensor's norm, which must not be one that is nearly zero by chance.
    assert all(t.norm() > 1e-3 for n, t in run.out.items() if n.startswith("grad.")), "a gradient vanishes"
    assert preset.clamp == math.inf or len(run.bitten) == 6, "some network's clamp bites on one side only"
    assert update.margin > 1e-5, "a point is near a kink"
    return run.out, metadata


if __name__ == "__main__":
    for name, preset in PRESETS.items():
        for (O, A), seed in zip(HALF_RANGE, preset.seeds):
            update.margin = math.inf
            tensors, metadata = golden(name, O, A, seed)
            path = Path(__file__).with_name(f"preset-{name}-obs{O}-act{A}.safetensors")
            write(path, tensors, metadata)
            print(f"{name}, obs {O}, act {A}: {len(tensors)} tensors, never nearer than {update.margin:.1e} to a kink")
